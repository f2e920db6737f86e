//! What leads out of a container: mounts, terminals, connections, namespaces by path.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{COUNT, Saved, write_count};
use crate::harness::{self, Receiver};
use crate::runtime::terminal::read_until;
use crate::runtime::{ensure_eq, until};

tests![
    connections_go_on in guest: 400,
    connections_in_a_network_namespace_by_path_go_on in guest: 400,
    a_terminal_is_handed_over_again in guest: 300,
    bind_mounts_are_the_host_s_again in guest: 300,
    bind_mounts_below_shared_ones_are_too_on_systemd: 300,
    relative_bind_mounts_are_too in guest: 300,
    devices_in_a_joined_network_namespace_stay in guest: 300,
    places_of_mounts_are_made in guest: 300,
    namespaces_by_path_are_joined_again in guest: 300,
];

/// One end sends, the other counts what arrives: it goes on only as long as the connection does.
const TALK: &str = concat!(
    "sleep 100000 | busybox nc -l -p 5000 | while read i; do ",
    write_count!(),
    "; done &
    sleep 1; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done | busybox nc 127.0.0.1 5000"
);

fn connections_go_on() -> Result<()> {
    needs!(root, criu);
    let s = Saved::new(TALK)?;
    s.c.up()?;
    s.counts()?;
    let refused = s.try_save(&[])?.fault()?;
    ensure!(
        refused.contains("tcp-established") && refused.contains("dump.log") && refused.lines().count() == 1,
        "{refused}"
    );
    ensure_eq!(s.c.status()?, "running");
    s.counts()?;
    s.there_and_back(&["--tcp-established"], &["--tcp-established"])?;
    s.end()
}

/// A network namespace, kept by a process.
struct Net(std::process::Child);

impl Net {
    fn new() -> Result<Self> {
        let mut keep = Command::new("unshare");
        let keep = keep
            .args(["--net", "sh", "-c", "ip link set lo up && exec sleep 100000"])
            .spawn()?;
        let net = Self(keep);
        until("the namespace is there", || {
            Ok(fs::read_to_string(format!("/proc/{}/comm", net.0.id()))? == "sleep\n")
        })?;
        Ok(net)
    }

