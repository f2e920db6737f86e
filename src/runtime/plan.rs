//! The decision: everything that will be done for a container, computed from its config and the host before anything happens.

use std::collections::BTreeMap;
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxSeccomp, Spec};

use super::bundle::Bundle;
use super::hooks;
use super::id::Id;
use super::rootless;
use super::sysctl::Sysctls;
use crate::cgroups::{Allocation, Home, Limits, Manager};
use crate::error::{Error, Result};
use crate::host::{Caller, Host};
use crate::namespaces::subordinate::Writer;
use crate::namespaces::user::IdMap;
use crate::namespaces::{Kind, Namespaces};
use crate::net::Devices;
use crate::process::Process;
use crate::process::scheduler::Scheduler;
use crate::rootfs::{Facts, MountsOf, RootfsPlan};
use crate::seccomp::{self, Filter};
use resources::{decide_allocation, decide_cgroup, decide_limits, delegates};

mod resources;

/// Where containers live whose config names a relative cgroup: never below the caller's own. One whose config names none has
/// `/<id>`, as with other runtimes: callers look for its cgroup by that name.
pub const DEFAULT_CGROUP: &str = "/condo-runtime";

/// `KTIME_SEC_MAX`: more seconds than these no clock of the kernel counts.
const MAX_OFFSET: i64 = i64::MAX / 1_000_000_000;

/// How the caller wants it done, beside the config.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choices {
    /// Do not use `pivot_root(2)` (root on a ramdisk).
    pub no_pivot: bool,
    /// Stay in the caller's session keyring.
    pub no_new_keyring: bool,
    /// Who makes the cgroup.
    pub cgroup_manager: Manager,
    /// Go on without a cgroup where the caller may not make one and no limit is asked for.
    pub rootless: bool,
    /// Make a new user namespace as the user who is root in it: what the kernel limits per user (inotify, pending signals,
    /// message queues, namespaces) is then counted for that user, and not for the host's root.
    pub own_account: bool,
    /// Leave it to init's children to take the terminal as theirs, as a kernel does with its console: whoever has it is hit
    /// by Ctrl-C.
    pub console: bool,
    /// Give the container a socket by which it says that it is ready, see [`super::notify`].
    pub notify: bool,
}

/// All that parent and init will do.
#[derive(Debug)]
pub struct Plan {
    /// New and joined namespaces.
    pub namespaces: Namespaces,
    /// Who makes all this.
    pub caller: Caller,
    /// The maps of a new user namespace.
    pub ids: IdMap,
    /// Who writes them; absent without a new user namespace.
    pub maps: Option<Writer>,
    /// Network devices that move in.
    pub devices: Devices,
    /// The container's program.
    pub process: Process,
    /// The mount tree.
    pub rootfs: RootfsPlan,
    /// Where the cgroup will be; a container without one stays in its caller's.
    pub cgroup: Option<Home>,
    /// Its limits.
    pub limits: Limits,
    /// Its share of caches and memory bandwidth.
    pub resctrl: Option<Allocation>,
    /// Who is given the cgroup's management, as the spec's "Cgroup ownership" says.
    pub delegate: Option<(u32, u32)>,
    /// Which system calls are let through.
    pub seccomp: Option<LinuxSeccomp>,
    /// The program made of that.
    pub filter: Option<Filter>,
    /// The caller's programs.
    pub hooks: hooks::Set,
    /// Host name.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Kernel parameters.
    pub sysctls: Sysctls,
    /// Lines for `/proc/self/timens_offsets`.
    pub time_offsets: String,
    /// See [`Choices`].
    pub choices: Choices,
}

impl Plan {
    /// Decides, or names the field that stands in the way.
    pub fn decide(bundle: &Bundle, id: &Id, host: &Host, choices: Choices) -> Result<Self> {
        Self::on_rootfs(bundle, &bundle.rootfs()?, id, host, choices)
    }

