//! The command line of `condo`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser};

use super::exit::Exit;
use super::{output, report, verbosity};
use crate::error::Error;
use crate::vps::record::instance::Condo;
use args::{Args, Command};
use copies::CopyCommand;

mod archive;
mod args;
mod copies;
mod cp;
mod create;
mod disk;
mod doctor;
mod enter;
mod events;
mod firewall;
mod first_boot;
mod image;
mod inside;
mod life;
mod limits;
mod migrate;
mod network;
mod plan;
mod policy;
mod project;
mod publish;
mod pull;
mod repair;
mod resize;
mod show;
mod snapshot;
mod stats;
mod system;
mod top;
mod ui;
mod usage;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) => return usage::explain(&e).into(),
    };
    verbosity::start(args.verbose);
    run(args).unwrap_or_else(|e| report::report(&e)).into()
}

/// The whole command tree, for manual pages and completions.
pub fn command() -> clap::Command {
    Args::command()
}

fn run(args: Args) -> Result<Exit> {
    if let Command::Completions { shell } = args.command {
        // Into memory first: the generator panics when its writer fails (`condo completions bash | head -1`).
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command(), "condo", &mut script);
        return output::write(&script).map(|()| Exit::Success);
    }
    let root = args.root.as_deref();
    if root == Some(Path::new("")) {
        return Err(Error::invalid("--root", "", "is empty").into());
    }
    let condo = Condo::open(root)?.within(args.project)?;
    dispatch(&condo, args.command)
}

fn dispatch(condo: &Condo, command: Command) -> Result<Exit> {
    match command {
        Command::Image { command } => image::run(condo, command),
        Command::Create(args) => create::run(condo, *args),
        Command::Start { targets } => life::start(condo, &targets),
        Command::Stop { targets, timeout } => life::stop(condo, &targets, timeout),
        Command::Restart { targets, timeout } => life::restart(condo, &targets, timeout),
        Command::Kill { targets, signal } => life::kill(condo, &targets, signal),
        Command::Freeze { targets } => life::freeze(condo, &targets),
        Command::Thaw { targets } => life::thaw(condo, &targets),
        Command::Rename { name, new } => system::rename(condo, &name, &new),
        Command::Rebuild(args) => system::rebuild(condo, *args),
        Command::Rescue(args) => system::rescue(condo, *args),
        Command::Delete { targets, force } => life::delete(condo, &targets, force),
        Command::Resize(args) => resize::run(condo, *args),
        Command::Plan { command } => plan::run(condo, &command),
        Command::Set(args) => policy::set(condo, &args),
        Command::Autostart => policy::autostart(condo),
        Command::Events { names, follow, json } => events::run(condo, &names, follow, json),
        Command::Watch { every } => events::watch(condo, every),
        Command::Stats { names, json } => stats::stats(condo, &names, json),
        Command::Top(args) => top::run(condo, &args),
        Command::Metrics => stats::metrics(condo),
        Command::Project { command } => project::run(condo, &command),
        Command::Ui { address } => ui::run(condo, address.as_deref()),
        Command::Repair { json } => repair::run(condo, json),
        Command::Doctor(args) => doctor::run(condo, &args),
        Command::Door(command) => publish::run(condo, &command),
        Command::Exec(args) => enter::exec(condo, args),
        Command::Cp(args) => cp::run(condo, &args),
        Command::Shell { name, user } => enter::shell(condo, &name, user),
        Command::Console { name } => enter::console(condo, &name),
        Command::Logs { name, follow } => show::logs(condo, &name, follow),
        Command::Network { command } => network::run(condo, command),
        Command::List { json } => show::list(condo, json),
        Command::Show { name, json } => show::show(condo, &name, json),
        Command::Copy(command) => copy(condo, command),
        // Answered before an instance was opened.
        Command::Completions { .. } => Ok(Exit::Success),
    }
}

fn copy(condo: &Condo, command: CopyCommand) -> Result<Exit> {
    match command {
        CopyCommand::Snapshot { command } => snapshot::run(condo, command),
        CopyCommand::Clone { name, new, snapshot } => snapshot::clone(condo, &name, &new, snapshot.as_ref()),
        CopyCommand::Export(args) => archive::export(condo, args),
        CopyCommand::Import(args) => archive::import(condo, &args),
        CopyCommand::Backup(args) => migrate::backup(condo, &args),
        CopyCommand::Migrate(args) => migrate::migrate(condo, &args),
        CopyCommand::Receive => migrate::receive(condo),
    }
}
