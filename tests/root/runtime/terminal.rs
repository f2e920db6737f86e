//! Terminals: handed over by a console socket, or copied from and to the caller's.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;

use super::{Container, Ran, ensure_eq, says_all, until};
use crate::harness::{self, Receiver};

tests![
    a_reader_that_is_stuck_holds_nobody,
    a_console_socket_gets_the_master,
    exec_has_a_terminal_of_its_own,
    in_the_foreground_it_is_the_callers,
    exec_in_the_foreground,
    input_that_nobody_reads_holds_nobody,
    much_input_arrives_whole,
    the_size_is_as_asked,
    flags_that_contradict_the_config_are_refused,
    a_pidfd_is_handed_over,
    newlines_are_translated_once_by_the_callers_terminal,
];

const FACTS: &str = "test -t 0 && test -t 1 && test -t 2 && echo terminal; (exec 3</dev/tty) && echo controlling; tty; test -c /dev/console && echo console";

/// What they are in a container with a terminal of its own.
const OF_ITS_OWN: &[&str] = &["terminal\n", "controlling\n", "/dev/pts/0\n", "console\n"];

/// Reads from a terminal until `enough`, or its other side is closed; lines end as they do in text.
pub fn read_until(master: &OwnedFd, enough: &str) -> Result<String> {
    Ok(read_raw_until(master, enough)?.replace('\r', ""))
}

fn read_raw_until(master: &OwnedFd, enough: &str) -> Result<String> {
    let mut file = File::from(master.try_clone()?);
    let mut seen = String::new();
    while !seen.contains(enough) {
        let mut fds = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(20_000 * i32::try_from(harness::timeout_factor())?)?;
        ensure!(poll(&mut fds, patience)? > 0, "nothing more after: {seen}");
        let mut bytes = [0; 1024];
        match file.read(&mut bytes) {
            Ok(n) if n > 0 => seen.push_str(&String::from_utf8_lossy(&bytes[..n])),
            _ => break,
        }
    }
    Ok(seen)
}

impl Container {
    /// `create` with a console socket.
    pub fn create_with_console(&self, socket: &str) -> Result<Ran> {
        self.call(&["create", "--console-socket", socket, "--bundle", "%", "@"])
    }

    /// Creates and starts; the terminal that was handed over.
    pub fn up_with_console(&self, receiver: &Receiver) -> Result<OwnedFd> {
        self.create_with_console(receiver.path())?.ok()?;
        let master = receiver.descriptor()?;
        self.start()?;
        Ok(master)
    }
}

fn with_terminal(script: &str) -> Result<Container> {
    let mut c = Container::sh(script)?;
    c.set("/process/terminal", true.into())?;
    Ok(c)
}

fn a_console_socket_gets_the_master() -> Result<()> {
    let c = with_terminal(&format!(
        "{FACTS}; read line; echo got $line; echo END; exec sleep 100000"
    ))?;
    let master = c.up_with_console(&Receiver::new()?)?;
    File::from(master.try_clone()?).write_all(b"hello\n")?;
    let said = read_until(&master, "END")?;
    says_all(&said, OF_ITS_OWN)?;
    says_all(&said, &["got hello\n"])
}

fn exec_has_a_terminal_of_its_own() -> Result<()> {
    let c = Container::idle()?;
    c.up()?;
    let receiver = Receiver::new()?;
    let script = format!("{FACTS}; echo END; exec sleep 100000");
    let options = ["--tty", "--console-socket", receiver.path()];
    let pid = c.exec_detached(&options, &["sh", "-c", &script])?;
    let said = read_until(&receiver.descriptor()?, "END")?;
    ensure!(said.contains("terminal\ncontrolling\n/dev/pts/0\n"), "{said}");
    super::end(pid)
}

