//! A house with a server in front of it, and clients.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness;
use crate::vps::house::{House, eventually};

/// A house with a server in front of it.
pub struct Reception {
    pub house: House,
    pub server: Child,
}

impl Reception {
    pub fn new() -> Result<Self> {
        Self::with(&[])
    }

    /// With these arguments for the server.
    pub fn with(arguments: &[&str]) -> Result<Self> {
        let house = House::new()?;
        let server = serve_with(&house, arguments)?;
        let mut reception = Self { house, server };
        reception.house.settle_in();
        Ok(reception)
    }

    pub fn lxc(&self, words: &[&str]) -> Command {
        let mut command = Command::new("lxc");
        command
            .args(words)
            .env("LXD_SOCKET", self.house.root.join("run/api.socket"))
            .env("LXD_CONF", harness::tempdir().join("lxc"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command that has to succeed; what it printed.
    pub fn ok(&self, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        harness::run(&mut self.lxc(&words)).with_context(|| format!("lxc {line}"))
    }

    pub fn output(&self, words: &[&str]) -> Result<Output> {
        Ok(self.lxc(words).output()?)
    }

    /// A request as it is, and its answer.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Result<(u16, Value)> {
        ask(&self.house, method, path, body)
    }

    pub fn leave(mut self) -> Result<()> {
        end(&mut self.server, Signal::SIGTERM)?;
        self.house.ok("delete --force --all")?;
        Ok(())
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        let _ = end(&mut self.server, Signal::SIGKILL);
    }
}

fn ask(house: &House, method: &str, path: &str, body: &str) -> Result<(u16, Value)> {
    let mut stream = UnixStream::connect(house.root.join("run/api.socket"))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    let (head, body) = said.split_once("\r\n\r\n").context("no head")?;
    let code = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((code, serde_json::from_str(body).with_context(|| said.clone())?))
}

pub fn serve(house: &House) -> Result<Child> {
    serve_with(house, &[])
}

fn serve_with(house: &House, arguments: &[&str]) -> Result<Child> {
    let program = harness::condo_server();
    ensure!(program.exists(), "build it first: cargo build -p condo-server");
    let server = Command::new(program)
        .args(arguments)
        .env("CONDO_ROOT", &house.root)
        .stdin(Stdio::null())
        .spawn()?;
    // A connection says nothing: what a server that was killed had begun to start holds its socket for a moment.
    eventually("the server answers", || Ok(ask(house, "GET", "/1.0", "").is_ok()))?;
    Ok(server)
}

pub fn end(server: &mut Child, signal: Signal) -> Result<()> {
    if server.try_wait()?.is_none() {
        kill(Pid::from_raw(i32::try_from(server.id())?), signal)?;
        server.wait()?;
    }
    Ok(())
}
