//! What is mounted in a VPS besides its root disk, after systemd's container interface
//! (<https://systemd.io/CONTAINER_INTERFACE>), which other inits are content with.

use std::path::Path;

use serde_json::{Value, json};

use super::super::{engines, nodes};
use super::Input;

/// What says how the host was booted, what hardware it has and what its devices do. The fence is the user namespace (what matters
/// belongs to the host's root, and a VPS's root may unmount what covers these); covering them keeps tools from tripping over them
/// and a tenant from reading the host's boot parameters.
///
/// The host's AppArmor takes no profiles from a VPS. By the file `enabled` in its directory LXC and systemd (`AppArmorProfile=`) take it
/// for one that does, and start nothing.
pub(in crate::vps::run) const MASKED: [&str; 18] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/bootconfig",
    "/proc/cmdline",
    "/proc/interrupts",
    "/proc/iomem",
    "/proc/ioports",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/dmi",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/boot_params",
    "/sys/module/apparmor",
];

/// Not `/proc/sys`: its network part is the VPS's own (a VPN sets `ip_forward`), the rest is refused by ownership.
pub(in crate::vps::run) const READONLY: [&str; 4] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger"];

/// For what holds no programs and no devices.
const QUIET: &[&str] = &["nosuid", "noexec", "nodev"];

/// Where a rescue system finds the disk of the VPS.
const RESCUED: &str = "/mnt";

/// The mount table.
pub(super) fn mounts(input: &Input<'_>) -> Vec<Value> {
    let config = &input.record.config;
    let mut all = file_systems(config.limits.memory.unwrap_or(input.facts.memory));
    all.extend(shared_whole(input));
    let (dir, nodes) = input.nodes;
    all.extend(nodes.iter().map(|node| {
        let options = ["bind", "nosuid", "noexec"];
        let place = format!("/dev/{}", node.name.display());
        bind(&place, &dir.join(&node.name), &options)
    }));
    let (dir, places) = input.engines;
    all.extend(
        places
            .iter()
            .map(|place| bind(place, &dir.join(engines::name(place)), &["bind"])),
    );
    all.extend(input.own.map(|own| bind(RESCUED, own, &["bind"])));
    all
}

fn bind(place: &str, source: &Path, options: &[&str]) -> Value {
    json!({ "destination": place, "type": "bind", "source": source, "options": options })
}

/// `memory` is the VPS's limit in bytes, or the host's memory when it has none: without a size a tmpfs is as large as half of the
/// host, and journald sizes itself by what it sees in /run.
pub(in crate::vps::run) fn file_systems(memory: u64) -> Vec<Value> {
    vec![
        mount("/proc", "proc", QUIET),
        // Read-only is how systemd knows that udev has nothing to do here.
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        // Writable: the VPS's part of the tree is delegated to its init. cgroup2 also where controllers are on v1: an empty
        // but working tree is what systemd needs to keep track of its services.
        mount(
            "/sys/fs/cgroup",
            "cgroup2",
            &["nosuid", "noexec", "nodev", "relatime", "rw"],
        ),
        // A few nodes and links; larger would be a place to hide files from the disk's accounting.
        mount(
            "/dev",
            "tmpfs",
            &["nosuid", "noexec", "strictatime", "mode=755", "size=512k"],
        ),
        // gid 5 is `tty` in every distribution; grantpt(3) is satisfied only by it.
        mount(
            "/dev/pts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
                // Of the machine's 3072 (`kernel.pty.max` less its reserve).
                "max=128",
            ],
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            &["nosuid", "nodev", "mode=1777", &size(memory / 2)],
        ),
        mount("/dev/mqueue", "mqueue", QUIET),
        mount(
            "/run",
            "tmpfs",
            &["nosuid", "nodev", "mode=755", &size(memory / 5)],
        ),
        // Writable by everyone, so apart from /run: nobody but root can fill /run.
        mount(
            "/run/lock",
            "tmpfs",
            &[
                "nosuid",
                "noexec",
                "nodev",
                "mode=1777",
                &size((memory / 5).min(5 << 20)),
            ],
        ),
    ]
}

/// Whole ones, that nothing covers: by these the kernel lets user namespaces inside (bubblewrap, rootless containers) mount procfs
/// and sysfs of their own (`mount_too_revealing`). Only root walks there.
pub(in crate::vps::run) fn whole() -> Vec<Value> {
    vec![
        mount(
            "/dev/.condo",
            "tmpfs",
            &["nosuid", "noexec", "nodev", "mode=700", "size=4k", "nr_inodes=3"],
        ),
        mount("/dev/.condo/proc", "proc", QUIET),
        mount("/dev/.condo/sys", "sysfs", QUIET),
    ]
}

/// The same without file systems of their own: for each 64 of a machine the kernel takes a KiB of every memory cgroup there is
/// (`struct shrinker_info_unit`), which is gigabytes among thousands of VPSs; and for each mount of sysfs it goes through all there are.
fn shared_whole(input: &Input<'_>) -> Vec<Value> {
    let (nodes, _) = input.nodes;
    let options = [&["bind"], QUIET].concat();
    vec![
        bind(
            "/dev/.condo",
            &nodes.join(nodes::WHOLE),
            &[&["ro"], &options[..]].concat(),
        ),
        bind("/dev/.condo/proc", &input.rootfs.join("proc"), &options),
        bind(
            "/dev/.condo/sys",
            &input.rootfs.join("sys"),
            &[&["rw"], &options[..]].concat(),
        ),
    ]
}

fn mount(destination: &str, kind: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": kind, "options": options })
}

/// The size option of tmpfs: whole pages, and never 0, which would mean unlimited.
fn size(bytes: u64) -> String {
    format!("size={}k", (bytes / 4096).max(1) * 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tmpfs_is_never_unlimited() {
        assert_eq!(size(0), "size=4k");
        assert_eq!(size(10_000), "size=8k");
    }

    #[test]
    fn the_order_is_that_of_the_tree() {
        let table = [file_systems(1 << 30), whole()].concat();
        let places: Vec<_> = table.iter().map(|m| m["destination"].as_str().unwrap()).collect();
        let mut seen: Vec<&str> = Vec::new();
        for place in places {
            assert!(
                !seen.iter().any(|s| s.starts_with(&format!("{place}/"))),
                "{place} hides one before it"
            );
            seen.push(place);
        }
    }
}
