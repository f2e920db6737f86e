//! `sd_notify(3)` from inside, to the service manager of whoever starts the container.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Container, ensure_eq, until};
use crate::harness;

tests![
    the_manager_hears_that_it_is_ready,
    the_manager_hears_nothing_else,
    without_a_manager_there_is_no_socket,
];

/// A container that finds its socket and goes on until it is let go.
fn waiting() -> Result<Container> {
    let mut c = Container::sh(
        "test -w $NOTIFY_SOCKET || exit 9; touch /tmp/found; until test -e /tmp/go; do sleep 0.05; done",
    )?;
    c.set("/process/user", json!({"uid": 1000, "gid": 1000}))?;
    fs::create_dir_all(c.bundle.rootfs().join("tmp"))?;
    harness::give(&c.bundle.rootfs().join("tmp"), 1000)?;
    Ok(c)
}

fn found_its_socket(c: &Container) -> Result<()> {
    until("the program finds its socket", || {
        Ok(c.bundle.rootfs().join("tmp/found").exists())
    })
}

/// Says something by the container's socket, as its processes see it.
fn say(c: &Container, text: &str) -> Result<()> {
    let path = format!("/proc/{}/root/run/notify/notify.sock", c.pid()?);
    UnixDatagram::unbound()?.send_to(text.as_bytes(), path)?;
    Ok(())
}

fn manager() -> Result<(UnixDatagram, String)> {
    let path = harness::tempdir().join("manager");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(Duration::from_secs(20 * harness::timeout_factor())))?;
    Ok((socket, path.to_str().context("a path")?.to_owned()))
}

fn with(manager: &str, mut command: Command) -> Result<Child> {
    let command = command.env("NOTIFY_SOCKET", manager).stdout(Stdio::null());
    Ok(command.spawn()?)
}

fn hear(socket: &UnixDatagram) -> Result<String> {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).context("wait for a message")?;
    Ok(String::from_utf8_lossy(&buffer[..length]).trim().to_owned())
}

fn the_manager_hears_that_it_is_ready() -> Result<()> {
    known_difference!(
        "runc",
        "passes `READY=0` on as well, and sends no barrier before 1.2"
    );
    let (socket, path) = manager()?;
    let c = waiting()?;
    let created = with(&path, c.command(&["create", "--bundle", "%", "@"]))?.wait()?;
    ensure!(created.success(), "create: {created}");
    let mut start = with(&path, c.command(&["start", "@"]))?;
    found_its_socket(&c)?;
    say(&c, "STATUS=soon\nREADY=0")?;
    say(&c, "STATUS=now\nREADY=1\nFDSTORE=1")?;
    ensure_eq!(hear(&socket)?, "READY=1");
    ensure_eq!(hear(&socket)?, format!("MAINPID={}", c.pid()?));
    ensure_eq!(hear(&socket)?, "BARRIER=1");
    // Its descriptor went with the message, so that nobody waits any more.
    let started = start.wait()?;
    ensure!(started.success(), "start: {started}");
    ensure_eq!(c.status()?, "running");
    // Who comes in later has none of it.
    ensure_eq!(c.exec(&["@", "sh", "-c", "echo [$NOTIFY_SOCKET]"])?.ok()?, "[]\n");
    c.cleared()
}

/// Neither another main process nor files to keep; and one that never is ready ends the waiting with itself.
fn the_manager_hears_nothing_else() -> Result<()> {
    known_difference!("runc", "waits until somebody has waited for the process");
    let (socket, path) = manager()?;
    let c = waiting()?;
    let mut run = with(&path, c.command(&["run", "--detach", "--bundle", "%", "@"]))?;
    found_its_socket(&c)?;
    say(&c, "MAINPID=1")?;
    say(&c, "FDSTORE=1\nXREADY=1")?;
    fs::write(c.bundle.rootfs().join("tmp/go"), "")?;
    let ended = run.wait()?;
    ensure!(ended.success(), "run: {ended}");
    socket.set_nonblocking(true)?;
    let heard = hear(&socket);
    ensure!(heard.is_err(), "{heard:?}");
    c.cleared()
}

fn without_a_manager_there_is_no_socket() -> Result<()> {
    let c = Container::sh("echo \"[$NOTIFY_SOCKET]\"; ls -d /run/notify")?;
    ensure_eq!(c.run()?.out, "[]\n");
    Ok(())
}