    /// The decision itself, with the root filesystem found (absolute and canonical): asks nothing of the kernel but
    /// `cgroup.controllers` of the layout's cgroup2.
    ///
    /// # Errors
    /// Names the field that stands in the way.
    pub fn on_rootfs(bundle: &Bundle, rootfs: &Path, id: &Id, host: &Host, choices: Choices) -> Result<Self> {
        let spec = &bundle.spec;
        let linux = spec
            .linux()
            .clone()
            .ok_or_else(|| Error::invalid("linux", "", "is required"))?;
        check_version(spec.version())?;
        refuse_unsupported(spec)?;
        let namespaces = Namespaces::from_spec(spec)?;
        rootless::check_namespaces(&namespaces, &linux, &host.caller)?;
        let ids = decide_ids(spec, &namespaces)?;
        let process = decide_process(spec, &namespaces, &ids)?;
        let maps = decide_maps(&namespaces, &ids, &host.caller)?;
        rootless::check_groups(&process, maps.as_ref())?;
        let resources = linux.resources().clone().unwrap_or_default();
        let cgroup = decide_cgroup(spec, &linux, id, (host, choices))?;
        let facts = Facts {
            host,
            userns: namespaces.has(Kind::User),
            cgroupns: namespaces.has(Kind::Cgroup),
            netns: namespaces.has(Kind::Network),
            cgroup_path: cgroup.as_ref().map(Home::path),
            mounts: mounts_of(&namespaces),
            no_pivot: choices.no_pivot,
        };
        let rootfs = RootfsPlan::from_spec(spec, rootfs, &bundle.path, &facts)?;
        Ok(Self {
            resctrl: decide_allocation(&linux, id)?,
            limits: decide_limits(&resources, host, cgroup.as_ref())?,
            delegate: ids
                .root()
                // An ordinary user cannot give away what belongs to them.
                .filter(|_| host.caller.admin && cgroup.is_some())
                .filter(|_| delegates(spec, &namespaces, &host.cgroups)),
            filter: linux.seccomp().as_ref().map(seccomp::compile).transpose()?,
            seccomp: linux.seccomp().clone(),
            hooks: decide_hooks(spec, &process)?,
            hostname: uts_name("hostname", spec.hostname().as_deref(), &namespaces)?,
            domainname: uts_name("domainname", spec.domainname().as_deref(), &namespaces)?,
            sysctls: Sysctls::from_spec(spec, &namespaces)?,
            devices: decide_devices(&linux, &namespaces)?,
            time_offsets: time_offsets(&linux, &namespaces)?,
            namespaces,
            caller: host.caller,
            ids,
            maps,
            process,
            rootfs,
            cgroup,
            choices,
        })
    }
}

/// Any 1.x is understood: the spec adds fields within a major version and changes none. A config that names no version says nothing
/// against this one.
fn check_version(version: &str) -> Result<()> {
    if version.is_empty() {
        return Ok(());
    }
    let mut numbers = version.split(['.', '-', '+']);
    match (numbers.next(), numbers.next().map(str::parse::<u32>)) {
        (Some("1"), Some(Ok(_))) => Ok(()),
        _ => Err(Error::invalid(
            "ociVersion",
            version,
            "is not a version of the runtime spec this runtime knows (1.x)",
        )),
    }
}

/// What is for other machines than this one is refused, never ignored.
fn refuse_unsupported(spec: &Spec) -> Result<()> {
    let asked = [
        ("vm", spec.vm().is_some()),
        ("windows", spec.windows().is_some()),
        ("solaris", spec.solaris().is_some()),
        ("zos", spec.zos().is_some()),
    ];
    match asked.iter().find(|(_, asked)| *asked) {
        Some((field, _)) => Err(Error::unsupported(
            format!("`{field}`"),
            "is for another kind of machine than a Linux container; leave it out",
        )),
        None => Ok(()),
    }
}

fn decide_ids(spec: &Spec, namespaces: &Namespaces) -> Result<IdMap> {
    let ids = IdMap::from_spec(spec)?;
    if namespaces.is_new(Kind::User) && ids.root().is_none() {
        let problem =
            "must map container id 0 for users and groups, because a new user namespace is asked for";
        return Err(Error::invalid("linux.uidMappings", "", problem));
    }
    // A mount's own maps go to a user namespace as well, made when it is too late for a mistake.
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let [uids, gids] =
            [mount.uid_mappings(), mount.gid_mappings()].map(|m| m.as_deref().unwrap_or_default());
        IdMap::from_mappings(uids, gids, &format!("mounts[{index}]"))?;
    }
    if !namespaces.has(Kind::User) && !ids.is_empty() {
        let problem = "are given, but `linux.namespaces` has no user namespace";
        return Err(Error::invalid("linux.uidMappings", "mappings", problem));
    }
    Ok(ids)
}

fn mounts_of(namespaces: &Namespaces) -> MountsOf {
    match (namespaces.is_new(Kind::Mount), namespaces.joined(Kind::Mount)) {
        (true, _) => MountsOf::Container,
        (_, Some(_)) => MountsOf::Joined,
        (_, None) => MountsOf::Caller,
    }
}

/// Who writes the maps, and whether filesystems of the container can have the owners they are to have.
fn decide_maps(namespaces: &Namespaces, ids: &IdMap, caller: &Caller) -> Result<Option<Writer>> {
    if !namespaces.is_new(Kind::User) {
        return Ok(None);
    }
    Writer::choose(ids, caller, std::env::var_os("PATH").as_deref()).map(Some)
}

fn decide_process(spec: &Spec, namespaces: &Namespaces, ids: &IdMap) -> Result<Process> {
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| Error::invalid("process", "", "is required"))?;
    let process = Process::from_spec(process)?.of_container(spec.linux().as_ref())?;
    if namespaces.is_new(Kind::User) {
        check_user(&process, ids)?;
        rootless::check_mount_owners(spec, ids)?;
    }
    Ok(process)
}

