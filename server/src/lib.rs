//! `condo-server`: LXD's REST API 1.0, its core, over condo's VPSs, so that what drives LXD drives condo.
//!
//! It stands beside `cli` on the staircase of the house: thin over the functions of `condo::vps`, which it never goes past.
//! ```text
//!  listen      sockets, TLS, one connection
//!  routes      which request goes where
//!  instances images profiles networks host about     one subject of the API each
//!  trust       who may ask
//!  keys        LXD's configuration keys and devices as condo's configuration, and back
//!  operations events websocket     what goes on in the background, and whoever watches it
//!  openapi     a description of all of it
//!  web         the console in the browser
//!  spool       long bodies, on their way
//!  errand      what is done to VPSs: in a process of its own
//!  server      what all requests share
//!  request reply     envelopes
//! ```
//! # What it does not keep
//! Nothing but operations that go on, in memory. Whatever lasts is in condo's records, where the command line finds it too.
//! It may be killed at any time: what it was doing goes on in a process of its own, and is completed or undone there.
//!
//! # Why errands
//! This process has threads, and the runtime clones: between `clone3(2)` and `execve(2)` of a process with threads nothing may be
//! allocated or locked. So everything that enters or changes a VPS is done by this program executed anew, with one thread, its own
//! signals and streams, which is just what a command of `condo` has. Reading records and figures is done here.

use std::process::ExitCode;

mod about;
mod args;
mod errand;
mod events;
mod host;
mod images;
mod instances;
mod keys;
mod listen;
mod log_lines;
mod networks;
mod openapi;
mod operations;
mod profiles;
mod projects;
mod reply;
mod request;
mod routes;
mod server;
mod spool;
mod trust;
mod web;

/// The command line, for manual pages and completions.
pub fn command() -> clap::Command {
    <args::Args as clap::CommandFactory>::command()
}

/// Runs this process: as the server, as one of its errands, or for a question about who is trusted.
pub fn main() -> ExitCode {
    match errand::main() {
        Some(code) => code,
        None => args::main(),
    }
}
