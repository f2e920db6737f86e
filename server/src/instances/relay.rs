//! Websockets on the one side, the streams of a program's errand on the other.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use condo::vps::record::name::Name;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{Winsize, tcsetwinsize};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::task::JoinSet;

use super::hub::Hub;
use super::stream::{self, Stream, Streams};
use crate::errand::{Errand, Failed, Program, Task};
use crate::operations::Operation;
use crate::reply::Problem;
use crate::server::Server;

/// How long a client may take to connect all that a program needs.
const CONNECT: Duration = Duration::from_secs(5);
/// How long what a program left may take on its way to a client.
const LAST: Duration = Duration::from_secs(30);
/// Read at once.
const PIECE: usize = 32 << 10;

/// What streams a program has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// The size of its terminal, if it has one.
    terminal: Option<Winsize>,
}

impl Shape {
    /// A terminal of this size, or three pipes.
    pub(super) fn new(interactive: bool, rows: Option<u16>, columns: Option<u16>) -> Self {
        Self {
            // A terminal without a size is one whose size is not known.
            terminal: interactive.then(|| {
                let known = |size: Option<u16>| size.filter(|size| *size > 0);
                stream::size(known(rows).unwrap_or(24), known(columns).unwrap_or(80))
            }),
        }
    }

    /// The websockets a client is offered.
    pub(super) fn names(&self) -> &'static [&'static str] {
        match self.terminal {
            Some(_) => &["0", "control"],
            None => &["0", "1", "2", "control"],
        }
    }

    /// Those that carry data, without which nothing begins. Some clients never open the one for control.
    fn needed(&self) -> &'static [&'static str] {
        match self.terminal {
            Some(_) => &["0"],
            None => &["0", "1", "2"],
        }
    }
}

fn unstarted(problem: Problem) -> Failed {
    Failed { problem, status: -1 }
}

/// Runs a program once a client has connected, and relays until it ends.
pub(super) async fn run(
    server: &Server,
    operation: &Operation,
    task: Task,
    shape: Shape,
    hub: Arc<Hub>,
) -> Result<Map<String, Value>, Failed> {
    let mut sockets = tokio::time::timeout(CONNECT, hub.gather(shape.needed()))
        .await
        .map_err(|_| unstarted(Problem::bad("Timed out waiting for websockets to connect")))?;
    let streams = match shape.terminal {
        Some(size) => stream::terminal(size),
        None => stream::pipes(),
    };
    let Streams { theirs, ours, master } = streams.map_err(|e| unstarted(e.into()))?;
    let errand = Errand::start(server.whose(), task, theirs)
        .await
        .map_err(unstarted)?;
    let pid = errand.pid();
    tokio::spawn(control(hub, pid, master));
    let mut outputs = JoinSet::new();
    let mut listening = JoinSet::new();
    for (stream, socket) in ours.into_iter().zip(sockets.drain(..)) {
        let (sender, receiver) = socket.split();
        match stream {
            Stream::In(input) => {
                listening.spawn(feed(input, receiver, false));
                outputs.spawn(async move { sender });
            }
            Stream::Out(output) => {
                outputs.spawn(show(output, sender));
                listening.spawn(drain(receiver));
            }
            Stream::Both(output, input) => {
                outputs.spawn(show(output, sender));
                listening.spawn(feed(input, receiver, true));
            }
        }
    }
    let finished = errand.finish();
    tokio::pin!(finished);
    let ended = tokio::select! {
        ended = &mut finished => ended,
        () = operation.cancel.cancelled() => {
            end(pid);
            finished.await
        }
    };
    farewell(outputs).await;
    ended.map(|status| Map::from_iter([("return".to_owned(), status)]))
}

/// Waits until a client has all of the output, and closes.
async fn farewell(mut outputs: JoinSet<SplitSink<WebSocket, Message>>) {
    let all = async {
        while let Some(done) = outputs.join_next().await {
            if let Ok(mut sender) = done {
                let _ = sender.send(Message::Close(None)).await;
            }
        }
    };
    let _ = tokio::time::timeout(LAST, all).await;
}

/// From a client to a program.
async fn feed(mut input: Sender, mut receiver: SplitStream<WebSocket>, typed: bool) {
    while let Some(Ok(message)) = receiver.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            // The end of input. A terminal has none.
            Message::Text(text) if text.is_empty() && !typed => break,
            Message::Text(text) => text.into(),
            Message::Close(_) => break,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        if input.write_all(&bytes).await.is_err() {
            break;
        }
    }
}

/// What comes from a client where only output goes: answers to pings.
async fn drain(mut receiver: SplitStream<WebSocket>) {
    while let Some(Ok(message)) = receiver.next().await {
        if matches!(message, Message::Close(_)) {
            return;
        }
    }
}

