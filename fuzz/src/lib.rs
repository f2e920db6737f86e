//! What holds for everything that condo-runtime accepts, whoever wrote it.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use condo::cgroups::Home;
use condo::error::Error;
use condo::host::{CgroupLayout, Hierarchy, Host};
use condo::namespaces::Kind;
use condo::process::Process;
use condo::rootfs::options::Change;
use condo::rootfs::{Action, MountOp};
use condo::runtime::hooks;
use condo::runtime::plan::Plan;
use condo::seccomp::{self, Filter};
use condo::sys::mount::attr;
use oci_spec::runtime::Hook;
use serde_json::Value;

/// The attributes that `linux/mount.h` has and a mount option can mean.
const ATTRIBUTES: u64 = attr::RDONLY
    | attr::NOSUID
    | attr::NODEV
    | attr::NOEXEC
    | attr::ATIME_MASK
    | attr::NODIRATIME
    | attr::NOSYMFOLLOW;

/// One machine of each kind: everything on cgroup v2, and everything on v1. Their mounts do not exist.
pub fn hosts() -> [Host; 2] {
    let v1 = "cpu cpuset memory blkio pids hugetlb devices rdma net_cls net_prio freezer".split(' ');
    let hierarchy = |name: &str| Hierarchy {
        controllers: vec![name.to_owned()],
        mount: Path::new("/nonexistent").join(name),
    };
    [
        CgroupLayout::Unified("/nonexistent".into()),
        CgroupLayout::Hybrid {
            v1: v1.map(hierarchy).collect(),
            unified: None,
        },
    ]
    .map(Host::imagined)
}

/// Whether an error is about what the user wrote: what decides does nothing that could fail otherwise.
pub fn is_a_user_s_error(e: &Error) -> bool {
    matches!(
        e.root(),
        Error::Invalid { .. } | Error::Unsupported { .. } | Error::Json(_)
    )
}

/// The bits are the kernel's, none is set and cleared at once, and an access time policy replaces the whole field.
pub fn check_change(change: Change) {
    let policy = |bits: u64| bits & attr::ATIME_MASK;
    assert_eq!((change.set | change.clear) & !ATTRIBUTES, 0, "{change:?}");
    assert_eq!(change.set & change.clear & !attr::ATIME_MASK, 0, "{change:?}");
    assert!(
        [attr::RELATIME, attr::NOATIME, attr::STRICTATIME].contains(&policy(change.set)),
        "{change:?}"
    );
    assert!(
        [0, attr::ATIME_MASK].contains(&policy(change.clear)),
        "{change:?}"
    );
    assert!(policy(change.set) == 0 || policy(change.clear) != 0, "{change:?}");
}

/// A process can be started as it is: `execve(2)` takes its strings, and the kernel its sets of capabilities.
pub fn check_process(process: &Process) {
    assert!(process.args.first().is_some_and(|program| !program.is_empty()));
    for text in process.args.iter().chain(&process.env) {
        assert!(!text.as_bytes().contains(&0), "{text:?}");
    }
    absolute(&process.cwd);
    let sets = &process.capabilities;
    let within = |set: u64, other: u64| assert_eq!(set & !other, 0, "{sets:?}");
    within(sets.effective, sets.permitted);
    within(sets.inheritable, sets.bounding);
    within(sets.ambient, sets.permitted & sets.inheritable);
    let who = &process.credentials;
    // The highest number means "no change" to the kernel: the process would stay root.
    for id in [who.uid, who.gid].iter().chain(&who.groups) {
        assert_ne!(*id, u32::MAX);
    }
}

/// A plan can be carried out: its paths stay where they belong, its strings are what the kernel takes, its parts fit.
pub fn check_plan(plan: &Plan) {
    check_process(&plan.process);
    check_namespaces(plan);
    check_rootfs(&plan.rootfs);
    check_cgroup(plan);
    check_hooks(&plan.hooks);
    if let Some(profile) = &plan.seccomp {
        let filter = seccomp::compile(profile).unwrap_or_else(|e| panic!("{e}"));
        assert!((1..=4096).contains(&filter.len()));
        assert_eq!(Filter::from_bytes(&filter.to_bytes()).ok(), Some(filter));
    }
}

fn absolute(path: &Path) {
    assert!(path.is_absolute() && !has_nul(path), "{path:?}");
}

fn has_nul(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().contains(&0)
}

/// A path inside the root, spelled one way only.
fn inside(path: &Path) {
    absolute(path);
    let plain = |c: Component<'_>| matches!(c, Component::RootDir | Component::Normal(_));
    assert!(path.components().all(plain), "{path:?}");
    assert_ne!(path, Path::new("/"));
}

