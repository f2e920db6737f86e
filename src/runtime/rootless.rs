//! What a caller without privileges cannot have, found before anything is done and named with what to do instead.

use oci_spec::runtime::{Linux, LinuxResources, Spec};

use crate::cgroups::{Home, Limits, delegated};
use crate::error::{Error, Result};
use crate::host::{Caller, Host};
use crate::namespaces::subordinate::Writer;
use crate::namespaces::user::IdMap;
use crate::namespaces::{Kind, Namespaces};
use crate::process::Process;

/// Namespaces: whoever is not root gets its privileges from a user namespace, and over nothing that is not inside of it.
pub(super) fn check_namespaces(namespaces: &Namespaces, linux: &Linux, caller: &Caller) -> Result<()> {
    if !caller.privileged && linux.net_devices().as_ref().is_some_and(|d| !d.is_empty()) {
        return Err(Error::unsupported(
            "`linux.netDevices`",
            "moving the host's network devices takes root; leave them out",
        ));
    }
    if caller.admin || namespaces.joined(Kind::User).is_some() {
        return Ok(());
    }
    if !namespaces.has(Kind::User) {
        let problem = "is missing: whoever is not root needs a user namespace; `condo-runtime spec --rootless` writes a config with \
                       one";
        return Err(Error::invalid("linux.namespaces", "user", problem));
    }
    if let Some((_, path)) = namespaces.all_joined().next() {
        let problem =
            "cannot be joined from a new user namespace: give that one's own user namespace a `path` as well";
        return Err(Error::invalid("linux.namespaces", path.display(), problem));
    }
    Ok(())
}

/// Groups, where the way the maps are written takes the choice away.
pub(super) fn check_groups(process: &Process, writer: Option<&Writer>) -> Result<()> {
    let groups = &process.credentials.groups;
    if groups.is_empty() || writer.is_none_or(Writer::allows_groups) {
        return Ok(());
    }
    Err(Error::invalid(
        "process.user.additionalGids",
        format!("{groups:?}"),
        "cannot be set with a single mapped group: leave them out, or map a range of groups (`newgidmap` writes it)",
    ))
}

/// `uid=` and `gid=` of filesystems: the kernel refuses ids it cannot translate without saying which.
pub(super) fn check_mount_owners(spec: &Spec, ids: &IdMap) -> Result<()> {
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        for option in mount.options().iter().flatten() {
            let (mapped, list) = match option.split_once('=') {
                Some(("uid", id)) => (id.parse().map(|id| ids.has_uid(id)), "uidMappings"),
                Some(("gid", id)) => (id.parse().map(|id| ids.has_gid(id)), "gidMappings"),
                _ => continue,
            };
            if mapped == Ok(false) {
                return Err(Error::invalid(
                    format!("mounts[{index}].options"),
                    option,
                    format!("is not in `linux.{list}`: leave it out, or map it"),
                ));
            }
        }
    }
    Ok(())
}

/// The cgroup of a container whose caller makes do with what is delegated: `wanted` if it can be made, else none. One that the
/// config names (`linux.cgroupsPath`) is made or an error, as with runc: whoever asks for a place looks for the container there.
///
/// # Errors
/// [`Error::Invalid`] for a named cgroup that the caller may not make; [`Error::Unsupported`] naming a limit that could not be held.
pub(super) fn settle_for(
    wanted: Home,
    named: bool,
    resources: &LinuxResources,
    host: &Host,
) -> Result<Option<Home>> {
    if delegated::allows(&host.cgroups, wanted.path()) {
        return Ok(Some(wanted));
    }
    if named && !delegated::permits(&host.cgroups, wanted.path()) {
        let problem = format!(
            "unable to apply cgroup configuration: user {} may not make it: permission denied; name one below a cgroup that is \
             delegated (systemd-run --user --scope --property Delegate=yes), or leave it out",
            host.caller.uid
        );
        return Err(Error::invalid("linux.cgroupsPath", wanted.path(), problem));
    }
    match Limits::refuse_any(resources) {
        Ok(()) => {
            log::debug!("cgroup `{}` is not ours to make: going on without", wanted.path());
            Ok(None)
        }
        Err(Error::Unsupported { what, .. }) => Err(Error::unsupported(
            what,
            format!(
                "user {} may not make the cgroup `{}` (cannot set pids limit: container could not join or create cgroup): call condo-runtime from a cgroup that is delegated (systemd-run --user \
                 --scope --property Delegate=yes), or leave the limit out",
                host.caller.uid,
                wanted.path()
            ),
        )),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Caller = Caller::USER;

    fn checked(linux: &str, caller: &Caller) -> String {
        let spec: Spec =
            serde_json::from_str(&format!(r#"{{"ociVersion":"1.3.0","linux":{linux}}}"#)).unwrap();
        let namespaces = Namespaces::from_spec(&spec).unwrap();
        let linux = spec.linux().as_ref().unwrap();
        check_namespaces(&namespaces, linux, caller).map_or_else(|e| e.to_string(), |()| "fine".into())
    }

    #[test]
    fn a_user_namespace_is_what_privileges_come_from() {
        let inner = Caller {
            uid: 0,
            admin: true,
            ..USER
        };
        for (namespaces, caller, word) in [
            (r#"[{"type":"mount"}]"#, USER, "`user` is missing"),
            (r#"[{"type":"mount"}]"#, inner, "fine"),
            (r#"[{"type":"mount"}]"#, Caller::ROOT, "fine"),
            (r#"[{"type":"user"},{"type":"mount"}]"#, USER, "fine"),
            (
                r#"[{"type":"user"},{"type":"network","path":"/n"}]"#,
                USER,
                "`/n` cannot be joined",
            ),
            (
                r#"[{"type":"user","path":"/u"},{"type":"network","path":"/n"}]"#,
                USER,
                "fine",
            ),
            (r#"[{"type":"user"},{"type":"time"}]"#, USER, "fine"),
        ] {
            let text = checked(&format!(r#"{{"namespaces":{namespaces}}}"#), &caller);
            assert!(text.contains(word), "{namespaces}: {text}");
        }
        let devices = r#"{"netDevices":{"eth0":{}},"namespaces":[{"type":"network"}]}"#;
        assert!(checked(devices, &inner).contains("linux.netDevices"));
    }

    #[test]
    fn owners_of_filesystems_must_be_mapped() {
        let ids = IdMap::shifted(100_000, 10);
        let check = |options: &str| {
            let json = format!(
                r#"{{"ociVersion":"1.3.0","mounts":[{{"destination":"/a"}},{{"destination":"/b","options":{options}}}]}}"#
            );
            check_mount_owners(&serde_json::from_str(&json).unwrap(), &ids)
        };
        check(r#"["uid=9","gid=0","mode=755","size=5"]"#).unwrap();
        let e = check(r#"["gid=10"]"#).unwrap_err().to_string();
        assert!(
            e.starts_with("mounts[1].options: `gid=10` is not in `linux.gidMappings`"),
            "{e}"
        );
    }

    #[test]
    fn groups_cannot_be_chosen_in_a_map_of_one() {
        let json = r#"{"user":{"uid":0,"gid":0,"additionalGids":[3]},"args":["a"],"cwd":"/"}"#;
        let process = Process::from_spec(&serde_json::from_str(json).unwrap()).unwrap();
        check_groups(&process, None).unwrap();
        check_groups(&process, Some(&Writer::Caller)).unwrap();
        let e = check_groups(&process, Some(&Writer::Alone))
            .unwrap_err()
            .to_string();
        assert!(e.starts_with("process.user.additionalGids: `[3]`"), "{e}");
    }
}
