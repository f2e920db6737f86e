//! A VPS with systemd. Where `CONDO_TEST_DEBIAN_IMAGE` names a finished image (made by `condo image build debian-12`): to make
//! one takes a mirror and minutes.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::house::{House, eventually};
use crate::harness;

tests![systemd_boots_and_shuts_down: 300];

fn systemd_boots_and_shuts_down() -> Result<()> {
    let Some(image) = std::env::var_os("CONDO_TEST_DEBIAN_IMAGE").filter(|i| Path::new(i).is_dir()) else {
        harness::need("debian-image");
        return Ok(());
    };
    let mut house = House::new()?;
    harness::run(
        Command::new("cp")
            .arg("-a")
            .arg(&image)
            .arg(house.root.join("lib/images/debian-12")),
    )?;
    house.settle_in();
    house.ok("create web --image debian-12 --memory 512M --start")?;
    let up = |house: &House| {
        eventually("systemd is up", || {
            let state = house.try_sh("web", "systemctl is-system-running")?;
            let state = String::from_utf8_lossy(&state.stdout).into_owned();
            ensure!(
                !state.contains("degraded"),
                "{}",
                house.sh("web", "systemctl --failed --no-legend")?
            );
            Ok(state.trim() == "running")
        })
    };
    up(&house)?;
    ensure!(
        house
            .sh("web", "cat /proc/1/comm; systemd-detect-virt -c || true")?
            .starts_with("systemd")
    );
    // Two kinds of credentials, as a service sees them.
    let service = "systemd-run --quiet --wait --pipe --property LoadCredential=file:/root/secret \
         --property SetCredential=text:inline sh -c 'cat $CREDENTIALS_DIRECTORY/file $CREDENTIALS_DIRECTORY/text'";
    let seen = house.sh("web", &format!("echo secret > /root/secret; {service}"))?;
    ensure!(seen == "secret\ninline", "{seen}");
    let before = house.init("web")?;
    house.sh("web", "systemctl reboot")?;
    eventually("it has booted again", || {
        let vps = house.show("web")?;
        Ok(vps["status"] == "running" && vps["pid"].as_i64() != Some(before.into()))
    })?;
    up(&house)?;
    house.ok("stop web --timeout 60")?;
    let exit = house.show("web")?["last_exit"].clone();
    ensure!(exit["reason"] == "exited", "{exit}");
    house.leave()
}
