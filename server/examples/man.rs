//! Writes the manual pages of the three programs, one for each command, and completions into a directory:
//! `cargo run -p condo-server --example man -- DIR`. A member that knows all three has it.

use std::path::PathBuf;

use anyhow::Context;
use clap_complete::Shell;

fn main() -> anyhow::Result<()> {
    let dir = std::env::args_os().nth(1).context("usage: man DIR")?;
    let dir = PathBuf::from(dir);
    std::fs::create_dir_all(&dir)?;
    // Its own `--version` says more than clap's would; the pages want the number.
    let runtime = condo::cli::oci::command().version(env!("CARGO_PKG_VERSION"));
    for program in [condo::cli::vps::command(), runtime, condo_server::command()] {
        let name = program.get_name().to_owned();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            clap_complete::generate_to(shell, &mut program.clone(), &name, &dir)?;
        }
        clap_mangen::generate_to(program, &dir)?;
    }
    Ok(())
}
