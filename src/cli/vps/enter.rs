//! Running programs inside: `exec` and `shell`.

use anyhow::Result;

use super::args::ExecArgs;
use crate::cli::exit::Exit;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::run::enter::ExecRequest;

/// A login shell for whoever comes in: bash where there is one, for its line editing.
const SHELL: &str = "if [ -x /bin/bash ]; then exec /bin/bash -l; else exec /bin/sh -l; fi";

pub(super) fn exec(condo: &Condo, args: ExecArgs) -> Result<Exit> {
    let request = ExecRequest {
        args: args.command,
        env: args.env.into_iter().collect(),
        user: args.user,
        cwd: args.workdir,
        tty: args.tty,
    };
    Ok(program(condo.exec(&args.name, &request)?))
}

pub(super) fn shell(condo: &Condo, name: &Name, user: Option<String>) -> Result<Exit> {
    let request = ExecRequest {
        args: ["/bin/sh", "-c", SHELL].map(Into::into).into(),
        env: Default::default(),
        user,
        cwd: None,
        tty: std::io::IsTerminal::is_terminal(&std::io::stdin()),
    };
    Ok(program(condo.exec(name, &request)?))
}

pub(super) fn console(condo: &Condo, name: &Name) -> Result<Exit> {
    condo.console(name)?;
    Ok(Exit::Success)
}

/// A status is eight bits; one that is not can only be a mistake and must not look like success.
fn program(status: i32) -> Exit {
    Exit::Program(u8::try_from(status).unwrap_or(u8::MAX))
}