    fn path(&self, kind: &str) -> std::path::PathBuf {
        format!("/proc/{}/ns/{kind}", self.0.id()).into()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connections_in_a_network_namespace_by_path_go_on() -> Result<()> {
    needs!(root, criu, program: ip);
    let net = Net::new()?;
    let mut s = Saved::new(TALK)?;
    s.c.namespace("network", Some(&net.path("net")))?;
    s.c.up()?;
    s.counts()?;
    s.there_and_back(&["--tcp-established"], &["--tcp-established"])?;
    let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net"));
    ensure_eq!(of(&s.c.pid()?.to_string())?, of(&net.0.id().to_string())?);
    s.end()
}

fn a_terminal_is_handed_over_again() -> Result<()> {
    needs!(root, criu);
    let mut s = Saved::new("i=0; while read line; do i=$((i+1)); echo got $i $line; done")?;
    s.c.set("/process/terminal", true.into())?;
    let receiver = Receiver::new()?;
    let master = s.c.up_with_console(&receiver)?;
    rustix::io::write(&master, b"one\n")?;
    read_until(&master, "got 1 one")?;
    s.save(&["--shell-job"])?;
    drop(master);
    let refused =
        s.c.call(&["restore", "--detach", "--bundle", "%", "@"])?
            .fault()?;
    ensure!(refused.contains("console socket"), "{refused}");
    s.bring_back(&["--shell-job", "--console-socket", receiver.path()])?;
    let master = receiver.descriptor()?;
    rustix::io::write(&master, b"two\n")?;
    read_until(&master, "got 2 two")?;
    let shown =
        s.c.exec(&[
            "@",
            "sh",
            "-c",
            "readlink /proc/1/fd/0; test -c /dev/console && echo console",
        ])?
        .ok()?;
    ensure_eq!(shown, "/dev/pts/0\nconsole\n");
    s.end()
}

/// A folder with a mount below it, one that is read-only, a file, and a place behind a link of the image.
fn with_bind_mounts() -> Result<(Saved, std::path::PathBuf)> {
    let mut s = Saved::new(&format!("exec 8>>/data/log; {COUNT}"))?;
    let host = harness::tempdir();
    for dir in ["data/below", "fixed", "linked"] {
        fs::create_dir_all(host.join(dir))?;
    }
    fs::write(host.join("file"), "of the host\n")?;
    harness::run(
        Command::new("mount")
            .args(["-t", "tmpfs", "below"])
            .arg(host.join("data/below")),
    )?;
    fs::write(host.join("data/below/deep"), "deep\n")?;
    std::os::unix::fs::symlink("/run", s.file("var/run"))?;
    let bind = |from: &str, to: &str, options: &[&str]| json!({"source": host.join(from), "destination": to, "type": "bind", "options": options});
    s.c.push("/mounts", bind("data", "/data", &["rbind", "rw"]))?
        .push("/mounts", bind("fixed", "/fixed", &["bind", "ro"]))?
        .push("/mounts", bind("file", "/etc/file", &["bind"]))?
        .push("/mounts", bind("linked", "/var/run/linked", &["bind"]))?;
    Ok((s, host))
}

fn see_bind_mounts(s: &Saved, host: &Path) -> Result<()> {
    let sh = |script: &str| s.c.exec(&["@", "sh", "-c", script]);
    ensure_eq!(sh("cat /data/below/deep /etc/file")?.ok()?, "deep\nof the host\n");
    sh("echo new > /data/new; echo new > /run/linked/new")?.ok()?;
    for file in ["data/new", "linked/new"] {
        ensure_eq!(fs::read_to_string(host.join(file))?, "new\n");
        fs::remove_file(host.join(file))?;
    }
    let refused = sh("touch /fixed/new")?.fault()?;
    ensure!(refused.contains("Read-only"), "{refused}");
    Ok(())
}

fn bind_mounts_are_the_host_s_again() -> Result<()> {
    needs!(root, criu);
    let (s, host) = with_bind_mounts()?;
    s.c.up()?;
    s.counts()?;
    see_bind_mounts(&s, &host)?;
    s.there_and_back(&[], &[])?;
    see_bind_mounts(&s, &host)?;
    s.end()?;
    harness::run(Command::new("umount").arg(host.join("data/below"))).map(drop)
}

/// One below the other, and both named from the bundle on.
fn relative_bind_mounts_are_too() -> Result<()> {
    needs!(root, criu);
    let mut s = Saved::new(COUNT)?;
    for (name, to) in [("./one", "/test"), ("two", "/test/for/nested")] {
        let dir = s.c.bundle.dir.join(name);
        fs::create_dir(&dir)?;
        fs::write(dir.join("file"), name)?;
        let bind = json!({"source": name, "destination": to, "type": "bind", "options": ["rw", "bind"]});
        s.c.push("/mounts", bind)?;
    }
    // That of the socket for sd_notify is no mount of the config's.
    let mut create = s.c.command(&["create", "--bundle", "%", "@"]);
    let created = create
        .env("NOTIFY_SOCKET", "/run/nobody")
        .stdout(Stdio::null())
        .status()?;
    ensure!(created.success(), "create: {created}");
    s.c.call(&["start", "@"])?.ok()?;
    s.counts()?;
    s.there_and_back(&[], &[])?;
    let seen = s.c.exec(&["@", "cat", "/test/file", "/test/for/nested/file"])?;
    ensure_eq!(seen.ok()?, "./onetwo");
    let mounts = s.c.exec(&["@", "grep", "-c", " /run/notify ", "/proc/mounts"])?;
    ensure_eq!(mounts.ok()?, "1\n");
    s.end()
}

/// The device stays where it is, in the namespace that is not the container's.
fn devices_in_a_joined_network_namespace_stay() -> Result<()> {
    needs!(root, criu, program: ip);
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    let ip = |args: &str| harness::run(Command::new("ip").args(args.split(' ')));
    ip("link add outside type veth peer name inside")?;
    ip("address add 192.0.2.2/24 dev inside")?;
    let mut keep = Command::new("unshare");
    let keep = Net(keep.args(["--net", "sleep", "100000"]).spawn()?);
    until("the namespace is there", || {
        Ok(fs::read_to_string(format!("/proc/{}/comm", keep.0.id()))? == "sleep\n")
    })?;
    let mut s = Saved::new(COUNT)?;
    s.c.namespace("network", Some(&keep.path("net")))?
        .set("/linux/netDevices", json!({"inside": {"name": "eth9"}}))?;
    s.c.up()?;
    s.counts()?;
    s.there_and_back(&[], &[])?;
    let seen = s.c.exec(&["@", "ip", "address", "show", "dev", "eth9"])?.ok()?;
    ensure!(seen.contains("192.0.2.2/24"), "{seen}");
    s.end()
}

/// systemd makes all mounts shared, so that those of a container are slaves of them.
fn bind_mounts_below_shared_ones_are_too_on_systemd() -> Result<()> {
    needs!(root, criu, systemd);
    bind_mounts_are_the_host_s_again()
}

fn places_of_mounts_are_made() -> Result<()> {
    needs!(root, criu);
    let (mut s, host) = with_bind_mounts()?;
    s.c.up()?;
    s.counts()?;
    s.save(&[])?;
    // As on another host: the image anew.
    for (place, is_dir) in [
        ("data", true),
        ("fixed", true),
        ("run/linked", true),
        ("etc/file", false),
    ] {
        if is_dir {
            fs::remove_dir(s.file(place))?;
        } else {
            fs::remove_file(s.file(place))?;
        }
    }
    s.bring_back(&[])?;
    s.counts()?;
    see_bind_mounts(&s, &host)?;
    s.end()?;
    s.c.set("/mounts", json!([]))?;
    harness::run(Command::new("umount").arg(host.join("data/below"))).map(drop)
}

fn namespaces_by_path_are_joined_again() -> Result<()> {
    needs!(root, criu, program: ip);
    let mut keep = Command::new("unshare");
    let keep = Net(keep.args(["--ipc", "--uts", "sleep", "100000"]).spawn()?);
    until("the namespaces are there", || {
        Ok(fs::read_to_string(format!("/proc/{}/comm", keep.0.id()))? == "sleep\n")
    })?;
    let mut s = Saved::new(COUNT)?;
    s.c.namespace("ipc", Some(&keep.path("ipc")))?
        .namespace("uts", Some(&keep.path("uts")))?
        .set("/hostname", json!("joined"))?;
    s.c.up()?;
    s.counts()?;
    s.there_and_back(&[], &[])?;
    for kind in ["ipc", "uts"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
        ensure_eq!(of(&s.c.pid()?.to_string())?, of(&keep.0.id().to_string())?);
    }
    ensure_eq!(s.c.exec(&["@", "hostname"]).context("exec")?.ok()?, "joined\n");
    s.end()
}
