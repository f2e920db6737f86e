//! VPSs whose image was pulled in layers: their copies take it along as one tree, or find it where they come to.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::house::House;
use crate::harness;
use crate::image::Tar;
use crate::image::saved::{Packed, Saved};
use crate::image::server::{Manners, Registry};

tests![
    a_vps_of_a_pulled_image_goes_into_a_file_and_comes_back: 120,
    a_chain_over_a_pulled_image_is_whole: 120,
];

const INIT: &[u8] = b"#!/bin/sh\ntrap 'exit 0' TERM; while :; do busybox sleep 60 & wait $!; done\n";

/// A system in three layers, which hide, empty, replace and link what is below them.
fn system() -> Result<Saved> {
    let mut lowest = Tar::new().dir("./", 0o755);
    for dir in [
        "bin/", "dev/", "etc/", "proc/", "root/", "run/", "sbin/", "sys/", "tmp/", "var/",
    ] {
        lowest = lowest.dir(dir, 0o755);
    }
    let lowest = lowest
        .file("bin/busybox", 0o755, &std::fs::read("/bin/busybox")?)
        .symlink("bin/sh", "busybox")
        .file("sbin/init", 0o755, INIT)
        .file("hidden/by-two", 0o644, b"1")
        .file("hidden/stays", 0o640, b"stays")
        .file("emptied/x", 0o644, b"1")
        .file("moves/deep/file", 0o644, b"moves")
        .file("changes", 0o644, b"1")
        .file("swapped/inner", 0o644, b"1")
        .file("linked", 0o644, b"linked")
        .end();
    let middle = Tar::new()
        .file("hidden/.wh.by-two", 0o644, b"")
        .file("emptied/.wh..wh..opq", 0o644, b"")
        .file("emptied/z", 0o644, b"2")
        .file("swapped", 0o600, b"no folder any more")
        .hardlink("link", "linked")
        .end();
    let upper = Tar::new()
        .owned(b'0', ("moves/deep/other", ""), (0o4755, 1000), b"3")
        .file("changes", 0o644, b"3")
        .end();
    let layers = [
        (lowest, Packed::Zstd),
        (middle, Packed::Gzip),
        (upper, Packed::Plain),
    ];
    Saved::new(
        &json!({"Entrypoint": ["/sbin/init"], "StopSignal": "SIGTERM"}),
        &layers,
    )
}

/// What the tenant does to it: a directory of two layers gets another name, one is made anew, files change and go.
const WORK: &str =
    "cd /; busybox mv moves moved; busybox rm -r emptied; busybox mkdir emptied; echo own > emptied/own;
    echo more >> changes; busybox rm linked; echo new > new; busybox sync";

const INVENTORY: &str = "cd /; busybox find hidden emptied moved changes swapped link new -exec busybox stat -c '%n %a %u %s %Y %F' {} + |
    busybox grep -v directory | busybox sort; busybox cat link changes moved/deep/file swapped; busybox ls /; true";

/// A house with the pulled image `app` and a VPS `web` of it that runs and has done its work.
fn furnished() -> Result<House> {
    let mut house = House::new()?;
    let registry = Registry::start(&[("team/app", &system()?, false)], Manners::default())?;
    house.ok(&format!(
        "image pull {}/team/app --name app --insecure",
        registry.address
    ))?;
    house.settle_in();
    house.ok("create web --image app --start")?;
    house.sh("web", WORK)?;
    Ok(house)
}

fn images(house: &House) -> Result<Vec<Value>> {
    Ok(serde_json::from_str(&house.ok("image list --json")?)?)
}

fn place(name: &str) -> PathBuf {
    harness::tempdir().join(name)
}

fn a_vps_of_a_pulled_image_goes_into_a_file_and_comes_back() -> Result<()> {
    let house = furnished()?;
    let inventory = house.sh("web", INVENTORY)?;
    ensure!(
        inventory.contains("moved/deep/other 4755 1000") && inventory.contains("emptied/own"),
        "{inventory}"
    );
    let (whole, alone) = (place("web.condo"), place("alone.condo"));
    house.ok(&format!("export web -o {}", whole.display()))?;
    house.ok(&format!("export web --without-image -o {}", alone.display()))?;
    ensure!(alone.metadata()?.len() * 4 < whole.metadata()?.len());
    // Where the same image is, it is used, and its layers stay shared.
    for (name, archive) in [("other", &whole), ("third", &alone)] {
        house.ok(&format!("import {} --name {name}", archive.display()))?;
        ensure!(house.show(name)?["image"] == "app" && images(&house)?.len() == 2);
        house.ok(&format!("start {name}"))?;
        ensure!(
            house.sh(name, INVENTORY)? == inventory,
            "{name}: {}",
            house.sh(name, INVENTORY)?
        );
    }
    house.ok("delete --force --all")?;
    house.ok("image remove app")?;
    house.refused(
        &format!("import {} --name web", alone.display()),
        "did not come along",
    )?;
    // Where it is not, it comes along, as one tree.
    house.ok(&format!("import {} --name web", whole.display()))?;
    let app = images(&house)?
        .into_iter()
        .find(|image| image["name"] == "app")
        .context("no image")?;
    ensure!(
        app["layers"] == 0 && app["init"] == json!(["/sbin/init"]),
        "{app}"
    );
    house.ok("start web")?;
    ensure!(
        house.sh("web", INVENTORY)? == inventory,
        "{}",
        house.sh("web", INVENTORY)?
    );
    // The next copy is of the same image, whichever form it has.
    let again = place("again.condo");
    house.ok(&format!("export web --without-image -o {}", again.display()))?;
    house.ok(&format!("import {} --name copy", again.display()))?;
    house.ok("delete --force --all")?;
    house.ok("image remove app")?;
    house.leave()
}

fn a_chain_over_a_pulled_image_is_whole() -> Result<()> {
    let house = furnished()?;
    let dir = place("backups");
    house.ok("clone web clone")?;
    let backup = format!("backup {} web", dir.display());
    house.ok(&backup)?;
    house.sh(
        "web",
        "echo later > /later; busybox rm /changes; busybox sync; busybox sleep 1",
    )?;
    ensure!(house.ok(&backup)?.contains("of changes"));
    let inventory = house.sh("web", INVENTORY)?;
    house.ok("start clone")?;
    ensure!(house.sh("clone", INVENTORY)?.contains("changes 644"));
    house.ok("delete --force --all")?;
    house.ok("image remove app")?;
    let newest = newest(&dir.join("web"))?;
    house.ok(&format!("import {} --name web", newest.display()))?;
    house.ok("start web")?;
    ensure!(
        house.sh("web", INVENTORY)? == inventory,
        "{}",
        house.sh("web", INVENTORY)?
    );
    house.ok("delete --force --all")?;
    house.ok("image remove app")?;
    house.leave()
}

fn newest(dir: &Path) -> Result<PathBuf> {
    let mut files = std::fs::read_dir(dir)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|end| end == "condo"));
    files.sort();
    files.pop().context("no backup")
}
