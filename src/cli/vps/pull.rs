//! `condo image pull`.

use std::io::BufRead;
use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgAction, Args};

use crate::cli::progress::Bars;
use crate::error::Error;
use crate::image::registry::Credentials;
use crate::vps::record::images::PullRequest;
use crate::vps::record::instance::Condo;
use crate::vps::record::view::ImageView;

pub(super) const EXAMPLES: &str = "\
Examples:
  condo image pull docker.io/library/alpine:3.20
  condo image pull registry.example.com/team/app:1.4 --name app --creds robot < password
  condo image pull localhost:5000/app --tls-verify=false --init /bin/sh";

#[derive(Debug, Args)]
pub(super) struct PullArgs {
    #[arg(
        value_name = "REF",
        help = "The image's name in the registry: [HOST[:PORT]/]PATH[:TAG][@DIGEST]"
    )]
    reference: String,
    /// The image's name here; without it the last part of the path, and the tag unless that is `latest`.
    #[arg(short, long, value_name = "IMAGE")]
    name: Option<String>,
    /// The program to run as PID 1, if it is not found by itself; several times for its arguments.
    #[arg(long, value_name = "PROGRAM", allow_hyphen_values = true)]
    init: Vec<String>,
    /// The signal that asks its init to shut down, if it is not found by itself.
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Who to be for the registry; without a password it is read from standard input.
    #[arg(long, value_name = "USER[:PASSWORD]")]
    creds: Option<String>,
    /// The file of `docker login` or `podman login`, if not one of the usual.
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Whether the registry has to speak TLS and prove who it is.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true")]
    #[arg(default_missing_value = "true", action = ArgAction::Set)]
    tls_verify: bool,
    /// The same as --tls-verify=false.
    #[arg(long)]
    insecure: bool,
}

/// Pulls, with a bar for each layer.
pub(super) fn pull(condo: &Condo, args: PullArgs) -> Result<ImageView> {
    let credentials = args.creds.as_deref().map(credentials).transpose()?;
    let request = PullRequest {
        reference: args.reference,
        name: args.name,
        init: args.init,
        stop_signal: args.stop_signal,
        credentials,
        auth_file: args.authfile,
        insecure: args.insecure || !args.tls_verify,
    };
    let bars = Bars::none();
    let pulled = condo.image_pull(&request, &|progress| bars.show(progress));
    drop(bars);
    Ok(pulled?)
}

/// `USER:PASSWORD`, or `USER` and the password's line on standard input, where no list of processes shows it.
fn credentials(text: &str) -> Result<Credentials> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, password.to_owned()),
        None => {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line)?;
            (text, line.trim_end_matches(['\n', '\r']).to_owned())
        }
    };
    if user.is_empty() || password.is_empty() {
        let problem = "is not USER:PASSWORD, nor USER with the password on standard input";
        return Err(Error::invalid("--creds", user, problem).into());
    }
    Ok(Credentials::new(user, password))
}
