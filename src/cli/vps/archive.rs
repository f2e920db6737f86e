//! `condo export` and `condo import`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args as ClapArgs;

use crate::cli::exit::Exit;
use crate::cli::output::print;
use crate::cli::progress::Spinner;
use crate::error::Error;
use crate::vps::copy::export::ExportOptions;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::size;
use crate::vps::record::snapshots::SnapshotName;

#[derive(Debug, ClapArgs)]
pub(super) struct ExportArgs {
    /// The VPS.
    pub(super) name: Name,
    /// The archive to write; `-` for standard output.
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
    /// As it was at this snapshot, not as it is now.
    #[arg(long)]
    pub(super) snapshot: Option<SnapshotName>,
    /// Only what has changed since this snapshot, of which there is an archive already.
    #[arg(long, value_name = "SNAPSHOT")]
    pub(super) since: Option<SnapshotName>,
    /// Leave the image out: whoever imports it has one with the same files.
    #[arg(long)]
    pub(super) without_image: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct ImportArgs {
    /// The archive; `-` for standard input. Several: a whole one, then those with changes in their order.
    #[arg(value_name = "FILE", required = true)]
    pub(super) archives: Vec<PathBuf>,
    /// The VPS's name.
    #[arg(short, long)]
    pub(super) name: Name,
}

pub(super) fn export(condo: &Condo, args: ExportArgs) -> Result<Exit> {
    let to_output = args.output == Path::new("-");
    if to_output && std::io::stdout().is_terminal() {
        let problem = "is a terminal; name a file, or pipe it on";
        return Err(Error::invalid("--output", "-", problem).into());
    }
    let options = ExportOptions {
        snapshot: args.snapshot,
        since: args.since,
        without_image: args.without_image,
    };
    let name = &args.name;
    let spinner = Spinner::start(format!("exporting {name}"));
    let done = condo.export(name, &options, &args.output);
    drop(spinner);
    let done = done.with_context(|| format!("export `{name}`"))?;
    if !to_output {
        print(&format!(
            "{name} exported to {}, {}",
            args.output.display(),
            size::display(done.bytes)
        ))?;
    }
    Ok(Exit::Success)
}

pub(super) fn import(condo: &Condo, args: &ImportArgs) -> Result<Exit> {
    if args.archives.len() > 1 && args.archives.iter().any(|path| path == Path::new("-")) {
        let problem = "is standard input, which holds one archive; name files";
        return Err(Error::invalid("FILE", "-", problem).into());
    }
    let name = &args.name;
    let spinner = Spinner::start(format!("importing {name}"));
    let record = condo.import(&args.archives, name);
    drop(spinner);
    let record = record.with_context(|| format!("import `{name}`"))?;
    print(&format!("{name} created, address {}", record.address))?;
    Ok(Exit::Success)
}
