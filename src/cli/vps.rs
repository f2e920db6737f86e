//! The command line of `condo`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use super::exit::Exit;
use super::{output, verbosity};
use crate::error::{Error, Result};
use crate::vps::lifecycle::Condo;
use args::{Args, Command};

mod args;
mod create;
mod enter;
mod image;
mod life;
mod limits;
mod show;
mod usage;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) => return usage::explain(&e).into(),
    };
    verbosity::start(args.verbose);
    match run(args) {
        Ok(exit) => exit.into(),
        Err(e) if is_broken_pipe(&e) => Exit::Success.into(),
        Err(e) => {
            output::complain(&e.to_string());
            Exit::from(&e).into()
        }
    }
}

/// The whole command tree, for manual pages and completions.
pub fn command() -> clap::Command {
    Args::command()
}

/// The reader of our output has seen enough (`condo list | head -1`).
fn is_broken_pipe(e: &Error) -> bool {
    matches!(e.root(), Error::Io(e) if e.kind() == std::io::ErrorKind::BrokenPipe)
}

fn run(args: Args) -> Result<Exit> {
    if let Command::Completions { shell } = args.command {
        // Into memory first: the generator panics when its writer fails (`condo completions bash | head -1`).
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command(), "condo", &mut script);
        std::io::stdout().lock().write_all(&script)?;
        return Ok(Exit::Success);
    }
    let root = args.root.as_deref();
    if root == Some(Path::new("")) {
        return Err(Error::invalid("--root", "", "is empty"));
    }
    dispatch(&Condo::open(root)?, args.command)
}

fn dispatch(condo: &Condo, command: Command) -> Result<Exit> {
    match command {
        Command::Image { command } => image::run(condo, command),
        Command::Create(args) => create::run(condo, *args),
        Command::Start { targets } => life::start(condo, &targets),
        Command::Stop { targets, timeout } => life::stop(condo, &targets, timeout),
        Command::Restart { targets, timeout } => life::restart(condo, &targets, timeout),
        Command::Kill { targets, signal } => life::kill(condo, &targets, signal),
        Command::Delete { targets, force } => life::delete(condo, &targets, force),
        Command::Exec(args) => enter::exec(condo, args),
        Command::Shell { name, user } => enter::shell(condo, &name, user),
        Command::Console { name } => condo.console(&name).map(|()| Exit::Success),
        Command::Logs { name, follow } => condo
            .logs(&name, follow, &mut std::io::stdout().lock())
            .map(|()| Exit::Success),
        Command::List { json } => show::list(condo, json),
        Command::Show { name, json } => show::show(condo, &name, json),
        // Answered before an instance was opened.
        Command::Completions { .. } => Ok(Exit::Success),
    }
}
