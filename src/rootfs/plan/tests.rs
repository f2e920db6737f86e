use std::fmt::Write as _;

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::super::checks::PROC_FILES;
use super::*;
use crate::host::{CgroupLayout, Hierarchy, Host};

fn unified() -> CgroupLayout {
    CgroupLayout::Unified("/sys/fs/cgroup".into())
}

fn hybrid() -> CgroupLayout {
    let hierarchy = |mount: &str, controllers: &[&str]| Hierarchy {
        controllers: controllers.iter().map(|&c| c.to_owned()).collect(),
        mount: mount.into(),
    };
    CgroupLayout::Hybrid {
        v1: vec![
            hierarchy("/sys/fs/cgroup/cpu,cpuacct", &["cpu", "cpuacct"]),
            hierarchy("/sys/fs/cgroup/systemd", &["name=systemd"]),
        ],
        unified: Some("/sys/fs/cgroup/unified".into()),
    }
}

/// The facts of a test: cgroup layout, and letters `u`, `c`, `n` for a user, cgroup and network namespace.
/// `x` takes the container's cgroup away.
fn plan(cgroups: CgroupLayout, namespaces: &str, changes: &Value) -> Result<RootfsPlan> {
    let mut spec = json!({
        "ociVersion": "1.3.0",
        "root": { "path": "rootfs" },
        "linux": { "namespaces": [{ "type": "mount" }] },
    });
    for (key, value) in changes.as_object().unwrap() {
        match value.as_object() {
            Some(fields) => spec[key].as_object_mut().unwrap().extend(fields.clone()),
            None => spec[key] = value.clone(),
        }
    }
    let spec: Spec = serde_json::from_value(spec).unwrap();
    let facts = Facts {
        host: &Host::imagined(cgroups),
        userns: namespaces.contains('u'),
        cgroupns: namespaces.contains('c'),
        netns: namespaces.contains('n'),
        cgroup_path: (!namespaces.contains('x')).then_some("/condo/web"),
        mounts: if namespaces.contains('h') {
            MountsOf::Caller
        } else {
            MountsOf::Container
        },
        no_pivot: false,
    };
    RootfsPlan::from_spec(&spec, Path::new("/srv/web/rootfs"), Path::new("/srv/web"), &facts)
}

fn mounts(cgroups: CgroupLayout, namespaces: &str, mounts: &Value) -> String {
    let plan = plan(cgroups, namespaces, &json!({ "mounts": mounts })).unwrap();
    let mut text = String::new();
    for op in &plan.mounts {
        writeln!(text, "{} {}", op.target.display(), brief(&op.action)).unwrap();
    }
    text
}

/// One line per step, for goldens that people read.
fn brief(action: &Action) -> String {
    match action {
        Action::Bind(b) => format!(
            "{} {}{} +{:#x} -{:#x} r+{:#x} {:?}{}",
            if b.recursive { "rbind" } else { "bind" },
            b.source.display(),
            if b.optional { "?" } else { "" },
            b.top.set,
            b.top.clear,
            b.tree.set,
            b.propagation.iter().map(|p| p.sharing).collect::<Vec<_>>(),
            b.idmap
                .as_ref()
                .map_or("", |i| if i.recursive { " ridmap" } else { " idmap" }),
        ),
        Action::New(f) => format!(
            "{}({}) {} +{:#x}{}{}{}",
            f.fstype,
            f.source,
            f.data.join(","),
            f.attributes,
            if f.seal { " seal" } else { "" },
            if f.copy_up { " copyup" } else { "" },
            f.label
                .as_ref()
                .map_or(String::new(), |label| format!(" label {label}")),
        ),
        Action::Remount(r) => format!("remount {:?} +{:#x} -{:#x}", r.superblock, r.top.set, r.top.clear),
        Action::Link(to) => format!("link {}", to.display()),
    }
}

fn entry(destination: &str, fstype: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": fstype, "source": source, "options": options })
}

fn refused(changes: &Value) -> String {
    plan(unified(), "", changes).unwrap_err().to_string()
}

