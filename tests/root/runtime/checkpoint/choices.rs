//! What can be chosen: what becomes of cgroups, and of files and sockets that CRIU saves only when it is told to.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::memory::{Helper, own_network};
use super::{COUNT, Saved, write_count};
use crate::harness;
use crate::runtime::{ensure_eq, until};

tests![
    cgroups_are_managed_or_not in guest: 300,
    open_files_and_connections_have_their_flags in guest: 300,
];

/// The cgroup of the container's init, as the host names it.
fn cgroup(s: &Saved) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", s.c.pid()?))?;
    let path = text.trim().strip_prefix("0::").context("no cgroup of v2")?;
    Ok(path.to_owned())
}

/// Restores in another cgroup than before, and says which.
fn elsewhere(s: &mut Saved, mode: &str) -> Result<String> {
    let path = format!("/{}", harness::unique());
    s.c.set("/linux/cgroupsPath", json!(path))?;
    s.bring_back(&["--manage-cgroups-mode", mode])?;
    Ok(path)
}

fn cgroups_are_managed_or_not() -> Result<()> {
    needs!(root, criu, cgroup2);
    let into = "mkdir /sys/fs/cgroup/below; echo 1 > /sys/fs/cgroup/below/cgroup.procs";
    let mut s = Saved::new(&format!("{into}; {COUNT}"))?;
    let mounts = s.c.bundle.config["mounts"].as_array_mut().context("no mounts")?;
    mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    s.c.push(
        "/mounts",
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}),
    )?
    .set("/linux/resources/pids", json!({"limit": 77}))?;
    s.c.up()?;
    s.counts()?;
    ensure!(cgroup(&s)?.ends_with("/below"), "{}", cgroup(&s)?);
    s.save(&[])?;
    s.c.nothing_left()?;
    let path = elsewhere(&mut s, "soft")?;
    ensure_eq!(cgroup(&s)?, format!("{path}/below"));
    s.end()?;
    let path = elsewhere(&mut s, "ignore")?;
    ensure_eq!(cgroup(&s)?, path);
    // It has a namespace of its own even so.
    let seen =
        s.c.exec(&["@", "cat", "/proc/1/cgroup", "/sys/fs/cgroup/pids.max"])?;
    ensure_eq!(seen.ok()?, "0::/\n77\n");
    s.counts()?;
    s.end()
}

/// A file without the name it was opened by, a connection within, one that is not taken, and streams that lead out: a socket on
/// 0 and a pipe on 3. Asked for, it writes its count to all of them.
const OPEN: &str = concat!(
    "echo > /first; exec 8>>/first; ln /first /second; rm /first; mkfifo /idle
    busybox nc -l -p 5001 <>/idle > /dev/null & busybox nc -l -p 5002 & deaf=$!
    until grep -q :1389 /proc/net/tcp6 && grep -q :138A /proc/net/tcp6; do sleep 0.1; done
    kill -STOP $deaf; busybox nc 127.0.0.1 5001 <>/idle > /dev/null &
    i=0; while :; do i=$((i+1)); ",
    write_count!(),
    "
    if test -e /ask; then echo $i >&0; echo $i >&3; echo $i >&8; rm /ask; fi; sleep 0.05; done"
);

/// Runs a command of the runtime with a pipe on descriptor 3, and returns the pipe's other end.
fn with_pipe(command: &Command, stdin: Stdio) -> Result<ChildStdout> {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" 3>&1 >/dev/null", "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    let mut child = shell.stdin(stdin).stdout(Stdio::piped()).spawn()?;
    let pipe = child.stdout.take().context("a pipe")?;
    rustix::io::ioctl_fionbio(&pipe, true)?;
    ensure!(child.wait()?.success(), "{command:?}");
    Ok(pipe)
}

/// The count as it comes by all three ways.
fn ask(s: &Saved, socket: &UnixDatagram, pipe: &mut ChildStdout) -> Result<u64> {
    fs::write(s.file("ask"), "")?;
    until("it answers", || Ok(!s.file("ask").exists()))?;
    let mut bytes = [0; 32];
    let length = socket.recv(&mut bytes)?;
    let by_socket = String::from_utf8_lossy(&bytes[..length]).into_owned();
    let length = pipe.read(&mut bytes)?;
    ensure_eq!(String::from_utf8_lossy(&bytes[..length]), by_socket);
    let written = fs::read_to_string(s.file("second"))?;
    ensure_eq!(written.lines().last(), by_socket.lines().last());
    Ok(by_socket.trim().parse()?)
}

/// Whether somebody in the container's network is connected to a port, whose number is in hexadecimal.
fn connected(s: &Saved, port: &str) -> Result<bool> {
    let table = fs::read_to_string(format!("/proc/{}/net/tcp", s.c.pid()?))?;
    let mut lines = table.lines().map(str::split_whitespace);
    Ok(lines.any(|mut line| {
        let there = line.nth(2).is_some_and(|there| there.ends_with(port));
        there && line.next() == Some("01")
    }))
}

fn open_files_and_connections_have_their_flags() -> Result<()> {
    needs!(root, criu, program: ip);
    own_network()?;
    let dir = harness::tempdir();
    let (outside, inside) = (UnixDatagram::bind(dir.join("socket"))?, UnixDatagram::unbound()?);
    outside.set_nonblocking(true)?;
    inside.connect(dir.join("socket"))?;
    let mut s = Saved::new(OPEN)?;
    s.c.namespace("network", None)?.push(
        "/mounts",
        json!({"source": dir, "destination": dir, "type": "bind", "options": ["bind"]}),
    )?;
    let create =
        s.c.command(&["create", "--preserve-fds", "1", "--bundle", "%", "@"]);
    let mut pipe = with_pipe(&create, OwnedFd::from(inside).into())?;
    s.c.start()?;
    s.counts()?;
    let before = ask(&s, &outside, &mut pipe)?;
    let mut client = Command::new("busybox");
    client.args(["nc", "127.0.0.1", "5002"]);
    let _client = Helper(client.stdin(Stdio::piped()).spawn()?);
    until("both are connected", || {
        Ok(connected(&s, ":1389")? && connected(&s, ":138A")?)
    })?;
    let flags = [
        ("--link-remap", "Can't create link remap"),
        ("--tcp-skip-in-flight", "In-flight connection"),
        ("--tcp-established", ""),
        ("--ext-unix-sk", ""),
    ];
    for (without, complaint) in flags.into_iter().take(2) {
        let others = flags
            .iter()
            .map(|(flag, _)| *flag)
            .filter(|flag| *flag != without);
        let refused = s.try_save(&others.collect::<Vec<_>>())?.fault()?;
        ensure!(refused.contains(complaint), "{without}: {refused}");
    }
    s.save(&flags.map(|(flag, _)| flag))?;
    s.c.nothing_left()?;
    let restore = s.returning(&["--detach", "--preserve-fds", "1", "--tcp-close", "--ext-unix-sk"])?;
    let mut pipe = with_pipe(&restore, Stdio::null())?;
    ensure!(ask(&s, &outside, &mut pipe)? > before, "it began anew");
    ensure!(!connected(&s, ":1389")?, "still connected");
    for entry in fs::read_dir(s.c.bundle.rootfs())? {
        let name = entry?.file_name();
        ensure!(
            !name.to_string_lossy().starts_with("link_remap"),
            "{name:?} is left"
        );
    }
    s.end()
}
