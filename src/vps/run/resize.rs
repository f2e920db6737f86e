//! New limits, at once and for good. Nothing is killed by it.

use rustix::io::Errno;
use serde_json::{Value, json};

use super::spec;
use crate::cgroups::Cgroup;
use crate::error::{Error, Result};
use crate::runtime::container::Container;
use crate::storage::Quota;
use crate::vps::record::change::Change;
use crate::vps::record::config::VpsConfig;
use crate::vps::record::cpuset;
use crate::vps::record::events::Kind;
use crate::vps::record::facts::Facts;
use crate::vps::record::instance::Condo;
use crate::vps::record::limits::Limits;
use crate::vps::record::name::Name;
use crate::vps::record::size;
use crate::vps::record::store::Record;
use crate::vps::record::view::VpsStatus;
use crate::vps::wire::network;

impl Condo {
    /// Changes the limits of a VPS, whether it runs or not. Returns its record with the new ones.
    ///
    /// # Errors
    /// [`Error::Invalid`] for limits that no VPS can have here, and for less memory than the VPS uses
    /// and cannot give back. Then nothing has changed.
    pub fn resize(&self, name: &Name, change: &Change) -> Result<Record> {
        let facts = Facts::probe(&self.host)?;
        let (record, _lock) = self.hold_settled(name)?;
        let config = self.changed(&record.config, change, &facts)?;
        config.validate(&facts)?;
        let running = self.status(name)? != VpsStatus::Stopped;
        let container = self.container(name)?.filter(|_| running);
        if let Some(container) = &container {
            self.put_in_force(&record, container, &config.limits, &facts)?;
        }
        let quota = Quota {
            size: config
                .disk
                .size
                .filter(|_| config.disk.size != record.config.disk.size),
            inodes: config
                .disk
                .inodes
                .filter(|_| config.disk.inodes != record.config.disk.inodes),
        };
        if quota != Quota::default()
            && let Err(e) = self.resize_disk(&record, &quota)
        {
            if let Some(container) = &container {
                self.put_in_force(&record, container, &record.config.limits, &facts)?;
            }
            return Err(e);
        }
        let stored = self.store.reconfigure(name, &|kept| {
            kept.limits.clone_from(&config.limits);
            kept.disk = config.disk;
            kept.plan.clone_from(&config.plan);
            Ok(())
        });
        if stored.is_err()
            && let Some(container) = &container
        {
            // A disk that is full: what holds is what is known.
            self.put_in_force(&record, container, &record.config.limits, &facts)?;
        }
        let stored = stored?;
        self.tell(
            &stored,
            Kind::Resized,
            serde_json::to_value(&stored.config.limits)?,
        );
        Ok(stored)
    }

    /// Gives a disk its new limits. A disk that has grown stays so, whatever becomes of the rest.
    fn resize_disk(&self, record: &Record, change: &Quota) -> Result<()> {
        let after = record.config.disk.changed(change);
        if let Some(size) = after.size {
            self.check_room(size)?;
        }
        let volume = self.volume(record);
        // Where `create` was killed before it had made one.
        volume.create(&record.config.disk.quota())?;
        volume.resize(&Quota {
            size: change.size.and(after.size),
            inodes: change.inodes,
        })
    }

    /// The configuration afterwards. Another plan comes first, and what is set or lifted is an exception from it.
    fn changed(&self, before: &VpsConfig, change: &Change, facts: &Facts) -> Result<VpsConfig> {
        let mut config = before.clone();
        config.plan = change.membership(before.plan.as_ref())?;
        if let (Some(name), Some(membership)) = (&change.plan, &config.plan) {
            let plan = self.plan(name)?;
            config.limits = membership.limits(&plan, &before.limits)?;
            config.disk = config.disk.changed(&membership.disk(&plan));
            config = config.with_defaults(facts);
        }
        config.limits = change.apply(&config.limits, facts)?;
        config.disk = config.disk.changed(&change.disk);
        Ok(config)
    }

    /// Makes the kernel hold a running VPS to these limits instead of those of its record; to the latter when it refuses some.
    fn put_in_force(
        &self,
        record: &Record,
        container: &Container,
        limits: &Limits,
        facts: &Facts,
    ) -> Result<()> {
        let before = &record.config.limits;
        let cgroup = container.need_cgroup(&self.host, "resize")?;
        let held = before.any_io() && !limits.any_io();
        let disk = match self.limited_disk(record, limits)? {
            None if held => Some(self.volume(record).device()?),
            disk => disk,
        };
        let resources = |from: &Limits, to: &Limits| -> Result<Value> {
            let wanted = spec::resources(record, to, disk, facts)?;
            let mut all = with_lifted(wanted, from, to, disk, facts);
            let list = |limits| spec::processors(limits, record.id, facts);
            if list(from).is_some() && list(to).is_none() {
                all["cpu"]["cpus"] = json!(cpuset::display(&facts.cpus));
            }
            Ok(all)
        };
        let update = || container.update(&self.host, resources(before, limits)?);
        network::shape(self, record, &limits.rates())?;
        let done = match limits.memory {
            Some(memory) if before.memory.is_none_or(|had| memory < had) => cgroup
                .squeezed(memory, update)
                .map_err(|e| unfit(e, memory, &cgroup)),
            _ => update(),
        };
        if done.is_err() {
            let back = container.update(&self.host, resources(limits, before)?);
            if let Err(e) = back.and(network::shape(self, record, &before.rates())) {
                log::warn!("the limits before are not all in force again: {e}");
            }
        }
        done?;
        limits
            .socket_memory()
            .map_or(Ok(()), |bytes| cgroup.bound_sockets(bytes))
    }
}

