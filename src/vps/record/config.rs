//! What the user asked for, and the one check every entry point (create, and later import, clone, restore) passes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::attachment::{self, Attachment};
use super::cpuset;
use super::device::Device;
use super::disk::Disk;
use super::facts::Facts;
use super::ids;
use super::labels::Labels;
use super::limits::Limits;
use super::name::Name;
use super::permit::Permit;
use super::plans::Membership;
use super::policy::{Boot, Restart};
use super::rescue::Rescue;
use super::schedule::Schedule;
use super::size;
use crate::error::{Error, Result};
use crate::net::filter::Filter;
use crate::net::publication::Publication;

/// The kernel refuses a quota below one millisecond per period.
const MIN_CPUS: f64 = 0.01;
/// A smaller limit is a forgotten suffix, not a wish.
const MIN_MEMORY: u64 = 1 << 20;
/// One page: a slower disk would never finish a single request.
const MIN_IO: u64 = 4096;
/// Tasks a VPS may have unless told otherwise, so that no fork bomb takes the host's pid space.
const DEFAULT_PIDS: u64 = 4096;
/// `HOST_NAME_MAX` of Linux.
const MAX_HOSTNAME: usize = 64;

/// The configuration of a VPS, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VpsConfig {
    /// Image its root disk is based on.
    pub image: String,
    /// Host name, if not the VPS's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
    /// Environment of its init, besides condo's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The address asked for, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ipv4Addr>,
    /// The networks it shall be on, each by an interface of its own; none is the default one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Attachment>,
    /// VPSs it may talk to when it is created; the pairs then live in the store.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub allow: BTreeSet<Name>,
    /// What it is permitted beyond the usual.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub permit: BTreeSet<Permit>,
    /// Devices of the host's that it may open.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub devices: BTreeSet<Device>,
    /// Whether it is made ready for containers of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nesting: bool,
    /// Whether `sysinfo(2)` is answered with its own memory and load.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub own_sysinfo: bool,
    /// How many user ids it has, if not as many as usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<u32>,
    /// Its disk.
    #[serde(default, skip_serializing_if = "Disk::is_plain")]
    pub disk: Disk,
    /// What was begun with it and has to be finished before it can start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<super::pending::Pending>,
    /// What other tools keep with it.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Its plan, whose limits it has but for its own exceptions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Membership>,
    /// The project it is in, if not the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<Name>,
    /// Whether it is started again when it ends.
    #[serde(default, skip_serializing_if = "Restart::is_no")]
    pub restart: Restart,
    /// How it comes up with the host.
    #[serde(default, skip_serializing_if = "Boot::is_default")]
    pub boot: Boot,
    /// When snapshots are taken by themselves, if not as of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// The rescue system that boots in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rescue: Option<Rescue>,
    /// Ports of the host that lead to it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub publish: BTreeSet<Publication>,
    /// What it lets in and out.
    #[serde(default, skip_serializing_if = "Filter::is_open")]
    pub firewall: Filter,
    /// Whether its deletion has begun: parts of it may be gone already, and there is no way back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
    /// What the move by which it came from another host is known by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived: Option<String>,
}

/// What a record that says nothing means.
fn yes() -> bool {
    true
}

