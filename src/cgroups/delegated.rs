//! What somebody other than the machine's root may do with cgroups: only below those that were delegated (`cgroups(7)`,
//! "Cgroup delegation").

mod top;

use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};

use super::unified::below;
use crate::files;
use crate::host::CgroupLayout;
pub use top::clear as clear_top;

/// The cgroup above that of the calling process, where a delegated tree has room (a cgroup with processes, such as ours, cannot
/// be divided), as a prefix for absolute paths. A host with controllers on v1 has one place for all, at the top.
pub fn beside_own(layout: &CgroupLayout) -> String {
    let own = match layout {
        CgroupLayout::Unified(_) => own_cgroup(),
        CgroupLayout::Hybrid { .. } => None,
    };
    let parent = own.as_deref().and_then(Path::parent);
    let parent = parent.map_or_else(String::new, |p| p.to_string_lossy().into_owned());
    parent.trim_end_matches('/').to_owned()
}

/// Whether the calling process can make a cgroup at `path`, give it controllers, and have processes born in it.
pub fn allows(layout: &CgroupLayout, path: &str) -> bool {
    let path = Path::new(path);
    permits(layout, path) && mounts(layout).all(|mount| has_room(mount, path))
}

/// Whether the calling process may make a cgroup at `path` and have processes born in it, be it without controllers.
pub fn permits(layout: &CgroupLayout, path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    let access = Access::WRITE_OK | Access::EXEC_OK;
    let made = |mount: &Path| nearest(mount, path).is_some_and(|there| writable(&there, access));
    mounts(layout).next().is_some()
        && mounts(layout).all(made)
        && unified(layout).is_none_or(|mount| can_move(mount, path))
}

/// Where the hierarchies are mounted.
fn mounts(layout: &CgroupLayout) -> impl Iterator<Item = &Path> {
    let v1 = match layout {
        CgroupLayout::Unified(_) => &[][..],
        CgroupLayout::Hybrid { v1, .. } => v1,
    };
    let v1 = v1.iter().map(|hierarchy| hierarchy.mount.as_path());
    v1.chain(unified(layout))
}

fn unified(layout: &CgroupLayout) -> Option<&Path> {
    match layout {
        CgroupLayout::Unified(mount) => Some(mount),
        CgroupLayout::Hybrid { unified, .. } => unified.as_deref(),
    }
}

/// The last directory on the way to `path` that is there.
fn nearest(mount: &Path, path: &Path) -> Option<PathBuf> {
    let full = below(mount, path);
    let way = full.ancestors().take_while(|dir| dir.starts_with(mount));
    way.into_iter().find(|dir| dir.is_dir()).map(Path::to_path_buf)
}

/// Whether `path` is there, or would be below a place that can be divided.
fn has_room(mount: &Path, path: &Path) -> bool {
    nearest(mount, path).is_some_and(|there| there == below(mount, path) || can_divide(&there))
}

/// Whether the children of a cgroup2 directory can have controllers: it has no processes, or is the machine's root, which has
/// no type. (A v1 directory always can.)
fn can_divide(dir: &Path) -> bool {
    let processes = || files::read_text(&dir.join("cgroup.procs")).unwrap_or_default();
    !dir.join("cgroup.type").exists() || processes().is_empty()
}

/// A process moves (also by being born elsewhere) only with the consent of the cgroup that holds both places.
fn can_move(mount: &Path, path: &Path) -> bool {
    let Some(own) = own_cgroup() else { return false };
    let parent = path.parent().unwrap_or(path);
    let common = common(&own, parent);
    writable(&below(mount, &common).join("cgroup.procs"), Access::WRITE_OK)
}

fn common(one: &Path, other: &Path) -> PathBuf {
    let both = one.components().zip(other.components());
    both.take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
}

/// Our place in the cgroup2 hierarchy; `None` outside of our cgroup namespace's tree.
fn own_cgroup() -> Option<PathBuf> {
    let text = files::read_text(Path::new("/proc/self/cgroup")).ok()?;
    let path = PathBuf::from(text.lines().find_map(|line| line.strip_prefix("0::"))?);
    let inside = !path.components().any(|part| part == Component::ParentDir);
    inside.then_some(path)
}

fn writable(path: &Path, access: Access) -> bool {
    rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_places_are_held_by_the_last_cgroup_above_both() {
        let held = |one: &str, other: &str| common(Path::new(one), Path::new(other));
        assert_eq!(held("/user/1000/a", "/user/1000/b"), Path::new("/user/1000"));
        assert_eq!(held("/user/1000", "/user/1000"), Path::new("/user/1000"));
        assert_eq!(held("/a", "/b"), Path::new("/"));
        assert_eq!(held("/", "/b"), Path::new("/"));
    }

    #[test]
    fn a_host_without_cgroups_allows_none() {
        let nothing = CgroupLayout::Hybrid {
            v1: Vec::new(),
            unified: None,
        };
        assert!(!allows(&nothing, "/condo-not-there"));
        assert_eq!(beside_own(&nothing), "");
    }

    #[test]
    fn a_cgroup_with_processes_is_not_divided() {
        let dir = std::env::temp_dir().join(format!("condo-delegated-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let write = |file: &str, text: &str| std::fs::write(dir.join(file), text).unwrap();
        write("cgroup.procs", "1\n");
        let root = can_divide(&dir);
        write("cgroup.type", "domain\n");
        let busy = can_divide(&dir);
        write("cgroup.procs", "");
        let empty = can_divide(&dir);
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!((root, busy, empty), (true, false, true));
    }
}
