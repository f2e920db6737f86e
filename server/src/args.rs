//! The command line.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::trust::{self, LinkArgs, TrustCommand};
use crate::{listen, log_lines};

const EXAMPLES: &str = "\
Examples:
  condo-server
  LXD_SOCKET=/run/condo/api.socket lxc list
  condo-server --listen 0.0.0.0:8443
  condo-server trust add laptop";

/// Serve LXD's REST API 1.0 over condo's VPSs.
#[derive(Debug, Parser)]
#[command(name = "condo-server", version, about, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Args {
    /// The condo whose VPSs are served: all its state is below DIR instead of /run/condo and /var/lib/condo.
    #[arg(long, env = "CONDO_ROOT", value_name = "DIR", hide_env_values = true)]
    pub(crate) root: Option<PathBuf>,
    /// The socket to listen at, if not /run/condo/api.socket; unused when systemd hands one over.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Serve it over TLS as well, to clients whose certificates are trusted: see condo-server trust.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    #[command(subcommand)]
    command: Option<Command>,
    /// Tell what is being done; twice tells more.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// What else it is asked.
#[derive(Debug, Subcommand)]
enum Command {
    /// Say who may use the API over TLS.
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Print a link that logs one browser in, once, within ten minutes: the console is served with --listen.
    Ui(LinkArgs),
}

pub(crate) fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) => e.exit(),
    };
    log_lines::start(args.verbose);
    let mut args = args;
    let done = match args.command.take() {
        Some(Command::Trust(command)) => trust::run(args.root.as_deref(), command),
        Some(Command::Ui(link)) => trust::print_link(args.root.as_deref(), link),
        None => listen::serve(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "condo-server: {e:#}");
            ExitCode::FAILURE
        }
    }
}
