//! Limits hold, cgroups come and go. Everything happens below `/condo-test-<pid>` of each hierarchy.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use condo::cgroups::{Cgroup, Limits, birth_of};
use condo::host::{CgroupLayout, Hierarchy};
use condo::sys::bpf;
use condo::sys::clone::{Clone, Side};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

pub mod reader;
pub mod resources;

tests![
    cpu_quota_holds in guest,
    cpuset_holds in guest,
    memory_limit_kills in guest,
    memory_is_raised_and_lowered in guest,
    memory_in_use_is_not_taken_when_checked in guest,
    page_cache_makes_room in guest,
    pids_limit_fails_fork in guest,
    io_throttle_holds in guest: 120,
    freeze_stops in guest,
    freeze_stops_without_cgroup2,
    a_cgroup_is_frozen_from_the_first_moment in guest,
    kill_empties in guest,
    kill_empties_without_cgroup2,
    remove_leaves_nothing in guest,
    creation_and_tidying_meet in guest,
    failed_create_leaves_nothing,
    a_busy_parent_is_refused in guest,
    a_used_cgroup_is_refused in guest,
    delegate_gives_only_what_is_safe in guest,
    delegated_cgroups_are_bounded in guest,
    devices_are_denied in guest,
    devices_are_denied_by_program in guest,
    a_missing_file_is_an_error in guest,
    unified_settings_are_written in guest,
    birth_follows_the_process in guest,
];

const MIB: i64 = 1 << 20;
/// How long anything may take that should happen at once; an emulated guest is slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// A sub-tree of this test, removed whatever happens.
struct Tree {
    layout: CgroupLayout,
    top: String,
}

impl Tree {
    fn new() -> Result<Self> {
        Ok(Self::on(CgroupLayout::probe()?))
    }

    fn on(layout: CgroupLayout) -> Self {
        let top = format!("/condo-test-{}", std::process::id());
        Self { layout, top }
    }

    /// A host that has v1 alone; skips where there is no v1.
    fn on_v1() -> Result<Self> {
        let v1 = hybrid()?;
        Ok(Self::on(CgroupLayout::Hybrid { v1, unified: None }))
    }

    fn path(&self) -> String {
        format!("{}/web", self.top)
    }

    fn create(&self) -> Result<Cgroup> {
        Ok(Cgroup::create(&self.layout, &self.path())?)
    }

    fn limits(&self, json: &str) -> Result<Limits> {
        Ok(Limits::for_update(&serde_json::from_str(json)?, &self.layout)?)
    }

    /// A cgroup with these limits.
    fn limited(&self, json: &str) -> Result<Cgroup> {
        let cgroup = self.create()?;
        cgroup.apply(&self.limits(json)?)?;
        Ok(cgroup)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if let Ok(top) = Cgroup::open(&self.layout, &self.top) {
            let _ = top.kill();
            // Children of ours would stay zombies, which is no matter; those of theirs are reaped by init.
            let _ = top.wait_empty(PATIENCE);
            if let Err(e) = top.remove() {
                eprintln!("left behind: {e}");
            }
        }
    }
}

fn hybrid() -> Result<Vec<Hierarchy>> {
    match CgroupLayout::probe()? {
        CgroupLayout::Hybrid { v1, .. } => Ok(v1),
        CgroupLayout::Unified(_) => bail!("no v1 here"),
    }
}

/// Its directory in the hierarchy of a controller.
fn dir_of(cgroup: &Cgroup, controller: &str) -> Result<PathBuf> {
    let mut paths = cgroup.paths().into_iter();
    let found = paths.find(|(name, _)| name.is_empty() || name.split(',').any(|n| n == controller));
    Ok(found.with_context(|| format!("no cgroup of `{controller}`"))?.1)
}

