//! Other clients than `lxc`. Where `CONDO_TEST_CLIENTS` names what `scripts/clients` made.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use super::reception::Reception;
use crate::harness;

tests![
    pylxd_drives_a_vps: 120,
];

const SCRIPT: &str = include_str!("../../data/clients/with_pylxd.py");

fn pylxd_drives_a_vps() -> Result<()> {
    let Some(clients) = std::env::var_os("CONDO_TEST_CLIENTS").filter(|dir| Path::new(dir).is_dir()) else {
        harness::need("pylxd");
        anyhow::bail!("unreachable");
    };
    let python = PathBuf::from(clients).join("bin/python3");
    let all = Reception::new()?;
    let socket = all.house.root.join("run/api.socket");
    let home = harness::tempdir();
    let mut program = Command::new(python);
    program
        .args(["-c", SCRIPT])
        .arg(socket)
        .env("HOME", &home)
        .env("LXD_CONF", &home);
    ensure!(harness::run(&mut program)?.trim() == "done");
    ensure!(all.house.list()?.is_empty());
    all.leave()
}
