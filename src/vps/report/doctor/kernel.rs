//! What the kernel has to have: its version, namespaces, file systems, modules; and a clock that somebody keeps right.

use std::path::Path;

use super::{Finding, Weight};
use crate::cgroups;
use crate::error::Result;
use crate::sys::clock;

/// The first kernel where a root disk can have mapped owners.
const OLDEST: (u32, u32) = (5, 19);
/// What every VPS is made of, and what is missed only by some.
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
/// Modules by what lacks without them. File systems and drivers come as modules or built in.
const MODULES: [(&str, &str); 9] = [
    ("overlay", "root disks"),
    ("veth", "networks"),
    ("bridge", "networks"),
    ("nf_tables", "networks"),
    ("nf_conntrack", "networks"),
    ("sch_ingress", "networks"),
    ("loop", "disks with a size in a file"),
    ("fuse", "engines inside"),
    ("tun", "VPNs inside"),
];

pub(super) fn all() -> Vec<Finding> {
    let release = read("/proc/sys/kernel/osrelease").trim().to_owned();
    let mut found = vec![
        version(&release),
        namespaces(&|name| Path::new("/proc/self/ns").join(name).exists()),
    ];
    let lists = format!("/lib/modules/{release}");
    let known = Path::new(&lists).is_dir().then(|| {
        ["modules.builtin", "modules.dep"]
            .map(|file| read(&format!("{lists}/{file}")))
            .concat()
    });
    found.extend(modules(known.as_deref(), &|name| {
        Path::new("/sys/module").join(name).exists() || is_file_system(name)
    }));
    found.push(user_namespaces());
    found
}

/// What is the business of who has the machine.
pub(super) fn of_machine() -> Vec<Finding> {
    let mut found = vec![tables(cgroups::can_bound_tables())];
    found.extend(clock::is_kept_right().ok().map(kept_right));
    found
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn is_file_system(name: &str) -> bool {
    read("/proc/filesystems")
        .lines()
        .any(|line| line.split_whitespace().last() == Some(name))
}

fn version(release: &str) -> Finding {
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found >= OLDEST {
        return Finding::new("kernel", Weight::Good, release);
    }
    let text = format!("{release}; root disks need {}.{} or newer", OLDEST.0, OLDEST.1);
    Finding::new("kernel", Weight::Error, text).mended_by("apt install linux-image-amd64")
}

fn namespaces(there: &dyn Fn(&str) -> bool) -> Finding {
    let missing: Vec<&str> = NAMESPACES.into_iter().filter(|name| !there(name)).collect();
    if !missing.is_empty() {
        let text = format!("this kernel has none of: {}", missing.join(", "));
        return Finding::new("namespaces", Weight::Error, text);
    }
    if !there("time") {
        let text = "none of time: the clocks of VPSs begin with the host";
        return Finding::new("namespaces", Weight::Warning, text);
    }
    Finding::new("namespaces", Weight::Good, "all are there")
}

/// `known` lists what can be loaded; a kernel without modules has what it has, and does not say of all of it.
fn modules(known: Option<&str>, is_loaded: &dyn Fn(&str) -> bool) -> Option<Finding> {
    let known = known?;
    let is_there = |name: &str| {
        let file = format!("/{name}.ko");
        is_loaded(name)
            || known
                .lines()
                .any(|line| line.split(':').next().is_some_and(|path| path.contains(&file)))
    };
    let missing: Vec<_> = MODULES.into_iter().filter(|(name, _)| !is_there(name)).collect();
    if missing.is_empty() {
        return Some(Finding::new("kernel modules", Weight::Good, "all are there"));
    }
    let listed: Vec<String> = missing
        .iter()
        .map(|(name, lacks)| format!("{name} ({lacks})"))
        .collect();
    let is_fatal = missing.iter().any(|(_, lacks)| !lacks.contains("inside"));
    let weight = if is_fatal { Weight::Error } else { Weight::Warning };
    let text = format!("not there: {}", listed.join(", "));
    Some(Finding::new("kernel modules", weight, text).mended_by("apt install linux-image-amd64"))
}

fn user_namespaces() -> Finding {
    let number = |path: &str| read(path).trim().parse::<u64>().ok();
    if number("/proc/sys/user/max_user_namespaces") == Some(0) {
        let mut finding = Finding::new("user namespaces", Weight::Error, "none may be made")
            .mended_by("sysctl -w user.max_user_namespaces=65536");
        finding.sysctl = Some(("user.max_user_namespaces".to_owned(), 65_536));
        return finding;
    }
    // Debian's own switch.
    if number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        let mut finding = Finding::new(
            "user namespaces",
            Weight::Warning,
            "users inside VPSs may not make any",
        )
        .mended_by("sysctl -w kernel.unprivileged_userns_clone=1");
        finding.sysctl = Some(("kernel.unprivileged_userns_clone".to_owned(), 1));
        return finding;
    }
    Finding::new("user namespaces", Weight::Good, "they may be made")
}

/// Neighbours, next hops and such, which no limit counts.
fn tables(can_be_bounded: Result<()>) -> Finding {
    const SUBJECT: &str = "tables of the network";
    match can_be_bounded {
        Ok(()) => Finding::new(SUBJECT, Weight::Good, "each VPS has a bound"),
        Err(e) => {
            let text =
                format!("VPSs can make them as long as they like, in memory that no limit counts: {e}");
            Finding::new(SUBJECT, Weight::Warning, text)
        }
    }
}

fn kept_right(kept: bool) -> Finding {
    if kept {
        return Finding::new("clock", Weight::Good, "somebody keeps it right");
    }
    Finding::new(
        "clock",
        Weight::Warning,
        "nobody keeps it right, and VPSs have no other",
    )
    .mended_by("timedatectl set-ntp true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_new_enough_by_its_numbers() {
        for (release, weight) in [
            ("6.1.0-18-amd64", Weight::Good),
            ("5.19", Weight::Good),
            ("5.10.0-8", Weight::Error),
            ("5.4.0+", Weight::Error),
        ] {
            assert_eq!(version(release).weight, weight, "{release}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_what_lacks() {
        let list = "kernel/fs/overlayfs/overlay.ko\nkernel/net/bridge/bridge.ko.xz: kernel/net/llc/llc.ko\nkernel/drivers/net/veth.ko:\n";
        let loaded = |name: &str| name.starts_with("nf_") || name == "loop" || name == "sch_ingress";
        let found = modules(Some(list), &loaded).unwrap();
        assert_eq!(
            (found.weight, found.found.as_str()),
            (
                Weight::Warning,
                "not there: fuse (engines inside), tun (VPNs inside)"
            )
        );
        assert_eq!(modules(Some(""), &loaded).unwrap().weight, Weight::Error);
        assert_eq!(modules(None, &loaded), None);
        assert_eq!(
            namespaces(&|name| name != "user").found,
            "this kernel has none of: user"
        );
        assert_eq!(namespaces(&|name| name != "time").weight, Weight::Warning);
    }
}
