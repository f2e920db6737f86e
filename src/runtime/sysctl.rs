//! Kernel parameters of the container: an exact list of those that a namespace keeps for itself (CVE-2022-0811).

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use rustix::fs::OFlags;

use crate::error::{During, Error, Result};
use crate::files::Root;
use crate::namespaces::{Kind, Namespaces};

/// The IPC namespace's parameters below `kernel` (`ipc_namespaces(7)`).
const IPC: [&str; 8] = [
    "msgmax",
    "msgmnb",
    "msgmni",
    "sem",
    "shmall",
    "shmmax",
    "shmmni",
    "shm_rmid_forced",
];

/// The parameters to set, as files below `/proc/sys` and values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sysctls(Vec<(PathBuf, String)>);

impl Sysctls {
    /// Reads `linux.sysctl`. A parameter that would change the host, because it belongs to no namespace or to one that is
    /// shared with the host, is refused.
    pub fn from_spec(spec: &Spec, namespaces: &Namespaces) -> Result<Self> {
        let listed = spec.linux().as_ref().and_then(|l| l.sysctl().as_ref());
        let mut found = Vec::new();
        for (key, value) in listed.into_iter().flatten() {
            let field = || format!("linux.sysctl[{key:?}]");
            let parts =
                parts(key).ok_or_else(|| Error::invalid(field(), value, "is not a parameter's name"))?;
            if parts == ["kernel", "hostname"] {
                let problem = "conflicts with the field `hostname`: use that one";
                return Err(Error::invalid(field(), value, problem));
            }
            let Some(kind) = owner(&parts) else {
                return Err(Error::invalid(
                    field(),
                    value,
                    "is not in a separate kernel namespace",
                ));
            };
            if !namespaces.has(kind) {
                let problem = format!("needs a {} namespace of the container's own", kind.file());
                return Err(Error::invalid(field(), value, problem));
            }
            found.push((parts.iter().collect(), value.clone()));
        }
        found.sort();
        Ok(Self(found))
    }

    /// Refuses those of a namespace that is joined by a path and turns out to be our own.
    pub fn check_joined(&self, namespaces: &Namespaces) -> Result<()> {
        for (file, value) in &self.0 {
            let kind = parts(&file.display().to_string()).and_then(|parts| owner(&parts));
            let joined = kind.and_then(|kind| Some((kind, namespaces.joined(kind)?)));
            if let Some((kind, path)) = joined
                && is_own(kind, path)
            {
                let field = format!("linux.sysctl[{:?}]", file.display().to_string().replace('/', "."));
                let problem = format!(
                    "would change the host: `{}` is the {} namespace of the caller",
                    path.display(),
                    kind.file()
                );
                return Err(Error::invalid(field, value, problem));
            }
        }
        Ok(())
    }

    /// Writes the values. The kernel looks parameters up in the namespaces of the writer, whichever procfs they are reached by.
    ///
    /// That is the container's `own`, if it has one that is whole. The host's, which is the other that no image can fake, keeps what was
    /// looked up for each namespace under one hash, so that a thousand containers make every look-up a thousand times as long.
    pub fn apply(&self, own: Option<&Root>) -> Result<()> {
        for (file, value) in &self.0 {
            write(own, file, value).during(|| format!("set sysctl `{}` to `{value}`", file.display()))?;
        }
        Ok(())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn write(own: Option<&Root>, file: &Path, value: &str) -> Result<()> {
    let below = Path::new("/sys").join(file);
    match own.and_then(|own| own.get(&below, OFlags::WRONLY).ok()) {
        Some(found) => File::from(found).write_all(value.as_bytes())?,
        // A procfs that is read-only, for one.
        None => std::fs::write(Path::new("/proc/sys").join(file), value)?,
    }
    Ok(())
}

fn is_own(kind: Kind, path: &Path) -> bool {
    let own = Path::new("/proc/self/ns").join(kind.file());
    let [joined, own] = [path, &own].map(rustix::fs::stat);
    matches!((joined, own), (Ok(joined), Ok(own)) if (joined.st_dev, joined.st_ino) == (own.st_dev, own.st_ino))
}

/// `net.ipv4.conf.eth0/1.x` and `net/ipv4/…`: whichever separator comes first is the separator (`sysctl(8)`).
fn parts(key: &str) -> Option<Vec<String>> {
    let dots = key.find(['.', '/']).is_none_or(|at| key.as_bytes()[at] == b'.');
    let parts: Vec<String> = if dots {
        key.split('.').map(|p| p.replace('/', ".")).collect()
    } else {
        key.split('/').map(Into::into).collect()
    };
    let sound = |p: &String| !p.is_empty() && p != "." && p != ".." && !p.contains(['/', '\0']);
    parts.iter().all(sound).then_some(parts)
}

fn owner(parts: &[String]) -> Option<Kind> {
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["net", _, ..] => Some(Kind::Network),
        ["fs", "mqueue", _] => Some(Kind::Ipc),
        ["kernel", name] if IPC.contains(name) => Some(Kind::Ipc),
        ["kernel", "domainname"] => Some(Kind::Uts),
        ["user", _] => Some(Kind::User),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: &str, namespaces: &str) -> Result<Sysctls> {
        let json = format!(
            r#"{{"ociVersion":"1.3.0","linux":{{"namespaces":[{namespaces}],"sysctl":{{"{key}":"1"}}}}}}"#
        );
        let spec: Spec = serde_json::from_str(&json).unwrap();
        Sysctls::from_spec(&spec, &Namespaces::from_spec(&spec).unwrap())
    }

    #[test]
    fn namespaced_parameters_become_files() {
        let net = r#"{"type":"network"}"#;
        let file = |key: &str| read(key, net).unwrap().0[0].0.display().to_string();
        assert_eq!(file("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(
            file("net/ipv4/conf/eth0.1/rp_filter"),
            "net/ipv4/conf/eth0.1/rp_filter"
        );
        assert_eq!(
            file("net.ipv4.conf.eth0/1.rp_filter"),
            "net/ipv4/conf/eth0.1/rp_filter"
        );
    }

    #[test]
    fn the_host_s_parameters_are_refused() {
        let all = r#"{"type":"network"},{"type":"ipc"},{"type":"uts"}"#;
        for key in [
            "kernel.core_pattern",
            "vm.overcommit_memory",
            "net",
            "net..x",
            "net/../kernel/x",
            "kernel.sem.x",
        ] {
            assert!(read(key, all).is_err(), "{key}");
        }
        assert!(read("net.ipv4.ip_forward", r#"{"type":"ipc"}"#).is_err());
        assert!(read("kernel.shmmax", r#"{"type":"ipc"}"#).is_ok());
        assert!(read("kernel.domainname", all).is_ok());
        let twice = read("kernel.hostname", all).unwrap_err().to_string();
        assert!(twice.contains("field `hostname`"), "{twice}");
        assert!(read("user.max_net_namespaces", all).is_err());
        assert!(read("user.max_net_namespaces", r#"{"type":"user"}"#).is_ok());
    }
}
