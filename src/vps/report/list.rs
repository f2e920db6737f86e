//! VPSs as `list` and `show` present them.

use crate::error::Result;
use crate::net::Mac;
use crate::net::meter::Meters;
use crate::vps::record::instance::{Condo, shown};
use crate::vps::record::name::Name;
use crate::vps::record::network::NetworkRecord;
use crate::vps::record::store::Record;
use crate::vps::record::view::{AddressView, DiskView, VpsStatus, VpsView};
use crate::vps::wire::{network, traffic};

/// What is read once for all VPSs: asked for each by itself, it would take most of the time.
struct Sight {
    networks: Vec<NetworkRecord>,
    meters: Meters,
}

impl Condo {
    /// All VPSs, by name.
    pub fn list(&self) -> Result<Vec<VpsView>> {
        let sight = self.sight()?;
        self.members()?
            .into_iter()
            .map(|record| self.view(record, &sight, false))
            .collect()
    }

    /// One VPS.
    pub fn show(&self, name: &Name) -> Result<VpsView> {
        let record = self.store.get(name)?;
        // What is not kept now is kept later.
        if let Err(e) = traffic::keep(self, &record) {
            log::debug!("{e}");
        }
        self.view(record, &self.sight()?, true)
    }

    fn sight(&self) -> Result<Sight> {
        Ok(Sight {
            networks: self.store.networks()?,
            meters: Meters::read()?,
        })
    }

    fn addresses(&self, record: &Record, sight: &Sight) -> Result<Vec<AddressView>> {
        let ports = network::ports_on(self, &sight.networks, record)?;
        Ok(ports
            .into_iter()
            .map(|(network, port)| AddressView {
                interface: port.guest_if,
                network: network.name,
                mac: Mac(port.mac),
                ipv4: port.address,
                ipv6: port.address6,
            })
            .collect())
    }

    /// `measured`: with what takes time to find out.
    fn view(&self, record: Record, sight: &Sight, measured: bool) -> Result<VpsView> {
        let container = self.container(&record.name)?;
        let status = container
            .as_ref()
            .map_or(VpsStatus::Stopped, |c| shown(c.status(&self.host)));
        let init = container
            .as_ref()
            .and_then(|c| c.state().init)
            .filter(|_| status != VpsStatus::Stopped);
        if init.is_some() {
            self.tend(&record.name);
        }
        let cgroup = init
            .and(container.as_ref())
            .and_then(|c| c.cgroup(&self.host).ok().flatten());
        let memory_used = cgroup.and_then(|cgroup| cgroup.memory_used());
        let peers = self.store.peers(&record.name)?;
        let last_exit = self
            .unseen_end(&record, status)
            .or_else(|| record.last_exit.clone());
        Ok(VpsView {
            traffic: traffic::of(self, &record, &sight.meters)?,
            published: record.config.publish.iter().copied().collect(),
            firewall: record.config.firewall.clone(),
            status,
            image: record.config.image.clone(),
            rescue: record.config.rescue.as_ref().map(|rescue| rescue.image.clone()),
            hostname: record.hostname().to_owned(),
            address: record.address,
            addresses: self.addresses(&record, sight)?,
            pid: init.and_then(|i| u32::try_from(i.pid).ok()),
            uptime: init.and_then(|init| init.uptime()),
            limits: record.config.limits.clone(),
            disk: self.disk_view(&record, measured),
            memory_used,
            permitted: record.config.permit.iter().copied().collect(),
            plan: record.config.plan.as_ref().map(|plan| plan.name.clone()),
            project: record.project().to_owned(),
            restart: record.config.restart,
            schedule: record.config.schedule,
            boot: record.config.boot,
            devices: record.config.devices.iter().cloned().collect(),
            nesting: record.config.nesting,
            own_sysinfo: record.config.own_sysinfo,
            ids: record.ids(),
            allowed: peers.into_iter().map(|(name, _)| name).collect(),
            created: record.created,
            last_exit,
            name: record.name,
        })
    }
    /// What cannot be measured (a disk that was not made yet) is not worth failing for.
    fn disk_view(&self, record: &Record, measured: bool) -> DiskView {
        let disk = record.config.disk;
        let volume = self.volume(record);
        let usage = match measured || volume.is_counted() {
            true => volume.usage().inspect_err(|e| log::debug!("{e}")).ok(),
            false => None,
        };
        DiskView {
            backend: disk.backend,
            size: usage.and_then(|usage| usage.quota.size).or(disk.size),
            used: usage.map(|usage| usage.used),
            inodes: usage.and_then(|usage| usage.quota.inodes).or(disk.inodes),
            inodes_used: usage.and_then(|usage| usage.inodes),
        }
    }
}