impl VpsConfig {
    /// A configuration with nothing but an image.
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            hostname: None,
            limits: Limits::default(),
            env: BTreeMap::new(),
            ip: None,
            networks: Vec::new(),
            allow: BTreeSet::new(),
            permit: BTreeSet::new(),
            devices: BTreeSet::new(),
            nesting: false,
            own_sysinfo: true,
            ids: None,
            disk: Disk::default(),
            pending: None,
            labels: Labels::default(),
            plan: None,
            project: None,
            restart: Restart::No,
            boot: Boot::default(),
            schedule: None,
            rescue: None,
            publish: BTreeSet::new(),
            firewall: Filter::default(),
            deleting: false,
            arrived: None,
        }
    }

    /// Fills in what is safe to have when the user did not say: a bound on tasks, and no swap beside a memory limit (a VPS
    /// that swaps slows all its neighbours down). Only what this host can enforce.
    #[must_use]
    pub fn with_defaults(mut self, facts: &Facts) -> Self {
        let limits = &mut self.limits;
        if facts.controllers.contains("pids") {
            limits.pids.get_or_insert(DEFAULT_PIDS);
        }
        if limits.memory.is_some() && facts.swap_accounting {
            limits.swap.get_or_insert(0);
        }
        self
    }

    /// Refuses what is malformed, zero, above the host, or cannot be enforced on it. Fields are named by their options.
    pub fn validate(&self, facts: &Facts) -> Result<()> {
        self.hostname.as_deref().map_or(Ok(()), check_hostname)?;
        self.env
            .iter()
            .try_for_each(|(key, value)| check_env(key, value))?;
        self.ip.map_or(Ok(()), check_address)?;
        attachment::check(&self.networks)?;
        let limits = &self.limits;
        check_cpu(limits, facts)?;
        check_memory(limits, facts)?;
        at_least("--pids", limits.pids, 1, "must be above 0")?;
        for (option, rate) in [("--io-read", limits.io_read), ("--io-write", limits.io_write)] {
            at_least(
                option,
                rate,
                MIN_IO,
                "is below 4K a second; sizes without a suffix are bytes",
            )?;
        }
        at_least("--iops-read", limits.iops_read, 1, "must be above 0")?;
        at_least("--iops-write", limits.iops_write, 1, "must be above 0")?;
        check_weight("--io-weight", limits.io_weight, 10..=1000)?;
        limits.rates().check()?;
        self.firewall.check()?;
        check_controllers(limits, facts)?;
        self.ids.map_or(Ok(()), |ids| ids::check(ids.into()).map(drop))?;
        self.disk.check()?;
        self.labels.validate()
    }
}

fn at_least(option: &str, value: Option<u64>, least: u64, problem: &str) -> Result<()> {
    match value {
        Some(0) => Err(Error::invalid(option, 0, "must be above 0")),
        Some(value) if value < least => Err(Error::invalid(option, value, problem)),
        _ => Ok(()),
    }
}

fn check_cpu(limits: &Limits, facts: &Facts) -> Result<()> {
    let refuse = |value: f64, problem: &dyn Display| Err(Error::invalid("--cpus", value, problem));
    let host = facts.cpus.len();
    match limits.cpus {
        Some(n) if n.is_nan() || n <= 0.0 => return refuse(n, &"must be above 0"),
        Some(n) if n < MIN_CPUS => return refuse(n, &"is below 0.01, the least the kernel can enforce"),
        #[allow(clippy::cast_precision_loss)]
        Some(n) if n > host as f64 => {
            return refuse(n, &format!("is above the {host} processors of this host"));
        }
        _ => {}
    }
    check_weight("--cpu-weight", limits.cpu_weight, 1..=10_000)?;
    limits
        .cpuset
        .as_deref()
        .map_or(Ok(()), |text| check_cpuset(text, facts))
}

fn check_weight(option: &str, weight: Option<u64>, range: RangeInclusive<u64>) -> Result<()> {
    let Some(weight) = weight.filter(|weight| !range.contains(weight)) else {
        return Ok(());
    };
    let (least, most) = (range.start(), range.end());
    let problem = format!("must be from {least} to {most} (100 is what others have)");
    Err(Error::invalid(option, weight, problem))
}

fn check_cpuset(text: &str, facts: &Facts) -> Result<()> {
    let refuse = |problem: &dyn Display| Err(Error::invalid("--cpuset", text, problem));
    let Some(wanted) = cpuset::parse(text) else {
        return refuse(&"is not a list of processors, such as `0-3` or `0,2`");
    };
    match wanted.difference(&facts.cpus).next() {
        Some(missing) => refuse(&format!(
            "names processor {missing}, which is not online on this host"
        )),
        None => Ok(()),
    }
}

fn check_memory(limits: &Limits, facts: &Facts) -> Result<()> {
    at_least(
        "--memory",
        limits.memory,
        MIN_MEMORY,
        "is below 1M; sizes without a suffix are bytes",
    )?;
    if let Some(memory) = limits.memory.filter(|m| *m > facts.memory) {
        let problem = format!(
            "is above the {} of memory of this host",
            size::display(facts.memory)
        );
        return Err(Error::invalid("--memory", size::display(memory), problem));
    }
    let Some(swap) = limits.swap else { return Ok(()) };
    if limits.memory.is_none() {
        return Err(Error::invalid(
            "--swap",
            size::display(swap),
            "needs --memory: swap is counted beside it",
        ));
    }
    if swap > facts.swap {
        let problem = format!("is above the {} of swap of this host", size::display(facts.swap));
        return Err(Error::invalid("--swap", size::display(swap), problem));
    }
    if !facts.swap_accounting {
        return Err(Error::unsupported(
            "--swap",
            "this kernel does not count swap; boot it with `swapaccount=1`",
        ));
    }
    Ok(())
}