fn refused_mount(mount: &Value) -> String {
    refused(&json!({ "mounts": [mount] }))
}

#[test]
fn the_usual_mounts() {
    let list = json!([
        entry("/proc", "proc", "proc", &[]),
        entry(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"]
        ),
        entry(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "gid=5"]
        ),
        entry("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        entry(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"]
        ),
        entry("/var/", "tmpfs", "tmpfs", &["ro", "tmpcopyup"]),
        entry("/data", "ext4", "/dev/vdb", &["ro", "sync"]),
        entry("/etc/hosts", "bind", "hosts", &["rbind", "rprivate", "rw", "rro"]),
        entry("/etc/hosts", "", "", &["bind", "remount", "nosuid"]),
        entry("/dev", "", "", &["remount", "size=1k"]),
    ]);
    assert_eq!(
        mounts(unified(), "c", &list),
        "/proc proc(proc)  +0x0\n\
         /dev tmpfs(tmpfs) mode=755,size=65536k +0x22\n\
         /dev/pts devpts(devpts) newinstance,gid=5 +0xa\n\
         /sys sysfs(sysfs)  +0xf\n\
         /sys/fs/cgroup cgroup2(cgroup)  +0xf\n\
         /var tmpfs(tmpfs)  +0x0 seal copyup\n\
         /data ext4(/dev/vdb) ro,sync +0x1\n\
         /etc/hosts rbind /srv/web/hosts +0x0 -0x1 r+0x1 [Private]\n\
         /etc/hosts remount None +0x2 -0x0\n\
         /dev remount Some([\"rw\", \"size=1k\"]) +0x0 -0x0\n"
    );
}

#[test]
fn cgroups_of_a_unified_host() {
    for fstype in ["cgroup", "cgroup2"] {
        let list = json!([entry("/sys/fs/cgroup", fstype, "cgroup", &["ro"])]);
        assert_eq!(
            mounts(unified(), "c", &list),
            "/sys/fs/cgroup cgroup2(cgroup)  +0x1\n"
        );
        assert_eq!(
            mounts(unified(), "", &list),
            "/sys/fs/cgroup bind /sys/fs/cgroup +0x1 -0x0 r+0x0 []\n"
        );
    }
    // Only root of the machine has it writable, and only by its word.
    for (namespaces, option, change) in [
        ("", "rw", "+0x0 -0x1"),
        ("", "nosuid", "+0x3 -0x0"),
        ("u", "rw", "+0x1 -0x0"),
    ] {
        let list = json!([entry("/sys/fs/cgroup", "cgroup", "cgroup", &[option])]);
        assert_eq!(
            mounts(unified(), namespaces, &list),
            format!("/sys/fs/cgroup bind /sys/fs/cgroup {change} r+0x0 []\n")
        );
    }
}

#[test]
fn cgroups_of_a_hybrid_host() {
    let list = json!([entry("/sys/fs/cgroup", "cgroup", "cgroup", &["ro"])]);
    assert_eq!(
        mounts(hybrid(), "c", &list),
        "/sys/fs/cgroup tmpfs(cgroup) mode=755 +0xe seal\n\
         /sys/fs/cgroup/cpu,cpuacct cgroup(cgroup) cpu,cpuacct +0x1\n\
         /sys/fs/cgroup/cpu link cpu,cpuacct\n\
         /sys/fs/cgroup/cpuacct link cpu,cpuacct\n\
         /sys/fs/cgroup/systemd cgroup(cgroup) name=systemd +0x1\n\
         /sys/fs/cgroup/unified cgroup2(cgroup)  +0x1\n"
    );
    assert_eq!(
        mounts(hybrid(), "", &list),
        "/sys/fs/cgroup tmpfs(cgroup) mode=755 +0xe seal\n\
         /sys/fs/cgroup/cpu,cpuacct bind /sys/fs/cgroup/cpu,cpuacct/condo/web? +0x1 -0x0 r+0x0 []\n\
         /sys/fs/cgroup/cpu link cpu,cpuacct\n\
         /sys/fs/cgroup/cpuacct link cpu,cpuacct\n\
         /sys/fs/cgroup/systemd bind /sys/fs/cgroup/systemd/condo/web? +0x1 -0x0 r+0x0 []\n\
         /sys/fs/cgroup/unified bind /sys/fs/cgroup/unified/condo/web? +0x1 -0x0 r+0x0 []\n"
    );
    let second = json!([entry("/sys/fs/cgroup", "cgroup2", "cgroup", &["rw"])]);
    assert_eq!(
        mounts(hybrid(), "c", &second),
        "/sys/fs/cgroup cgroup2(cgroup)  +0x0\n"
    );
}

