//! `condo ui`: `condo-server`, which serves the console, knows who may log in.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cli::exit::Exit;
use crate::vps::record::instance::Condo;

const SERVER: &str = "condo-server";

pub(super) const EXAMPLES: &str = "\
With --project the link is for the VPSs of that project only.

Examples:
  condo-server --listen 0.0.0.0:8443 &
  condo ui
  condo --project shop ui --address host.example:8443";

pub(super) fn run(condo: &Condo, address: Option<&str>) -> Result<Exit> {
    // Beside this program, which is how they are installed, or where the shell would find it.
    let beside = std::env::current_exe().map(|own| own.with_file_name(SERVER));
    let beside = beside.ok().filter(|path| path.exists());
    let mut command = Command::new(beside.as_deref().unwrap_or(Path::new(SERVER)));
    if let Some(root) = condo.root() {
        command.arg("--root").arg(root);
    }
    command.arg("ui");
    if let Some(address) = address {
        command.args(["--address", address]);
    }
    if let Some(project) = condo.project() {
        command.args(["--project", project.as_str()]);
    }
    // It comes back only with the reason why not.
    let failed = command.exec();
    Err(failed).context("run `condo-server`, which serves the console: install it beside `condo`")
}
