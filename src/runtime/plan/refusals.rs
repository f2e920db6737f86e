//! Values that no kernel knows and combinations that cannot be: refused before anything happens, by field and value.
#![allow(clippy::too_many_lines, reason = "tables")]

use serde_json::{Value, json};

use super::golden::{host, least, merge, plan};

/// What is wrong, on a host with cgroup v2, and how the error begins.
fn bad() -> Vec<(Value, &'static str)> {
    [process(), namespaces(), tree(), seccomp(), resources()]
        .into_iter()
        .flatten()
        .collect()
}

fn process() -> Vec<(Value, &'static str)> {
    let process = |process: Value| json!({ "process": process });
    vec![
        (json!({ "ociVersion": "1" }), "ociVersion: `1`"),
        (json!({ "ociVersion": "2.0.0" }), "ociVersion: `2.0.0`"),
        (
            json!({ "vm": { "kernel": { "path": "/k" } } }),
            "`vm` is not supported",
        ),
        (
            json!({ "windows": { "layerFolders": [] } }),
            "`windows` is not supported",
        ),
        (json!({ "solaris": {} }), "`solaris` is not supported"),
        (json!({ "zos": {} }), "`zos` is not supported"),
        (process(json!({ "args": [] })), "process.args: ``"),
        (process(json!({ "args": ["a\0b"] })), "process.args[0]: `a\\0b`"),
        (process(json!({ "cwd": "srv" })), "process.cwd: `srv`"),
        (
            process(json!({ "user": { "uid": u32::MAX } })),
            "process.user.uid: `4294967295`",
        ),
        (
            process(json!({ "user": { "gid": u32::MAX } })),
            "process.user.gid: `4294967295`",
        ),
        (
            process(json!({ "oomScoreAdj": 1001 })),
            "process.oomScoreAdj: `1001`",
        ),
        (
            process(json!({ "rlimits": [{ "type": "RLIMIT_CPU", "soft": 2, "hard": 1 }] })),
            "process.rlimits[0].soft: `2`",
        ),
        (
            process(json!({ "rlimits": [{ "type": "RLIMIT_LUCK", "soft": 1, "hard": 1 }] })),
            "unknown variant `RLIMIT_LUCK`",
        ),
        (
            process(json!({ "scheduler": { "policy": "SCHED_ISO" } })),
            "process.scheduler.policy: `SCHED_ISO`",
        ),
        (
            process(json!({ "scheduler": { "policy": "SCHED_OTHER", "nice": 20 } })),
            "process.scheduler.nice: `20`",
        ),
        (
            process(json!({ "scheduler": { "policy": "SCHED_FIFO" } })),
            "process.scheduler.priority: `0`",
        ),
        (
            process(json!({ "scheduler": { "policy": "SCHED_BATCH", "runtime": 5 } })),
            "process.scheduler.runtime: `5`",
        ),
        (
            process(json!({ "scheduler": { "policy": "SCHED_IDLE", "flags": ["SCHED_FLAG_RECLAIM"] } })),
            "process.scheduler.flags[0]: `SCHED_FLAG_RECLAIM`",
        ),
        (
            process(json!({ "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 8 } })),
            "process.ioPriority.priority: `8`",
        ),
        (
            process(json!({ "execCPUAffinity": { "final": "3-1" } })),
            "process.execCPUAffinity.final: `3-1`",
        ),
    ]
}

fn namespaces() -> Vec<(Value, &'static str)> {
    let with = |kinds: &[&str], more: Value| {
        let list: Vec<Value> = kinds.iter().map(|kind| json!({ "type": kind })).collect();
        let mut linux = json!({ "namespaces": list });
        merge(&mut linux, &more);
        json!({ "linux": linux })
    };
    let maps = |host: u32, size: u32| json!([{ "containerID": 0, "hostID": host, "size": size }]);
    vec![
        (
            with(
                &["user"],
                json!({ "uidMappings": maps(1, 1), "gidMappings": maps(1, 1) }),
            ),
            "linux.namespaces: `mount` must be a new one",
        ),
        (
            with(&["mount", "pid", "pid"], json!({})),
            "linux.namespaces[2]: `pid`",
        ),
        (with(&["mount", "user"], json!({})), "linux.uidMappings: ``"),
        (
            with(&["mount"], json!({ "uidMappings": maps(1, 1) })),
            "linux.uidMappings: `mappings`",
        ),
        (
            with(
                &["mount", "user"],
                json!({ "uidMappings": maps(1, 0), "gidMappings": maps(1, 1) }),
            ),
            "linux.uidMappings[0].size: `0`",
        ),
        (
            with(
                &["mount", "user"],
                json!({ "uidMappings": maps(1, 1), "gidMappings": maps(u32::MAX, 1) }),
            ),
            "linux.gidMappings[0]: `1` goes past",
        ),
        (
            with(&["mount"], json!({ "sysctl": { "net.a": "1" } })),
            "linux.sysctl[\"net.a\"]: `1` needs a net",
        ),
        (
            with(&["mount"], json!({ "sysctl": { "vm.swappiness": "1" } })),
            "linux.sysctl[\"vm.swappiness\"]: `1`",
        ),
        (
            with(&["mount"], json!({ "timeOffsets": { "boottime": {} } })),
            "linux.timeOffsets: ``",
        ),
        (
            with(&["mount", "time"], json!({ "timeOffsets": { "realtime": {} } })),
            "linux.timeOffsets: `realtime`",
        ),
        (
            with(
                &["mount", "time"],
                json!({ "timeOffsets": { "boottime": { "nanosecs": 1_000_000_000 } } }),
            ),
            "linux.timeOffsets.boottime.nanosecs: `1000000000`",
        ),
        (
            with(&["mount"], json!({ "netDevices": { "eth0": {} } })),
            "linux.netDevices: `devices`",
        ),
        (
            with(
                &["mount", "network"],
                json!({ "netDevices": { "eth0": { "name": "a/b" } } }),
            ),
            "linux.netDevices.eth0.name: `a/b`",
        ),
        (
            with(&["mount"], json!({ "memoryPolicy": { "mode": "MPOL_BIND" } })),
            "linux.memoryPolicy.nodes: ``",
        ),
        (
            with(&["mount"], json!({ "intelRdt": { "closID": ".." } })),
            "linux.intelRdt.closID: `..`",
        ),
        (json!({ "hostname": "web" }), "hostname: `web`"),
        (json!({ "domainname": "web" }), "domainname: `web`"),
    ]
}

fn tree() -> Vec<(Value, &'static str)> {
    let mount = |mount: Value| json!({ "mounts": [mount] });
    let maps = |size: u32| json!([{ "containerID": 0, "hostID": 1, "size": size }]);
    let linux = |linux: Value| json!({ "linux": linux });
    vec![
        (
            mount(
                json!({ "destination": "/x", "type": "bind", "source": "/", "options": ["bind", "size=1m"] }),
            ),
            "mounts[0].options: `size=1m` is no option of bind mounts",
        ),
        (
            mount(json!({ "destination": "/a/../..", "type": "tmpfs" })),
            "mounts[0].destination: `/a/../..`",
        ),
        (
            mount(json!({ "destination": "/", "type": "tmpfs" })),
            "mounts[0].destination: `/`",
        ),
        (
            mount(json!({ "destination": "/a\0", "type": "tmpfs" })),
            "mounts[0].destination: `/a\\0`",
        ),
        (
            mount(json!({ "destination": "/proc/sys", "type": "tmpfs" })),
            "mounts[0].destination: `/proc/sys`",
        ),
        (mount(json!({ "destination": "/x" })), "mounts[0].type: ``"),
        (
            mount(json!({ "destination": "/x", "type": "bind" })),
            "mounts[0].source: ``",
        ),
        (
            mount(json!({ "destination": "/x", "source": "/y", "options": ["bind", "idmap"] })),
            "mounts[0].options: `idmap`",
        ),
        (
            mount(
                json!({ "destination": "/x", "source": "/y", "options": ["bind"], "uidMappings": maps(1) }),
            ),
            "mounts[0].gidMappings: ``",
        ),
        // Found by fuzzing: the kernel would have refused it when init was already there.
        (
            mount(
                json!({ "destination": "/x", "source": "/y", "options": ["bind"], "uidMappings": maps(0), "gidMappings": maps(1) }),
            ),
            "mounts[0].uidMappings[0].size: `0`",
        ),
        (
            linux(json!({ "rootfsPropagation": "loud" })),
            "linux.rootfsPropagation: `loud`",
        ),
        (
            linux(json!({ "maskedPaths": ["proc"] })),
            "linux.maskedPaths[0]: `proc`",
        ),
        (
            linux(json!({ "readonlyPaths": [""] })),
            "linux.readonlyPaths[0]: ``",
        ),
        (
            linux(json!({ "cgroupsPath": "/a/../b" })),
            "linux.cgroupsPath: `/a/../b`",
        ),
        (
            linux(json!({ "devices": [{ "path": "dev", "type": "c", "major": 1, "minor": 3 }] })),
            "linux.devices[0].path: `dev`",
        ),
        (
            linux(json!({ "devices": [{ "path": "/dev/a", "type": "c", "major": -1, "minor": 3 }] })),
            "linux.devices[0].major: `-1`",
        ),
        (
            json!({ "hooks": { "poststop": [{ "path": "x" }] } }),
            "hooks.poststop[0].path: `x`",
        ),
        (
            json!({ "hooks": { "prestart": [{ "path": "/x", "timeout": 0 }] } }),
            "hooks.prestart[0].timeout: `0`",
        ),
    ]
}

fn seccomp() -> Vec<(Value, &'static str)> {
    let seccomp = |seccomp: Value| json!({ "linux": { "seccomp": seccomp } });
    let call = |call: Value| seccomp(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [call] }));
    vec![
        (
            seccomp(json!({ "defaultAction": "SCMP_ACT_NOTIFY" })),
            "linux.seccomp.defaultAction: `SCMP_ACT_NOTIFY`",
        ),
        (
            seccomp(json!({ "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1 })),
            "linux.seccomp.defaultErrnoRet: `1`",
        ),
        (
            call(json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096 })),
            "linux.seccomp.syscalls[0].errnoRet: `4096`",
        ),
        (
            call(json!({ "names": [""], "action": "SCMP_ACT_LOG" })),
            "linux.seccomp.syscalls[0].names: ``",
        ),
        (
            call(
                json!({ "names": ["read"], "action": "SCMP_ACT_LOG", "args": [{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }] }),
            ),
            "linux.seccomp.syscalls[0].args.index: `6`",
        ),
        (
            call(json!({ "names": ["read"], "action": "SCMP_ACT_NOTIFY" })),
            "linux.seccomp.listenerPath: ``",
        ),
    ]
}

fn resources() -> Vec<(Value, &'static str)> {
    let with = |resources: Value| json!({ "linux": { "resources": resources } });
    vec![
        (
            with(json!({ "memory": { "limit": -2 } })),
            "linux.resources.memory.limit: `-2`",
        ),
        (
            with(json!({ "memory": { "limit": 2, "swap": 1 } })),
            "linux.resources.memory.swap: `1`",
        ),
        (
            with(json!({ "memory": { "swappiness": 1 } })),
            "linux.resources.memory.swappiness is not supported",
        ),
        (
            with(json!({ "memory": { "disableOOMKiller": true } })),
            "linux.resources.memory.disableOOMKiller is not",
        ),
        (
            with(json!({ "cpu": { "idle": 2 } })),
            "linux.resources.cpu.idle: `2`",
        ),
        (
            with(json!({ "cpu": { "cpus": "+1" } })),
            "linux.resources.cpu.cpus: `+1`",
        ),
        (
            with(json!({ "cpu": { "mems": "1-0" } })),
            "linux.resources.cpu.mems: `1-0`",
        ),
        (
            with(json!({ "cpu": { "realtimeRuntime": 1 } })),
            "linux.resources.cpu.realtimeRuntime",
        ),
        (
            with(json!({ "blockIO": { "weight": 9 } })),
            "linux.resources.blockIO.weight: `9`",
        ),
        (
            with(json!({ "blockIO": { "leafWeight": 9 } })),
            "linux.resources.blockIO.leafWeight is not",
        ),
        (
            with(json!({ "blockIO": { "throttleReadBpsDevice": [{ "major": 8, "minor": -1, "rate": 1 }] } })),
            "linux.resources.blockIO: `8:-1`",
        ),
        (
            with(json!({ "hugepageLimits": [{ "pageSize": "+2MB", "limit": 1 }] })),
            "linux.resources.hugepageLimits.pageSize: `+2MB`",
        ),
        (
            with(json!({ "rdma": { "a\nb": { "hcaHandles": 1 } } })),
            "linux.resources.rdma: `a\\nb`",
        ),
        (
            with(json!({ "network": { "classID": 1 } })),
            "linux.resources.network.classID is not",
        ),
        (
            with(json!({ "unified": { "../memory.max": "1" } })),
            "linux.resources.unified: `../memory.max`",
        ),
        (
            with(json!({ "unified": { "cgroup.procs": "1" } })),
            "linux.resources.unified: `cgroup.procs`",
        ),
        (
            with(json!({ "devices": [{ "allow": true, "access": "x" }] })),
            "linux.resources.devices: `x`",
        ),
        (
            with(json!({ "devices": [{ "allow": true, "type": "p" }] })),
            "linux.resources.devices: `p`",
        ),
    ]
}

#[test]
fn every_mistake_is_named() {
    let mut wrong = Vec::new();
    for (change, start) in bad() {
        let mut config = least();
        merge(&mut config, &change);
        match plan(&config, &host("v2")) {
            Ok(_) => wrong.push(format!("{change}: accepted")),
            Err(e) if !e.to_string().starts_with(start) => wrong.push(format!("{start}: {e}")),
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
