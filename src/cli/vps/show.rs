//! `condo list`, `condo show` and `condo logs`.

use anyhow::Result;
use nix::errno::Errno;

use crate::cli::exit::Exit;
use crate::cli::output::{duration, fields, moment, print, print_json, table, unwritten};
use crate::net::filter::Filter;
use crate::net::rate;
use crate::vps::record::instance::Condo;
use crate::vps::record::limits::Limits;
use crate::vps::record::name::Name;
use crate::vps::record::policy::Boot;
use crate::vps::record::project;
use crate::vps::record::size;
use crate::vps::record::store::LastExit;
use crate::vps::record::traffic::{Flow, Traffic};
use crate::vps::record::view::{AddressView, DiskView, VpsView};

pub(super) fn list(condo: &Condo, json: bool) -> Result<Exit> {
    let all = condo.list()?;
    if json {
        print_json(&all)?;
    } else {
        print(&listed(&all))?;
    }
    Ok(Exit::Success)
}

pub(super) fn show(condo: &Condo, name: &Name, json: bool) -> Result<Exit> {
    let vps = condo.show(name)?;
    if json {
        print_json(&vps)?;
    } else {
        print(&shown(&vps))?;
    }
    Ok(Exit::Success)
}

pub(super) fn logs(condo: &Condo, name: &Name, follow: bool) -> Result<Exit> {
    match condo.logs(name, follow, &mut std::io::stdout().lock()) {
        // Reading a log breaks no pipe.
        Err(e) if e.errno() == Some(Errno::EPIPE as i32) => Err(unwritten(e)),
        other => Ok(other.map(|()| Exit::Success)?),
    }
}

const NOTHING: &str = "-";

fn or_nothing<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or(NOTHING.to_owned(), text)
}

fn listed(all: &[VpsView]) -> String {
    let rows = all.iter().map(|vps| {
        [
            vps.name.to_string(),
            vps.status.as_str().to_owned(),
            vps.address.to_string(),
            vps.image.clone(),
            or_nothing(vps.limits.cpus, |n| n.to_string()),
            memory(vps),
            or_nothing(vps.uptime, duration),
        ]
    });
    table(
        ["NAME", "STATUS", "ADDRESS", "IMAGE", "CPUS", "MEMORY", "UPTIME"],
        rows,
    )
}

/// What is used of what there is, as far as either is known.
fn memory(vps: &VpsView) -> String {
    match (vps.memory_used, vps.limits.memory) {
        (Some(used), Some(limit)) => format!("{} / {}", size::display(used), size::display(limit)),
        (used, limit) => or_nothing(used.or(limit), size::display),
    }
}

/// The same for the disk, and what keeps it.
fn disk(disk: &DiskView) -> String {
    let used = or_nothing(disk.used, size::display);
    let bytes = disk
        .size
        .map_or(used.clone(), |size| format!("{used} / {}", size::display(size)));
    let inodes = match (disk.inodes_used, disk.inodes) {
        (Some(used), Some(limit)) => format!(", {used} / {limit} inodes"),
        _ => String::new(),
    };
    format!("{bytes}{inodes} ({})", disk.backend)
}

fn shown(vps: &VpsView) -> String {
    let mut lines = vec![
        ("name", vps.name.to_string()),
        ("status", vps.status.as_str().to_owned()),
        ("image", vps.image.clone()),
        ("hostname", vps.hostname.clone()),
        ("address", vps.address.to_string()),
        ("pid", or_nothing(vps.pid, |pid| pid.to_string())),
        ("uptime", or_nothing(vps.uptime, duration)),
        ("memory", memory(vps)),
        ("disk", disk(&vps.disk)),
        ("created", moment(vps.created)),
        ("last exit", or_nothing(vps.last_exit.as_ref(), ended)),
    ];
    lines.extend(
        vps.addresses
            .iter()
            .map(|address| ("interface", interface(address))),
    );
    if let Some(image) = &vps.rescue {
        lines.push(("rescue", format!("image {image}, own disk at /mnt")));
    }
    if !vps.allowed.is_empty() {
        let names: Vec<_> = vps.allowed.iter().map(Name::as_str).collect();
        lines.push(("may talk to", names.join(", ")));
    }
    if !vps.permitted.is_empty() {
        let names: Vec<_> = vps.permitted.iter().map(|permit| permit.as_str()).collect();
        lines.push(("permitted", names.join(", ")));
    }
    lines.extend(vps.plan.iter().map(|plan| ("plan", plan.clone())));
    if vps.project != project::DEFAULT {
        lines.push(("project", vps.project.clone()));
    }
    if !vps.restart.is_no() {
        lines.push(("restart", vps.restart.as_str().to_owned()));
    }
    if vps.boot.autostart {
        lines.push(("autostart", turn(&vps.boot)));
    }
    lines.extend(vps.schedule.map(|schedule| ("snapshots", schedule.to_string())));
    if !vps.published.is_empty() {
        let ports: Vec<_> = vps.published.iter().map(ToString::to_string).collect();
        lines.push(("published", ports.join(", ")));
    }
    if !vps.firewall.is_open() {
        lines.push(("firewall", firewall(&vps.firewall)));
    }
    lines.push(("traffic", traffic(&vps.traffic)));
    lines.extend(inside(vps));
    lines.extend(limited(&vps.limits));
    fields(&lines)
}

