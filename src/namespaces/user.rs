//! User namespaces: id maps, and namespaces made only to carry a map (for idmapped mounts).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxIdMapping, Spec};
use rustix::fs::{CWD, Mode, OFlags};

use super::Kind;
use crate::error::{During, Error, Result};
use crate::sys::clone::{Clone, Side};

/// Most lines the kernel accepts in one map (`user_namespaces(7)`).
const MAX_LINES: usize = 340;

/// The uid and gid maps of a user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMap {
    pub(super) uids: Vec<Range>,
    pub(super) gids: Vec<Range>,
}

/// `size` ids from `inside` on are `outside` and following on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) inside: u32,
    pub(super) outside: u32,
    pub(super) size: u32,
}

impl IdMap {
    /// One range for users and groups alike: ids 0 to `size` are `base` and following on the host.
    pub fn shifted(base: u32, size: u32) -> Self {
        let range = vec![Range {
            inside: 0,
            outside: base,
            size,
        }];
        Self {
            uids: range.clone(),
            gids: range,
        }
    }

    /// Reads `linux.uidMappings` and `linux.gidMappings`.
    pub fn from_spec(spec: &Spec) -> Result<Self> {
        let linux = spec.linux().as_ref();
        let uids = linux
            .and_then(|l| l.uid_mappings().as_deref())
            .unwrap_or_default();
        let gids = linux
            .and_then(|l| l.gid_mappings().as_deref())
            .unwrap_or_default();
        Self::from_mappings(uids, gids, "linux")
    }

    /// Reads a pair of mapping lists; `field` is where they stand in the config.
    pub fn from_mappings(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping], field: &str) -> Result<Self> {
        Ok(Self {
            uids: ranges(uids, &format!("{field}.uidMappings"))?,
            gids: ranges(gids, &format!("{field}.gidMappings"))?,
        })
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }

    /// The host user and group that are root inside, where root is mapped.
    pub fn root(&self) -> Option<(u32, u32)> {
        Some((outside(&self.uids, 0)?, outside(&self.gids, 0)?))
    }

    /// Whether this user id exists inside.
    pub fn has_uid(&self, uid: u32) -> bool {
        outside(&self.uids, uid).is_some()
    }

    /// Whether this group id exists inside.
    pub fn has_gid(&self, gid: u32) -> bool {
        outside(&self.gids, gid).is_some()
    }

    /// Writes the maps of the process's user namespace. Needs `CAP_SETUID` and `CAP_SETGID` where they live.
    pub fn write(&self, pid: i32) -> Result<()> {
        let proc = Path::new("/proc").join(pid.to_string());
        for (file, ranges) in [("uid_map", &self.uids), ("gid_map", &self.gids)] {
            let path = proc.join(file);
            std::fs::write(&path, lines(ranges)).during(|| format!("write `{}`", path.display()))?;
        }
        Ok(())
    }

    /// Makes a user namespace with these maps that nobody lives in: what `mount_setattr(2)` wants for idmapped mounts.
    pub fn into_namespace(&self) -> Result<OwnedFd> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let clone = Clone {
            flags: Kind::User.flag(),
            cgroup: None,
        };
        match clone.spawn().during(|| "make a user namespace")? {
            Side::Child => {
                drop(write);
                // Lives until the parent has its namespace in hand.
                let _ = rustix::io::read(&read, &mut [0u8; 1]);
                crate::sys::clone::exit(0)
            }
            Side::Parent { pid, pidfd } => {
                drop(read);
                let made = self.write(pid).and_then(|()| namespace_of(pid, Kind::User));
                drop(write);
                let _ = rustix::process::waitid(
                    rustix::process::WaitId::PidFd(pidfd.as_fd()),
                    rustix::process::WaitIdOptions::EXITED,
                );
                made
            }
        }
    }
}

/// A handle to a namespace of a running process.
pub fn namespace_of(pid: i32, kind: Kind) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/{}", kind.file());
    rustix::fs::openat(
        CWD,
        path.as_str(),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .during(|| format!("open namespace `{path}`"))
}

fn ranges(mappings: &[LinuxIdMapping], field: &str) -> Result<Vec<Range>> {
    if mappings.len() > MAX_LINES {
        return Err(Error::invalid(
            field,
            mappings.len(),
            format!("are more than the kernel's {MAX_LINES} mappings"),
        ));
    }
    let ranges: Vec<Range> = mappings
        .iter()
        .map(|m| Range {
            inside: m.container_id(),
            outside: m.host_id(),
            size: m.size(),
        })
        .collect();
    for (index, range) in ranges.iter().enumerate() {
        let here = || format!("{field}[{index}]");
        if range.size == 0 {
            return Err(Error::invalid(
                format!("{}.size", here()),
                0,
                "must be above zero",
            ));
        }
        let ends = [range.inside, range.outside].map(|start| start.checked_add(range.size - 1));
        if ends.iter().any(|end| end.is_none_or(|end| end == u32::MAX)) {
            return Err(Error::invalid(
                here(),
                range.size,
                "goes past the last id, 4294967294",
            ));
        }
        if ranges[..index].iter().any(|other| overlap(other, range)) {
            return Err(Error::invalid(
                here(),
                range.inside,
                "overlaps an earlier mapping",
            ));
        }
    }
    Ok(ranges)
}

fn overlap(a: &Range, b: &Range) -> bool {
    let meet = |a: u32, b: u32, a_size: u32, b_size: u32| {
        u64::from(a) < u64::from(b) + u64::from(b_size) && u64::from(b) < u64::from(a) + u64::from(a_size)
    };
    meet(a.inside, b.inside, a.size, b.size) || meet(a.outside, b.outside, a.size, b.size)
}

fn outside(ranges: &[Range], id: u32) -> Option<u32> {
    ranges
        .iter()
        .find(|r| id >= r.inside && id - r.inside < r.size)
        .map(|r| r.outside + (id - r.inside))
}

fn lines(ranges: &[Range]) -> String {
    ranges
        .iter()
        .map(|r| format!("{} {} {}\n", r.inside, r.outside, r.size))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(json: &str) -> Result<IdMap> {
        let uids: Vec<LinuxIdMapping> = serde_json::from_str(json).unwrap();
        IdMap::from_mappings(&uids, &uids, "linux")
    }

    #[test]
    fn root_and_membership_follow_the_ranges() {
        let map = mapping(
            r#"[{"containerID":0,"hostID":1000,"size":10},{"containerID":10,"hostID":5000,"size":5}]"#,
        )
        .unwrap();
        assert_eq!(map.root(), Some((1000, 1000)));
        assert!(map.has_uid(14) && !map.has_uid(15));
        assert_eq!(lines(&map.uids), "0 1000 10\n10 5000 5\n");
        assert_eq!(IdMap::shifted(7, 3).root(), Some((7, 7)));
    }

    #[test]
    fn impossible_maps_are_refused_by_name() {
        for (json, text) in [
            (
                r#"[{"containerID":0,"hostID":1,"size":0}]"#,
                "linux.uidMappings[0].size: `0` must be above zero",
            ),
            (
                r#"[{"containerID":0,"hostID":4294967295,"size":1}]"#,
                "linux.uidMappings[0]: `1` goes past the last id, 4294967294",
            ),
            (
                r#"[{"containerID":0,"hostID":1,"size":10},{"containerID":9,"hostID":100,"size":1}]"#,
                "linux.uidMappings[1]: `9` overlaps an earlier mapping",
            ),
        ] {
            assert_eq!(mapping(json).unwrap_err().to_string(), text);
        }
    }
}