#[test]
fn a_container_without_a_cgroup_changes_nobody_s() {
    let list = json!([entry("/sys/fs/cgroup", "cgroup", "cgroup", &["rw"])]);
    let unified = || CgroupLayout::Unified("/sys/fs/cgroup".into());
    let empty = "/sys/fs/cgroup tmpfs(cgroup) mode=755 +0xe seal\n";
    assert_eq!(
        mounts(unified(), "cx", &list),
        "/sys/fs/cgroup cgroup2(cgroup)  +0x1\n"
    );
    assert_eq!(mounts(unified(), "x", &list), empty);
    assert_eq!(mounts(hybrid(), "cx", &list), empty);
}

#[test]
fn sysfs_of_a_user_namespace_needs_a_network_namespace() {
    let list = json!([entry("/sys", "sysfs", "sysfs", &["ro", "nosuid"])]);
    assert_eq!(mounts(unified(), "un", &list), "/sys sysfs(sysfs)  +0x3\n");
    assert_eq!(
        mounts(unified(), "u", &list),
        "/sys rbind /sys +0x3 -0x0 r+0x3 []\n"
    );
}

#[test]
fn owners_are_translated_by_own_maps_or_those_of_the_container() {
    let map = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
    let mut mount = entry("/d", "bind", "/d", &["rbind", "ridmap"]);
    assert_eq!(
        mounts(unified(), "u", &json!([mount])),
        "/d rbind /d +0x0 -0x0 r+0x0 [] ridmap\n"
    );
    assert!(refused_mount(&mount).starts_with("mounts[0].options: `idmap` needs `uidMappings`"));
    mount["uidMappings"] = map.clone();
    assert!(refused_mount(&mount).starts_with("mounts[0].gidMappings: `` is needed"));
    mount["gidMappings"] = map;
    assert!(plan(unified(), "", &json!({ "mounts": [mount] })).is_ok());
    mount["options"] = json!([]);
    mount["type"] = json!("tmpfs");
    assert!(refused_mount(&mount).contains("`/d` is no bind mount"));
}

#[test]
fn a_destination_is_taken_by_the_letter_and_ends_at_the_root() {
    for (given, at) in [("/a/../b", "/b"), ("/../../m", "/m"), ("m/./x/", "/m/x")] {
        let mounts = json!({ "mounts": [entry(given, "tmpfs", "", &[])] });
        let plan = plan(unified(), "", &mounts).unwrap();
        assert_eq!(plan.mounts[0].target, Path::new(at), "{given}");
    }
}

#[test]
fn mistakes_name_the_field() {
    let cases = [
        (
            entry("/", "tmpfs", "", &[]),
            "mounts[0].destination: `/` is the root",
        ),
        (entry("/x", "", "", &[]), "mounts[0].type: `` must name"),
        (
            json!({ "destination": "/x", "type": "bind" }),
            "mounts[0].source: `` is needed",
        ),
        (
            entry("/proc", "tmpfs", "", &[]),
            "mounts[0].destination: `/proc` is inside",
        ),
        (
            entry("/proc/sys", "bind", "/x", &["bind"]),
            "mounts[0].destination: `/proc/sys` is inside",
        ),
        (
            entry("/proc/stat", "tmpfs", "", &[]),
            "mounts[0].destination: `/proc/stat` is inside",
        ),
        (
            entry("//proc/./1", "proc", "", &[]),
            "mounts[0].destination: `/proc/1` is inside",
        ),
    ];
    for (mount, words) in cases {
        let error = refused_mount(&mount);
        assert!(error.starts_with(words), "{error}");
    }
    for file in PROC_FILES {
        assert!(
            plan(
                unified(),
                "",
                &json!({ "mounts": [entry(file, "bind", "/x", &["bind"])] })
            )
            .is_ok()
        );
    }
}