/// Init itself runs the startContainer hooks, as it will be scheduled.
fn decide_hooks(spec: &Spec, process: &Process) -> Result<hooks::Set> {
    let hooks = hooks::Set::from_spec(spec.hooks().as_ref())?;
    let alone = process
        .scheduler
        .as_ref()
        .is_some_and(Scheduler::forbids_children);
    if alone && !hooks.start_container.is_empty() {
        let problem = "cannot run the startContainer hooks: add SCHED_FLAG_RESET_ON_FORK to its flags";
        return Err(Error::invalid(
            "process.scheduler.policy",
            "SCHED_DEADLINE",
            problem,
        ));
    }
    Ok(hooks)
}

fn decide_devices(linux: &Linux, namespaces: &Namespaces) -> Result<Devices> {
    let devices = Devices::from_spec(linux)?;
    if !devices.is_empty() && !namespaces.has(Kind::Network) {
        let problem = "need a network namespace of the container's own in `linux.namespaces`";
        return Err(Error::invalid("linux.netDevices", "devices", problem));
    }
    Ok(devices)
}

/// The process's ids must exist in its user namespace.
pub fn check_user(process: &Process, ids: &IdMap) -> Result<()> {
    let who = &process.credentials;
    if !ids.has_uid(who.uid) {
        return Err(Error::invalid(
            "process.user.uid",
            who.uid,
            "is not in `linux.uidMappings`",
        ));
    }
    match std::iter::once(&who.gid)
        .chain(&who.groups)
        .find(|gid| !ids.has_gid(**gid))
    {
        Some(gid) => Err(Error::invalid(
            "process.user.gid",
            gid,
            "is not in `linux.gidMappings`",
        )),
        None => Ok(()),
    }
}

fn uts_name(field: &str, name: Option<&str>, namespaces: &Namespaces) -> Result<Option<String>> {
    match name.filter(|n| !n.is_empty()) {
        Some(name) if !namespaces.has(Kind::Uts) => Err(Error::invalid(
            field,
            name,
            "cannot be set without a uts namespace of the container's own",
        )),
        // __NEW_UTS_LEN of linux/utsname.h.
        Some(name) if name.len() > 64 => Err(Error::invalid(
            field,
            name,
            "is longer than the kernel's 64 bytes",
        )),
        name => Ok(name.map(Into::into)),
    }
}

fn time_offsets(linux: &Linux, namespaces: &Namespaces) -> Result<String> {
    let offsets = linux.time_offsets().clone().unwrap_or_default();
    if !offsets.is_empty() && !namespaces.is_new(Kind::Time) {
        return Err(Error::invalid(
            "linux.timeOffsets",
            "",
            "need a new time namespace in `linux.namespaces`",
        ));
    }
    let mut lines = String::new();
    for (clock, offset) in offsets.iter().collect::<BTreeMap<_, _>>() {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(Error::invalid(
                "linux.timeOffsets",
                clock,
                "is not a clock: use `monotonic` or `boottime`",
            ));
        }
        let (secs, nanos) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        if !(-MAX_OFFSET..=MAX_OFFSET).contains(&secs) {
            let field = format!("linux.timeOffsets.{clock}.secs");
            return Err(Error::invalid(
                field,
                secs,
                "is more than the kernel's 9223372036 seconds",
            ));
        }
        if nanos >= 1_000_000_000 {
            let field = format!("linux.timeOffsets.{clock}.nanosecs");
            return Err(Error::invalid(field, nanos, "must be below 1000000000"));
        }
        lines.push_str(&format!("{clock} {secs} {nanos}\n"));
    }
    Ok(lines)
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod refusals;

#[cfg(test)]
mod tests {
    use super::*;

    fn linux(json: &str) -> Linux {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn versions_of_the_spec() {
        for good in ["1.0.0", "1.0.2-dev", "1.3.0", "1.1.0+dev"] {
            check_version(good).unwrap();
        }
        for bad in ["2.0.0", "1", "x.1.0"] {
            assert!(check_version(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn time_offsets_need_a_time_namespace_and_a_known_clock() {
        let spec: Spec =
            serde_json::from_str(r#"{"ociVersion":"1.3.0","linux":{"namespaces":[{"type":"time"}]}}"#)
                .unwrap();
        let own = Namespaces::from_spec(&spec).unwrap();
        let boot = linux(r#"{"timeOffsets":{"boottime":{"secs":5,"nanosecs":7}}}"#);
        assert_eq!(time_offsets(&boot, &own).unwrap(), "boottime 5 7\n");
        assert!(time_offsets(&boot, &Namespaces::default()).is_err());
        let both = linux(r#"{"timeOffsets":{"monotonic":{"secs":-1},"boottime":{"secs":1}}}"#);
        assert_eq!(
            time_offsets(&both, &own).unwrap(),
            "boottime 1 0\nmonotonic -1 0\n"
        );
        for bad in [r#"{"nanosecs":1000000000}"#, r#"{"secs":-9223372037}"#] {
            let offsets = linux(&format!(r#"{{"timeOffsets":{{"boottime":{bad}}}}}"#));
            let e = time_offsets(&offsets, &own).unwrap_err().to_string();
            assert!(e.starts_with("linux.timeOffsets.boottime."), "{e}");
        }
        assert!(time_offsets(&linux(r#"{"timeOffsets":{"realtime":{}}}"#), &own).is_err());
    }
}