/// Starts a command on a terminal of its own, as a user does.
pub fn on_a_terminal(command: &Command, rows: u16, columns: u16) -> Result<(OwnedFd, Child)> {
    let size = nix::pty::Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = nix::pty::openpty(Some(&size), None)?;
    let mut copy = Command::new("setsid");
    copy.arg("--ctty")
        .arg("--wait")
        .arg(command.get_program())
        .args(command.get_args());
    copy.stdin(Stdio::from(pty.slave.try_clone()?))
        .stdout(Stdio::from(pty.slave.try_clone()?))
        .stderr(Stdio::from(pty.slave));
    Ok((pty.master, copy.spawn()?))
}

fn in_the_foreground_it_is_the_callers() -> Result<()> {
    let c = with_terminal(&format!(
        "{FACTS}; stty size; read line; echo got $line; echo END; exit 6"
    ))?;
    let (master, mut child) = on_a_terminal(&c.command(&["run", "--bundle", "%", "@"]), 33, 99)?;
    File::from(master.try_clone()?).write_all(b"hello\r")?;
    let said = read_until(&master, "END")?;
    says_all(&said, OF_ITS_OWN)?;
    says_all(&said, &["got hello\n"])?;
    // runc gives it when the program may have asked already.
    ensure!(said.contains("33 99\n") || !harness::is_ours(), "{said}");
    ensure_eq!(child.wait()?.code(), Some(6));
    c.nothing_left()
}

fn exec_in_the_foreground() -> Result<()> {
    known_difference!("runc", "gives the size when the program may have asked already");
    let c = Container::idle()?;
    c.up()?;
    let (master, mut child) = on_a_terminal(
        &c.command(&[
            "exec",
            "-t",
            "@",
            "sh",
            "-c",
            "test -t 0 && echo terminal; stty size; echo END; exit 6",
        ]),
        20,
        70,
    )?;
    let said = read_until(&master, "END")?;
    ensure!(said.contains("terminal\n20 70\n"), "{said}");
    ensure_eq!(child.wait()?.code(), Some(6));
    Ok(())
}

