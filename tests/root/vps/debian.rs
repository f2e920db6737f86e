//! VPSs with systemd. Where `CONDO_TEST_DEBIAN_IMAGE` names a finished image (made by `condo image build debian-12`): to make
//! one takes a mirror and minutes. Beside it may be Debian 13's.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::first_boot;
use super::house::{House, eventually};
use crate::harness;

tests![systemd_boots_and_shuts_down: 300, debian_13_boots: 300];

pub(super) const HOST_KEY: &str = "cat /etc/ssh/ssh_host_ed25519_key.pub";

/// The finished image, where there is one.
pub(crate) fn image() -> Result<PathBuf> {
    let image = std::env::var_os("CONDO_TEST_DEBIAN_IMAGE").filter(|image| Path::new(image).is_dir());
    if image.is_none() {
        harness::need("debian-image");
    }
    image.map(Into::into).context("the need ends a test")
}

/// Gives the image to an instance, by its own name.
pub(super) fn settle(image: &Path, instance: &Path) -> Result<()> {
    let images = instance.join("lib/images");
    std::fs::create_dir_all(&images)?;
    harness::run(Command::new("cp").arg("-a").args([image, &images])).map(drop)
}

/// Its own systemd, of which every unit does what it should, and its owner comes in by key.
fn debian_13_boots() -> Result<()> {
    let image = image()?.with_file_name("debian-13");
    if !image.is_dir() {
        harness::need("debian-13-image");
    }
    let mut house = House::new()?;
    settle(&image, &house.root)?;
    house.settle_in();
    let key = create(&house, "debian-13")?;
    up(&house, "web")?;
    first_booted(&house, &key)?;
    let release = house.sh("web", "cat /etc/debian_version")?;
    ensure!(release.starts_with("13"), "{release}");
    house.ok("stop web --timeout 60")?;
    let exit = house.show("web")?["last_exit"].clone();
    ensure!(exit["reason"] == "exited", "{exit}");
    house.leave()
}

fn systemd_boots_and_shuts_down() -> Result<()> {
    let image = image()?;
    let mut house = House::new()?;
    settle(&image, &house.root)?;
    house.settle_in();
    let key = create(&house, "debian-12")?;
    up(&house, "web")?;
    ensure!(
        house
            .sh("web", "cat /proc/1/comm; systemd-detect-virt -c || true")?
            .starts_with("systemd")
    );
    let host_key = first_booted(&house, &key)?;
    // Two kinds of credentials, as a service sees them.
    let service = "systemd-run --quiet --wait --pipe --property LoadCredential=file:/root/secret \
         --property SetCredential=text:inline sh -c 'cat $CREDENTIALS_DIRECTORY/file $CREDENTIALS_DIRECTORY/text'";
    let seen = house.sh("web", &format!("echo secret > /root/secret; {service}"))?;
    ensure!(seen == "secret\ninline", "{seen}");
    let before = house.init("web")?;
    house.sh_last("web", "systemctl reboot")?;
    house.boots_again("web", before)?;
    up(&house, "web")?;
    house.ok("stop web --timeout 60")?;
    let exit = house.show("web")?["last_exit"].clone();
    ensure!(exit["reason"] == "exited", "{exit}");
    rebuilt(&house, &host_key)?;
    house.leave()
}

/// Makes the VPS `web` with all that a first boot can be given but a password; the path of the key that lets in.
fn create(house: &House, image: &str) -> Result<String> {
    let key = first_boot::key("debian")?.display().to_string();
    let script = harness::tempdir().join("script");
    std::fs::write(
        &script,
        "#!/bin/bash\necho \"the first boot of $(hostname)\"\ncat /proc/1/comm > /made\n",
    )?;
    house.ok(&format!(
        "create web --image {image} --memory 512M --ssh-key {key}.pub --user-data {} --timezone Europe/Berlin --start",
        script.display()
    ))?;
    Ok(key)
}

pub(crate) fn up(house: &House, name: &str) -> Result<()> {
    eventually("systemd is up", || {
        let state = house.try_sh(name, "systemctl is-system-running")?;
        let state = String::from_utf8_lossy(&state.stdout).into_owned();
        ensure!(
            !state.contains("degraded"),
            "{}",
            house.sh(name, "systemctl --failed --no-legend")?
        );
        Ok(state.trim() == "running")
    })
}

/// Looks at what a first boot was to do; its ssh host key.
fn first_booted(house: &House, key: &str) -> Result<String> {
    first_boot::comes_in(house, "web", &["-i", key])?;
    let host_key = house.sh("web", HOST_KEY)?;
    ensure!(
        !first_boot::ssh(house, "web", &first_boot::BY_PASSWORD)?
            .status
            .success()
    );
    let seen = house.sh(
        "web",
        "cat /made; ls /var/lib/condo 2>&1; date +%Z; cat /etc/timezone",
    )?;
    ensure!(
        seen.starts_with("systemd\n") && seen.contains("No such file") && seen.contains("CE"),
        "{seen}"
    );
    ensure!(house.ok("logs web")?.contains("the first boot of web"));
    Ok(host_key)
}

/// Puts another system in its place, with a password alone.
fn rebuilt(house: &House, host_key: &str) -> Result<()> {
    let rebuilt = first_boot::fed(
        house,
        "rebuild web --image debian-12 --password-stdin --start",
        &format!("{}\n", first_boot::PASSWORD),
    )?;
    ensure!(rebuilt.status.success(), "{rebuilt:?}");
    up(house, "web")?;
    ensure!(
        house.sh("web", HOST_KEY)? != host_key,
        "the host key is the old one"
    );
    first_boot::comes_in(house, "web", &first_boot::BY_PASSWORD)?;
    house.sh("web", "test ! -e /made")?;
    Ok(())
}
