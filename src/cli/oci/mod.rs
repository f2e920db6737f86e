//! `condo-runtime`: runc's command line over [`crate::runtime`].

mod args;
mod checkpoint;
mod create;
mod dashes;
mod events;
mod exec;
mod features;
mod help;
mod list;
mod log;
mod manage;
mod numbers;
mod output;
mod passed;
mod ps;
mod restore;
mod root;
mod spec;
mod stats;
mod update;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};

use crate::error::Error;
use crate::host::Host;
use crate::process::protect;
use crate::vps::run::adopt::figures;
use args::{Cli, Command};

/// Status of a failed `exec`, which callers tell from the program's own.
const EXEC_FAILED: u8 = 255;
/// Status for a command that does not exist, as runc's.
const UNKNOWN_COMMAND: u8 = 3;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    if let Some(ended) = figures::main() {
        return ended;
    }
    // Before anything else is done, because all of it is done again; `run` reports a failure where the log goes.
    if std::env::args_os().any(|word| protect::is_maker(&word)) {
        let _ = protect::protect();
    }
    let words = dashes::normal(std::env::args_os().collect());
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(e) => return not_understood(&in_runc_s_words(e, &words), &words),
    };
    let passed = passed::check(cli.command.as_ref());
    let log = match log::Log::start(&cli.global) {
        Ok(log) => log,
        Err(e) => return log::Log::refuse(&e),
    };
    ::log::debug!("condo-runtime {} begins", env!("CARGO_PKG_VERSION"));
    let failed = if matches!(cli.command, Some(Command::Exec(_))) {
        EXEC_FAILED
    } else {
        1
    };
    match passed.and_then(|()| run(cli)) {
        Ok(status) => ExitCode::from(status),
        Err(e) => {
            log.fatal(&e);
            ExitCode::from(failed)
        }
    }
}

/// The whole command tree, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// What callers of runc look for where a command does not exist, and in help.
fn in_runc_s_words(e: clap::Error, words: &[OsString]) -> clap::Error {
    if e.kind() == ErrorKind::DisplayHelp {
        // Only now, because nobody else's start should have to wait for it.
        return help::with_help(words.first())
            .try_get_matches_from(words)
            .err()
            .unwrap_or(e);
    }
    match e.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(name)) => {
            let text = format!("No help topic for '{name}': there is no such command");
            Cli::command().error(ErrorKind::InvalidSubcommand, text)
        }
        _ => e,
    }
}

/// What is not a command line of this program: help that was asked for, or an error for the caller's eyes and for its log.
fn not_understood(e: &clap::Error, words: &[OsString]) -> ExitCode {
    let _ = e.print();
    if !e.use_stderr() {
        return ExitCode::SUCCESS;
    }
    if let Ok(global) = args::Global::salvage(words)
        && global.log.is_some()
        && log::Log::start(&global).is_ok()
    {
        let text = e.to_string();
        let text = text.lines().next().unwrap_or("error: command line");
        ::log::error!("{}", text.strip_prefix("error: ").unwrap_or(text));
    }
    match e.kind() {
        ErrorKind::InvalidSubcommand => ExitCode::from(UNKNOWN_COMMAND),
        _ => ExitCode::FAILURE,
    }
}

fn run(cli: Cli) -> Result<u8, Error> {
    let global = cli.global;
    let Some(command) = cli.command else {
        return if global.version {
            list::version()
        } else {
            output::print(
                &help::with_help(std::env::args_os().next().as_ref())
                    .render_long_help()
                    .to_string(),
            )
        };
    };
    if command.makes_processes() {
        protect::protect()?;
    }
    match command {
        Command::Spec(args) => spec::spec(&args),
        Command::Features => features::features(),
        command => {
            let host = Host::probe()?;
            let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR");
            let root = root::decide(global.root.clone(), &host.caller, runtime_dir.as_deref())?;
            let root = root.as_path();
            match command {
                Command::Create(args) => create::create(&host, root, &global, &args),
                Command::Run(args) => create::run(&host, root, &global, &args),
                Command::Exec(args) => exec::exec(&host, root, &args),
                Command::Start(args) => manage::start(&host, root, &args),
                Command::State(args) => list::state(&host, root, &args),
                Command::Kill(args) => manage::kill(&host, root, &args),
                Command::Delete(args) => manage::delete(&host, root, &args),
                Command::Pause(args) => manage::pause(&host, root, &args),
                Command::Resume(args) => manage::resume(&host, root, &args),
                Command::List(args) => list::list(&host, root, &args),
                Command::Ps(args) => ps::ps(&host, root, &args),
                Command::Update(args) => update::update(&host, root, &args),
                Command::Events(args) => events::events(&host, root, &args),
                Command::Checkpoint(args) => checkpoint::checkpoint(&host, root, &args),
                Command::Restore(args) => restore::restore(&host, root, &global, &args),
                Command::Spec(_) | Command::Features => Ok(0),
            }
        }
    }
}
