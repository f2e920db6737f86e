//! Images through the API.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::reception::Reception;
use crate::harness;

tests![
    lxc_exports_imports_and_names_images: 180,
    lxc_publishes_instances: 180,
];

fn fingerprint(all: &Reception, alias: &str) -> Result<String> {
    let (_, answer) = all.ask("GET", &format!("/1.0/images/aliases/{alias}"), "")?;
    Ok(answer["metadata"]["target"]
        .as_str()
        .unwrap_or_default()
        .to_owned())
}

fn lxc_exports_imports_and_names_images() -> Result<()> {
    needs!(root, program: lxc);
    let all = Reception::new()?;
    let there = harness::tempdir();
    let file = there.join("image.tar");
    // The client holds what it gets against the fingerprint.
    all.ok(&format!("image export busybox {}", there.join("image").display()))?;
    let again = all.output(&[
        "image",
        "import",
        file.to_str().unwrap_or_default(),
        "--alias",
        "twin",
    ])?;
    let said = String::from_utf8_lossy(&again.stderr);
    ensure!(
        !again.status.success() && said.contains("already exists"),
        "{said}"
    );
    let before = fingerprint(&all, "busybox")?;
    all.ok("image delete busybox")?;
    all.ok(&format!("image import {} --alias mine os=condo", file.display()))?;
    ensure!(
        fingerprint(&all, "mine")? == before,
        "the same image has the same fingerprint"
    );
    // The first alias is the image's name on the command line, and others are kept beside it.
    all.ok("image alias create other/name mine")
        .or_else(|_| all.ok(&format!("image alias create other/name {before}")))?;
    ensure!(all.house.ok("image list")?.contains("mine"));
    let list = all.ok("image alias list --format csv")?;
    ensure!(list.contains("mine,") && list.contains("other/name,"), "{list}");
    all.ok("image set-property mine release 7")?;
    ensure!(all.ok("image get-property mine release")?.trim() == "7");
    let info = all.ok("image info other/name")?;
    ensure!(
        info.contains("os: condo") && info.contains("release: 7"),
        "{info}"
    );
    in_use(&all)?;
    all.ok("image alias rename mine yours")?;
    ensure!(all.house.ok("image list")?.contains("yours"));
    all.ok("image alias delete other/name")?;
    split(&all, &file)?;
    foreign(&all)?;
    all.ok("image delete yours")?;
    ensure!(all.house.ok("image list --json")?.trim() == "[]");
    all.house.ok("image build busybox")?;
    all.leave()
}

/// An image that a VPS is based on keeps the name that the VPS has of it.
fn in_use(all: &Reception) -> Result<()> {
    all.ok("launch other/name web")?;
    all.house.up("web")?;
    ensure!(all.house.show("web")?["image"] == "mine");
    let used = all.output(&["image", "alias", "delete", "mine"])?;
    ensure!(
        !used.status.success(),
        "it is the name that the VPS has of its image: {used:?}"
    );
    all.ok("delete --force web")?;
    Ok(())
}

/// Images do not come from other servers.
fn foreign(all: &Reception) -> Result<()> {
    let foreign = r#"{"source":{"type":"image","mode":"pull","server":"https://example.org","alias":"x"}}"#;
    let (code, answer) = all.ask("POST", "/1.0/images", foreign)?;
    ensure!(
        code == 400
            && answer["error"]
                .as_str()
                .unwrap_or_default()
                .contains("source.type"),
        "{answer}"
    );
    Ok(())
}

/// An image in two files, of which one says what it is.
fn split(all: &Reception, whole: &std::path::Path) -> Result<()> {
    let work = harness::tempdir();
    let run = |words: &[&str]| harness::run(std::process::Command::new(words[0]).args(&words[1..]));
    let at = work.display().to_string();
    run(&["tar", "-C", &at, "-xf", &whole.display().to_string()])?;
    fs::write(
        work.join("metadata.yaml"),
        "architecture: x86_64\nproperties:\n  os: Split\n  serial: 7\n",
    )?;
    run(&[
        "tar",
        "-C",
        &at,
        "-cJf",
        &format!("{at}/meta.tar.xz"),
        "metadata.yaml",
    ])?;
    run(&[
        "tar",
        "-C",
        &format!("{at}/rootfs"),
        "-czf",
        &format!("{at}/rootfs.tar.gz"),
        ".",
    ])?;
    all.ok(&format!(
        "image import {at}/meta.tar.xz {at}/rootfs.tar.gz --alias split"
    ))?;
    let info = all.ok("image info split")?;
    ensure!(info.contains("os: Split") && info.contains("serial: 7"), "{info}");
    all.ok("launch split two")?;
    all.house.up("two")?;
    all.ok("delete --force two")?;
    all.ok("image delete split")?;
    let junk = work.join("junk");
    fs::write(&junk, vec![7; 4096])?;
    let refused = all.output(&["image", "import", junk.to_str().unwrap_or_default()])?;
    ensure!(!refused.status.success(), "{refused:?}");
    Ok(())
}

fn lxc_publishes_instances() -> Result<()> {
    needs!(root, program: lxc);
    let all = Reception::new()?;
    all.ok("launch busybox web")?;
    all.house.up("web")?;
    all.house.sh(
        "web",
        "echo one > /root/file; ln /root/file /root/second; chown 33:44 /root/file; ln -s file /root/link",
    )?;
    let running = all.output(&["publish", "web"])?;
    ensure!(!running.status.success(), "{running:?}");
    all.ok("snapshot web early")?;
    all.house.sh("web", "echo two > /root/file")?;
    all.ok("stop --force web")?;
    all.ok("publish web --alias golden os=mine")?;
    all.ok("publish web/early --alias early")?;
    for (image, name, content) in [("golden", "a", "two"), ("early", "b", "one")] {
        all.ok(&format!("launch {image} {name}"))?;
        all.house.up(name)?;
        let found = all
            .house
            .sh(name, "cat /root/link; stat -c '%u %g %h' /root/file")?;
        ensure!(found == format!("{content}\n33 44 2"), "{found}");
    }
    let (_, images) = all.ask("GET", "/1.0/images?recursion=1", "")?;
    let golden = images["metadata"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|image| image["aliases"][0]["name"] == "golden");
    ensure!(
        golden.map(|image| &image["properties"]["os"]) == Some(&Value::from("mine")),
        "{images}"
    );
    all.ok("delete --force a b web")?;
    all.ok("image delete golden early")?;
    ensure!(all.house.list()?.is_empty());
    all.leave()
}