/// What it is used for.
fn inside(vps: &VpsView) -> Vec<(&'static str, String)> {
    let yes = |is: bool, what| is.then(|| (what, "yes".to_owned()));
    let mut lines: Vec<_> = yes(vps.nesting, "nesting").into_iter().collect();
    lines.extend(yes(!vps.own_sysinfo, "host's sysinfo"));
    lines.push(("user ids", vps.ids.to_string()));
    if !vps.devices.is_empty() {
        let paths: Vec<_> = vps.devices.iter().map(ToString::to_string).collect();
        lines.push(("devices", paths.join(", ")));
    }
    lines
}

/// Whether it comes up with the host, and when.
fn turn(boot: &Boot) -> String {
    let mut text = format!("yes, order {}", boot.order);
    if boot.delay > 0 {
        text.push_str(&format!(", {} s before the next", boot.delay));
    }
    text
}

/// `eth0 on condo0: 10.171.0.2, fd…`
fn interface(address: &AddressView) -> String {
    let ipv6 = address.ipv6.map_or(String::new(), |ipv6| format!(", {ipv6}"));
    format!(
        "{} on {}: {}{ipv6}",
        address.interface, address.network, address.ipv4
    )
}

fn firewall(filter: &Filter) -> String {
    let (rules, incoming, outgoing) = (filter.rules.len(), filter.incoming, filter.outgoing);
    format!("{rules} rules, then {incoming} in, {outgoing} out")
}

/// All of it, and that of the last month with any.
fn traffic(traffic: &Traffic) -> String {
    let both = |flow: &Flow| {
        let (received, sent) = (flow.incoming.bytes, flow.outgoing.bytes);
        format!("{} in, {} out", size::display(received), size::display(sent))
    };
    let month = traffic.months.last_key_value();
    let month = month.map(|(month, flow)| format!(" (in {month}: {})", both(flow)));
    both(&traffic.total) + &month.unwrap_or_default()
}

