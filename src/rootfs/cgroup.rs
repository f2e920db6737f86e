//! What `cgroup` and `cgroup2` entries of the spec become on this host.

use std::path::{Path, PathBuf};

use super::Facts;
use super::entry::Entry;
use super::ops::{Action, Bind, Filesystem, MountOp};
use crate::error::{Error, Result};
use crate::host::{CgroupLayout, Hierarchy};
use crate::sys::mount::attr;

/// Adds the steps of one entry.
pub(super) fn plan(facts: &Facts<'_>, entry: &Entry<'_>, fstype: &str, ops: &mut Vec<MountOp>) -> Result<()> {
    let Some(path) = facts.cgroup_path else {
        ops.push(entry.op(foreign(facts, entry)));
        return Ok(());
    };
    match (&facts.host.cgroups, fstype) {
        (CgroupLayout::Hybrid { v1, unified }, "cgroup") if !v1.is_empty() => {
            tree(facts, entry, path, (v1, unified.as_deref()), ops)
        }
        (CgroupLayout::Unified(mount), _) if !facts.cgroupns => {
            ops.push(entry.op(Action::Bind(whole(facts, entry, mount))));
            Ok(())
        }
        (layout, _) => {
            let mount = layout.unified().ok_or_else(|| {
                Error::unsupported(
                    format!("{}: a cgroup2 filesystem", entry.field),
                    "this host has only v1 hierarchies; use the type `cgroup`",
                )
            })?;
            ops.push(entry.op(second(facts, entry, path, mount)));
            Ok(())
        }
    }
}

/// What a container without a cgroup gets, read-only: in a cgroup namespace the cgroup2 filesystem from its caller's cgroup on,
/// which is not its to change; else, or with v1, an empty directory.
fn foreign(facts: &Facts<'_>, entry: &Entry<'_>) -> Action {
    let filesystem = match &facts.host.cgroups {
        CgroupLayout::Unified(_) if facts.cgroupns => {
            let mut filesystem = entry.filesystem("cgroup2");
            filesystem.source = "cgroup".to_owned();
            filesystem.attributes |= attr::RDONLY;
            filesystem
        }
        _ => Filesystem {
            seal: true,
            ..top(entry)
        },
    };
    Action::New(filesystem)
}

/// The cgroup2 filesystem, seen from the container's cgroup.
fn second(facts: &Facts<'_>, entry: &Entry<'_>, path: &str, mount: &Path) -> Action {
    if facts.cgroupns {
        Action::New(Filesystem {
            source: "cgroup".to_owned(),
            ..entry.filesystem("cgroup2")
        })
    } else {
        Action::Bind(own_cgroup(entry, path, mount))
    }
}

/// Without a cgroup namespace the paths in the container's `/proc` are those of the whole hierarchy, which is what it gets. Written
/// to, it would change the cgroups of everybody (CVE-2023-25809): so it is read-only, unless root of the machine asks for `rw`.
fn whole(facts: &Facts<'_>, entry: &Entry<'_>, mount: &Path) -> Bind {
    let mut bind = entry.bind(mount.to_path_buf(), false);
    if facts.confined() || bind.top.clear & attr::RDONLY == 0 {
        bind.top.set |= attr::RDONLY;
        bind.top.clear &= !attr::RDONLY;
    }
    bind
}

/// Beside v1 and without a cgroup namespace the filesystem would show, and let change, the cgroups of everybody (CVE-2023-25809): the
/// container gets its own directory only.
fn own_cgroup(entry: &Entry<'_>, path: &str, mount: &Path) -> Bind {
    entry.bind(mount.join(path.trim_start_matches('/')), false)
}

/// A tmpfs with one directory per v1 hierarchy, like the host's own `/sys/fs/cgroup`.
fn tree(
    facts: &Facts<'_>,
    entry: &Entry<'_>,
    path: &str,
    (v1, unified): (&[Hierarchy], Option<&Path>),
    ops: &mut Vec<MountOp>,
) -> Result<()> {
    if let Some(option) = entry.options.data.first() {
        return Err(Error::invalid(
            format!("{}.options", entry.field),
            option,
            "means nothing to the v1 cgroup filesystem",
        ));
    }
    ops.push(entry.op(Action::New(top(entry))));
    for hierarchy in v1 {
        ops.push(first(facts, entry, path, hierarchy));
        ops.extend(links(entry, hierarchy));
    }
    if let Some(mount) = unified {
        let action = match second(facts, entry, path, mount) {
            Action::Bind(bind) => Action::Bind(optional(bind)),
            other => other,
        };
        ops.push(below(entry, Path::new("unified"), action));
    }
    Ok(())
}

fn top(entry: &Entry<'_>) -> Filesystem {
    let asked = entry.options.top.set;
    entry.labelled(Filesystem {
        fstype: "tmpfs".to_owned(),
        source: "cgroup".to_owned(),
        data: vec!["mode=755".to_owned()],
        attributes: (asked & !attr::RDONLY) | attr::NOSUID | attr::NODEV | attr::NOEXEC,
        seal: asked & attr::RDONLY != 0,
        copy_up: false,
        propagation: entry.options.propagation.clone(),
        label: None,
    })
}

fn first(facts: &Facts<'_>, entry: &Entry<'_>, path: &str, hierarchy: &Hierarchy) -> MountOp {
    let action = if facts.cgroupns {
        Action::New(Filesystem {
            source: "cgroup".to_owned(),
            data: hierarchy.controllers.clone(),
            ..entry.filesystem("cgroup")
        })
    } else {
        Action::Bind(optional(own_cgroup(entry, path, &hierarchy.mount)))
    };
    below(entry, Path::new(hierarchy.dir_name()), action)
}

/// A hierarchy in which the container has no cgroup is left out.
fn optional(bind: Bind) -> Bind {
    Bind {
        optional: true,
        ..bind
    }
}

/// `cpu` and `cpuacct` for the hierarchy mounted as `cpu,cpuacct`.
fn links<'a>(entry: &'a Entry<'_>, hierarchy: &'a Hierarchy) -> impl Iterator<Item = MountOp> + 'a {
    let name = hierarchy.dir_name();
    hierarchy
        .controllers
        .iter()
        .filter(move |c| hierarchy.controllers.len() > 1 && c.as_str() != name)
        .map(move |c| below(entry, Path::new(c), Action::Link(PathBuf::from(name))))
}

fn below(entry: &Entry<'_>, name: &Path, action: Action) -> MountOp {
    let mut op = entry.op(action);
    op.target.push(name);
    op
}
