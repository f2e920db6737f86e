//! The capabilities of a VPS's root, all of them relative to its own user namespace.

/// What is kept: powers over the VPS's own processes, files, mounts and network. An explicit list, so that a capability
/// a later kernel invents is not granted by itself.
///
/// Left out, because they concern the whole host or let an init believe that it may do what the kernel will refuse:
/// - `SYS_MODULE`, `SYS_RAWIO`, `SYSLOG`, `PERFMON`, `BPF`, `SYS_PACCT`, `LINUX_IMMUTABLE`, `CHECKPOINT_RESTORE`: checked
///   against the host's user namespace, useless inside and one kernel bug away from being useful;
/// - `SYS_TIME`, `WAKE_ALARM`, `BLOCK_SUSPEND`: there is one clock and one power supply. systemd looks at `SYS_TIME` to
///   decide whether to run a time daemon;
/// - `AUDIT_CONTROL`, `AUDIT_READ`: the audit log is the host's; without them journald leaves it alone;
/// - `MAC_ADMIN`, `MAC_OVERRIDE`: the security policy is the host's;
/// - `SYS_RESOURCE`, `SYS_TTY_CONFIG`: limits and terminals of the host, checked against the host's user namespace.
///
/// `MKNOD` stays although it makes no device nodes in a user namespace: container engines inside refuse to start a container
/// when a capability of their usual set is not there to be given.
///
/// `SYS_ADMIN` stays: systemd mounts, and in a user namespace of its own it reaches only the VPS's mounts. `SYS_BOOT`
/// stays: `reboot(2)` in a pid namespace ends that namespace, which is how `poweroff` and `reboot` inside work.
pub(in crate::vps::run) const KEPT: [&str; 24] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_NICE",
    "CAP_SYS_PTRACE",
];