/// What one of its files says.
fn file_of(cgroup: &Cgroup, file: &str) -> Result<String> {
    let controller = file.split('.').next().unwrap_or(file);
    let path = dir_of(cgroup, controller)?.join(file);
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// Runs `work` in a child that is in the cgroup before it begins; its result is the exit status.
fn spawn(cgroup: &Cgroup, work: impl FnOnce() -> i32) -> Result<Pid> {
    let (go, ready) = std::io::pipe()?;
    let clone = Clone {
        cgroup: cgroup.birth(),
        ..Clone::default()
    };
    match clone.spawn()? {
        Side::Child => {
            drop(ready);
            let status = match (&go).read(&mut [0]) {
                Ok(1) => work(),
                _ => 99,
            };
            std::process::exit(status)
        }
        Side::Parent { pid, .. } => {
            cgroup.join(pid)?;
            (&ready).write_all(b"!")?;
            Ok(Pid::from_raw(pid))
        }
    }
}

fn exit_status(pid: Pid) -> Result<i32> {
    match waitpid(pid, None)? {
        WaitStatus::Exited(_, status) => Ok(status),
        other => bail!("ended by {other:?}"),
    }
}

fn spin() -> i32 {
    loop {
        std::hint::spin_loop();
    }
}

fn sleep() -> i32 {
    loop {
        std::thread::sleep(PATIENCE);
    }
}

/// Waits until `check` says yes.
fn eventually(what: &str, check: impl Fn() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !check()? {
        ensure!(Instant::now() < end, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn cpu_used(cgroup: &Cgroup) -> Result<u64> {
    Ok(cgroup.stats()?.cpu.context("no cpu statistics")?.usage)
}

fn cpu_quota_holds() -> Result<()> {
    needs!(root);
    let tree = Tree::new()?;
    let cgroup = tree.limited(r#"{"cpu":{"shares":512,"quota":20000,"period":100000}}"#)?;
    let begun = Instant::now();
    spawn(&cgroup, spin)?;
    std::thread::sleep(Duration::from_secs(2));
    let used = cpu_used(&cgroup)? as f64 / begun.elapsed().as_micros() as f64;
    ensure!(used > 0.02, "the child did not run: {used}");
    ensure!(used < 0.45, "a fifth was allowed, {used} used");
    let cpu = cgroup.stats()?.cpu.context("no cpu statistics")?;
    ensure!(cpu.throttled_periods > 0, "{cpu:?}");
    // Lowering and raising at once: burst must fit the quota, which changes with it.
    cgroup.apply(&tree.limits(r#"{"cpu":{"quota":90000,"period":100000,"burst":80000}}"#)?)?;
    cgroup.apply(&tree.limits(r#"{"cpu":{"quota":30000,"period":100000,"burst":10000}}"#)?)?;
    Ok(())
}

fn cpuset_holds() -> Result<()> {
    needs!(root);
    let tree = Tree::new()?;
    let cgroup = tree.limited(r#"{"cpu":{"cpus":"0","mems":"0"}}"#)?;
    let child = spawn(&cgroup, sleep)?;
    let status = std::fs::read_to_string(format!("/proc/{child}/status"))?;
    let allowed = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
    ensure!(allowed.map(str::trim) == Some("0"), "{allowed:?}");
    // Few machines have a second node. On v1 a cpuset has those of its parent when nobody asks for any.
    let mems = file_of(&cgroup, "cpuset.mems")?;
    ensure!(mems == "0", "{mems}");
    Ok(())
}

/// Fills that much memory, page by page.
fn fill(bytes: i64) -> Vec<u8> {
    let mut memory = vec![0_u8; bytes as usize];
    memory.iter_mut().step_by(4096).for_each(|b| *b = 1);
    std::hint::black_box(memory)
}

fn memory_limit_kills() -> Result<()> {
    needs!(root);
    let tree = Tree::new()?;
    let cgroup = tree.limited(r#"{"memory":{"limit":33554432,"swap":33554432}}"#)?;
    ensure!(cgroup.oom_kills()? == 0);
    let child = spawn(&cgroup, || i32::from(fill(256 * MIB).is_empty()))?;
    let end = waitpid(child, None)?;
    ensure!(
        matches!(end, WaitStatus::Signaled(_, Signal::SIGKILL, _)),
        "{end:?}"
    );
    ensure!(cgroup.oom_kills()? > 0, "the kill was not counted");
    let memory = cgroup.stats()?.memory.context("no memory statistics")?;
    ensure!(memory.limit == Some(32 * MIB as u64), "{memory:?}");
    ensure!(memory.peak.is_none_or(|p| p <= 32 * MIB as u64), "{memory:?}");
    Ok(())
}

fn memory_is_raised_and_lowered() -> Result<()> {
    needs!(root);
    let tree = Tree::new()?;
    let cgroup = tree.create()?;
    // On v1 memory may at no time be above memory and swap: up needs the one order, down the other.
    for mib in [64, 256, 32, 128] {
        let bytes = mib * MIB;
        let json = format!(
            r#"{{"memory":{{"limit":{bytes},"swap":{},"reservation":{MIB}}}}}"#,
            bytes + MIB
        );
        cgroup.apply(&tree.limits(&json)?)?;
        let memory = cgroup.stats()?.memory.context("no memory statistics")?;
        ensure!(memory.limit == Some(bytes as u64), "{mib}: {memory:?}");
        if let Some(swap) = memory.swap_limit {
            ensure!(swap == MIB as u64, "{mib}: {memory:?}");
        }
    }
    cgroup.apply(&tree.limits(r#"{"memory":{"limit":-1}}"#)?)?;
    let memory = cgroup.stats()?.memory.context("no memory statistics")?;
    ensure!((memory.limit, memory.swap_limit) == (None, None), "{memory:?}");
    Ok(())
}

fn memory_in_use_is_not_taken_when_checked() -> Result<()> {
    needs!(root);
    let tree = Tree::new()?;
    let cgroup = tree.create()?;
    let _child = spawn(&cgroup, || {
        let _held = fill(64 * MIB);
        sleep()
    })?;
    eventually("use of memory", || {
        let memory = cgroup.stats()?.memory.context("no memory statistics")?;
        Ok(memory.anon > 60 * MIB as u64)
    })?;
    let low = tree.limits(r#"{"memory":{"limit":16777216,"checkBeforeUpdate":true}}"#)?;
    let e = cgroup.apply(&low).err().context("16 MiB were accepted")?;
    ensure!(e.to_string().contains("in use"), "{e}");
    let memory = cgroup.stats()?.memory.context("no memory statistics")?;
    ensure!(
        memory.limit.is_none(),
        "written in spite of the check: {memory:?}"
    );
    // Anonymous memory without swap cannot be taken back. (On v1 the kernel itself refuses such a limit.)
    if cgroup.paths().contains_key("") {
        let e = cgroup
            .squeezed(16 * MIB as u64, || Ok(()))
            .err()
            .context("64 MiB fit into 16")?;
        ensure!(e.to_string().contains("in use"), "{e}");
    }
    ensure!(cgroup.oom_kills()? == 0);
    Ok(())
}

fn page_cache_makes_room() -> Result<()> {
    needs!(root, cgroup2);
    let (scratch, _) = scratch_on_disk()?;
    let tree = Tree::new()?;
    let cgroup = tree.create()?;
    let child = spawn(&cgroup, || {
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&scratch.0)?;
            file.write_all(&vec![1; 48 * MIB as usize])?;
            file.sync_all()
        };
        write().map_or_else(|e| e.raw_os_error().unwrap_or(98), |()| 0)
    })?;
    ensure!(exit_status(child)? == 0);
    let used = || -> Result<u64> { Ok(cgroup.stats()?.memory.context("no memory statistics")?.usage) };
    ensure!(used()? > 40 * MIB as u64, "{} in use", used()?);
    cgroup.squeezed(24 * MIB as u64, || Ok(()))?;
    ensure!(used()? <= 24 * MIB as u64, "{} in use", used()?);
    let high = std::fs::read_to_string(cgroup.paths()[""].join("memory.high"))?;
    ensure!(high.trim() == "max", "the soft limit stayed: {high}");
    Ok(())
}

fn pids_limit_fails_fork() -> Result<()> {
    needs!(root);
    let tree = Tree::new()?;
    let cgroup = tree.limited(r#"{"pids":{"limit":4}}"#)?;
    let child = spawn(&cgroup, || {
        let clone = Clone::default();
        for made in 0..8 {
            match clone.spawn() {
                Ok(Side::Child) => return sleep(),
                Ok(Side::Parent { .. }) => {}
                Err(e) if e.raw_os_error() == Some(Errno::EAGAIN as i32) => return made,
                Err(_) => return 98,
            }
        }
        97
    })?;
    let made = exit_status(child)?;
    ensure!(made == 3, "{made} more processes");
    let pids = cgroup.stats()?.pids.context("no pids statistics")?;
    ensure!((pids.current, pids.limit) == (3, Some(4)), "{pids:?}");
    ensure!(cgroup.pids()?.len() == 3);
    Ok(())
}

/// The whole disk below a file, or `None` for a file system without one.
fn whole_disk(path: &Path) -> Result<Option<String>> {
    let dev = std::fs::metadata(path)?.dev();
    let (major, minor) = (nix::sys::stat::major(dev), nix::sys::stat::minor(dev));
    let node = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    if !node.exists() {
        return Ok(None);
    }
    let node = node.canonicalize()?;
    let disk = if node.join("partition").exists() {
        node.parent().context("a partition has a disk")?
    } else {
        &node
    };
    Ok(Some(std::fs::read_to_string(disk.join("dev"))?.trim().to_owned()))
}

/// A file of this test, removed whatever happens.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A new file and the whole disk it is on; skips where temporary files are in memory.
fn scratch_on_disk() -> Result<(Scratch, String)> {
    let scratch = Scratch(crate::harness::tempdir().join("scratch"));
    File::create(&scratch.0)?;
    match whole_disk(&scratch.0)? {
        Some(disk) => Ok((scratch, disk)),
        None => {
            drop(scratch);
            crate::harness::need("temporary-files-on-a-disk");
            bail!("no disk")
        }
    }
}

/// Writes and reads that many blocks of 64 KiB past the page cache.
fn direct_io(path: &Path, blocks: u64, write: bool) -> std::io::Result<()> {
    const BLOCK: usize = 64 << 10;
    let file = std::fs::OpenOptions::new()
        .read(!write)
        .write(write)
        .create(write)
        .truncate(false)
        .custom_flags(nix::fcntl::OFlag::O_DIRECT.bits())
        .open(path)?;
    let mut memory = vec![1_u8; 2 * BLOCK];
    let start = memory.as_ptr().align_offset(4096);
    let buffer = &mut memory[start..start + BLOCK];
    for block in 0..blocks {
        if write {
            file.write_all_at(buffer, block * BLOCK as u64)?;
        } else {
            file.read_exact_at(buffer, block * BLOCK as u64)?;
        }
    }
    Ok(())
}

/// 3 MiB at 1 MiB/s, and 48 requests at 16 a second, either way.
fn io_throttle_holds() -> Result<()> {
    needs!(root);
    let (scratch, disk) = scratch_on_disk()?;
    let (major, minor) = disk.split_once(':').context("a device has two numbers")?;
    let tree = Tree::new()?;
    for (kind, write, rate) in [
        ("WriteBps", true, MIB),
        ("ReadBps", false, MIB),
        ("WriteIOPS", true, 16),
        ("ReadIOPS", false, 16),
    ] {
        let cgroup = tree.limited(&format!(
            r#"{{"blockIO":{{"throttle{kind}Device":[{{"major":{major},"minor":{minor},"rate":{rate}}}]}}}}"#
        ))?;
        let begun = Instant::now();
        let child = spawn(&cgroup, || match direct_io(&scratch.0, 48, write) {
            Ok(()) => 0,
            Err(e) => e.raw_os_error().unwrap_or(98),
        })?;
        let status = exit_status(child)?;
        ensure!(status == 0, "{kind}: direct I/O, errno {status}");
        let took = begun.elapsed();
        ensure!(
            took > Duration::from_millis(1500),
            "{kind}: 3 s of work took {took:?}"
        );
        let io = cgroup.stats()?.io;
        let device = io.iter().find(|d| format!("{}:{}", d.major, d.minor) == disk);
        let device = device.with_context(|| format!("no `{disk}` in {io:?}"))?;
        let done = if write {
            device.write_bytes
        } else {
            device.read_bytes
        };
        ensure!(done >= 3 * MIB as u64, "{kind}: {device:?}");
        cgroup.remove()?;
    }
    Ok(())
}

fn freeze_stops() -> Result<()> {
    needs!(root);
    freezes(&Tree::new()?)
}

fn freeze_stops_without_cgroup2() -> Result<()> {
    needs!(root, hybrid);
    freezes(&Tree::on_v1()?)
}

fn freezes(tree: &Tree) -> Result<()> {
    let cgroup = tree.create()?;
    spawn(&cgroup, spin)?;
    eventually("the child runs", || Ok(cpu_used(&cgroup)? > 0))?;
    ensure!(!cgroup.is_frozen()?);
    cgroup.freeze()?;
    ensure!(cgroup.is_frozen()?);
    let still = cpu_used(&cgroup)?;
    std::thread::sleep(Duration::from_millis(300));
    let later = cpu_used(&cgroup)?;
    // Far less than what 300 ms of spinning would be, even beside other work.
    ensure!(later - still < 10_000, "{still} then {later}");
    cgroup.thaw()?;
    ensure!(!cgroup.is_frozen()?);
    eventually("the child goes on", || Ok(cpu_used(&cgroup)? > later + 10_000))?;
    // A frozen one is killed as well.
    cgroup.freeze()?;
    cgroup.kill()?;
    ensure!(cgroup.wait_empty(PATIENCE)?, "{:?} are left", cgroup.pids()?);
    Ok(())
}

/// A file system that answers nobody: who asks it does not even freeze.
struct Silent {
    place: PathBuf,
    _device: File,
}

impl Silent {
    fn mount() -> Result<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse")?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            device.as_fd().as_raw_fd()
        );
        let place = crate::harness::tempdir().join("silent");
        std::fs::create_dir(&place)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(
            Some("silent"),
            &place,
            Some("fuse"),
            flags,
            Some(options.as_str()),
        )?;
        Ok(Self {
            place,
            _device: device,
        })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = umount2(&self.place, MntFlags::MNT_DETACH);
    }
}

/// Who looked at it between a freeze and its effect took it for one that runs, and let nobody thaw it.
fn a_cgroup_is_frozen_from_the_first_moment() -> Result<()> {
    needs!(root);
    let tree = Tree::new()?;
    let silent = Silent::mount()?;
    let cgroup = tree.create()?;
    let mut files = cgroup.paths().into_values().map(|dir| dir.join("cgroup.freeze"));
    let Some(file) = files.find(|file| file.exists()) else {
        crate::harness::need("cgroup.freeze");
        bail!("not reached");
    };
    let ask = || i32::from(std::fs::metadata(silent.place.join("file")).is_ok());
    let pid = spawn(&cgroup, ask)?;
    eventually("the child waits", || {
        Ok(std::fs::read_to_string(format!("/proc/{pid}/stat"))?.contains(") D "))
    })?;
    std::fs::write(&file, "1")?;
    let events = std::fs::read_to_string(file.with_file_name("cgroup.events"))?;
    ensure!(events.contains("frozen 0"), "{events}");
    ensure!(cgroup.is_frozen()?);
    cgroup.thaw()?;
    ensure!(!cgroup.is_frozen()?);
    Ok(())
}

fn kill_empties() -> Result<()> {
    needs!(root);
    kills(&Tree::new()?)
}

fn kill_empties_without_cgroup2() -> Result<()> {
    needs!(root, hybrid);
    kills(&Tree::on_v1()?)
}

fn kills(tree: &Tree) -> Result<()> {
    let cgroup = tree.create()?;
    let below = format!("{}/a/b", tree.path());
    let nested = Cgroup::create(&tree.layout, &below)?;
    ensure!(!cgroup.is_populated()?);
    let children = [spawn(&nested, sleep)?, spawn(&nested, spin)?];
    ensure!(cgroup.is_populated()?);
    let mut expected = children.map(Pid::as_raw);
    expected.sort_unstable();
    ensure!(cgroup.pids()? == expected, "{:?}", cgroup.pids()?);
    cgroup.kill()?;
    for child in children {
        let end = waitpid(child, None)?;
        ensure!(
            matches!(end, WaitStatus::Signaled(_, Signal::SIGKILL, _)),
            "{end:?}"
        );
    }
    ensure!(cgroup.wait_empty(PATIENCE)?);
    Ok(())
}

fn remove_leaves_nothing() -> Result<()> {
    needs!(root);
    let tree = Tree::new()?;
    let cgroup = tree.create()?;
    // Deeper than a path may be long, as a tenant can do from inside.
    for dir in cgroup.paths().values() {
        for side in ["x", "y/z", "y/w"] {
            std::fs::create_dir_all(dir.join(side))?;
        }
        let mut here = condo::files::open_dir(dir)?;
        for _ in 0..30 {
            let name = "d".repeat(200);
            nix::sys::stat::mkdirat(&here, name.as_str(), nix::sys::stat::Mode::S_IRWXU)?;
            here = rustix_open(&here, &name)?;
        }
    }
    // A process that is killed but not yet reaped does not keep it.
    let child = spawn(&cgroup, sleep)?;
    cgroup.kill()?;
    cgroup.remove()?;
    for dir in cgroup.paths().values() {
        ensure!(!dir.exists(), "`{}` is left", dir.display());
        let above = dir.parent().context("a cgroup has a parent")?;
        ensure!(above.exists(), "`{}` went too", above.display());
    }
    cgroup.remove()?;
    let parent = Cgroup::open(&tree.layout, &tree.top)?;
    let other = Cgroup::create(&tree.layout, &format!("{}/other", tree.top))?;
    parent.remove_if_empty();
    ensure!(
        other.paths().values().all(|d| d.exists()),
        "a parent went with its child"
    );
    other.remove()?;
    parent.remove_if_empty();
    ensure!(
        parent.paths().values().all(|d| !d.exists()),
        "an empty parent stayed"
    );
    let gone = Cgroup::open(&tree.layout, &tree.path())
        .err()
        .context("it is still there")?;
    ensure!(gone.is_gone(), "{gone}");
    let gone = cgroup
        .stats()
        .err()
        .context("a removed cgroup has no statistics")?;
    ensure!(gone.is_gone(), "{gone}");
    waitpid(child, None)?;
    Ok(())
}

/// One invocation removes the parent that another is just about to use.
fn creation_and_tidying_meet() -> Result<()> {
    needs!(root);
    let tree = Tree::new()?;
    let come_and_go = |name: &str| -> Result<()> {
        for _ in 0..40 {
            Cgroup::create(&tree.layout, &format!("{}/{name}", tree.top))?.remove()?;
            if let Ok(parent) = Cgroup::open(&tree.layout, &tree.top) {
                parent.remove_if_empty();
            }
        }
        Ok(())
    };
    let child = match Clone::default().spawn()? {
        Side::Child => std::process::exit(match come_and_go("a") {
            Ok(()) => 0,
            Err(e) => {
                eprintln!("{e}");
                1
            }
        }),
        Side::Parent { pid, .. } => Pid::from_raw(pid),
    };
    let ours = come_and_go("b");
    ensure!(exit_status(child)? == 0, "the other one failed");
    ours
}

fn rustix_open(dir: &impl AsFd, name: &str) -> Result<std::os::fd::OwnedFd> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, rustix::fs::Mode::empty())?)
}

fn failed_create_leaves_nothing() -> Result<()> {
    needs!(root, hybrid);
    let mut v1 = hybrid()?;
    let mounts: Vec<PathBuf> = v1.iter().map(|h| h.mount.clone()).collect();
    v1.push(Hierarchy {
        controllers: vec!["nonsense".into()],
        mount: "/sys/fs/cgroup/nonsense".into(),
    });
    let tree = Tree::on(CgroupLayout::Hybrid { v1, unified: None });
    ensure!(tree.create().is_err());
    for mount in mounts {
        let left = mount.join(tree.top.trim_start_matches('/'));
        ensure!(!left.exists(), "`{}` is left", left.display());
    }
    Ok(())
}

fn a_busy_parent_is_refused() -> Result<()> {
    needs!(root, cgroup2);
    let tree = Tree::new()?;
    let cgroup = tree.create()?;
    spawn(&cgroup, sleep)?;
    let below = format!("{}/a/b", tree.path());
    let e = Cgroup::create(&tree.layout, &below)
        .err()
        .context("a busy parent was divided")?;
    ensure!(e.to_string().contains("processes of its own"), "{e}");
    let left = format!("{}/a", tree.path());
    ensure!(Cgroup::open(&tree.layout, &left).is_err_and(|e| e.is_gone()));
    Ok(())
}

fn a_used_cgroup_is_refused() -> Result<()> {
    needs!(root);
    let tree = Tree::new()?;
    let cgroup = tree.create()?;
    tree.create().context("an empty one is taken as it is")?;
    spawn(&cgroup, sleep)?;
    let e = tree.create().err().context("a used one was taken")?;
    ensure!(e.to_string().contains("in use"), "{e}");
    ensure!(cgroup.pids()?.len() == 1, "the one in it was disturbed");
    Ok(())
}

fn delegate_gives_only_what_is_safe() -> Result<()> {
    needs!(root);
    let tree = Tree::new()?;
    let cgroup = tree.create()?;
    cgroup.delegate(123_456, 123_457)?;
    let paths = cgroup.paths();
    let owner = |path: &Path| -> Result<(u32, u32)> {
        let m = std::fs::metadata(path)?;
        Ok((m.uid(), m.gid()))
    };
    let theirs = (123_456, 123_457);
    let cgroup2 = paths.get("").or(paths.get("unified")).context("no cgroup2")?;
    for file in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
        ensure!(owner(&cgroup2.join(file))? == theirs, "`{file}` is not theirs");
    }
    for file in [
        "cgroup.freeze",
        "cgroup.kill",
        "cgroup.max.depth",
        "cgroup.max.descendants",
    ] {
        ensure!(owner(&cgroup2.join(file))? == (0, 0), "`{file}` is theirs");
    }
    for (name, path) in paths {
        match name.as_str() {
            "" | "unified" => {}
            // No v1 hierarchy, `name=systemd` among them, bounds what is made below.
            _ => ensure!(
                owner(&path)? == (0, 0) && owner(&path.join("cgroup.procs"))? == (0, 0),
                "{name}"
            ),
        }
    }
    Ok(())
}

/// A tenant cannot use up what the host has for all cgroups.
fn delegated_cgroups_are_bounded() -> Result<()> {
    needs!(root);
    let tree = Tree::new()?;
    let cgroup = tree.create()?;
    cgroup.delegate(123_456, 123_457)?;
    let paths = cgroup.paths();
    let top = paths.get("").or(paths.get("unified")).context("no cgroup2")?;
    let again = |e: &std::io::Error| e.raw_os_error() == Some(Errno::EAGAIN as i32);

    let mut deep = top.clone();
    let levels = (0..100).position(|_| {
        deep.push("down");
        std::fs::create_dir(&deep).is_err_and(|e| again(&e))
    });
    ensure!(levels == Some(32), "{levels:?} levels");
    let more =
        (0..2000).position(|n| std::fs::create_dir(top.join(format!("wide-{n}"))).is_err_and(|e| again(&e)));
    ensure!(more == Some(1024 - 32), "{more:?} beside 32");
    // What the spec asks for stands.
    cgroup.remove()?;
    let cgroup = tree.create()?;
    std::fs::write(top.join("cgroup.max.descendants"), "3")?;
    cgroup.delegate(123_456, 123_457)?;
    ensure!(std::fs::read_to_string(top.join("cgroup.max.descendants"))?.trim() == "3");
    Ok(())
}

fn devices_are_denied() -> Result<()> {
    needs!(root);
    let tree = Tree::new()?;
    let cgroup = tree.create()?;
    denies(&tree, &cgroup)
}

/// The same by eBPF: on a hybrid host too, when it is told of no v1 controller for devices.
fn devices_are_denied_by_program() -> Result<()> {
    needs!(root);
    let layout = match CgroupLayout::probe()? {
        CgroupLayout::Hybrid { mut v1, unified } => {
            v1.retain(|h| !h.controllers.iter().any(|c| c == "devices"));
            CgroupLayout::Hybrid { v1, unified }
        }
        unified => unified,
    };
    let tree = Tree::on(layout);
    let cgroup = tree.create()?;
    denies(&tree, &cgroup)?;
    let birth = cgroup.birth().context("no cgroup2")?;
    let programs = bpf::programs(bpf::Hook::Device, birth)?;
    ensure!(programs.len() == 1, "former programs are left: {programs:?}");
    Ok(())
}

/// Opens a file in the cgroup; the error's number, or 0.
fn open(cgroup: &Cgroup, path: &str, write: bool) -> Result<i32> {
    let child = spawn(cgroup, || {
        let opened = std::fs::OpenOptions::new().read(!write).write(write).open(path);
        opened.map_or_else(|e| e.raw_os_error().unwrap_or(98), |_| 0)
    })?;
    exit_status(child)
}

/// Devices that differ from `kmsg` in one thing each.
fn neighbours_of_kmsg() -> Result<[String; 3]> {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let dir = crate::harness::tempdir();
    let make = |name: &str, kind, major, minor| -> Result<String> {
        let path = dir.join(name);
        mknod(&path, kind, Mode::S_IRUSR, makedev(major, minor))?;
        Ok(path.display().to_string())
    };
    Ok([
        make("type", SFlag::S_IFBLK, 1, 11)?,
        make("major", SFlag::S_IFCHR, 199, 11)?,
        make("minor", SFlag::S_IFCHR, 1, 12)?,
    ])
}

/// `kmsg` (1:11) is a character device that every machine has and no container may open.
fn denies(tree: &Tree, cgroup: &Cgroup) -> Result<()> {
    let open = |path: &str, write: bool| open(cgroup, path, write);
    let denied = Errno::EPERM as i32;
    let rules =
        |json: &str| -> Result<Limits> { Ok(Limits::from_spec(&serde_json::from_str(json)?, &tree.layout)?) };
    ensure!(open("/dev/kmsg", false)? == 0, "not open to begin with");
    cgroup.apply(&rules("{}")?)?;
    ensure!(open("/dev/kmsg", false)? == denied, "no rule");
    ensure!(open("/dev/null", true)? == 0, "a default device");
    cgroup.apply(&rules(
        r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#,
    )?)?;
    ensure!(open("/dev/kmsg", false)? == 0, "reading is allowed");
    ensure!(open("/dev/kmsg", true)? == denied, "writing is not");
    for other in neighbours_of_kmsg()? {
        ensure!(open(&other, false)? == denied, "{other} is not");
    }
    // Nothing said about devices: they stay as they are.
    cgroup.apply(&tree.limits(r#"{"pids":{"limit":100}}"#)?)?;
    ensure!(open("/dev/kmsg", false)? == 0, "an update took it away");
    cgroup.apply(&rules(r#"{"devices":[{"allow":true,"access":"rwm"}]}"#)?)?;
    ensure!(open("/dev/kmsg", true)? == 0, "everything is allowed");
    cgroup.apply(&rules(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#)?)?;
    ensure!(open("/dev/kmsg", false)? == denied, "nothing is allowed");
    Ok(())
}

fn a_missing_file_is_an_error() -> Result<()> {
    needs!(root, cgroup2);
    let tree = Tree::new()?;
    let cgroup = tree.create()?;
    let limits =
        tree.limits(r#"{"pids":{"limit":77},"unified":{"memory.nonsense":"1","io.nonsense":"2"}}"#)?;
    let e = cgroup.apply(&limits).err().context("nonsense was accepted")?;
    for file in ["memory.nonsense", "io.nonsense"] {
        ensure!(e.to_string().contains(file), "`{file}` is not named: {e}");
    }
    let pids = cgroup.stats()?.pids.context("no pids statistics")?;
    ensure!(pids.limit == Some(77), "the others were not tried: {pids:?}");
    Ok(())
}

fn unified_settings_are_written() -> Result<()> {
    needs!(root, cgroup2);
    let tree = Tree::new()?;
    let cgroup =
        tree.limited(r#"{"memory":{"limit":1048576},"unified":{"memory.max":"2097152","cpu.idle":"1"}}"#)?;
    let memory = cgroup.stats()?.memory.context("no memory statistics")?;
    ensure!(
        memory.limit == Some(2 * MIB as u64),
        "what is named must win: {memory:?}"
    );
    let e = tree.limits(r#"{"unified":{"nonsense.max":"1"}}"#).err();
    ensure!(e.is_some_and(|e| e.to_string().contains("`nonsense`")));
    Ok(())
}

fn birth_follows_the_process() -> Result<()> {
    needs!(root);
    let tree = Tree::new()?;
    let cgroup = tree.create()?;
    let below = format!("{}/init", tree.path());
    let nested = Cgroup::create(&tree.layout, &below)?;
    let child = spawn(&nested, sleep)?;
    let found = birth_of(&tree.layout, child.as_raw())?.context("no cgroup2")?;
    let expected = nested.birth().context("no cgroup2")?;
    let inode = |fd: std::os::fd::BorrowedFd<'_>| rustix::fs::fstat(fd).map(|s| s.st_ino);
    ensure!(inode(found.as_fd())? == inode(expected)?);
    cgroup.kill()?;
    waitpid(child, None)?;
    let gone = birth_of(&tree.layout, child.as_raw()).err();
    ensure!(gone.is_some_and(|e| e.is_gone()), "a dead process has no cgroup");
    Ok(())
}