fn check_controllers(limits: &Limits, facts: &Facts) -> Result<()> {
    for (option, used, controller) in [
        ("--cpus", limits.cpus.is_some(), "cpu"),
        ("--cpu-weight", limits.cpu_weight.is_some(), "cpu"),
        ("--cpuset", limits.cpuset.is_some(), "cpuset"),
        ("--memory", limits.memory.is_some(), "memory"),
        ("--pids", limits.pids.is_some(), "pids"),
        (
            "--io-read, --io-write, --iops-read, --iops-write, --io-weight",
            limits.any_io(),
            "io",
        ),
    ] {
        if used && !facts.controllers.contains(controller) {
            let why = format!("the `{controller}` cgroup controller is not available on this host");
            return Err(Error::unsupported(option, why));
        }
    }
    Ok(())
}

/// A host name becomes a line of `/etc/hosts`: DNS labels joined by points and nothing else.
fn check_hostname(name: &str) -> Result<()> {
    let label = |part: &str| {
        let bytes = part.as_bytes();
        !part.is_empty()
            && part.len() <= 63
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
            && bytes.first() != Some(&b'-')
            && bytes.last() != Some(&b'-')
    };
    if name.len() <= MAX_HOSTNAME && name.split('.').all(label) {
        return Ok(());
    }
    Err(Error::invalid(
        "--hostname",
        name,
        "is not a host name: letters, digits and `-`, joined by points, at most 64 characters",
    ))
}

fn check_env(key: &str, value: &str) -> Result<()> {
    let shown = format!("{key}={value}");
    if key.is_empty() || key.contains('=') || shown.contains('\0') {
        return Err(Error::invalid("--env", shown, "is not of the form NAME=VALUE"));
    }
    // By these the init inside knows where it is (systemd's container interface).
    if key == "container" || key == "container_uuid" {
        return Err(Error::invalid("--env", shown, "is set by condo"));
    }
    Ok(())
}

