//! The pure table: what a spec's resources mean on this host.

use oci_spec::runtime::LinuxResources;

use super::memory::Ceiling;
use super::setting::{Controllers, Setting, Version};
use super::{cpu, cpuset, devices, hugetlb, io, memory, network, pids, rdma, verbatim};
use crate::error::Result;
use crate::host::CgroupLayout;

/// Validated limits in this host's own terms, ready for [`Cgroup::apply`](super::Cgroup::apply).
///
/// Made before anything is created, so that what this host cannot hold is refused with nothing to undo.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    settings: Vec<Setting>,
    ceilings: Vec<Ceiling>,
    /// Rules for an eBPF program; the v1 form is among the settings.
    devices: Option<Vec<devices::Rule>>,
}

impl Limits {
    /// The limits of a new container. Access to devices is always controlled: what no rule allows, beyond
    /// [`default_devices`](super::default_devices), is denied.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for values no kernel takes, [`Error::Unsupported`](crate::Error::Unsupported)
    /// naming the controller or interface this host lacks.
    pub fn from_spec(resources: &LinuxResources, layout: &CgroupLayout) -> Result<Self> {
        let host = Controllers::of(layout);
        let mut limits = Self::without_devices(resources, &host)?;
        limits.add_devices(resources, &host)?;
        Ok(limits)
    }

    /// New limits for a running container: rules for devices stay as they are unless `resources` has some.
    ///
    /// Values that depend on one another (`quota` and `period`, `limit` and `swap`) must come together: merge what changes
    /// into what the container has, and pass the whole.
    ///
    /// # Errors
    /// As [`Limits::from_spec`].
    pub fn for_update(resources: &LinuxResources, layout: &CgroupLayout) -> Result<Self> {
        let host = Controllers::of(layout);
        let mut limits = Self::without_devices(resources, &host)?;
        if resources.devices().is_some() {
            limits.add_devices(resources, &host)?;
        }
        Ok(limits)
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty() && self.devices.is_none()
    }

    /// What will be written, in order.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    pub(super) fn ceilings(&self) -> &[Ceiling] {
        &self.ceilings
    }

    pub(super) fn device_rules(&self) -> Option<&[devices::Rule]> {
        self.devices.as_deref()
    }

    fn add_devices(&mut self, resources: &LinuxResources, host: &Controllers) -> Result<()> {
        let rules = devices::rules(resources.devices().as_deref().unwrap_or_default())?;
        match host.devices()? {
            Version::V1 => self.settings.extend(devices::settings_v1(&rules)?),
            Version::V2 => self.devices = Some(rules),
        }
        Ok(())
    }

    fn without_devices(resources: &LinuxResources, host: &Controllers) -> Result<Self> {
        let mut limits = Self::default();
        let settings = &mut limits.settings;
        if let Some(cpu) = resources.cpu() {
            if cpu::concerns(cpu) {
                let version = host.version("cpu", "cpu", "linux.resources.cpu")?;
                settings.extend(cpu::settings(cpu, version)?);
            }
            let sets = cpuset::settings(cpu)?;
            if !sets.is_empty() {
                host.version("cpuset", "cpuset", "linux.resources.cpu.cpus and mems")?;
                settings.extend(sets);
            }
        }
        if let Some(memory) = resources.memory() {
            let version = host.version("memory", "memory", "linux.resources.memory")?;
            settings.extend(memory::settings(memory, version)?);
            limits.ceilings.extend(memory::ceiling(memory, version));
        }
        if let Some(io) = resources.block_io() {
            let version = host.version("blkio", "io", "linux.resources.blockIO")?;
            settings.extend(io::settings(io, version)?);
        }
        limits.add_countables(resources, host)?;
        Ok(limits)
    }

    /// The limits on things that are counted, and what only one cgroup version has.
    fn add_countables(&mut self, resources: &LinuxResources, host: &Controllers) -> Result<()> {
        let settings = &mut self.settings;
        let tasks = resources.pids().as_ref().map(pids::settings).unwrap_or_default();
        if !tasks.is_empty() {
            host.version("pids", "pids", "linux.resources.pids")?;
            settings.extend(tasks);
        }
        if let Some(pages) = resources.hugepage_limits().as_ref().filter(|p| !p.is_empty()) {
            let version = host.version("hugetlb", "hugetlb", "linux.resources.hugepageLimits")?;
            settings.extend(hugetlb::settings(pages, version)?);
        }
        let adapters = resources.rdma().as_ref().map(rdma::settings).unwrap_or_default();
        if !adapters.is_empty() {
            host.version("rdma", "rdma", "linux.resources.rdma")?;
            settings.extend(adapters);
        }
        if let Some(network) = resources.network() {
            settings.extend(network::settings(network, host)?);
        }
        // Last, so that what is said by name wins over what was derived.
        if let Some(map) = resources.unified() {
            settings.extend(verbatim::settings(map, host)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::setting::tests::{lines, v1, v2};
    use super::*;

    /// What an orchestrator typically asks for.
    const TYPICAL: &str = r#"{
        "memory":{"limit":268435456,"swap":268435456},
        "cpu":{"shares":512,"quota":50000,"period":100000,"cpus":"0"},
        "pids":{"limit":100},
        "blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1048576}]},
        "hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#;

    fn golden(json: &str, host: &Controllers) -> Result<Vec<String>> {
        let resources = serde_json::from_str(json).unwrap();
        Limits::without_devices(&resources, host).map(|l| lines(&l.settings))
    }

    #[test]
    fn typical_limits_on_v2() {
        assert_eq!(
            golden(TYPICAL, &v2()).unwrap(),
            [
                "cpu.weight=59",
                "cpu.max=50000 100000",
                "cpuset.cpus=0",
                "memory.swap.max=0",
                "memory.max=268435456",
                "io.max=8:0 rbps=1048576",
                "pids.max=100",
                "hugetlb.2MB.max=0",
                "hugetlb.2MB.rsvd.max=0",
            ]
        );
    }

    #[test]
    fn typical_limits_on_v1() {
        assert_eq!(
            golden(TYPICAL, &v1()).unwrap(),
            [
                "cpu.shares=512",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "cpuset.cpus=0",
                "memory.limit_in_bytes=268435456",
                "memory.memsw.limit_in_bytes=268435456",
                "blkio.throttle.read_bps_device=8:0 1048576",
                "pids.max=100",
                "hugetlb.2MB.limit_in_bytes=0",
                "hugetlb.2MB.rsvd.limit_in_bytes=0",
            ]
        );
    }

    #[test]
    fn a_new_container_always_has_device_rules_and_an_update_only_when_asked() {
        let layout = CgroupLayout::Unified("/nonexistent".into());
        let nothing = LinuxResources::default();
        assert!(Limits::from_spec(&nothing, &layout).unwrap().devices.is_some());
        assert!(Limits::for_update(&nothing, &layout).unwrap().is_empty());
    }

    #[test]
    fn a_missing_controller_is_named() {
        let bare = Controllers::default();
        let e = golden(r#"{"pids":{"limit":5}}"#, &bare).unwrap_err();
        assert!(e.to_string().contains("`pids`"), "{e}");
        assert!(golden(r#"{"pids":{"limit":0}}"#, &bare).unwrap().is_empty());
    }
}
