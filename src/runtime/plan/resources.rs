//! What of the machine the container gets: where its cgroup is, with which limits, and whose it is.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxResources, Spec};

use super::super::id::Id;
use super::super::rootless;
use super::{Choices, DEFAULT_CGROUP};
use crate::cgroups::{Allocation, Home, Limits, Manager, delegated};
use crate::error::{Error, Result};
use crate::host::{CgroupLayout, Host};
use crate::namespaces::{Kind, Namespaces};

pub(super) fn decide_allocation(linux: &Linux, id: &Id) -> Result<Option<Allocation>> {
    let asked = linux.intel_rdt().as_ref();
    asked.map_or(Ok(None), |rdt| Allocation::from_spec(rdt, id.as_str()))
}

pub(super) fn decide_cgroup(
    spec: &Spec,
    linux: &Linux,
    id: &Id,
    (host, choices): (&Host, Choices),
) -> Result<Option<Home>> {
    let home = match choices.cgroup_manager {
        Manager::Cgroupfs if choices.rootless => {
            let wanted = Home::Path(cgroup_path(linux, id, &delegated::beside_own(&host.cgroups))?);
            let resources = linux.resources().clone().unwrap_or_default();
            let home = rootless::settle_for(wanted, named_cgroup(linux).is_some(), &resources, host)?;
            if home.is_none() && !has_pid_namespace(linux) {
                log::warn!(
                    "without a cgroup and a pid namespace of its own only the container's init can be ended. Such configuration is \
                     strongly discouraged"
                );
            }
            return Ok(home);
        }
        Manager::Cgroupfs => Home::Path(cgroup_path(linux, id, "")?),
        Manager::Systemd => {
            let path = linux.cgroups_path().as_ref();
            let text = path.map(|p| p.to_str().ok_or_else(|| refuse_path(p, "must be UTF-8")));
            Home::scope(host, text.transpose()?, id.as_str(), spec.annotations().as_ref())?
        }
        Manager::Disabled => return Ok(None),
    };
    Ok(Some(home))
}

fn has_pid_namespace(linux: &Linux) -> bool {
    let kinds = linux.namespaces().iter().flatten();
    kinds
        .into_iter()
        .any(|namespace| namespace.typ() == LinuxNamespaceType::Pid)
}

fn refuse_path(path: &Path, problem: &str) -> Error {
    Error::invalid("linux.cgroupsPath", path.display(), problem)
}

pub(super) fn decide_limits(
    resources: &LinuxResources,
    host: &Host,
    cgroup: Option<&Home>,
) -> Result<Limits> {
    match cgroup {
        // Only the machine's root may attach device programs; a user namespace cannot make device nodes to begin with.
        Some(_) if !host.caller.privileged => Limits::without_device_rules(resources, &host.cgroups),
        Some(_) => Limits::from_spec(resources, &host.cgroups),
        None => Limits::refuse_any(resources).map(|()| Limits::default()),
    }
}

/// The cgroup that the config asks for; an empty name is none.
fn named_cgroup(linux: &Linux) -> Option<&PathBuf> {
    let path = linux.cgroups_path().as_ref();
    path.filter(|path| !path.as_os_str().is_empty())
}

/// The cgroup as an absolute path below every hierarchy's root; one that is not named so is below `above`.
pub(super) fn cgroup_path(linux: &Linux, id: &Id, above: &str) -> Result<String> {
    let Some(path) = named_cgroup(linux) else {
        return Ok(format!("{above}/{id}"));
    };
    let refuse = |problem: &str| Err(refuse_path(path, problem));
    let Some(text) = path.to_str() else {
        return refuse("must be UTF-8");
    };
    if text.split('/').any(|part| part == ".." || part == ".") || text.contains(['\n', '\0']) {
        return refuse("must not contain `.`, `..` or a newline");
    }
    if text.matches(':').count() == 2 && !text.starts_with('/') {
        return refuse("is in the form of the systemd driver: give `--systemd-cgroup`, or a path");
    }
    let clean = text
        .split('/')
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("/");
    match (text.starts_with('/'), clean.is_empty()) {
        (_, true) => refuse("must name a cgroup below the root"),
        (true, false) => Ok(format!("/{clean}")),
        (false, false) => Ok(format!("{above}{DEFAULT_CGROUP}/{clean}")),
    }
}

/// "Cgroup ownership" of the spec: a cgroup2 that is mounted writable in a cgroup namespace of its own goes to the
/// container's root, which systemd as PID 1 needs. That root is known also where a user namespace is joined, such as a pod's, of
/// which the config has the maps.
pub(super) fn delegates(spec: &Spec, namespaces: &Namespaces, layout: &CgroupLayout) -> bool {
    let writable = spec.mounts().iter().flatten().any(|mount| {
        let cgroup2 = match mount.typ().as_deref() {
            Some("cgroup2") => true,
            Some("cgroup") => matches!(layout, CgroupLayout::Unified(_)),
            _ => false,
        };
        cgroup2 && !mount.options().iter().flatten().any(|option| option == "ro")
    });
    writable && namespaces.is_new(Kind::Cgroup) && namespaces.has(Kind::User)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(cgroups_path: &str) -> Result<String> {
        cgroup_path(
            &serde_json::from_str(&format!(r#"{{"cgroupsPath":"{cgroups_path}"}}"#)).unwrap(),
            &Id::new("web").unwrap(),
            "/user",
        )
    }

    #[test]
    fn a_cgroup_is_always_absolute_and_never_the_root() {
        assert_eq!(path("").unwrap(), "/user/web");
        assert_eq!(path("/docker//abc/").unwrap(), "/docker/abc");
        assert_eq!(path("pod/abc").unwrap(), "/user/condo-runtime/pod/abc");
        for bad in ["/", "/a/../b", "system.slice:cri:abc"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}