fn check_namespaces(plan: &Plan) {
    let own = &plan.namespaces;
    // Among mounts that are not its own nobody may be root of a user namespace: what is mounted there is the machine's.
    assert!(own.is_new(Kind::Mount) || !own.has(Kind::User));
    assert!(!own.is_new(Kind::User) || plan.ids.root().is_some());
    assert!(own.has(Kind::User) || plan.ids.is_empty());
    if own.is_new(Kind::User) {
        let who = &plan.process.credentials;
        assert!(plan.ids.has_uid(who.uid) && plan.ids.has_gid(who.gid));
        assert!(who.groups.iter().all(|gid| plan.ids.has_gid(*gid)));
    }
    for (kind, path) in own.all_joined() {
        assert!(!own.is_new(kind));
        absolute(path);
    }
    assert!(own.has(Kind::Network) || plan.devices.is_empty());
    for name in [&plan.hostname, &plan.domainname].into_iter().flatten() {
        assert!(
            own.has(Kind::Uts) && (1..=64).contains(&name.len()) && !name.contains('\0'),
            "{name:?}"
        );
    }
    for line in plan.time_offsets.lines() {
        assert!(own.is_new(Kind::Time));
        let words: Vec<&str> = line.split(' ').collect();
        let [clock, seconds, nanoseconds] = words[..] else {
            panic!("{line:?}");
        };
        assert!(
            ["monotonic", "boottime"].contains(&clock) && seconds.parse::<i64>().is_ok(),
            "{line:?}"
        );
        // timens_offsets_write(): more is EINVAL.
        assert!(
            nanoseconds.parse::<u32>().is_ok_and(|n| n < 1_000_000_000),
            "{line:?}"
        );
    }
}

fn check_rootfs(rootfs: &condo::rootfs::RootfsPlan) {
    let Ok(Value::Object(fields)) = serde_json::to_value(rootfs) else {
        panic!("{rootfs:?}");
    };
    for list in ["masked", "readonly_paths"] {
        for path in paths(&fields[list]) {
            absolute(&path);
        }
    }
    for device in fields["devices"].as_array().into_iter().flatten() {
        for path in paths(&device["path"]) {
            inside(&path);
        }
        assert!(
            device["mode"].as_u64().is_some_and(|mode| mode <= 0o7777),
            "{device}"
        );
    }
    rootfs.mounts().iter().for_each(check_mount);
}

/// A path, or a list of them.
fn paths(value: &Value) -> Vec<PathBuf> {
    match value {
        Value::String(path) => vec![path.into()],
        Value::Array(list) => list.iter().flat_map(paths).collect(),
        other => panic!("{other} is no path"),
    }
}

fn check_mount(op: &MountOp) {
    inside(&op.target);
    let below_proc = op.target.starts_with("/proc") && op.target != Path::new("/proc");
    let data = |lines: &[String]| assert!(lines.iter().all(|l| !l.is_empty() && !l.contains('\0')), "{op:?}");
    match &op.action {
        Action::Bind(bind) => {
            absolute(&bind.source);
            check_change(bind.top);
            check_change(bind.tree);
            if let Some((uids, gids)) = bind.idmap.as_ref().and_then(|map| map.maps.as_ref()) {
                let map = condo::namespaces::user::IdMap::from_mappings(uids, gids, "mounts");
                assert!(!uids.is_empty() && !gids.is_empty() && map.is_ok(), "{op:?}");
            }
        }
        Action::New(filesystem) => {
            assert!(!below_proc, "{op:?}");
            assert!(
                !filesystem.fstype.is_empty() && !filesystem.fstype.contains('\0'),
                "{op:?}"
            );
            assert!(!filesystem.source.contains('\0'), "{op:?}");
            data(&filesystem.data);
            check_change(Change {
                set: filesystem.attributes,
                clear: attr::ATIME_MASK,
            });
        }
        Action::Remount(remount) => {
            check_change(remount.top);
            check_change(remount.tree);
            data(remount.superblock.as_deref().unwrap_or_default());
        }
        Action::Link(to) => assert!(!below_proc && !has_nul(to), "{op:?}"),
    }
}

fn check_cgroup(plan: &Plan) {
    if let Some(path) = plan.cgroup.as_ref().map(Home::path) {
        inside(Path::new(path));
        assert!(!path.contains(['\n', '\0']), "{path:?}");
    }
    for setting in plan.limits.settings() {
        let (file, value) = (&setting.file, &setting.value);
        // One file of this cgroup, one write(2) of one line (Incus, CVE-2026-23953).
        assert!(
            file.contains('.') && !file.contains(['/', '\0', '\n']) && !file.starts_with('.'),
            "{setting:?}"
        );
        assert!(!value.contains(['\n', '\0']), "{setting:?}");
        let mut numbers = value.split([' ', ':']).take(2);
        let named = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
        assert!(!file.ends_with("_device") || numbers.all(named), "{setting:?}");
    }
    assert!(plan.delegate.is_none() || plan.namespaces.is_new(Kind::Cgroup));
}

fn check_hooks(hooks: &hooks::Set) {
    let before = hooks
        .prestart
        .iter()
        .chain(&hooks.create_runtime)
        .chain(&hooks.create_container);
    let after = hooks
        .start_container
        .iter()
        .chain(&hooks.poststart)
        .chain(&hooks.poststop);
    before.chain(after).for_each(check_hook);
}

fn check_hook(hook: &Hook) {
    absolute(hook.path());
    assert!(hook.timeout().is_none_or(|seconds| seconds > 0));
    let texts = hook.args().iter().chain(hook.env()).flatten();
    texts.for_each(|text| assert!(!text.contains('\0'), "{text:?}"));
}
