//! What a VPS is told of itself: the figures of its cgroup, in the words of procfs.
//!
//! The monitor tells them, so that nothing else has to be resident and each VPS depends on its own monitor alone. Where there is no
//! limit the host's figures are the truth, and are passed on.
//!
//! ```text
//!  meminfo swaps      memory: limit, use, and what of it can be had back
//!  stat uptime        processor time used, and left over since the VPS began
//!  cpuinfo online     the processors it runs on
//!  loadavg            counted every five seconds while somebody wants to know
//!  diskstats          reads and writes
//!  pressure           the cgroup's own
//!  sysinfo            the same by a system call; `keeper` has the connection a second time, or an `heir` all of it
//! ```

pub(super) mod calls;
mod disks;
pub(super) mod heir;
pub(super) mod keeper;
mod kept;
mod load;
mod memory;
mod processors;
mod sysinfo;
pub(super) mod tend;
mod underway;

use std::path::Path;
use std::time::Instant;

use crate::cgroups::Cgroup;
use crate::error::{Error, Result};
use crate::figures::{Figure, Source};
use crate::files;
use crate::host::CgroupLayout;
use load::Load;
use processors::Clock;
use sysinfo::Sysinfo;

const fn figure(name: &'static str, place: &'static str) -> Figure {
    Figure { name, place }
}

/// All of them. What the host does not have is not covered.
pub(super) const FIGURES: &[Figure] = &[
    figure("cpuinfo", "/proc/cpuinfo"),
    figure("diskstats", "/proc/diskstats"),
    figure("loadavg", "/proc/loadavg"),
    figure("meminfo", "/proc/meminfo"),
    figure("stat", "/proc/stat"),
    figure("swaps", "/proc/swaps"),
    figure("uptime", "/proc/uptime"),
    figure("pressure-cpu", "/proc/pressure/cpu"),
    figure("pressure-io", "/proc/pressure/io"),
    figure("pressure-memory", "/proc/pressure/memory"),
    figure("online", "/sys/devices/system/cpu/online"),
];

/// The teller of one VPS's figures.
#[derive(Debug)]
pub(super) struct Teller {
    cgroup: String,
    /// Found at the first question: most VPSs are hardly ever asked.
    layout: Option<CgroupLayout>,
    clock: Clock,
    load: Load,
}

impl Teller {
    /// For the VPS in this cgroup, whose clocks began at that second of the host's.
    pub(super) fn new(cgroup: String, began: i64) -> Self {
        Self {
            cgroup,
            layout: None,
            clock: Clock::new(began),
            load: Load::default(),
        }
    }

    /// When it wants to count again what runs, if it does.
    pub(super) fn due(&self) -> Option<Instant> {
        self.load.due()
    }

    /// Counts what runs, if it is time for that.
    pub(super) fn count(&mut self) {
        if self.load.due().is_some_and(|due| due <= Instant::now())
            && let Ok(cgroup) = self.open()
        {
            self.load.count(&cgroup);
        }
    }

    /// Opened for each question: a descriptor for each hierarchy would be many, for all VPSs.
    fn open(&mut self) -> Result<Cgroup> {
        if self.layout.is_none() {
            self.layout = Some(CgroupLayout::probe()?);
        }
        let layout = self.layout.as_ref();
        let gone = || Error::Corrupt("there is no cgroup file system".into());
        Cgroup::open(layout.ok_or_else(gone)?, &self.cgroup)
    }
}

impl Teller {
    /// The same by a system call.
    fn sysinfo(&mut self) -> Result<Sysinfo> {
        let mut text = |name| {
            let found = FIGURES.iter().find(|figure| figure.name == name);
            found.map_or_else(|| Ok(String::new()), |figure| self.text(figure))
        };
        Ok(Sysinfo::of(
            &text("meminfo")?,
            &text("loadavg")?,
            &text("uptime")?,
        ))
    }
}

impl Source for Teller {
    fn text(&mut self, figure: &Figure) -> Result<String> {
        let cgroup = self.open()?;
        let host = || files::read_text(Path::new(figure.place));
        match figure.name {
            "meminfo" => Ok(memory::meminfo(&cgroup.stats()?, &host()?)),
            "swaps" => Ok(memory::swaps(&cgroup.stats()?, &host()?)),
            "diskstats" => Ok(disks::diskstats(&cgroup.stats()?.io, &host()?)),
            "online" => Ok(processors::online(&cgroup.share()?, &host()?)),
            "cpuinfo" => processors::cpuinfo(&cgroup.share()?, &host()?),
            "uptime" => {
                let cpus = processors::list(&cgroup.share()?)?;
                Ok(self.clock.uptime(cpus.len(), &cgroup.stats()?))
            }
            "stat" => {
                let cpus = processors::list(&cgroup.share()?)?;
                let active = self.load.active(&cgroup);
                Ok(self.clock.stat(&cpus, &cgroup.stats()?, active))
            }
            "loadavg" => {
                let idle = self.clock.average(&cgroup.stats()?);
                Ok(self.load.loadavg(&cgroup, idle))
            }
            pressure => {
                let resource = pressure.strip_prefix("pressure-").unwrap_or_default();
                cgroup.pressure(resource)?.map_or_else(host, Ok)
            }
        }
    }
}
