//! Tables and numbers of the kernel that all VPSs of a host share, and what one VPS may take of each.

use std::path::PathBuf;

/// One of them.
#[derive(Debug)]
pub(super) struct Table {
    /// The sysctl that says how large it is.
    pub(super) sysctl: &'static str,
    /// What the host itself is left.
    pub(super) base: u64,
    /// What one VPS needs, or may take where that is bounded; 0 where each VPS has all of it to itself.
    pub(super) each: u64,
    /// What is in it.
    pub(super) holds: &'static str,
}

impl Table {
    /// How large it is; `None` where this kernel does not have it.
    pub(super) fn read(&self) -> Option<u64> {
        let path = PathBuf::from("/proc/sys").join(self.sysctl.replace('.', "/"));
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    }
}

/// All that VPSs have been seen to use up.
pub(super) const ALL: &[Table] = &[
    Table {
        sysctl: "kernel.pid_max",
        base: 4096,
        each: 64,
        holds: "processes and threads; a VPS may have --pids of them",
    },
    Table {
        sysctl: "kernel.pty.max",
        base: 64,
        each: 8,
        holds: "terminals; a VPS takes as many as it has memory for, 7 KB each",
    },
    Table {
        sysctl: "fs.file-max",
        base: 65_536,
        each: 4096,
        holds: "open files",
    },
    Table {
        sysctl: "net.netfilter.nf_conntrack_max",
        base: 4096,
        each: 256,
        holds: "connections; a VPS may have 4096",
    },
    Table {
        sysctl: "net.ipv4.neigh.default.gc_thresh3",
        base: 256,
        each: 2,
        holds: "neighbours that the host and all VPSs look for, in one table; an image that sets up its network itself looks for its gateway",
    },
    Table {
        sysctl: "net.ipv6.neigh.default.gc_thresh3",
        base: 256,
        each: 2,
        holds: "neighbours in IPv6",
    },
    Table {
        sysctl: "user.max_net_namespaces",
        base: 64,
        each: 2,
        holds: "networks; a VPS has one, and what runs in it may make others",
    },
    Table {
        sysctl: "kernel.keys.root_maxkeys",
        base: 1000,
        each: 2,
        holds: "keyrings of the sessions that condo starts",
    },
    Table {
        sysctl: "kernel.keys.root_maxbytes",
        base: 25_000,
        each: 50,
        holds: "bytes of those keyrings",
    },
    Table {
        sysctl: "kernel.keys.maxkeys",
        base: 200,
        each: 0,
        holds: "keyrings; engines inside take one for each container",
    },
    Table {
        sysctl: "fs.inotify.max_user_instances",
        base: 128,
        each: 0,
        holds: "watchers of files; an init and its services take some twenty",
    },
    Table {
        sysctl: "fs.inotify.max_user_watches",
        base: 8192,
        each: 0,
        holds: "files that are watched",
    },
    Table {
        sysctl: "vm.max_map_count",
        base: 65_530,
        each: 0,
        holds: "mappings of one process; databases ask for 262144",
    },
];
