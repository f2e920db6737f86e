//! Debian's registry, filled by skopeo: both know the distribution specification from others than us. Where `CONDO_TEST_REGISTRY`
//! names what `scripts/registry` made.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use condo::image::registry::{PullOptions, Reference};

use super::layers::{check_tree, view};
use super::registry::alone;
use super::{import, saved};
use crate::harness::{self, Ended};

tests![what_skopeo_pushed_is_pulled: 60];

const ADDRESS: &str = "127.0.0.1:5000";

/// The unpacked packages.
struct Packages(PathBuf);

impl Packages {
    fn unpacked() -> Self {
        let dir = std::env::var_os("CONDO_TEST_REGISTRY").filter(|dir| Path::new(dir).is_dir());
        if dir.is_none() {
            harness::need("registry");
        }
        Self(dir.unwrap_or_default().into())
    }

    fn program(&self, name: &str, home: &Path) -> Command {
        let mut command = Command::new(self.0.join("usr/bin").join(name));
        let libraries = [
            "usr/lib/x86_64-linux-gnu",
            "lib/x86_64-linux-gnu",
            "usr/lib/aarch64-linux-gnu",
            "lib/aarch64-linux-gnu",
        ];
        let libraries = libraries.map(|dir| self.0.join(dir).display().to_string());
        command
            .env("LD_LIBRARY_PATH", libraries.join(":"))
            .env("HOME", home);
        command.stdin(Stdio::null());
        command
    }
}

fn serve(packages: &Packages, dir: &Path) -> Result<Ended> {
    let data = dir.join("data");
    let config = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{ADDRESS}\"}}\nlog: {{level: error}}\n",
        data.display()
    );
    let path = dir.join("registry.yml");
    std::fs::write(&path, config)?;
    let mut command = packages.program("docker-registry", dir);
    let child = command
        .arg("serve")
        .arg(&path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let serving = Ended(child);
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(ADDRESS).is_err() {
        ensure!(Instant::now() < deadline, "the registry does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(serving)
}

fn what_skopeo_pushed_is_pulled() -> Result<()> {
    needs!(root);
    let packages = Packages::unpacked();
    let scratch = alone()?;
    let archive = scratch.0.join("app.tar");
    std::fs::write(&archive, saved::archive(&saved::three_layers()?.docker()?))?;
    let _serving = serve(&packages, &scratch.0)?;
    for (tag, options) in [
        ("docker", &["--format", "v2s2"][..]),
        ("oci", &["--format", "oci"]),
        (
            "zstd",
            &[
                "--format",
                "oci",
                "--dest-compress",
                "--dest-compress-format",
                "zstd",
            ],
        ),
    ] {
        let mut skopeo = packages.program("skopeo", &scratch.0);
        skopeo
            .args(["--insecure-policy", "copy", "--dest-tls-verify=false"])
            .args(options);
        skopeo.arg(format!("docker-archive:{}", archive.display()));
        harness::run(skopeo.arg(format!("docker://{ADDRESS}/team/app:{tag}")))?;
    }
    let images = scratch.images();
    let imported = import(&images, "imported", &std::fs::read(&archive)?)?;
    let insecure = PullOptions {
        insecure: true,
        ..PullOptions::default()
    };
    for tag in ["docker", "oci", "zstd"] {
        let reference = Reference::parse(&format!("{ADDRESS}/team/app:{tag}"))?;
        let pulled = images.pull(&reference, tag, &insecure, &|_| {})?;
        ensure!(
            pulled.layers == imported.layers,
            "{tag}: content is the same, however it is packed"
        );
        images.remove(tag)?;
    }
    images.remove("imported")?;
    images.prune()?;
    let reference = Reference::parse(&format!("{ADDRESS}/team/app:zstd"))?;
    let pulled = images.pull(&reference, "again", &insecure, &|_| {})?;
    check_tree(&view(&pulled)?.path)
}