/// Says that memory does not fit in the words of who asked: v2 counts what is in use, v1 says `EBUSY`.
fn unfit(e: Error, memory: u64, cgroup: &Cgroup) -> Error {
    let busy = e.errno() == Some(Errno::BUSY.raw_os_error());
    if !busy && !matches!(e.root(), Error::Invalid { .. }) {
        return e;
    }
    let used = cgroup.stats().ok().and_then(|stats| stats.memory);
    let used = used.map_or(memory, |memory| memory.usage);
    let problem = format!(
        "is less than the VPS uses and cannot give back ({} in use): end programs inside first, or give it more",
        size::display(used)
    );
    Error::invalid("--memory", size::display(memory), problem)
}

/// Adds to `resources` what takes limits away that held and hold no longer: for an update, what is not named stays.
fn with_lifted(
    mut resources: Value,
    before: &Limits,
    after: &Limits,
    disk: Option<(u32, u32)>,
    facts: &Facts,
) -> Value {
    let gone = |had: bool, has: bool| had && !has;
    if gone(before.cpus.is_some(), after.cpus.is_some()) {
        resources["cpu"]["quota"] = json!(-1);
    }
    if gone(before.cpu_weight.is_some(), after.cpu_weight.is_some()) {
        match facts.unified {
            true => resources["unified"]["cpu.weight"] = json!("100"),
            false => resources["cpu"]["shares"] = json!(1024),
        }
    }
    if gone(before.memory.is_some(), after.memory.is_some()) {
        resources["memory"] = json!({ "limit": -1, "swap": -1 });
    } else if gone(before.swap.is_some(), after.swap.is_some()) {
        resources["memory"]["swap"] = json!(-1);
    }
    if gone(before.pids.is_some(), after.pids.is_some()) {
        resources["pids"]["limit"] = json!(-1);
    }
    let Some((major, minor)) = disk else {
        return resources;
    };
    for (had, has, key) in [
        (before.io_read, after.io_read, "throttleReadBpsDevice"),
        (before.io_write, after.io_write, "throttleWriteBpsDevice"),
        (before.iops_read, after.iops_read, "throttleReadIOPSDevice"),
        (before.iops_write, after.iops_write, "throttleWriteIOPSDevice"),
    ] {
        if gone(had.is_some(), has.is_some()) {
            resources["blockIO"][key] = json!([{ "major": major, "minor": minor, "rate": 0 }]);
        }
    }
    if gone(before.io_weight.is_some(), after.io_weight.is_some()) {
        resources["blockIO"]["weightDevice"] = json!([{ "major": major, "minor": minor, "weight": 100 }]);
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(json: &str) -> Limits {
        serde_json::from_str(json).unwrap()
    }

    fn facts(unified: bool) -> Facts {
        Facts {
            cpus: [0, 1].into(),
            memory: 4 << 30,
            swap: 0,
            controllers: std::collections::BTreeSet::new(),
            swap_accounting: true,
            unified,
            open_files: 1 << 20,
            oom_score: 0,
            clocks: None,
        }
    }

    #[test]
    fn what_is_lifted_is_named() {
        let before = limits(
            r#"{"cpus":1.0,"cpu_weight":50,"cpuset":"0","memory":9,"swap":0,"pids":4,"io_read":9,"io_write":9,"iops_read":9,"iops_write":9,"io_weight":9}"#,
        );
        let off = json!([{ "major": 8, "minor": 0, "rate": 0 }]);
        let mut expected = json!({
            "cpu": { "quota": -1, "shares": 1024 },
            "memory": { "limit": -1, "swap": -1 },
            "pids": { "limit": -1 },
            "blockIO": { "throttleReadBpsDevice": off, "throttleWriteBpsDevice": off,
                "throttleReadIOPSDevice": off, "throttleWriteIOPSDevice": off,
                "weightDevice": [{ "major": 8, "minor": 0, "weight": 100 }] },
        });
        let none = Limits::default();
        let lifted = |unified| with_lifted(json!({}), &before, &none, Some((8, 0)), &facts(unified));
        assert_eq!(lifted(false), expected);
        expected["cpu"].as_object_mut().unwrap().remove("shares");
        expected["unified"] = json!({ "cpu.weight": "100" });
        assert_eq!(lifted(true), expected);
        assert_eq!(
            with_lifted(json!({}), &none, &before, None, &facts(true)),
            json!({})
        );
    }
}
