//! Who tells a VPS's figures: its monitor from the beginning on, and where that was killed a process that does nothing else.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use oci_spec::runtime::Spec;
use rustix::io::FdFlags;
use rustix::time::{ClockId, clock_gettime};

use super::{FIGURES, Teller};
use crate::error::{Error, Result};
use crate::figures::Server;
use crate::files;
use crate::namespaces::Kind;
use crate::namespaces::user::namespace_of;
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
    server: Server,
    teller: Teller,
    owner: u32,
}

impl Telling {
    /// Puts figures in their places in a VPS, the init of which is this process.
    ///
    /// # Errors
    /// As [`Server::mount`] and [`Server::install`]; the VPS then sees the host's.
    pub(in super::super) fn begin(condo: &Condo, record: &Record, spec: &Spec, init: i32) -> Result<Self> {
        let (server, mount) = Server::mount(FIGURES, record.uid_base)?;
        let teller = Teller::new(condo.folders.cgroup(&record.name), began(spec));
        let mut telling = Self {
            server,
            teller,
            owner: record.uid_base,
        };
        let namespace = namespace_of(init, Kind::Mount)?;
        telling
            .server
            .install(mount.as_fd(), namespace.as_fd(), &mut telling.teller)?;
        Ok(telling)
    }

    /// As one word of a command line, for the role that goes on with it: the descriptor outlasts the next `execve`.
    pub(in super::super) fn hand_over(&self) -> Result<String> {
        rustix::io::fcntl_setfd(self.server.device(), FdFlags::empty())?;
        let fd = self.server.device().as_raw_fd();
        Ok(format!(
            "{fd}:{}:{}:{}",
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
        let mut parts = word.splitn(4, ':');
        let mut part = || parts.next().ok_or_else(bad);
        let fd = part()?.parse().map_err(|_| bad())?;
        let owner = part()?.parse().map_err(|_| bad())?;
        let began = part()?.parse().map_err(|_| bad())?;
        let teller = Teller::new(part()?.to_owned(), began);
        let device = sys::fd::adopt(fd)?;
        rustix::io::fcntl_setfd(&device, FdFlags::CLOEXEC)?;
        Ok(Some(Self {
            server: Server::adopt(device, FIGURES, owner),
            teller,
            owner,
        }))
    }

    /// What to wait for: questions, unless there were too many, and the time at which something has to be done in any case.
    pub(in super::super) fn wants(&mut self, now: Instant) -> (Option<BorrowedFd<'_>>, Option<Duration>) {
        let pause = self.server.pause(now);
        let due = self.teller.due().map(|due| due.saturating_duration_since(now));
        let device = pause.is_none().then(|| self.server.device());
        (device, pause.into_iter().chain(due).min())
    }

    /// Does what has to be done; false when nobody can ask any more.
    pub(in super::super) fn go_on(&mut self, asked: bool) -> bool {
        self.teller.count();
        !asked || self.server.answer(&mut self.teller)
    }
}

/// When the VPS's clocks began, in seconds of the host's; now, where it has the host's clocks.
fn began(spec: &Spec) -> i64 {
    let offsets = spec.linux().as_ref().and_then(|l| l.time_offsets().as_ref());
    let boottime = offsets.and_then(|all| all.get("boottime")?.secs());
    boottime.map_or_else(|| clock_gettime(ClockId::Boottime).tv_sec, |secs| -secs)
}

impl Condo {
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
