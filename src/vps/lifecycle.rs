//! Opening an instance of condo, and what it knows of its VPSs.

use std::path::Path;

pub use super::instance::Condo;

use super::facts::Facts;
use super::name::Name;
use super::network;
use super::store::{NewVps, Record};
use super::view::{VpsStatus, VpsView};
use crate::error::{Error, Result};
use crate::files::Lock;
use crate::host::Host;
use crate::image::Images;
use crate::net::ipam::{self, Taken};
use crate::runtime::container::Container;
use crate::runtime::id::Id;
use crate::runtime::status::{Identity, Status};
use crate::storage;

/// Clock ticks a second in `/proc`: `USER_HZ`, which is 100 on every architecture condo is built for.
const TICKS: u64 = 100;

impl Condo {
    /// Opens the instance below `root`, or the host's own.
    pub fn open(root: Option<&Path>) -> Result<Self> {
        let host = Host::probe()?;
        if host.caller.uid != 0 {
            return Err(Error::unsupported(
                "running condo as an ordinary user",
                "try again with sudo",
            ));
        }
        let condo = Self::at(root, host)?;
        // Nothing that the command is about: it goes on.
        if let Err(e) = network::restore_if_damaged(&condo) {
            log::warn!("the network of running VPSs is damaged and could not be restored: {e}");
        }
        Ok(condo)
    }

    /// Its images.
    pub(super) fn images(&self) -> Images {
        Images::new(self.folders.images())
    }

    /// Held while a VPS is based on an image and while an image is removed, so that the two do not cross.
    pub(super) fn lock_images(&self) -> Result<Lock> {
        Lock::wait(&self.folders.run().join("images.lock"))
    }

    /// Held by whoever changes the VPS.
    pub(super) fn lock(&self, name: &Name) -> Result<Lock> {
        Lock::wait(&self.folders.lock(name))
    }

    /// Claims name, address and uids for a new VPS, once its configuration is complete and has passed the one check.
    /// No kernel object yet.
    pub fn create(&self, new: NewVps) -> Result<Record> {
        let facts = Facts::probe(&self.host)?;
        let config = new.config.with_defaults(&facts);
        config.validate(&facts)?;
        self.refuse_remains(&new.name)?;
        let _images = self.lock_images()?;
        self.images().get(&config.image)?;
        if config.limits.any_io() {
            storage::whole_disk_of(self.folders.lib())?;
        }
        let subnet = network::of(self)?.subnet;
        if let Some(ip) = new.wanted_ip {
            ipam::pick(subnet, &Taken::default(), Some(ip))?;
        }
        let address = |taken: &Taken| ipam::pick(subnet, taken, None);
        self.claim(&NewVps { config, ..new }, &address)
    }

    /// The VPS's container, if there is one.
    pub(super) fn container(&self, name: &Name) -> Result<Option<Container>> {
        match Container::load(&self.folders.runtime(), &Id::new(name.as_str())?) {
            Err(e) if e.is_gone() => Ok(None),
            other => other.map(Some),
        }
    }

    /// What the VPS is doing now.
    pub(super) fn status(&self, name: &Name) -> Result<VpsStatus> {
        let container = self.container(name)?;
        Ok(container.map_or(VpsStatus::Stopped, |c| shown(c.status(&self.host))))
    }

    /// All VPSs, by name.
    pub fn list(&self) -> Result<Vec<VpsView>> {
        self.store
            .list()?
            .into_iter()
            .map(|record| self.view(record))
            .collect()
    }

    /// One VPS.
    pub fn show(&self, name: &Name) -> Result<VpsView> {
        self.view(self.store.get(name)?)
    }

    fn view(&self, record: Record) -> Result<VpsView> {
        let container = self.container(&record.name)?;
        let status = container
            .as_ref()
            .map_or(VpsStatus::Stopped, |c| shown(c.status(&self.host)));
        let init = container
            .as_ref()
            .and_then(|c| c.state().init)
            .filter(|_| status != VpsStatus::Stopped);
        let cgroup = init
            .and(container.as_ref())
            .and_then(|c| c.cgroup(&self.host).ok().flatten());
        let memory_used = cgroup
            .and_then(|c| c.stats().ok())
            .and_then(|stats| stats.memory)
            .map(|memory| memory.usage);
        let peers = self.store.peers(&record.name)?;
        let last_exit = self
            .unseen_end(&record, status)
            .or_else(|| record.last_exit.clone());
        Ok(VpsView {
            status,
            image: record.config.image.clone(),
            hostname: record
                .config
                .hostname
                .clone()
                .unwrap_or_else(|| record.name.to_string()),
            address: record.address,
            pid: init.and_then(|i| u32::try_from(i.pid).ok()),
            uptime: init.and_then(uptime),
            limits: record.config.limits.clone(),
            memory_used,
            permitted: record.config.permit.iter().copied().collect(),
            allowed: peers.into_iter().map(|(name, _)| name).collect(),
            created: record.created,
            last_exit,
            name: record.name,
        })
    }
}

fn shown(status: Status) -> VpsStatus {
    match status {
        Status::Created | Status::Creating => VpsStatus::Created,
        Status::Running => VpsStatus::Running,
        Status::Paused => VpsStatus::Paused,
        Status::Stopped => VpsStatus::Stopped,
    }
}

/// Seconds since the process was started.
pub(super) fn uptime(init: Identity) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let since_boot: u64 = text.split('.').next()?.parse().ok()?;
    Some(since_boot.saturating_sub(init.start_time / TICKS))
}
