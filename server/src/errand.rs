//! Errands: one call of the library in a process of its own, which is this program executed anew.
//!
//! ```text
//!  server                                errand (one thread, own process group)
//!   run ──spawn──> condo-server errand    descriptor 3: a socket
//!   ── order (JSON), end of file ──>      reads it
//!                                         does it
//!   <── outcome (JSON) ──                 ends
//! ```
//! An errand outlives the server: nothing is left half done because that was stopped.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use axum::http::StatusCode;
use command_fds::{CommandFdExt, FdMapping};
use condo::error::{During, Error};
use condo::vps::record::instance::Condo;
use condo::vps::record::name::Name;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::AsyncReadExt;

use crate::log_lines;
use crate::reply::Problem;

mod beside;
mod task;

pub(crate) use beside::{FileTask, ImageTask, NetworkTask};
pub(crate) use task::{PATIENCE, Program, Task};

/// What this program is told to be one.
const ERRAND: &str = "errand";
/// Where an errand finds its order.
const ORDER: i32 = 3;

/// Whose VPSs are meant: those of the condo below `root` or the host's own, of one project or of all.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Whose {
    pub(crate) root: Option<PathBuf>,
    pub(crate) project: Option<Name>,
}

impl Whose {
    /// The condo that knows no others.
    pub(crate) fn open(self) -> condo::error::Result<Condo> {
        Condo::open(self.root.as_deref())?.within(self.project)
    }
}

/// What is to be done, and to whose VPSs.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    whose: Whose,
    task: Task,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
enum Outcome {
    Done(Value),
    Failed { code: u16, text: String, status: i32 },
}

/// An errand that is being done.
pub(crate) struct Errand {
    child: tokio::process::Child,
    socket: tokio::net::UnixStream,
}

/// Why an errand failed: what to answer, and the exit status of a program that could not be started (126 or 127 as shells have it).
pub(crate) struct Failed {
    pub(crate) problem: Problem,
    pub(crate) status: i32,
}

/// What an errand reads and writes beside its order.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    input: Option<File>,
    output: Option<File>,
}

impl Streams {
    /// It reads a file.
    pub(crate) fn from(file: File) -> Self {
        Self {
            input: Some(file),
            output: None,
        }
    }

    /// It writes a file.
    pub(crate) fn to(file: File) -> Self {
        Self {
            input: None,
            output: Some(file),
        }
    }
}

/// Does a task that is no program's and waits for its end.
pub(crate) async fn run(whose: Whose, task: Task, streams: Streams) -> Result<Value, Problem> {
    let stdio = |file: Option<File>| file.map_or_else(Stdio::null, Stdio::from);
    let streams = [stdio(streams.input), stdio(streams.output), Stdio::inherit()];
    let errand = Errand::start(whose, task, streams).await?;
    errand.finish().await.map_err(|failed| failed.problem)
}

impl Errand {
    /// Starts a process with these streams that does a task.
    pub(crate) async fn start(whose: Whose, task: Task, streams: [Stdio; 3]) -> Result<Self, Problem> {
        let failed = |e: std::io::Error| Problem::internal(format!("start an errand: {e}"));
        let order = serde_json::to_vec(&Order { whose, task }).map_err(Error::from)?;
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let child = command(streams, theirs.into())
            .map_err(failed)?
            .spawn()
            .map_err(failed)?;
        let mut socket = tokio::net::UnixStream::from_std(ours).map_err(failed)?;
        tokio::io::AsyncWriteExt::write_all(&mut socket, &order)
            .await
            .map_err(failed)?;
        tokio::io::AsyncWriteExt::shutdown(&mut socket)
            .await
            .map_err(failed)?;
        Ok(Self { child, socket })
    }

    /// The process.
    pub(crate) fn pid(&self) -> Option<rustix::process::Pid> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        pid.and_then(rustix::process::Pid::from_raw)
    }

    /// Waits for its end.
    pub(crate) async fn finish(mut self) -> Result<Value, Failed> {
        let mut said = Vec::new();
        let read = self.socket.read_to_end(&mut said).await;
        let ended = self.child.wait().await;
        let internal = |text: String| Failed {
            problem: Problem::internal(text),
            status: -1,
        };
        read.map_err(|e| internal(format!("listen to an errand: {e}")))?;
        match serde_json::from_slice(&said) {
            Ok(Outcome::Done(value)) => Ok(value),
            Ok(Outcome::Failed { code, text, status }) => Err(Failed {
                problem: Problem::of_status(
                    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                    &text,
                ),
                status,
            }),
            Err(_) => Err(internal(match ended {
                Ok(status) => format!("an errand ended without a word ({status})"),
                Err(e) => format!("an errand is lost: {e}"),
            })),
        }
    }
}

fn command([input, output, error]: [Stdio; 3], order: OwnedFd) -> std::io::Result<tokio::process::Command> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("condo-server")
        .arg(ERRAND)
        .current_dir("/")
        .stdin(input)
        .stdout(output)
        .stderr(error)
        // Whoever interrupts the server at a terminal does not interrupt what it has begun.
        .process_group(0);
    let mapped = command.fd_mappings(vec![FdMapping {
        parent_fd: order,
        child_fd: ORDER,
    }]);
    mapped.map_err(std::io::Error::other)?;
    Ok(command.into())
}

/// Runs as an errand if this process was started as one.
pub(crate) fn main() -> Option<ExitCode> {
    if std::env::args_os().nth(1).as_deref() != Some(OsStr::new(ERRAND)) {
        return None;
    }
    match serve() {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "condo-server: errand: {e}");
            Some(ExitCode::FAILURE)
        }
    }
}

fn serve() -> Result<(), Error> {
    let socket = condo::sys::fd::adopt(ORDER).during(|| "take the order of the server")?;
    condo::sys::fd::close_on_exec_from(ORDER)?;
    let mut socket = UnixStream::from(socket);
    let mut order = Vec::new();
    socket.read_to_end(&mut order)?;
    let Order { whose, task } = serde_json::from_slice(&order)?;
    if !task.has_streams() {
        log_lines::start(0);
    }
    let nameless = task.nameless_image().map(str::to_owned);
    let condo = match whose.open() {
        Ok(condo) => condo,
        Err(e) => return tell(&mut socket, &failed(e)).map(drop),
    };
    let outcome = match task.run(&condo) {
        Ok(value) => Outcome::Done(value),
        Err(e) => failed(e),
    };
    // A server that is gone meanwhile is no failure of what was done.
    if !tell(&mut socket, &outcome)?
        && let Some(image) = nameless
    {
        // But for what only it would have given a name.
        let _ = condo.image_remove(&image);
    }
    Ok(())
}

/// Whether the server has heard the outcome.
fn tell(socket: &mut UnixStream, outcome: &Outcome) -> Result<bool, Error> {
    Ok(socket.write_all(&serde_json::to_vec(outcome)?).is_ok())
}

fn failed(e: Error) -> Outcome {
    let status = match e.root() {
        Error::Exec { source, .. } if source.kind() == std::io::ErrorKind::NotFound => 127,
        Error::Exec { .. } => 126,
        _ => -1,
    };
    let problem = Problem::from(e);
    Outcome::Failed {
        code: problem.code.as_u16(),
        text: problem.text,
        status,
    }
}
