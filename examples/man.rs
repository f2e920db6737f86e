//! Writes the manual pages of `condo`, one for each command, into a directory: `cargo run --example man -- DIR`.

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let dir = std::env::args_os().nth(1).context("usage: man DIR")?;
    std::fs::create_dir_all(&dir)?;
    clap_mangen::generate_to(condo::cli::vps::command(), dir)?;
    Ok(())
}