#[test]
fn mistakes_beside_the_mounts_name_the_field() {
    let refused = |changes: &Value| plan(unified(), "", changes).unwrap_err().to_string();
    let shared = plan(unified(), "hu", &json!({})).unwrap_err().to_string();
    assert!(
        shared.starts_with("linux.namespaces: `mount` must be a new one"),
        "{shared}"
    );
    assert!(plan(unified(), "h", &json!({})).is_ok());
    let propagation = json!({ "linux": { "rootfsPropagation": "loud" } });
    assert!(refused(&propagation).starts_with("linux.rootfsPropagation: `loud` must be"));
    let device =
        json!({ "linux": { "devices": [{ "path": "/dev/x", "type": "c", "major": -1, "minor": 0 }] } });
    assert!(refused(&device).starts_with("linux.devices[0].major: `-1`"));
    for list in ["maskedPaths", "readonlyPaths"] {
        let paths = json!({ "linux": { list: ["/proc/kcore", "proc/keys"] } });
        assert_eq!(
            refused(&paths),
            format!("linux.{list}[1]: `proc/keys` must be an absolute path")
        );
    }
}

#[test]
fn what_is_inherited_never_reaches_back_out_of_a_user_namespace() {
    let inherited = |name: &str, namespaces: &str| {
        let changes = json!({ "linux": { "rootfsPropagation": name } });
        plan(unified(), namespaces, &changes).unwrap().inherited
    };
    assert_eq!(inherited("", ""), Sharing::Slave);
    assert_eq!(inherited("rshared", ""), Sharing::Shared);
    assert_eq!(inherited("rshared", "u"), Sharing::Slave);
    assert_eq!(inherited("rprivate", ""), Sharing::Private);
    assert_eq!(inherited("unbindable", ""), Sharing::Private);
}

#[test]
fn a_bound_dev_is_left_alone() {
    let changes = json!({ "mounts": [entry("/dev", "bind", "/dev", &["rbind"])] });
    let plan = plan(unified(), "", &changes).unwrap();
    assert!(!plan.own_dev && plan.devices.is_empty());
}

#[test]
fn devices_of_the_spec_replace_the_defaults() {
    let devices =
        json!([{ "path": "/dev/null", "type": "u", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 7 }]);
    let plan = plan(unified(), "", &json!({ "linux": { "devices": devices } })).unwrap();
    let paths: Vec<_> = plan.devices.iter().map(|d| d.path.to_str().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "/dev/zero",
            "/dev/full",
            "/dev/random",
            "/dev/urandom",
            "/dev/tty",
            "/dev/null"
        ]
    );
    assert_eq!((plan.devices[5].mode, plan.devices[5].uid), (0o600, 7));
}

#[test]
fn a_label_is_for_filesystems_that_hold_files() {
    let changes = json!({
        "mounts": [
            entry("/proc", "proc", "proc", &[]),
            entry("/t", "tmpfs", "tmpfs", &[]),
            entry("/q", "mqueue", "mqueue", &[]),
        ],
        "linux": { "mountLabel": "a:b" },
    });
    let plan = plan(unified(), "", &changes).unwrap();
    let data: Vec<_> = plan.mounts.iter().map(|m| brief(&m.action)).collect();
    assert_eq!(
        data,
        [
            "proc(proc)  +0x0",
            "tmpfs(tmpfs) context=a:b +0x0",
            "mqueue(mqueue)  +0x0 label a:b"
        ]
    );
    assert_eq!(plan.label.as_deref(), Some("a:b"));
}
