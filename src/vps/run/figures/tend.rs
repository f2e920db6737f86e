//! Who tells a VPS's figures: its monitor from the beginning on, and where that was killed a process that does nothing else.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use oci_spec::runtime::Spec;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, FdFlags};
use rustix::time::{ClockId, clock_gettime};

use super::calls::Calls;
use super::{FIGURES, Teller, kept};
use crate::error::{During, Error, Result};
use crate::figures::{self, Server};
use crate::files;
use crate::namespaces::Kind;
use crate::namespaces::user::namespace_of;
use crate::pace::Pace;
use crate::runtime::status::Identity;
use crate::sys;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::store::Record;

/// Stands for figures that nobody tells.
pub(in super::super) const NOBODY: &str = "-";

/// A process's part in telling figures.
#[derive(Debug)]
pub(in super::super) struct Telling {
    /// The files, where it has such.
    server: Option<Server>,
    teller: Teller,
    owner: u32,
    pace: Pace,
    /// Who is asked by `sysinfo(2)`, where a VPS has it answered.
    calls: Option<Calls>,
}

impl Telling {
    /// Puts figures in their places in a VPS, the init of which is this process.
    ///
    /// # Errors
    /// As [`Server::mount`] and [`Server::install`]; the VPS then sees the host's.
    pub(in super::super) fn begin(record: &Record, spec: &Spec, init: i32) -> Result<Self> {
        Self::install(cgroup_of(spec)?, record.uid_base, (spec, init))
    }

    /// The same for a container in this cgroup, the root of which is that user of the host's.
    ///
    /// # Errors
    /// As [`Telling::begin`].
    pub(in super::super) fn install(cgroup: String, owner: u32, (spec, init): (&Spec, i32)) -> Result<Self> {
        let (mut server, mount) = Server::mount(FIGURES, owner)?;
        let mut teller = Teller::new(cgroup, began(spec));
        let namespace = namespace_of(init, Kind::Mount)?;
        server.install(mount.as_fd(), namespace.as_fd(), &mut teller)?;
        Ok(Self::of(Some(server), teller, owner))
    }

    fn of(server: Option<Server>, teller: Teller, owner: u32) -> Self {
        Self {
            server,
            teller,
            owner,
            pace: Pace::new(figures::ALLOWED),
            calls: None,
        }
    }

    /// For system calls alone.
    ///
    /// # Errors
    /// For a specification without a cgroup.
    pub(in super::super) fn of_calls(record: &Record, spec: &Spec) -> Result<Self> {
        Ok(Self::without_files(cgroup_of(spec)?, record.uid_base, spec))
    }

    /// The same for a container, as [`Telling::install`].
    pub(in super::super) fn without_files(cgroup: String, owner: u32, spec: &Spec) -> Self {
        Self::of(None, Teller::new(cgroup, began(spec)), owner)
    }

    /// Answers `sysinfo(2)` as well.
    pub(in super::super) fn answer_calls(&mut self, calls: Calls) -> Result<()> {
        if let Some(server) = &self.server {
            calls.watch(server.device())?;
        }
        self.calls = Some(calls);
        Ok(())
    }

    /// As one word of a command line, for the role that goes on with it: the descriptor outlasts the next `execve`.
    pub(in super::super) fn hand_over(&self) -> Result<String> {
        let device = match self.server.as_ref().map(Server::device) {
            None => NOBODY.to_owned(),
            Some(device) => {
                rustix::io::fcntl_setfd(device, FdFlags::empty())?;
                device.as_raw_fd().to_string()
            }
        };
        let calls = self.calls.as_ref().map(Calls::hand_over).transpose()?;
        Ok(format!(
            "{device}:{}:{}:{}:{}",
            calls.as_deref().unwrap_or(NOBODY),
            self.owner,
            self.teller.clock.began(),
            self.teller.cgroup
        ))
    }

    /// Out of that word; `None` where nobody tells.
    pub(in super::super) fn take_over(word: &str) -> Result<Option<Self>> {
        if word == NOBODY {
            return Ok(None);
        }
        let bad = || Error::invalid("monitor", word, "is not a handed over connection");
        let mut parts = word.splitn(5, ':');
        let mut part = || parts.next().ok_or_else(bad);
        let device = part()?.to_owned();
        let calls = part()?.to_owned();
        let owner = part()?.parse().map_err(|_| bad())?;
        let began = part()?.parse().map_err(|_| bad())?;
        let teller = Teller::new(part()?.to_owned(), began);
        let server = match device.as_str() {
            NOBODY => None,
            number => {
                let device = sys::fd::adopt(number.parse().map_err(|_| bad())?)?;
                rustix::io::fcntl_setfd(&device, FdFlags::CLOEXEC)?;
                Some(Server::adopt(device, FIGURES, owner))
            }
        };
        let mut telling = Self::of(server, teller, owner);
        if calls != NOBODY {
            telling.answer_calls(Calls::take_over(&calls)?)?;
            telling.keep_listeners();
        }
        Ok(Some(telling))
    }

    /// Has the listeners of its filters outlast this process, as far as that can be had.
    pub(in super::super) fn keep_listeners(&mut self) {
        if let Some(Err(e)) = self.calls.as_mut().map(Calls::keep) {
            log::warn!("`sysinfo(2)` fails in the VPS when this process is killed: {e}");
        }
    }

