//! The pure table: what a spec's resources mean on this host.

use std::borrow::Cow;

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
    /// [`Error::Invalid`] for values no kernel takes, [`Error::Unsupported`] naming the controller or interface this host
    /// lacks.
    ///
    /// [`Error::Invalid`]: crate::error::Error::Invalid
    /// [`Error::Unsupported`]: crate::error::Error::Unsupported
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

    /// Checks that a container without a cgroup loses nothing by it: that no limit is asked for. Rules for devices are none,
    /// because callers always send some.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming the field with a limit.
    ///
    /// [`Error::Unsupported`]: crate::error::Error::Unsupported
    pub fn refuse_any(resources: &LinuxResources) -> Result<()> {
        Self::without_devices(resources, &Controllers::none()).map(drop)
    }

    /// The limits of a new container whose caller may not control access to devices.
    ///
    /// # Errors
    /// As [`Limits::from_spec`].
    pub fn without_device_rules(resources: &LinuxResources, layout: &CgroupLayout) -> Result<Self> {
        Self::without_devices(resources, &Controllers::of(layout))
    }

    /// The same with another value for a file, where `other` has one for what it is.
    pub(super) fn with(&self, file: &str, other: impl Fn(&str) -> Option<String>) -> Cow<'_, Self> {
        let found = self
            .settings
            .iter()
            .enumerate()
            .filter(|(_, setting)| setting.file == file)
            .filter_map(|(at, setting)| Some((at, other(&setting.value)?)));
        let mut limits = Cow::Borrowed(self);
        for (at, value) in found {
            limits.to_mut().settings[at].value = value;
        }
        limits
    }

    /// The same without a file.
    pub(super) fn without(&self, file: &str) -> Self {
        let mut limits = self.clone();
        limits.settings.retain(|setting| setting.file != file);
        limits
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
        if let Some(cpu) = resources.cpu() {
            limits.add(host, "cpu", "linux.resources.cpu", |v| cpu::settings(cpu, v))?;
            let field = "linux.resources.cpu.cpus and mems";
            limits.add(host, "cpuset", field, |_| cpuset::settings(cpu))?;
        }
        if let Some(memory) = resources.memory() {
            let field = "linux.resources.memory";
            limits.add(host, "memory", field, |v| memory::settings(memory, v))?;
            let version = host.version("memory", field);
            limits
                .ceilings
                .extend(version.ok().and_then(|v| memory::ceiling(memory, v)));
        }
        if let Some(io) = resources.block_io() {
            limits.add(host, "io", "linux.resources.blockIO", |v| io::settings(io, v))?;
        }
        if let Some(tasks) = resources.pids() {
            limits.add(host, "pids", "linux.resources.pids", |_| {
                Ok(pids::settings(tasks))
            })?;
        }
        if let Some(pages) = resources.hugepage_limits() {
            let field = "linux.resources.hugepageLimits";
            limits.add(host, "hugetlb", field, |v| hugetlb::settings(pages, v))?;
        }
        if let Some(adapters) = resources.rdma() {
            limits.add(host, "rdma", "linux.resources.rdma", |_| rdma::settings(adapters))?;
        }
        if let Some(network) = resources.network() {
            limits.settings.extend(network::settings(network, host)?);
        }
        // Last, so that what is said by name wins over what was derived.
        if let Some(map) = resources.unified() {
            limits.settings.extend(verbatim::settings(map, host)?);
        }
        Ok(limits)
    }

    /// Adds what one controller has to hold. A controller that is missing is missed only when there is something: callers send
    /// sections full of zeros.
    fn add(
        &mut self,
        host: &Controllers,
        controller: &str,
        field: &str,
        settings: impl Fn(Version) -> Result<Vec<Setting>>,
    ) -> Result<()> {
        match host.version(controller, field) {
            Ok(version) => self.settings.extend(settings(version)?),
            Err(missing) => {
                if !settings(Version::V1)?.is_empty() {
                    return Err(missing);
                }
            }
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
        let zeros = r#"{"cpu":{"shares":0},"memory":{"limit":0,"disableOOMKiller":false},"blockIO":{}}"#;
        assert!(golden(zeros, &bare).unwrap().is_empty());
    }

    #[test]
    fn without_a_cgroup_any_limit_is_refused_by_name_and_device_rules_are_not() {
        let refuse = |json| Limits::refuse_any(&serde_json::from_str(json).unwrap());
        refuse(r#"{"cpu":{"shares":0},"devices":[{"allow":false,"access":"rwm"}]}"#).unwrap();
        for (json, field) in [
            (r#"{"pids":{"limit":0}}"#, "linux.resources.pids"),
            (r#"{"memory":{"limit":4096}}"#, "linux.resources.memory"),
            (r#"{"cpu":{"cpus":"0"}}"#, "linux.resources.cpu"),
            (r#"{"unified":{"memory.high":"1"}}"#, "linux.resources.unified"),
            (
                r#"{"unified":{"cgroup.max.depth":"1"}}"#,
                "linux.resources.unified",
            ),
            (r#"{"network":{"classID":1}}"#, "linux.resources.network.classID"),
        ] {
            let e = refuse(json).unwrap_err().to_string();
            assert!(e.contains(field) && e.contains("--cgroup-manager"), "{e}");
        }
    }
}