/// The limits that hold, by their options' names.
fn limited(limits: &Limits) -> Vec<(&'static str, String)> {
    let bytes = |bytes| format!("{}/s", size::display(bytes));
    let times = |n| format!("{n}/s");
    [
        ("cpus", limits.cpus.map(|n| n.to_string())),
        ("cpu-weight", limits.cpu_weight.map(|n| n.to_string())),
        ("cpuset", limits.cpuset.clone()),
        ("swap", limits.swap.map(size::display)),
        ("pids", limits.pids.map(|n| n.to_string())),
        ("io-read", limits.io_read.map(bytes)),
        ("io-write", limits.io_write.map(bytes)),
        ("iops-read", limits.iops_read.map(times)),
        ("iops-write", limits.iops_write.map(times)),
        ("io-weight", limits.io_weight.map(|n| n.to_string())),
        ("rate-in", limits.rate_in.map(rate::display)),
        ("rate-out", limits.rate_out.map(rate::display)),
        ("burst", limits.burst.map(size::display)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

fn ended(exit: &LastExit) -> String {
    let how = match (exit.status, exit.signal) {
        (Some(status), _) => format!(" with status {status}"),
        (None, Some(signal)) => format!(" by signal {signal}"),
        (None, None) => String::new(),
    };
    format!("{}{how}, {}", exit.reason.as_str(), moment(exit.at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::filter::Action;
    use crate::storage::Backend;
    use crate::vps::record::permit::Permit;
    use crate::vps::record::policy::Restart;
    use crate::vps::record::store::ExitReason;
    use crate::vps::record::traffic::Amount;
    use crate::vps::record::view::VpsStatus;

    fn flow() -> Flow {
        let incoming = Amount {
            bytes: 1536,
            packets: 2,
        };
        Flow {
            incoming,
            ..Flow::default()
        }
    }

    fn web() -> VpsView {
        VpsView {
            name: "web".parse().unwrap(),
            status: VpsStatus::Running,
            image: "busybox".into(),
            rescue: None,
            hostname: "web".into(),
            address: "10.88.0.2".parse().unwrap(),
            addresses: vec![AddressView {
                interface: "eth0".into(),
                network: "condo0".parse().unwrap(),
                mac: "02:63:00:00:00:01".parse().unwrap(),
                ipv4: "10.88.0.2".parse().unwrap(),
                ipv6: Some("fd00:1:2:3::5".parse().unwrap()),
            }],
            pid: Some(4711),
            uptime: Some(185),
            limits: Limits {
                cpus: Some(0.5),
                memory: Some(512 << 20),
                iops_read: Some(2000),
                ..Limits::default()
            },
            memory_used: Some(3 << 20),
            disk: DiskView {
                backend: Backend::Folder,
                size: Some(1 << 30),
                used: Some(5 << 20),
                inodes: None,
                inodes_used: Some(7),
            },
            allowed: vec!["db".parse().unwrap()],
            permitted: vec![Permit::Fuse, Permit::Tun],
            plan: Some("small".into()),
            project: "shop".into(),
            restart: Restart::Always,
            schedule: None,
            boot: Boot {
                autostart: true,
                order: 3,
                delay: 0,
            },
            published: vec!["8080:80".parse().unwrap()],
            firewall: Filter {
                incoming: Action::Deny,
                ..Filter::default()
            },
            traffic: Traffic::of([("2026-11".into(), flow())].into()),
            devices: vec!["kvm".parse().unwrap()],
            nesting: true,
            own_sysinfo: true,
            ids: 262_144,
            created: 0,
            last_exit: None,
        }
    }

    fn stopped() -> VpsView {
        VpsView {
            name: "db".parse().unwrap(),
            status: VpsStatus::Stopped,
            pid: None,
            uptime: None,
            memory_used: None,
            limits: Limits::default(),
            allowed: Vec::new(),
            permitted: Vec::new(),
            plan: None,
            project: "default".into(),
            restart: Restart::No,
            schedule: None,
            boot: Boot::default(),
            published: Vec::new(),
            firewall: Filter::default(),
            traffic: Traffic::default(),
            devices: Vec::new(),
            nesting: false,
            own_sysinfo: true,
            last_exit: Some(LastExit {
                reason: ExitReason::Oom,
                status: None,
                signal: Some(9),
                at: 60,
            }),
            ..web()
        }
    }

    #[test]
    fn a_list_is_a_table() {
        assert_eq!(
            listed(&[stopped(), web()]),
            "\
NAME  STATUS   ADDRESS    IMAGE    CPUS  MEMORY     UPTIME
db    stopped  10.88.0.2  busybox  -     -          -
web   running  10.88.0.2  busybox  0.5   3M / 512M  3m 5s"
        );
    }

    #[test]
    fn one_vps_is_fields() {
        let text = shown(&web());
        for line in [
            "name         web",
            "uptime       3m 5s",
            "disk         5M / 1G (folder)",
            "may talk to  db",
            "permitted    fuse, tun",
            "plan         small",
            "user ids     262144",
            "restart      always",
            "autostart    yes, order 3",
            "iops-read    2000/s",
            "published    8080:80/tcp",
            "firewall     0 rules, then deny in, allow out",
            "traffic      1.5K in, 0B out (in 2026-11: 1.5K in, 0B out)",
            "last exit    -",
            "interface    eth0 on condo0: 10.88.0.2, fd00:1:2:3::5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(shown(&stopped()).contains("last exit  oom by signal 9, 1970-01-01 00:01:00 UTC"));
    }

    #[test]
    fn json_names_are_a_promise_to_scripts() {
        let value = serde_json::to_value(stopped()).unwrap();
        assert_eq!(value["status"], "stopped");
        assert_eq!(value["address"], "10.88.0.2");
        let address = serde_json::json!({
            "interface": "eth0", "network": "condo0", "mac": "02:63:00:00:00:01",
            "ipv4": "10.88.0.2", "ipv6": "fd00:1:2:3::5",
        });
        assert_eq!(value["addresses"], serde_json::json!([address]));
        assert_eq!(value["pid"], serde_json::Value::Null);
        assert_eq!(value["last_exit"]["reason"], "oom");
        assert_eq!(value["limits"], serde_json::json!({}));
    }
}
