//! Other clients than `lxc`. Where `CONDO_TEST_CLIENTS` names what `scripts/clients` made.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::reception::Reception;
use crate::harness;

tests![
    pylxd_drives_a_vps: 120,
];

const SCRIPT: &str = include_str!("../../data/clients/with_pylxd.py");

/// What `scripts/clients` made; without it the test is skipped for want of the client.
pub(super) fn folder(client: &str) -> Result<PathBuf> {
    let folder = std::env::var_os("CONDO_TEST_CLIENTS").filter(|dir| Path::new(dir).is_dir());
    if folder.is_none() {
        harness::need(client);
    }
    folder.map(Into::into).context("the need ends a test")
}

fn pylxd_drives_a_vps() -> Result<()> {
    let python = folder("pylxd")?.join("bin/python3");
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
