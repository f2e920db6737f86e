//! `features`: what this runtime can do, in the shape of the spec's features document.

use serde_json::{Value, json};

use super::output::print;
use crate::error::Result;
use crate::process::memory_policy;
use crate::rootfs::options;
use crate::runtime::checkpoint::options::CONFIG_ANNOTATION;

/// `features`
pub(super) fn features() -> Result<u8> {
    print(&format!("{}\n", serde_json::to_string_pretty(&document())?))
}

fn document() -> Value {
    let mut mount_options: Vec<&str> = options::names().collect();
    mount_options.sort_unstable();
    let mut capabilities: Vec<String> = caps::all().iter().map(ToString::to_string).collect();
    capabilities.sort_unstable();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": super::spec::VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": mount_options,
        "potentiallyUnsafeConfigAnnotations": ["org.systemd.property."],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": seccomp(),
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": { "modes": memory_policy::MODES, "flags": memory_policy::FLAGS },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true }
        },
        // Whoever sets it chooses a file of settings for CRIU, which runs as root.
        "potentiallyUnsafeConfigAnnotations": [CONFIG_ANNOTATION]
    })
}

fn seccomp() -> Value {
    let flags = [
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ];
    json!({
        "enabled": true,
        "actions": [
            "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
            "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"
        ],
        "operators": [
            "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
            "SCMP_CMP_NE"
        ],
        "archs": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
        "knownFlags": flags,
        "supportedFlags": flags
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_what_the_spec_s_type_reads() {
        let read: oci_spec::runtime::Features = serde_json::from_value(document()).unwrap();
        let linux = read.linux().as_ref().unwrap();
        let policy = linux.memory_policy().as_ref().unwrap();
        assert_eq!(policy.modes().as_ref().unwrap().len(), 7);
        assert_eq!(
            read.potentially_unsafe_config_annotations()
                .as_ref()
                .unwrap()
                .len(),
            1
        );
        assert!(
            document()["mountOptions"]
                .as_array()
                .unwrap()
                .contains(&json!("rro"))
        );
    }
}
