//! `condo migrate`, its other end, and `condo backup`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args as ClapArgs;

use super::usage::digits;
use crate::cli::exit::Exit;
use crate::cli::output::{print, stamp};
use crate::cli::progress::Spinner;
use crate::cli::report::report;
use crate::vps::copy::backup::Retention;
use crate::vps::copy::migrate::{MigrateOptions, Target};
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::size;
use crate::vps::record::store::now;

#[derive(Debug, ClapArgs)]
pub(super) struct MigrateArgs {
    /// The VPS.
    pub(super) name: Name,
    #[arg(
        value_name = "HOST",
        help = "The other host: ssh://[USER@]HOST[:PORT]",
        required_unless_present = "unclear"
    )]
    pub(super) to: Option<Target>,
    #[command(flatten)]
    pub(super) unclear: Unclear,
    /// The program that connects, with options.
    #[arg(long, value_name = "COMMAND", default_value = "ssh")]
    pub(super) ssh: String,
    /// How condo is called there, with options.
    #[arg(long, value_name = "COMMAND", default_value = "condo")]
    pub(super) remote: String,
    /// How long the VPS may take to shut down by itself.
    #[arg(short, long, value_name = "SECONDS", default_value = "30", value_parser = |t: &str| digits("--timeout", t))]
    pub(super) timeout: u64,
    /// Also when it has snapshots, which stay behind and go.
    #[arg(long)]
    pub(super) without_snapshots: bool,
}

// What the operator knows about a move whose end is unclear, when the other host cannot be asked any more.
#[derive(Debug, ClapArgs)]
#[group(id = "unclear", multiple = false, conflicts_with = "to")]
pub(super) struct Unclear {
    /// After a move whose end is unclear: the VPS is here, and stays. Only if the other host does not have it.
    #[arg(long)]
    here: bool,
    /// After a move whose end is unclear: the other host has the VPS, and it goes from here.
    #[arg(long)]
    there: bool,
}

pub(super) fn migrate(condo: &Condo, args: &MigrateArgs) -> Result<Exit> {
    let name = &args.name;
    let Some(to) = &args.to else {
        return decide(condo, name, &args.unclear);
    };
    let options = MigrateOptions {
        ssh: args.ssh.split_whitespace().map(Into::into).collect(),
        remote: args.remote.clone(),
        patience: Duration::from_secs(args.timeout),
        without_snapshots: args.without_snapshots,
    };
    let moved = condo.migrate(name, to, &options);
    let moved = moved.with_context(|| format!("migrate `{name}`"))?;
    print(&format!(
        "{name} is on {}, address {}, stopped for {:.1} s, {} sent in {} rounds",
        to,
        moved.address,
        moved.stopped.as_secs_f64(),
        size::display(moved.sent),
        moved.rounds
    ))?;
    Ok(Exit::Success)
}

fn decide(condo: &Condo, name: &Name, unclear: &Unclear) -> Result<Exit> {
    let done = match unclear.here {
        true => condo.keep_here(name).map(|runs| match runs {
            true => format!("{name} stays here and runs"),
            false => format!("{name} stays here"),
        }),
        false => condo
            .leave_to_other(name)
            .map(|()| format!("{name} is removed here")),
    };
    print(&done.with_context(|| format!("end the move of `{name}`"))?)?;
    Ok(Exit::Success)
}

/// The other end of `condo migrate`, which runs it by ssh.
pub(super) fn receive(condo: &Condo) -> Result<Exit> {
    condo.receive_vps(std::io::stdin(), std::io::stdout())?;
    Ok(Exit::Success)
}

#[derive(Debug, ClapArgs)]
pub(super) struct BackupArgs {
    /// The folder, which gets one for each VPS.
    pub(super) dir: PathBuf,
    /// The VPSs.
    #[arg(value_name = "NAME", required_unless_present = "all")]
    pub(super) names: Vec<Name>,
    /// All VPSs.
    #[arg(short, long, conflicts_with = "names")]
    pub(super) all: bool,
    /// Keep the last N backups.
    #[arg(long, value_name = "N", default_value = "7", value_parser = |t: &str| number("--keep-last", t))]
    pub(super) keep_last: usize,
    /// Keep the last one of N days.
    #[arg(long, value_name = "N", default_value = "0", value_parser = |t: &str| number("--keep-daily", t))]
    pub(super) keep_daily: usize,
    /// Keep the last one of N weeks.
    #[arg(long, value_name = "N", default_value = "0", value_parser = |t: &str| number("--keep-weekly", t))]
    pub(super) keep_weekly: usize,
    /// After N with changes comes a whole one; 0 for none but whole ones.
    #[arg(long, value_name = "N", default_value = "6", value_parser = |t: &str| number("--changes", t))]
    pub(super) changes: usize,
}

fn number(option: &str, text: &str) -> crate::error::Result<usize> {
    let number = digits(option, text)?;
    usize::try_from(number).map_err(|_| crate::error::Error::invalid(option, text, "is too many"))
}

/// Each is tried, whatever became of the others.
pub(super) fn backup(condo: &Condo, args: &BackupArgs) -> Result<Exit> {
    let names = if args.all {
        condo.list()?.into_iter().map(|vps| vps.name).collect()
    } else {
        args.names.clone()
    };
    let retention = Retention {
        last: args.keep_last,
        daily: args.keep_daily,
        weekly: args.keep_weekly,
        changes: args.changes,
    };
    let stamp = stamp(now());
    let mut exit = Exit::Success;
    for name in names {
        let spinner = Spinner::start(format!("backing {name} up"));
        let done = condo.backup(&name, &args.dir, &stamp, retention);
        drop(spinner);
        match done.with_context(|| format!("back `{name}` up")) {
            Ok(done) => print(&format!(
                "{name}: {}, {}{}, {} old ones removed",
                done.path.display(),
                size::display(done.bytes),
                if done.changes { " of changes" } else { "" },
                done.removed
            ))?,
            Err(e) => exit = report(&e),
        }
    }
    Ok(exit)
}