/// From a program to a client, until it ends. A client that is gone keeps no program from writing.
async fn show(
    mut output: Receiver,
    mut sender: SplitSink<WebSocket, Message>,
) -> SplitSink<WebSocket, Message> {
    let mut piece = vec![0; PIECE];
    let mut gone = false;
    // A terminal that nobody has open any more says so by an error.
    while let Ok(n @ 1..) = output.read(&mut piece).await {
        if !gone {
            let bytes = piece[..n].to_vec();
            gone = sender.send(Message::Binary(bytes.into())).await.is_err();
        }
    }
    let _ = sender.send(Message::Text("".into())).await;
    sender
}

/// What a client says beside the streams.
#[derive(Debug, Deserialize)]
struct Said {
    command: String,
    #[serde(default)]
    args: Option<Map<String, Value>>,
    #[serde(default)]
    signal: i32,
}

/// Follows what is said; when it is lost, the program's user is.
async fn control(hub: Arc<Hub>, pid: Option<Pid>, master: Option<OwnedFd>) {
    let Some(mut socket) = hub.get("control").await else {
        return;
    };
    while let Some(Ok(message)) = socket.recv().await {
        let text = match &message {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
            Message::Close(_) => break,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        let Ok(said) = serde_json::from_slice::<Said>(text) else {
            continue;
        };
        match said.command.as_str() {
            "window-resize" => resize(&said, pid, master.as_ref()),
            "signal" => pass_on(pid, said.signal),
            _ => {}
        }
    }
    end(pid);
}

/// Numbers come as text.
fn resize(said: &Said, pid: Option<Pid>, master: Option<&OwnedFd>) {
    let number = |key: &str| {
        let value = said.args.as_ref()?.get(key)?;
        value
            .as_str()
            .map_or_else(|| value.as_u64()?.try_into().ok(), |text| text.parse().ok())
    };
    if let (Some(master), Some(rows), Some(columns)) = (master, number("height"), number("width")) {
        let _ = tcsetwinsize(master, stream::size(rows, columns));
        // It is not the session's terminal, which the kernel would tell.
        pass_on(pid, Signal::WINCH.as_raw());
    }
}

/// To the errand, which passes it on to the program: all but those that it would not survive itself.
fn pass_on(pid: Option<Pid>, signal: i32) {
    match (pid, Signal::from_named_raw(signal)) {
        (_, Some(Signal::KILL)) => end(pid),
        (Some(pid), Some(signal)) if signal != Signal::STOP => drop(kill_process(pid, signal)),
        _ => {}
    }
}

/// Kills the program: the child of its errand, which then ends with its status. An errand without a program hears that its user
/// has hung up.
fn end(pid: Option<Pid>) {
    let Some(pid) = pid else { return };
    let path = format!("/proc/{0}/task/{0}/children", pid.as_raw_nonzero());
    let children = std::fs::read_to_string(path).unwrap_or_default();
    let children: Vec<Pid> = children
        .split_whitespace()
        .filter_map(|n| Pid::from_raw(n.parse().ok()?))
        .collect();
    if children.is_empty() {
        let _ = kill_process(pid, Signal::HUP);
    }
    for child in children {
        let _ = kill_process(child, Signal::KILL);
    }
}

/// Runs a program with no input whose output is kept if it is wanted: as much of it as a log may have.
pub(super) async fn silent(
    server: &Server,
    (name, program): (Name, Program),
    keep: Option<[std::fs::File; 2]>,
) -> Result<Map<String, Value>, Failed> {
    let io = |e: std::io::Error| unstarted(Problem::internal(format!("make a pipe: {e}")));
    let mut copies = JoinSet::new();
    let mut streams = [Stdio::null(), Stdio::null(), Stdio::null()];
    for (at, file) in keep.into_iter().flatten().enumerate() {
        let (read, write) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| io(e.into()))?;
        streams[at + 1] = Stdio::from(write);
        copies.spawn(keep_some(stream::reader(read).map_err(io)?, file));
    }
    let errand = Errand::start(server.whose(), Task::Exec(name, program), streams).await;
    let ended = errand.map_err(unstarted)?.finish().await;
    copies.join_all().await;
    ended.map(|status| Map::from_iter([("return".to_owned(), json!(status))]))
}

/// The most that is kept of one stream, in bytes.
const KEPT: usize = 1 << 20;

async fn keep_some(mut output: Receiver, mut file: std::fs::File) {
    use std::io::Write;
    let mut piece = vec![0; PIECE];
    let mut left = KEPT;
    while let Ok(n @ 1..) = output.read(&mut piece).await {
        let kept = n.min(left);
        left -= kept;
        let _ = file.write_all(&piece[..kept]);
    }
}
