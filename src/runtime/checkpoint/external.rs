//! What a container has of the host's: mounts, which CRIU is told not to save, and where to find them at restore; and namespaces.
//!
//! A mount is named by its place in the config, whatever links the image has there. Bind mounts with more mounts below them bring
//! those along, each under a name of its own.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, OFlags, StatxAttributes, StatxFlags};

use super::super::notify;
use super::rpc::ExtMount;
use crate::error::{During, Error, Result};
use crate::files::Root;
use crate::files::mountinfo::Mounted;
use crate::namespaces::Kind;
use crate::rootfs::{Bind, RootfsPlan};

/// The name of what hides files.
const NULL: &str = "/dev/null";

/// Refuses what CRIU would bring back as something else.
pub(super) fn check(plan: &RootfsPlan) -> Result<()> {
    match plan.mounts().iter().find(|op| op.wanted_idmap().is_some()) {
        None => Ok(()),
        Some(op) => Err(Error::unsupported(
            "checkpoint and restore",
            format!(
                "CRIU cannot bring back the mapped owners of mount `{}`",
                op.target.display()
            ),
        )),
    }
}

/// For the dump: places as the process sees them, and the names.
pub(super) fn saved(
    plan: &RootfsPlan,
    pid: i32,
    inside: &[Mounted],
    host: &[Mounted],
) -> Result<Vec<ExtMount>> {
    let root = Root::open(Path::new(&format!("/proc/{pid}/root/.")))?;
    let mut found = BTreeMap::new();
    for (target, bind) in plan.binds() {
        let Some(top) = mount_at(&root, target, inside)? else {
            continue;
        };
        found.insert(text(&top.point)?, text(target)?);
        for (below, _) in host_mounts_below(bind, host) {
            let point = top.point.join(&below.rest);
            let same = |m: &&Mounted| {
                m.point == point && m.device == below.mounted.device && m.root == below.mounted.root
            };
            if inside.iter().any(|m| same(&m)) {
                found.insert(text(&point)?, text(&target.join(&below.rest))?);
            }
        }
    }
    for path in plan.device_paths() {
        if let Some(mounted) = mount_at(&root, path, inside)? {
            found.insert(text(&mounted.point)?, text(path)?);
        }
    }
    for path in plan.masked() {
        // What covers a directory is sysfs's, which CRIU mounts again by itself.
        let hides_file = |m: &&Mounted| m.root != Path::new("/") && m.kind != "sysfs";
        if let Some(mounted) = mount_at(&root, path, inside)?.filter(hides_file) {
            found.insert(text(&mounted.point)?, NULL.to_owned());
        }
    }
    Ok(entries(found))
}

/// For the restore: the names, and where the host has what they stand for. That of the directory for `sd_notify(3)` is there for
/// a container that had one, which the bundle does not tell.
pub(super) fn provided(plan: &RootfsPlan, host: &[Mounted], notify: &Path) -> Result<Vec<ExtMount>> {
    let mut found = BTreeMap::from([
        (NULL.to_owned(), NULL.to_owned()),
        (notify::INSIDE.to_owned(), text(notify)?),
    ]);
    for path in plan.device_paths() {
        found.insert(text(path)?, text(path)?);
    }
    for (target, bind) in plan.binds() {
        found.insert(text(target)?, text(&bind.source)?);
        for (below, place) in host_mounts_below(bind, host) {
            found.insert(text(&target.join(&below.rest))?, text(&place)?);
        }
    }
    Ok(entries(found))
}

fn entries(map: BTreeMap<String, String>) -> Vec<ExtMount> {
    map.into_iter()
        .map(|(key, value)| ExtMount { key, value })
        .collect()
}

/// A mount of the host below the source of a bind mount.
struct Below<'a> {
    mounted: &'a Mounted,
    /// Its path from the source.
    rest: PathBuf,
}

fn host_mounts_below<'a>(bind: &Bind, host: &'a [Mounted]) -> Vec<(Below<'a>, PathBuf)> {
    if !bind.recursive {
        return Vec::new();
    }
    let source = bind.source.canonicalize().unwrap_or_else(|_| bind.source.clone());
    let below = host.iter().filter_map(|mounted| {
        let rest = mounted.point.strip_prefix(&source).ok()?.to_path_buf();
        let found = (!rest.as_os_str().is_empty()).then_some(Below { mounted, rest })?;
        Some((found, mounted.point.clone()))
    });
    below.collect()
}

/// The mount whose top is at `path` inside; nothing where the path is gone or is not the top of a mount.
fn mount_at<'a>(root: &Root, path: &Path, inside: &'a [Mounted]) -> Result<Option<&'a Mounted>> {
    let place = match root.get(path, OFlags::PATH) {
        Err(e) if e.is_gone() || e.errno() == Some(rustix::io::Errno::NOTDIR.raw_os_error()) => {
            return Ok(None);
        }
        other => other?,
    };
    let found = rustix::fs::statx(&place, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
        .during(|| format!("look at mount `{}`", path.display()))?;
    if !found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(None);
    }
    Ok(inside.iter().find(|mounted| mounted.id == found.stx_mnt_id))
}

/// CRIU's protocol has UTF-8 only.
pub(super) fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Error::invalid(
            "path",
            path.display(),
            "must be UTF-8 for a container that is saved or restored",
        )
    })
}

/// CRIU's name for a namespace that is the caller's to keep.
pub(super) fn key(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Network => Some("extRootNetNS"),
        Kind::Pid => Some("extRootPidNS"),
        _ => None,
    }
}

/// `net[4026531840]:extRootNetNS`: the namespace of a process, under its name.
pub(super) fn namespace(pid: i32, kind: Kind) -> Result<Option<String>> {
    let Some(key) = key(kind) else { return Ok(None) };
    let path = format!("/proc/{pid}/ns/{}", kind.file());
    let inode = std::fs::metadata(&path)
        .during(|| format!("look at `{path}`"))?
        .ino();
    Ok(Some(format!("{}[{inode}]:{key}", kind.file())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(point: &str) -> Mounted {
        Mounted {
            id: 1,
            parent: 0,
            kind: "none".into(),
            device: "0:1".into(),
            root: "/".into(),
            point: point.into(),
            source: "x".into(),
            options: "rw".into(),
        }
    }

    #[test]
    fn mounts_below_a_source_come_along_with_a_recursive_bind_only() {
        let mut bind = Bind {
            source: "/no/such".into(),
            recursive: true,
            optional: false,
            top: Default::default(),
            tree: Default::default(),
            propagation: Vec::new(),
            idmap: None,
            unwanted: 0,
            inside: false,
        };
        let host = ["/", "/no/such", "/no/such/a/b", "/no/suchlike"].map(mounted);
        let below = host_mounts_below(&bind, &host);
        assert_eq!(below.len(), 1);
        assert_eq!(below[0].0.rest, Path::new("a/b"));
        assert_eq!(below[0].1, Path::new("/no/such/a/b"));
        bind.recursive = false;
        assert!(host_mounts_below(&bind, &host).is_empty());
    }

    #[test]
    fn a_namespace_has_criu_s_name() {
        let own = namespace(i32::try_from(std::process::id()).unwrap(), Kind::Network)
            .unwrap()
            .unwrap();
        assert!(
            own.starts_with("net[") && own.ends_with("]:extRootNetNS"),
            "{own}"
        );
        assert!(namespace(1, Kind::Ipc).unwrap().is_none());
    }
}
