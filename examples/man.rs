//! Writes the manual pages of `condo` and `condo-runtime`, one for each command, and the completions of `condo-runtime` (which
//! has runc's commands and no other) into a directory: `cargo run --example man -- DIR`.

use std::path::PathBuf;

use anyhow::Context;
use clap_complete::Shell;

fn main() -> anyhow::Result<()> {
    let dir = std::env::args_os().nth(1).context("usage: man DIR")?;
    let dir = PathBuf::from(dir);
    std::fs::create_dir_all(&dir)?;
    // Its own `--version` says more than clap's would; the pages want the number.
    let runtime = condo::cli::oci::command().version(env!("CARGO_PKG_VERSION"));
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut runtime.clone(), "condo-runtime", &dir)?;
    }
    clap_mangen::generate_to(condo::cli::vps::command(), &dir)?;
    clap_mangen::generate_to(runtime, &dir)?;
    Ok(())
}