fn input_that_nobody_reads_holds_nobody() -> Result<()> {
    known_difference!("runc", "may wait for ever");
    let c = with_terminal("stty raw -echo; sleep 0.5; exit 6")?;
    let mut child = c
        .command(&["run", "--bundle", "%", "@"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    // It fails when nobody reads to the end.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&b"y\n".repeat(200_000))));
    let ended = until("it ends", || Ok(child.try_wait()?.is_some()));
    if ended.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    feeder.join().expect("a thread");
    ended?;
    ensure_eq!(status.code(), Some(6));
    c.nothing_left()
}

fn much_input_arrives_whole() -> Result<()> {
    known_difference!("runc", "opens the terminal of a caller that may have none");
    let c = with_terminal("stty raw -echo; echo ready; head -c 200000 | md5sum")?;
    let (mut command, dir) = (c.command(&["run", "--bundle", "%", "@"]), harness::tempdir());
    let bytes: Vec<u8> = (b'a'..=b'z').cycle().take(200_000).collect();
    std::fs::write(dir.join("bytes"), &bytes)?;
    let sum = harness::run(Command::new("md5sum").stdin(File::open(dir.join("bytes"))?))?;
    // In pieces: what comes before the terminal is raw would be changed by it.
    let out = dir.join("arrived");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(File::create(&out)?)
        .spawn()?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let said = || Ok(std::fs::read_to_string(&out)?);
    until("it is ready", || said().map(|s: String| s.contains("ready")))?;
    stdin.write_all(&bytes)?;
    until("it ends", || Ok(child.try_wait()?.is_some()))?;
    ensure!(said()?.contains(sum.trim()), "{} instead of {sum}", said()?);
    drop(stdin);
    Ok(())
}

fn the_size_is_as_asked() -> Result<()> {
    let mut c = with_terminal("stty size; echo END; exec sleep 100000")?;
    c.set("/process/consoleSize", json!({"height": 12, "width": 34}))?;
    let master = c.up_with_console(&Receiver::new()?)?;
    let said = read_until(&master, "END")?;
    ensure!(said.contains("12 34\n"), "{said}");
    Ok(())
}

fn flags_that_contradict_the_config_are_refused() -> Result<()> {
    let c = with_terminal("true")?;
    for args in [
        &["create", "--bundle", "%", "@"][..],
        &["run", "--detach", "--bundle", "%", "@"],
    ] {
        let fault = c.call(args)?.fault()?;
        ensure!(
            fault.contains("cannot allocate tty if runc will detach without setting console socket"),
            "{fault}"
        );
    }
    let c = Container::new(&["true"])?;
    let receiver = Receiver::new()?;
    let fault = c.create_with_console(receiver.path())?.fault()?;
    ensure!(
        fault.contains("console socket") || fault.contains("--console-socket"),
        "{fault}"
    );
    let fault = with_terminal("true")?
        .create_with_console("/no/such/socket")?
        .fault()?;
    ensure!(
        fault.contains("/no/such/socket") || !harness::is_ours(),
        "{fault}"
    );
    c.nothing_left()
}

fn a_pidfd_is_handed_over() -> Result<()> {
    known_difference!("runc", "before 1.2 has no --pidfd-socket");
    let c = Container::idle()?;
    let receiver = Receiver::new()?;
    c.call(&["create", "--pidfd-socket", receiver.path(), "--bundle", "%", "@"])?
        .ok()?;
    let pidfd = receiver.descriptor()?;
    let info = std::fs::read_to_string(format!(
        "/proc/self/fdinfo/{}",
        std::os::fd::AsRawFd::as_raw_fd(&pidfd)
    ))?;
    ensure!(info.contains(&format!("Pid:\t{}\n", c.pid()?)), "{info}");
    Ok(())
}

fn newlines_are_translated_once_by_the_callers_terminal() -> Result<()> {
    let script = "echo one; echo two; echo END";
    let mut c = with_terminal(script)?;
    let words = ["run", "--bundle", "%", "@"];
    let (master, mut child) = on_a_terminal(&c.command(&words), 20, 70)?;
    let said = read_raw_until(&master, "END")?;
    child.wait()?;
    ensure!(said.contains("one\r\ntwo\r\nEND"), "{said:?}");
    c.set("/process/args", json!(["sleep", "100000"]))?
        .set("/process/terminal", false.into())?;
    c.up()?;
    if harness::is_ours() {
        // Others want a terminal to copy to.
        let exec = ["exec", "-t", "@", "sh", "-c", script];
        ensure_eq!(c.call(&exec)?.ok()?, "one\ntwo\nEND\n");
    }
    // Who takes the master himself sets it up himself.
    let receiver = Receiver::new()?;
    let options = ["--tty", "--console-socket", receiver.path()];
    let pid = c.exec_detached(&options, &["sh", "-c", script])?;
    let said = read_raw_until(&receiver.descriptor()?, "END")?;
    ensure!(said.contains("one\r\ntwo\r\nEND"), "{said:?}");
    super::end(pid)
}

/// Whoever reads what `exec` shows may never do so again: a signal still ends it.
fn a_reader_that_is_stuck_holds_nobody() -> Result<()> {
    known_difference!("runc", "needs a terminal of its own");
    let c = Container::idle()?;
    c.up()?;
    let (reader, writer) = std::io::pipe()?;
    let mut exec = c.command(&["exec", "--tty", "@", "yes"]).stdout(writer).spawn()?;
    let held = || rustix::io::ioctl_fionread(&reader);
    let mut before = 0;
    until("the pipe is full", || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let now = held()?;
        Ok(now > 4096 && std::mem::replace(&mut before, now) == now)
    })?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(exec.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM)?;
    until("exec ends", || Ok(exec.try_wait()?.is_some())).inspect_err(|_| drop(exec.kill()))?;
    ensure_eq!(exec.wait()?.code(), Some(128 + 15));
    c.cleared()
}
