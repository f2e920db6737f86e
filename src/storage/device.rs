//! Which disk a path is on, for limits of its input and output.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::btrfs;
use crate::error::{During, Error, Result};
use crate::files::{self, mountinfo};

/// Filesystems without a block device of their own, by the magic of `statfs(2)`.
const MAGICS: [(i64, &str, &str); 8] = [
    (0x0102_1994, "tmpfs", "is in memory"),
    (0x8584_58f6, "ramfs", "is in memory"),
    (
        0x794c_7630,
        "overlayfs",
        "is made of other filesystems; use a folder outside of a container",
    ),
    (0x6969, "nfs", "is on another host"),
    (0xff53_4d42, "cifs", "is on another host"),
    (0xfe53_4d42, "smb2", "is on another host"),
    (
        0x2fc1_2fc1,
        "zfs",
        "does its input and output in threads of its own, unseen by cgroups",
    ),
    (
        0x6573_5546,
        "fuse",
        "does its input and output in a process of its own",
    ),
];

/// The device number (major, minor) of the whole disk that holds `path`: what `io.max` of a cgroup wants, which refuses
/// partitions.
///
/// For device mapper (LVM, dm-crypt) and md the device on top is the one: a limit acts where a process hands in its request,
/// and below it one request may have become several.
///
/// # Errors
/// [`Error::Unsupported`] where a limit would not hold: no block device, or more than one.
pub fn whole_disk_of(path: &Path) -> Result<(u32, u32)> {
    let work = || -> Result<(u32, u32)> {
        let device = fs::metadata(path)?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        // Major 0 is for filesystems that are not on one block device.
        let (major, minor) = if major == 0 { behind(path)? } else { (major, minor) };
        whole_disk(major, minor)
    };
    work().during(|| format!("find the disk of `{}`", path.display()))
}

/// Refuses a disk whose requests nobody weighs: that is the scheduler bfq, or on cgroup v2, whose root this is, the controller io.cost
/// (`Documentation/block/bfq-iosched.rst` and `admin-guide/cgroup-v2.rst` of the kernel).
///
/// # Errors
/// [`Error::Unsupported`] with what to do about it.
pub fn check_weighed(disk: (u32, u32), cgroup2: Option<&Path>) -> Result<()> {
    let (major, minor) = disk;
    let link = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let device = fs::canonicalize(&link).during(|| format!("look up block device {major}:{minor}"))?;
    let schedulers = files::read_text(&device.join("queue/scheduler")).unwrap_or_default();
    let costs = cgroup2.map(|root| files::read_text(&root.join("io.cost.qos")).unwrap_or_default());
    if schedulers.contains("[bfq]") || costs.is_some_and(|costs| is_costed(&costs, disk)) {
        return Ok(());
    }
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    let remedy = match schedulers.contains("bfq") {
        true => format!("give it the scheduler that does (`echo bfq > /sys/block/{name}/queue/scheduler`)"),
        false => "leave the weight away, and limit rates instead".into(),
    };
    let what = format!("a weight of requests to the disk `{name}`");
    Err(Error::unsupported(
        what,
        format!("nobody weighs them there: {remedy}"),
    ))
}

/// Whether io.cost weighs this disk's requests: a line such as `8:16 enable=1 ctrl=auto …`.
fn is_costed(qos: &str, (major, minor): (u32, u32)) -> bool {
    let enabled = format!("{major}:{minor} enable=1 ");
    qos.lines().any(|line| line.starts_with(&enabled))
}

/// The disk of a disk or partition.
fn whole_disk(major: u32, minor: u32) -> Result<(u32, u32)> {
    let link = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let device = fs::canonicalize(&link).during(|| format!("look up block device {major}:{minor}"))?;
    if !device.join("partition").exists() {
        return Ok((major, minor));
    }
    // A partition's folder is in its disk's.
    let disk = device.parent().unwrap_or(&device).join("dev");
    parse(&files::read_text(&disk)?)
        .ok_or_else(|| Error::Corrupt(format!("`{}` holds no device number", disk.display())))
}

/// The one block device behind a filesystem that hides it.
fn behind(path: &Path) -> Result<(u32, u32)> {
    let magic = rustix::fs::statfs(path)?.f_type;
    if magic != btrfs::MAGIC {
        let known = MAGICS.iter().find(|(m, _, _)| *m == magic);
        let (name, why) = known.map_or_else(
            || (format!("filesystem {magic:#x}"), "has no block device"),
            |(_, name, why)| ((*name).to_owned(), *why),
        );
        return Err(Error::unsupported(
            "limiting input and output",
            format!("{name} {why}"),
        ));
    }
    let source = mount_source(path)?;
    let device = fs::metadata(&source)
        .during(|| format!("look at `{}`", source.display()))?
        .rdev();
    let device = (rustix::fs::major(device), rustix::fs::minor(device));
    match btrfs_devices(Path::new("/sys/fs/btrfs"), device)? {
        0 | 1 => Ok(device),
        several => Err(Error::unsupported(
            "limiting input and output",
            format!("this btrfs spreads over {several} devices, and a limit holds for one"),
        )),
    }
}

/// How many devices the btrfs with this one has, by `/sys/fs/btrfs/<uuid>/devices/<name>/dev`.
fn btrfs_devices(sys: &Path, device: (u32, u32)) -> Result<usize> {
    for filesystem in fs::read_dir(sys).during(|| format!("read `{}`", sys.display()))? {
        let Ok(devices) = fs::read_dir(filesystem?.path().join("devices")) else {
            continue;
        };
        let numbers: Vec<_> = devices
            .flatten()
            .filter_map(|d| parse(&fs::read_to_string(d.path().join("dev")).ok()?))
            .collect();
        if numbers.contains(&device) {
            return Ok(numbers.len());
        }
    }
    Ok(0)
}

/// The device that was mounted, by the id of the mount (`statx(2)`), as `/proc/self/mountinfo` names it.
fn mount_source(path: &Path) -> Result<PathBuf> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let id = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)?.stx_mnt_id;
    let mounts = mountinfo::of("self")?;
    let found = mounts.into_iter().find(|mount| mount.id == id);
    found
        .map(|mount| mount.source.into())
        .ok_or_else(|| Error::Corrupt(format!("`/proc/self/mountinfo` has no mount {id}")))
}

/// `254:0\n`.
fn parse(number: &str) -> Option<(u32, u32)> {
    let (major, minor) = number.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_of_costs_is_on_for_a_disk_or_off() {
        let qos = "8:16 enable=1 ctrl=auto rpct=95.00\n8:0 enable=0 ctrl=user\n";
        let costed = [(8, 16), (8, 0), (8, 1)].map(|disk| is_costed(qos, disk));
        assert_eq!(costed, [true, false, false]);
    }

    #[test]
    fn a_btrfs_is_counted_by_its_devices() {
        let sys = std::env::temp_dir().join(format!("condo-btrfs-{}", std::process::id()));
        for (uuid, name, number) in [
            ("u1", "vda1", "254:1\n"),
            ("u2", "sda", "8:0\n"),
            ("u2", "sdb", "8:16\n"),
        ] {
            let dir = sys.join(uuid).join("devices").join(name);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("dev"), number).unwrap();
        }
        let counts = [(254, 1), (8, 16), (9, 9)].map(|device| btrfs_devices(&sys, device).unwrap());
        fs::remove_dir_all(&sys).unwrap();
        assert_eq!(counts, [1, 2, 0]);
    }
}