    /// Tells them until the VPS's init has ended, or nobody can ask any more; or until that other process has: false then.
    pub(in super::super) fn until_end(&mut self, init: &OwnedFd, other: Option<&OwnedFd>) -> Result<bool> {
        loop {
            let (device, patience) = self.wants(Instant::now());
            // Where nothing is to be waited for, init stands in and is asked about nothing.
            let absent = (init.as_fd(), PollFlags::empty());
            let asked = device.map_or(absent, |device| (device, PollFlags::IN));
            let other = other.map_or(absent, |other| (other.as_fd(), PollFlags::IN));
            let mut fds = [
                PollFd::from_borrowed_fd(init.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(asked.0, asked.1),
                PollFd::from_borrowed_fd(other.0, other.1),
            ];
            let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
            match rustix::event::poll(&mut fds, patience.as_ref()) {
                Err(Errno::INTR) => continue,
                other => other.during(|| "wait for questions")?,
            };
            let [ended, asked, left] = [0, 1, 2].map(|at| !fds[at].revents().is_empty());
            if ended || !self.go_on(asked) {
                return Ok(true);
            }
            if left {
                return Ok(false);
            }
        }
    }

    /// Prepares for an heir.
    pub(super) fn have_heir(&mut self) -> Result<()> {
        self.server.as_mut().map_or(Ok(()), Server::note_questions)?;
        self.calls.as_mut().map_or(Ok(()), Calls::note_calls)
    }

    /// Goes on where another process with the same table of descriptors was killed, whose memory was newer than this one's.
    pub(super) fn inherit(&mut self, init: BorrowedFd<'_>) -> Result<()> {
        if let Some(calls) = self.calls.take() {
            let device = self.server.as_ref().map(Server::device);
            let known: Vec<_> = device.into_iter().chain([init]).collect();
            self.answer_calls(calls.inherit(&known)?)?;
        }
        let server = self.server.as_mut();
        server.map_or(Ok(()), |server| server.answer_left(&mut self.teller))
    }

    /// What to wait for: questions, unless there were too many, and the time at which something has to be done in any case.
    pub(in super::super) fn wants(&mut self, now: Instant) -> (Option<BorrowedFd<'_>>, Option<Duration>) {
        let pause = self.pace.pause(now);
        let due = self.teller.due().map(|due| due.saturating_duration_since(now));
        let calls = self.calls.as_ref().map(Calls::readable);
        let asked = calls.or_else(|| self.server.as_ref().map(Server::device));
        let device = asked.filter(|_| pause.is_none());
        (device, pause.into_iter().chain(due).min())
    }

    /// Does what has to be done; false when nobody can ask any more.
    pub(in super::super) fn go_on(&mut self, asked: bool) -> bool {
        self.teller.count();
        if !asked {
            return true;
        }
        if let Some(calls) = &mut self.calls {
            let answered = calls.go_on(|| self.teller.sysinfo());
            self.pace.spend(answered.into());
        }
        let server = self.server.as_mut();
        server.is_none_or(|server| server.answer(&mut self.teller, &mut self.pace))
    }
}

/// The cgroup of a VPS with this specification.
fn cgroup_of(spec: &Spec) -> Result<String> {
    let path = spec.linux().as_ref().and_then(|l| l.cgroups_path().as_ref());
    let path = path.ok_or_else(|| Error::Corrupt("a VPS without a cgroup".into()))?;
    Ok(path.display().to_string())
}

/// When the VPS's clocks began, in seconds of the host's; now, where it has the host's clocks.
fn began(spec: &Spec) -> i64 {
    let offsets = spec.linux().as_ref().and_then(|l| l.time_offsets().as_ref());
    let boottime = offsets.and_then(|all| all.get("boottime")?.secs());
    boottime.map_or_else(|| clock_gettime(ClockId::Boottime).tv_sec, |secs| -secs)
}

impl Condo {
    /// Where filters of a VPS send their listeners.
    pub(in super::super) fn calls_of(&self, name: &Name) -> PathBuf {
        self.folders.run_of(name).join("sysinfo.sock")
    }

    /// Listens for them, in the place of who did before.
    pub(in super::super) fn listen_for_calls(&self, name: &Name) -> Result<Calls> {
        Calls::listen(&self.calls_of(name))
    }

    /// Ends what the keeper has of a VPS, after it. Its listeners end by themselves when the last process is gone; before Linux 6.11 that is
    /// when somebody has waited for it, and who that is after the monitor's death, condo does not choose.
    pub(in super::super) fn release_listeners(&self, name: &Name) {
        kept::forget(&self.folders.runs(), name);
    }

    /// Sees to it that a running VPS has somebody who tells its figures. Nothing that a command is about: it goes on.
    pub(in crate::vps) fn tend(&self, name: &Name) {
        let told = |teller: Identity| teller.is_alive();
        if self.is_watched(name) || self.figures_teller(name).is_some_and(told) {
            return;
        }
        let running = self
            .container(name)
            .ok()
            .flatten()
            .and_then(|c| c.init())
            .is_some();
        if running && let Err(e) = super::super::monitor::tell_figures(self, name) {
            log::warn!("`{name}` has no figures of its own until it is restarted: {e}");
        }
    }

    /// The process that tells a VPS's figures in its monitor's place, dead or alive.
    fn figures_teller(&self, name: &Name) -> Option<Identity> {
        serde_json::from_slice(&std::fs::read(self.teller_file(name)).ok()?).ok()
    }

    /// Says that it is this process.
    pub(in super::super) fn set_figures_teller(&self, name: &Name) -> Result<()> {
        let own = serde_json::to_vec(&Identity::own()?)?;
        files::write_atomic(&self.teller_file(name), &own, 0o600)
    }

    fn teller_file(&self, name: &Name) -> PathBuf {
        self.folders.run_of(name).join("figures.json")
    }
}