pub(super) fn check_address(ip: Ipv4Addr) -> Result<()> {
    let unusable = ip.is_unspecified()
        || ip.is_loopback()
        || ip.is_multicast()
        || ip.is_broadcast()
        || ip.is_link_local();
    if unusable {
        return Err(Error::invalid(
            "--ip",
            ip,
            "is not the address of a single machine",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            cpus: [0, 1, 3].into(),
            memory: 4 << 30,
            swap: 1 << 30,
            controllers: ["cpu", "cpuset", "memory", "pids", "io"].map(Into::into).into(),
            swap_accounting: true,
            unified: true,
            open_files: 1 << 20,
            oom_score: 0,
            clocks: None,
        }
    }

    fn with(limits: Limits) -> VpsConfig {
        VpsConfig {
            limits,
            ..VpsConfig::new("busybox")
        }
    }

    fn refusal(limits: Limits) -> String {
        with(limits).validate(&facts()).unwrap_err().to_string()
    }

    macro_rules! limits {
        ($($field:ident: $value:expr),*) => {{
            let mut limits = Limits::default();
            $(limits.$field = Some($value);)*
            limits
        }};
    }

    #[test]
    fn what_the_host_can_hold_is_accepted() {
        let limits = limits! {
            cpus: 3.0, cpu_weight: 10_000, cpuset: "0-1,3".into(), memory: 4 << 30, swap: 0, pids: 1,
            io_read: 4096, io_write: 1 << 40, iops_read: 1, iops_write: 1, io_weight: 1000
        };
        with(limits).validate(&facts()).unwrap();
        VpsConfig::new("busybox").validate(&facts()).unwrap();
    }

    #[test]
    fn zero_is_refused_by_its_options_name() {
        for (limits, option) in [
            (limits! { cpus: 0.0 }, "--cpus"),
            (limits! { cpu_weight: 0 }, "--cpu-weight"),
            (limits! { memory: 0 }, "--memory"),
            (limits! { pids: 0 }, "--pids"),
            (limits! { io_read: 0 }, "--io-read"),
            (limits! { io_write: 0 }, "--io-write"),
            (limits! { iops_read: 0 }, "--iops-read"),
            (limits! { iops_write: 0 }, "--iops-write"),
        ] {
            let text = refusal(limits);
            assert!(text.starts_with(&format!("{option}: `0` must be ")), "{text}");
        }
    }

    #[test]
    fn more_than_the_host_has_is_refused_with_what_it_has() {
        assert_eq!(
            refusal(limits! { cpus: 3.5 }),
            "--cpus: `3.5` is above the 3 processors of this host"
        );
        let text = refusal(limits! { memory: 5 << 30 });
        assert_eq!(text, "--memory: `5G` is above the 4G of memory of this host");
        let text = refusal(limits! { memory: 1 << 30, swap: 2 << 30 });
        assert_eq!(text, "--swap: `2G` is above the 1G of swap of this host");
        assert!(refusal(limits! { cpuset: "1-2".into() }).contains("names processor 2"));
    }

    #[test]
    fn nonsense_is_refused() {
        for limits in [
            limits! { cpus: f64::NAN },
            limits! { cpus: f64::INFINITY },
            limits! { cpus: -1.0 },
            limits! { cpus: 0.001 },
            limits! { cpu_weight: 10_001 },
            limits! { io_weight: 9 },
            limits! { io_weight: 1001 },
            limits! { cpuset: "0-".into() },
            limits! { memory: 512 },
            limits! { swap: 0 },
            limits! { io_read: 100 },
        ] {
            assert!(with(limits.clone()).validate(&facts()).is_err(), "{limits:?}");
        }
    }

    #[test]
    fn a_limit_without_its_controller_is_refused_not_ignored() {
        let mut facts = facts();
        facts.controllers.remove("io");
        let e = with(limits! { iops_read: 5 }).validate(&facts).unwrap_err();
        assert!(matches!(e, Error::Unsupported { .. }), "{e}");
        facts.swap_accounting = false;
        let e = with(limits! { memory: 1 << 30, swap: 0 })
            .validate(&facts)
            .unwrap_err();
        assert!(matches!(e, Error::Unsupported { .. }), "{e}");
    }

    #[test]
    fn defaults_are_what_the_host_can_enforce() {
        let mut facts = facts();
        let full = with(limits! { memory: 1 << 30 }).with_defaults(&facts);
        assert_eq!((full.limits.pids, full.limits.swap), (Some(4096), Some(0)));
        full.validate(&facts).unwrap();
        facts.swap_accounting = false;
        facts.controllers.remove("pids");
        let bare = with(limits! { memory: 1 << 30 }).with_defaults(&facts);
        assert_eq!((bare.limits.pids, bare.limits.swap), (None, None));
    }

    #[test]
    fn a_host_name_is_one_line_of_labels() {
        for good in ["web", "Web-1.example.org"] {
            check_hostname(good).unwrap();
        }
        for bad in ["", ".", "a..b", "-a", "a-", "a b", "a\nb", &"a".repeat(64), "a_b"] {
            assert!(check_hostname(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_environment_is_name_and_value() {
        check_env("PATH", "/bin:a=b").unwrap();
        for (key, value) in [
            ("", "x"),
            ("a=b", "x"),
            ("a\0", "x"),
            ("a", "x\0"),
            ("container", "lxc"),
        ] {
            assert!(check_env(key, value).is_err(), "{key:?}");
        }
    }

    #[test]
    fn an_address_is_one_machine() {
        for bad in [
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "169.254.1.1",
        ] {
            assert!(check_address(bad.parse().unwrap()).is_err(), "{bad}");
        }
        check_address("10.1.2.3".parse().unwrap()).unwrap();
    }

    #[test]
    fn a_stored_config_is_read_back_and_unknown_fields_are_refused() {
        let mut config = with(limits! { cpus: 0.5, memory: 1 << 30 });
        config.allow.insert("db".parse().unwrap());
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<VpsConfig>(&text).unwrap(), config);
        assert!(serde_json::from_str::<VpsConfig>(r#"{"image":"a","limits":{"memroy":1}}"#).is_err());
    }

    #[test]
    fn half_a_processor_is_half_the_period() {
        assert_eq!(limits! { cpus: 0.5 }.cpu_quota(), Some(50_000));
        assert_eq!(limits! { cpus: 0.01 }.cpu_quota(), Some(1000));
    }
}
