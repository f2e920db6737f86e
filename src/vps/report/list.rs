//! VPSs as `list` and `show` present them.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::net::Mac;
use crate::net::meter::Meters;
use crate::vps::record::instance::{Condo, shown};
use crate::vps::record::name::Name;
use crate::vps::record::network::NetworkRecord;
use crate::vps::record::store::Record;
use crate::vps::record::traffic::Traffic;
use crate::vps::record::view::{AddressView, DiskView, VpsStatus, VpsView};
use crate::vps::wire::{network, traffic};

/// What is read once for all VPSs: asked for each by itself, it would take most of the time.
struct Sight {
    networks: Vec<NetworkRecord>,
    traffic: BTreeMap<Name, Traffic>,
    /// Whom each may talk to.
    peers: BTreeMap<Name, Vec<Name>>,
}

impl Condo {
    /// All VPSs, by name.
    pub fn list(&self) -> Result<Vec<VpsView>> {
        let records = self.members()?;
        let sight = self.sight(&records)?;
        self.look_at_each(&records, |condo, record| condo.view(record, &sight, false))
    }

    /// One VPS.
    pub fn show(&self, name: &Name) -> Result<VpsView> {
        let record = self.store.get(name)?;
        // What is not kept now is kept later.
        if let Err(e) = traffic::keep(self, &record) {
            log::debug!("{e}");
        }
        let sight = self.sight(std::slice::from_ref(&record))?;
        self.view(&record, &sight, true)
    }

    fn sight(&self, records: &[Record]) -> Result<Sight> {
        Ok(Sight {
            networks: self.store.networks()?,
            traffic: traffic::of(self, records, &Meters::read()?)?,
            peers: self.store.all_peers()?,
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
    fn view(&self, record: &Record, sight: &Sight, measured: bool) -> Result<VpsView> {
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
        let home = init
            .and(container.as_ref())
            .and_then(|c| c.state().cgroup.as_ref());
        let memory_used = home.and_then(|home| home.memory_used(&self.host.cgroups));
        let last_exit = self
            .unseen_end(record, status)
            .or_else(|| record.last_exit.clone());
        Ok(VpsView {
            traffic: sight.traffic.get(&record.name).cloned().unwrap_or_default(),
            published: record.config.publish.iter().copied().collect(),
            firewall: record.config.firewall.clone(),
            status,
            image: record.config.image.clone(),
            rescue: record.config.rescue.as_ref().map(|rescue| rescue.image.clone()),
            hostname: record.hostname().to_owned(),
            address: record.address,
            addresses: self.addresses(record, sight)?,
            pid: init.and_then(|i| u32::try_from(i.pid).ok()),
            uptime: init.and_then(|init| init.uptime()),
            limits: record.config.limits.clone(),
            disk: self.disk_view(record, measured),
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
            allowed: sight.peers.get(&record.name).cloned().unwrap_or_default(),
            created: record.created,
            last_exit,
            name: record.name.clone(),
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
