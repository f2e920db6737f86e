//! How the init of a VPS is asked to power off, which each does in its own way.
//!
//! It is looked at while it runs, and not only in the image: whoever has root may install another and reboot into it. What it
//! looks like is in the hands of the VPS, and of no use to anybody: it decides how that VPS is asked, before it is killed.

use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::error::{During, Error, Result};
use crate::process::signal;
use crate::runtime::container::Container;
use crate::runtime::init::Newborn;
use crate::runtime::init::patience::Patience;
use crate::vps::record::instance::Condo;
use crate::vps::record::store::Record;

/// A way to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By a signal.
    Signal(&'static str),
    /// By a program of its own, run inside: the first of these that is there. It ignores SIGTERM, and speaks with its tools only.
    Programs(&'static [&'static [&'static str]]),
}

/// For those that are asked by a program, when none can be run: what the kernel sends for Ctrl-Alt-Del. They reboot then, which
/// is as good in a VPS that is being stopped.
const CTRL_ALT_DEL: &str = "SIGINT";

/// What images are given when nobody chose a signal, see `image import --stop-signal`.
const UNCHOSEN: [&str; 3] = ["SIGTERM", "SIGRTMIN+3", "SIGUSR2"];

/// How long a program may take that asks.
const PATIENCE: Duration = Duration::from_secs(5);

impl Condo {
    /// Asks the init of a VPS to power off, frozen or not.
    pub(super) fn bid_farewell(&self, record: &Record, container: &Container) -> Result<()> {
        let chosen = self.images().get(record.booted())?.manifest.stop_signal;
        let _ = container.resume(&self.host);
        let pid = container.state().init.map_or(0, |init| init.pid);
        let signal = match of(pid, &chosen) {
            None => chosen.as_str(),
            Some(Way::Signal(signal)) => signal,
            Some(Way::Programs(programs)) => {
                if programs.iter().any(|program| self.send(record, program).is_ok()) {
                    return Ok(());
                }
                CTRL_ALT_DEL
            }
        };
        container.kill(&self.host, signal::parse("stop signal", signal)?, false)
    }

    /// Runs a program in a VPS, by a process of its own: what it makes inside is its child, and no init ends before all of its
    /// system has been waited for, the dead ones among them too (`pid_namespaces(7)`).
    fn send(&self, record: &Record, program: &[&str]) -> Result<()> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("condo").env_remove("CONDO_ROOT");
        if let Some(root) = self.root() {
            command.arg("--root").arg(root);
        }
        command.args(["exec", record.name.as_str(), "--workdir", "/", "--"]);
        command.args(program).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().during(|| "run a program inside")?;
        let pid = i32::try_from(child.id()).unwrap_or(0);
        let pidfd = Newborn::named(pid)?.pidfd;
        // One that takes its time has been heard nevertheless.
        if Patience::new(Some(PATIENCE), None)?.wait(pidfd.as_fd()).is_err() {
            return Ok(());
        }
        match child.wait() {
            Ok(status) if status.success() => Ok(()),
            other => Err(Error::Status(format!("`{}` fails inside: {other:?}", program[0]))),
        }
    }
}

/// What to send an init that is asked to end by `signal` and would not understand it: nothing else where it is no init.
pub(super) fn instead_of(pid: i32, signal: Signal) -> Result<Signal> {
    if signal != signal::parse("signal", UNCHOSEN[0])? {
        return Ok(signal);
    }
    match of(pid, UNCHOSEN[0]) {
        None => Ok(signal),
        Some(Way::Signal(way)) => signal::parse("signal", way),
        Some(Way::Programs(_)) => signal::parse("signal", CTRL_ALT_DEL),
    }
}

/// The way of the init that is process `pid`, if it is a known one and nobody chose a signal for its image.
fn of(pid: i32, chosen: &str) -> Option<Way> {
    if !UNCHOSEN.contains(&chosen) {
        return None;
    }
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let args: Vec<_> = line.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
    let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
    recognise(&exe, &args)
}

fn recognise(exe: &Path, args: &[&str]) -> Option<Way> {
    let called = args.first()?;
    let called = called.rsplit('/').next().unwrap_or_default();
    match exe.file_name()?.to_str()? {
        // systemd(1): start poweroff.target.
        "systemd" => Some(Way::Signal("SIGRTMIN+3")),
        // init/init.c of busybox: USR1 halts, USR2 powers off, TERM reboots. A script's interpreter is busybox as well.
        "busybox" if called == "init" || (called == "busybox" && args.get(1) == Some(&"init")) => {
            Some(Way::Signal("SIGUSR2"))
        }
        // sysvinit has the runlevel in its title. init(8): `init 0` writes to /run/initctl.
        "init" if called.starts_with("init [") => {
            Some(Way::Programs(&[&["/sbin/telinit", "0"], &["/sbin/init", "0"]]))
        }
        // openrc-shutdown(8), by /run/openrc/init.ctl.
        "openrc-init" => Some(Way::Programs(&[&["/sbin/openrc-shutdown", "--poweroff", "now"]])),
        // runit-init(8) says so by files whose place distributions choose.
        "runit" => Some(Way::Programs(&[
            &["/sbin/runit-init", "0"],
            &["/usr/bin/runit-init", "0"],
            &["/sbin/init", "0"],
        ])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inits_are_told_apart() {
        let ask = |exe: &str, args: &[&str]| recognise(Path::new(exe), args);
        let signal = |exe: &str, args: &[&str]| match ask(exe, args) {
            Some(Way::Signal(signal)) => signal,
            other => panic!("{exe}: {other:?}"),
        };
        assert_eq!(signal("/usr/lib/systemd/systemd", &["/sbin/init"]), "SIGRTMIN+3");
        assert_eq!(signal("/bin/busybox", &["init"]), "SIGUSR2");
        assert_eq!(signal("/bin/busybox", &["/bin/busybox", "init"]), "SIGUSR2");
        let program = |exe: &str, args: &[&str]| match ask(exe, args) {
            Some(Way::Programs(programs)) => programs[0][0],
            other => panic!("{exe}: {other:?}"),
        };
        assert_eq!(program("/usr/sbin/init", &["init [2]  "]), "/sbin/telinit");
        assert_eq!(
            program("/sbin/openrc-init", &["/sbin/init"]),
            "/sbin/openrc-shutdown"
        );
        assert_eq!(program("/usr/bin/runit", &["runit"]), "/sbin/runit-init");
        // A script, and a program nobody knows.
        assert_eq!(ask("/bin/busybox", &["/bin/sh", "/sbin/init"]), None);
        assert_eq!(ask("/sbin/init", &["/sbin/init"]), None);
        assert_eq!(ask("/sbin/init", &[]), None);
    }

    #[test]
    fn who_chose_a_signal_gets_it() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(of(own, "SIGPWR"), None);
    }
}
