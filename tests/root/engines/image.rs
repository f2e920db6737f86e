//! An image without a registry: an archive as `docker save` writes it, which all engines take.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness;

/// What the image is called in all engines.
pub const IMAGE: &str = "localhost/busybox:latest";

/// Writes an archive of [`IMAGE`]: this machine's busybox with a shell as its command.
pub fn busybox(archive: &Path) -> Result<()> {
    write(archive, IMAGE, &json!({"Env": ["PATH=/bin"], "Cmd": ["sh"]}))
}

/// Writes an archive of an image with busybox's files, a name, and the part of its configuration that containers take over.
pub fn write(archive: &Path, name: &str, config: &Value) -> Result<()> {
    let layer = layer()?;
    let config = serde_json::to_vec(&json!({
        "architecture": match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other },
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
    }))?;
    let config_name = format!("{}.json", digest(&config));
    let manifest = json!([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]);
    let mut tar = tar::Builder::new(File::create(archive)?);
    for (path, data) in [
        (config_name.as_str(), config.as_slice()),
        ("layer.tar", layer.as_slice()),
        ("manifest.json", &serde_json::to_vec(&manifest)?),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, data)?;
    }
    Ok(tar.finish()?)
}

/// Writes an archive of an image with the files of a directory, which may be large: programs of this machine read them.
pub fn of_directory(archive: &Path, name: &str, files: &Path) -> Result<()> {
    let work = harness::tempdir();
    let layer = work.join("layer.tar");
    harness::run(
        Command::new("tar")
            .arg("-C")
            .arg(files)
            .arg("-cf")
            .arg(&layer)
            .arg("."),
    )?;
    let sum = harness::run(Command::new("sha256sum").arg(&layer))?;
    let sum = sum.split(' ').next().unwrap_or_default();
    let config = json!({
        "architecture": match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other },
        "os": "linux",
        "config": {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/sbin/init"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
    });
    std::fs::write(work.join("config.json"), serde_json::to_vec(&config)?)?;
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    std::fs::write(work.join("manifest.json"), serde_json::to_vec(&manifest)?)?;
    let parts = ["config.json", "layer.tar", "manifest.json"];
    harness::run(
        Command::new("tar")
            .arg("-C")
            .arg(&work)
            .arg("-cf")
            .arg(archive)
            .args(parts),
    )?;
    Ok(std::fs::remove_dir_all(&work)?)
}

fn layer() -> Result<Vec<u8>> {
    let root = harness::tempdir();
    harness::busybox_root(&root)?;
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(false);
    tar.append_dir_all(".", &root)?;
    Ok(tar.into_inner()?)
}

fn digest(data: &[u8]) -> String {
    Sha256::digest(data)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
