//! gRPC by way of curl: one request, one response. A client of its own would bring an asynchronous runtime along.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use prost::Message;

use crate::engines::room::Room;

/// What asks the Container Runtime Interface for things.
pub struct Kubelet<'a> {
    room: &'a Room,
    socket: String,
}

impl<'a> Kubelet<'a> {
    pub fn new(room: &'a Room, socket: &Path) -> Self {
        Self {
            room,
            socket: socket.display().to_string(),
        }
    }

    /// Calls a method of the service; its response, or the message of its error.
    pub fn ask<R: Message + Default>(&self, method: &str, request: &impl Message) -> Result<R> {
        // A message comes after a byte that says whether it is compressed, and four with its length.
        let message = request.encode_to_vec();
        let mut body = vec![0];
        body.extend(u32::try_from(message.len())?.to_be_bytes());
        body.extend(message);
        let [sent, got, headers] = ["request", "response", "headers"].map(|name| self.room.path(name));
        std::fs::write(&sent, body)?;
        let mut curl = self.room.command("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--http2-prior-knowledge",
            "--unix-socket",
            &self.socket,
        ]);
        curl.args([
            "--header",
            "Content-Type: application/grpc",
            "--header",
            "TE: trailers",
            "--data-binary",
        ]);
        curl.arg(format!("@{}", sent.display()));
        curl.arg("--output").arg(&got).arg("--dump-header").arg(&headers);
        curl.arg(format!("http://localhost/runtime.v1.RuntimeService/{method}"));
        crate::harness::run(&mut curl)?;
        // The status comes in a trailer.
        let headers = std::fs::read_to_string(&headers)?;
        let header = |name: &str| headers.lines().find_map(|line| line.strip_prefix(name));
        ensure!(
            header("grpc-status: ") == Some("0"),
            "{method}: {}",
            header("grpc-message: ").unwrap_or(&headers)
        );
        let response = std::fs::read(&got)?;
        R::decode(response.get(5..).context("no message")?).with_context(|| format!("what {method} responds"))
    }
}
