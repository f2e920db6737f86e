//! The mount tree, on a rootfs in a tmpfs of the test's own mount namespace: nothing outlives the test process.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use condo::host::Host;
use condo::rootfs::{Assembled, Facts, RootfsPlan, assemble, open_container_ptmx, open_peer};
use condo::sys::clone::{Clone, Side};
use condo::sys::mount::{Attributes, attr, set_attributes};
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use serde_json::{Value, json};

tests![
    busybox_runs,
    binds_appear_and_recursive_readonly_is_recursive,
    a_missing_source_is_named,
    tmpfs_keeps_its_promises,
    tmpcopyup_copies,
    the_console_is_the_containers_own_pty,
    masks_and_readonly_paths_hold,
    a_readonly_root_is_readonly,
    a_remount_changes_only_its_mount,
    propagation_is_as_asked_and_never_reaches_the_host,
    idmapped_binds_translate_owners,
    devices_are_made_as_root,
    devices_are_bound_in_a_userns,
    links_in_the_image_do_not_lead_to_the_host,
    links_into_procfs_are_refused,
    a_link_to_the_root_is_no_place,
    a_link_where_the_console_belongs_is_not_followed_into_procfs,
    files_outside_of_dev_are_not_replaced_by_devices,
    symlinked_proc_and_sys_are_refused,
    a_symlinked_dev_does_not_matter,
    a_symlinked_rootfs_is_refused,
    files_of_procfs_can_be_replaced,
    a_fake_proc_cannot_be_bound,
    the_default_mounts_work_in_a_userns,
    init_of_a_rootless_caller_opens_the_sources_itself,
    sysfs_without_a_netns_is_the_hosts,
    chroot_works_where_pivot_root_does_not,
    v1_cgroups_with_a_namespace,
    v1_cgroups_without_a_namespace,
    unified_cgroups,
    cgroup2_on_a_hybrid_host,
];

/// The test's own corner: a tmpfs in a private mount namespace.
const CORNER: &str = "/mnt";

/// A container to be.
struct Bench {
    rootfs: PathBuf,
    spec: Value,
    userns: bool,
    cgroupns: bool,
    netns: bool,
    no_pivot: bool,
    /// Sources are opened by init.
    late: bool,
    cgroup: Option<Cgroups>,
}

const NOTHING_BEFORE: fn(&Assembled) -> Result<()> = |_| Ok(());

impl Bench {
    fn new() -> Result<Self> {
        nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        protect_the_machine()?;
        mount(
            Some("corner"),
            CORNER,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("mode=755"),
        )?;
        let rootfs = Path::new(CORNER).join("rootfs");
        for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "host"] {
            fs::create_dir_all(rootfs.join(dir))?;
        }
        fs::copy("/bin/busybox", rootfs.join("bin/busybox"))?;
        fs::create_dir(Path::new(CORNER).join("outside"))?;
        Ok(Self {
            rootfs,
            spec: json!({
                "ociVersion": "1.3.0",
                "root": { "path": "rootfs" },
                "mounts": [],
                "linux": { "namespaces": [{ "type": "mount" }] },
            }),
            userns: false,
            cgroupns: false,
            netns: false,
            no_pivot: false,
            late: false,
            cgroup: None,
        })
    }

    fn in_userns() -> Result<Self> {
        let mut bench = Self::new()?;
        bench.userns = true;
        Ok(bench)
    }

    fn mount(&mut self, destination: &str, fstype: &str, source: &str, options: &[&str]) -> &mut Self {
        let mount =
            json!({ "destination": destination, "type": fstype, "source": source, "options": options });
        self.spec["mounts"].as_array_mut().expect("mounts").push(mount);
        self
    }

    fn base(&mut self) -> &mut Self {
        self.mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])
            .mount(
                "/dev",
                "tmpfs",
                "tmpfs",
                &["nosuid", "strictatime", "mode=755", "size=65536k"],
            )
            .mount(
                "/dev/pts",
                "devpts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            )
    }

    fn plan(&self) -> Result<RootfsPlan> {
        let host = Host::probe()?;
        let spec = serde_json::from_value(self.spec.clone())?;
        let facts = Facts {
            host: &host,
            userns: self.userns,
            cgroupns: self.cgroupns,
            netns: self.netns,
            cgroup_path: Some(self.cgroup.as_ref().map_or("/", |c| c.name.as_str())),
            no_pivot: self.no_pivot,
        };
        Ok(RootfsPlan::from_spec(
            &spec,
            &self.rootfs,
            Path::new(CORNER),
            &facts,
        )?)
    }

    fn flags(&self) -> CloneFlags {
        let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
        flags.set(CloneFlags::CLONE_NEWUSER, self.userns);
        flags.set(CloneFlags::CLONE_NEWNET, self.netns);
        flags
    }

    /// Builds the tree in a child and runs `inside` in it; the host's mount table must be the same afterwards.
    fn run(&self, inside: impl FnOnce() -> Result<()>) -> Result<()> {
        self.run_with(NOTHING_BEFORE, inside)
    }

    fn run_with(
        &self,
        before: impl FnOnce(&Assembled) -> Result<()>,
        inside: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let table = mount_table();
        let plan = self.plan()?;
        let sources = plan.open_sources()?;
        if self.userns {
            own(&self.rootfs, 100_000)?;
        }
        let (mut go, mut wait) = std::os::unix::net::UnixStream::pair()?;
        let clone = Clone {
            flags: self.flags().bits() as u64,
            cgroup: None,
        };
        match clone.spawn()? {
            Side::Child => {
                drop(go);
                let result = wait
                    .read_exact(&mut [0])
                    .context("wait for the parent")
                    .and_then(|()| self.child(&plan, sources, before, inside));
                if let Err(e) = &result {
                    eprintln!("{e:#}");
                }
                std::process::exit(i32::from(result.is_err()));
            }
            Side::Parent { pid, .. } => {
                let prepared = self.parent(pid, &plan, &sources);
                if prepared.is_ok() {
                    go.write_all(b"g")?;
                }
                drop((go, wait, sources));
                let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None)?;
                prepared?;
                ensure!(
                    matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)),
                    "the child ended with {status:?}"
                );
            }
        }
        ensure!(
            table == mount_table(),
            "mounts are left on the host:\n{}",
            mount_table()
        );
        Ok(())
    }

    fn parent(&self, pid: i32, plan: &RootfsPlan, sources: &condo::rootfs::Sources) -> Result<()> {
        if self.userns {
            map_ids(pid, "0 100000 65536")?;
        }
        let own: Option<OwnedFd> = if self.userns {
            Some(fs::File::open(format!("/proc/{pid}/ns/user"))?.into())
        } else {
            None
        };
        let mut make = |uid: &[oci_spec::runtime::LinuxIdMapping],
                        _: &[oci_spec::runtime::LinuxIdMapping]| {
            let map = format!("{} {} {}", uid[0].container_id(), uid[0].host_id(), uid[0].size());
            user_namespace(&map).map_err(|e| condo::error::Error::Corrupt(e.to_string()))
        };
        Ok(sources.idmap(plan, &mut make, own.as_ref().map(AsFd::as_fd))?)
    }

    fn child(
        &self,
        plan: &RootfsPlan,
        sources: condo::rootfs::Sources,
        before: impl FnOnce(&Assembled) -> Result<()>,
        inside: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        if self.userns {
            nix::unistd::setresgid(0.into(), 0.into(), 0.into())?;
            nix::unistd::setresuid(0.into(), 0.into(), 0.into())?;
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.join()?;
        }
        if self.cgroupns {
            nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP)?;
        }
        let sources = if self.late {
            drop(sources);
            plan.open_sources()?
        } else {
            sources
        };
        let assembled = assemble(plan, sources)?;
        before(&assembled)?;
        assembled.enter()?;
        inside()
    }

    /// The error of planning, opening or assembling.
    fn refused(&self) -> Result<String> {
        let plan = match self.plan() {
            Err(e) => return Ok(format!("{e:#}")),
            Ok(plan) => plan,
        };
        let sources = match plan.open_sources() {
            Err(e) => return Ok(format!("{e:#}")),
            Ok(sources) => sources,
        };
        match assemble(&plan, sources) {
            Err(e) => Ok(e.to_string()),
            Ok(_) => bail!("it was not refused"),
        }
    }
}

/// Makes the machine's own files read-only in this test's mount namespace: should the code under test ever leave the
/// container's root, it finds nothing to break. `/var/tmp` stays writable for [`OnDisk`].
fn protect_the_machine() -> Result<()> {
    let none = None::<&str>;
    mount(Some("/var/tmp"), "/var/tmp", none, MsFlags::MS_BIND, none)?;
    for point in ["/", "/dev"] {
        let fd = fs::File::open(point)?;
        let readonly = Attributes {
            set: attr::RDONLY,
            ..Attributes::default()
        };
        set_attributes(fd.as_fd(), false, &readonly).with_context(|| format!("make {point} read-only"))?;
    }
    ensure!(
        is_readonly("") && is_readonly("/dev"),
        "the machine is not protected from this test"
    );
    Ok(())
}

fn map_ids(pid: i32, map: &str) -> Result<()> {
    fs::write(format!("/proc/{pid}/uid_map"), map)?;
    fs::write(format!("/proc/{pid}/gid_map"), map)?;
    Ok(())
}

/// A user namespace with these maps, alive only as a descriptor.
fn user_namespace(map: &str) -> Result<OwnedFd> {
    let clone = Clone {
        flags: CloneFlags::CLONE_NEWUSER.bits() as u64,
        cgroup: None,
    };
    match clone.spawn()? {
        Side::Child => loop {
            nix::unistd::pause();
        },
        Side::Parent { pid, .. } => {
            let work = || -> Result<OwnedFd> {
                map_ids(pid, map)?;
                Ok(fs::File::open(format!("/proc/{pid}/ns/user"))?.into())
            };
            let userns = work();
            let pid = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
            nix::sys::wait::waitpid(pid, None)?;
            userns
        }
    }
}

fn own(path: &Path, id: u32) -> Result<()> {
    std::os::unix::fs::lchown(path, Some(id), Some(id))?;
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path)? {
            own(&entry?.path(), id)?;
        }
    }
    Ok(())
}

fn mount_table() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()
}

/// The last line of the mount table for this mount point.
fn mounted(point: &str) -> Result<String> {
    let table = mount_table();
    let line = table
        .lines()
        .rfind(|l| l.split(' ').nth(4) == Some(point))
        .with_context(|| format!("nothing is mounted at {point}:\n{table}"))?;
    Ok(line.to_owned())
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {path}"))
}

fn errno_of<T>(result: std::io::Result<T>) -> Option<nix::errno::Errno> {
    result.err()?.raw_os_error().map(nix::errno::Errno::from_raw)
}

fn is_readonly(path: &str) -> bool {
    errno_of(fs::write(format!("{path}/probe"), "")) == Some(nix::errno::Errno::EROFS)
}

fn outside(name: &str) -> PathBuf {
    Path::new(CORNER).join("outside").join(name)
}

fn tmpfs(at: &Path) -> Result<()> {
    fs::create_dir_all(at)?;
    mount(Some("t"), at, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    Ok(())
}

fn busybox_runs() -> Result<()> {
    needs!(root, busybox);
    let mut bench = Bench::new()?;
    bench.base();
    bench.run(|| {
        ensure!(std::env::current_dir()? == Path::new("/"));
        let script = "echo gone > /dev/null && test -d /proc/1 && test ! -e /mnt && ls -d / && echo $$ /proc/self/fd/*";
        let output = Command::new("/bin/busybox").args(["sh", "-c", script]).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let points: Vec<_> = mount_table().lines().filter_map(|l| Some(l.split(' ').nth(4)?.to_owned())).collect();
        ensure!(points == ["/", "/proc", "/dev", "/dev/pts"], "{points:?}");
        Ok(())
    })
}

fn binds_appear_and_recursive_readonly_is_recursive() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    tmpfs(&outside("dir/sub"))?;
    fs::write(outside("dir/sub/file"), "below")?;
    fs::write(outside("file"), "one")?;
    bench
        .mount(
            "/new/ro",
            "bind",
            "outside/dir",
            &["rbind", "ro", "nosuid", "rnodev"],
        )
        .mount("/new/rro", "none", "/mnt/outside/dir", &["rbind", "rro"])
        .mount("/new/flat", "bind", "/mnt/outside/dir", &["bind"])
        .mount("/new/file", "bind", "/mnt/outside/file", &["bind", "ro"])
        .base();
    bench.run(|| {
        ensure!(is_readonly("/new/ro") && !is_readonly("/new/ro/sub"));
        ensure!(is_readonly("/new/rro") && is_readonly("/new/rro/sub"));
        ensure!(!is_readonly("/new/flat") && !Path::new("/new/flat/sub/file").exists());
        ensure!(read("/new/ro/sub/file")? == "below" && read("/new/file")? == "one");
        ensure!(errno_of(fs::write("/new/file", "")) == Some(nix::errno::Errno::EROFS));
        ensure!(mounted("/new/ro")?.contains("nosuid") && mounted("/new/ro/sub")?.contains("nodev"));
        ensure!(!mounted("/new/ro/sub")?.contains("nosuid"));
        Ok(())
    })?;
    ensure!(
        outside("dir/probe").exists(),
        "the writable bind wrote to the host's directory"
    );
    Ok(())
}

fn a_missing_source_is_named() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    bench.mount("/x", "bind", "/mnt/outside/nothing", &["bind"]);
    let words = bench.refused()?;
    ensure!(
        words.starts_with("mounts[0].source: `/mnt/outside/nothing` does not exist"),
        "{words}"
    );
    let mut bench = Bench::new()?;
    bench.mount("/x", "tmpfs", "tmpfs", &["size=much"]);
    let words = bench.refused()?;
    ensure!(
        words.starts_with("mount `/x`: tmpfs: ") && words.contains("size"),
        "{words}"
    );
    Ok(())
}

fn tmpfs_keeps_its_promises() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    fs::set_permissions(bench.rootfs.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    bench
        .base()
        .mount(
            "/small",
            "tmpfs",
            "shm",
            &["size=64k", "mode=1770", "nosuid", "noexec", "noatime"],
        )
        .mount("/tmp", "tmpfs", "tmpfs", &[])
        .mount("/sealed", "tmpfs", "tmpfs", &["ro"])
        .mount("/sealed/later", "tmpfs", "tmpfs", &["rw"]);
    bench.run(|| {
        let small = fs::metadata("/small")?;
        ensure!(small.mode() & 0o7777 == 0o1770, "mode {:o}", small.mode());
        ensure!(errno_of(fs::write("/small/big", [0; 100_000])) == Some(nix::errno::Errno::ENOSPC));
        let line = mounted("/small")?;
        for word in ["nosuid", "noexec", "noatime", "size=64k", " shm "] {
            ensure!(line.contains(word), "{word} is not in {line}");
        }
        ensure!(fs::metadata("/tmp")?.mode() & 0o7777 == 0o1777);
        ensure!(is_readonly("/sealed") && !is_readonly("/sealed/later"));
        Ok(())
    })
}

fn tmpcopyup_copies() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    let image = bench.rootfs.join("var/lib");
    fs::create_dir_all(image.join("deep/er"))?;
    fs::write(image.join("deep/er/file"), "content")?;
    fs::set_permissions(image.join("deep/er/file"), fs::Permissions::from_mode(0o4750))?;
    std::os::unix::fs::chown(image.join("deep"), Some(7), Some(8))?;
    symlink("/mnt/outside", image.join("link"))?;
    bench
        .base()
        .mount("/var/lib", "tmpfs", "tmpfs", &["tmpcopyup", "size=1m"]);
    bench.run(|| {
        let file = fs::metadata("/var/lib/deep/er/file")?;
        ensure!(file.mode() & 0o7777 == 0o4750 && read("/var/lib/deep/er/file")? == "content");
        let deep = fs::metadata("/var/lib/deep")?;
        ensure!((deep.uid(), deep.gid()) == (7, 8));
        ensure!(fs::read_link("/var/lib/link")? == Path::new("/mnt/outside"));
        fs::write("/var/lib/deep/er/new", "")?;
        Ok(())
    })?;
    ensure!(!image.join("deep/er/new").exists());
    Ok(())
}

fn the_console_is_the_containers_own_pty() -> Result<()> {
    needs!(root);
    for userns in [false, true] {
        let mut bench = Bench::new()?;
        bench.userns = userns;
        bench.base();
        bench.run_with(
            |assembled| {
                let master = assembled.open_ptmx()?;
                let peer = open_peer(master.as_fd())?;
                assembled.attach_console(peer.as_fd())?;
                fs::File::from(peer).write_all(b"hello")?;
                let mut text = [0; 5];
                fs::File::from(master).read_exact(&mut text)?;
                ensure!(&text == b"hello");
                Ok(())
            },
            || {
                let console = fs::metadata("/dev/console")?;
                ensure!(console.file_type().is_char_device());
                ensure!(nix::sys::stat::major(console.rdev()) == 136);
                ensure!(fs::read_link("/dev/ptmx")? == Path::new("pts/ptmx"));
                fs::File::open("/dev/ptmx").context("open a pty from inside")?;
                let another = open_peer(open_container_ptmx()?.as_fd())?;
                ensure!(nix::sys::stat::major(fs::File::from(another).metadata()?.rdev()) == 136);
                Ok(())
            },
        )?;
    }
    Bench::new()?.run_with(
        |assembled| {
            let words = assembled.open_ptmx().expect_err("there is no devpts").to_string();
            ensure!(words.contains("needs a `devpts`"), "{words}");
            Ok(())
        },
        || Ok(()),
    )
}

fn masks_and_readonly_paths_hold() -> Result<()> {
    needs!(root);
    for userns in [false, true] {
        let mut bench = Bench::new()?;
        bench.userns = userns;
        bench.base();
        fs::create_dir(bench.rootfs.join("secret"))?;
        fs::write(bench.rootfs.join("secret/key"), "k")?;
        fs::create_dir(bench.rootfs.join("kept"))?;
        fs::write(bench.rootfs.join("etc/shadow"), "s")?;
        symlink("/etc/shadow", bench.rootfs.join("etc/alias"))?;
        bench.spec["linux"]["maskedPaths"] = json!([
            "/secret",
            "/etc/alias",
            "/proc/timer_list",
            "/proc/scsi",
            "/not/there",
            "/bin/busybox/x",
            "/host"
        ]);
        bench.spec["linux"]["readonlyPaths"] = json!(["/proc/sys", "/kept", "/also/missing"]);
        bench.run(|| {
            ensure!(fs::read_dir("/secret")?.count() == 0 && is_readonly("/secret") && is_readonly("/host"));
            ensure!(
                read("/etc/shadow")?.is_empty(),
                "the link's target is what is masked"
            );
            ensure!(is_readonly("/kept") && !is_readonly("/tmp"));
            let options = mounted("/proc/sys")?;
            ensure!(
                options.split(' ').nth(5).is_some_and(|o| o.starts_with("ro,")),
                "{options}"
            );
            let write = fs::OpenOptions::new()
                .write(true)
                .open("/proc/sys/kernel/domainname");
            ensure!(userns || errno_of(write) == Some(nix::errno::Errno::EROFS));
            Ok(())
        })?;
    }
    Ok(())
}

fn a_readonly_root_is_readonly() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    bench.base().mount("/tmp", "tmpfs", "tmpfs", &[]);
    bench.spec["root"]["readonly"] = json!(true);
    bench.run(|| {
        ensure!(is_readonly("/") && is_readonly("/etc") && !is_readonly("/tmp") && !is_readonly("/dev"));
        Ok(())
    })?;
    ensure!(
        fs::write(bench.rootfs.join("probe"), "").is_ok(),
        "the host's directory stays writable"
    );
    Ok(())
}

fn a_remount_changes_only_its_mount() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    bench
        .base()
        .mount("/data", "bind", "/mnt/outside", &["bind"])
        .mount("/data", "none", "", &["bind", "remount", "ro", "nosuid"])
        .mount("/more", "tmpfs", "tmpfs", &["size=64k"])
        .mount("/more", "tmpfs", "tmpfs", &["remount", "size=128k", "noexec"]);
    bench.run(|| {
        ensure!(is_readonly("/data") && mounted("/data")?.contains("nosuid"));
        let more = mounted("/more")?;
        ensure!(more.contains("size=128k") && more.contains("noexec"), "{more}");
        Ok(())
    })?;
    fs::write(outside("still"), "writable")?;
    Ok(())
}

fn propagation_is_as_asked_and_never_reaches_the_host() -> Result<()> {
    needs!(root);
    let expected = [
        (None, &["bind"][..], "master:", false),
        (Some("rprivate"), &["bind"][..], "", false),
        (Some("rslave"), &["bind", "private"][..], "", false),
        (Some("rshared"), &["rbind", "rshared"][..], "shared:", false),
        (None, &["rbind", "rshared"][..], "shared:", true),
        (Some("rshared"), &["rbind", "rshared"][..], "shared:", true),
    ];
    for (root, options, word, userns) in expected {
        let mut bench = Bench::new()?;
        bench.userns = userns;
        fs::create_dir(outside("inner"))?;
        mount(
            None::<&str>,
            CORNER,
            None::<&str>,
            MsFlags::MS_SHARED,
            None::<&str>,
        )?;
        bench.base().mount("/data", "bind", "/mnt/outside", options);
        if let Some(root) = root {
            bench.spec["linux"]["rootfsPropagation"] = json!(root);
        }
        let peers = root == Some("rshared") && !userns;
        bench.run(move || {
            let line = mounted("/data")?;
            let tags = line.split(" - ").next().unwrap_or_default();
            let has = |tag: &str| tags.contains(tag);
            ensure!(
                has(word) && (!word.is_empty() || !has("master:") && !has("shared:")),
                "{root:?} {line}"
            );
            ensure!(
                !userns || has("master:"),
                "a user namespace is never a peer of the host: {line}"
            );
            ensure!(
                (root == Some("rshared")) == mounted("/")?.contains("shared:"),
                "{}",
                mounted("/")?
            );
            if !peers {
                tmpfs(Path::new("/data/inner")).context("a mount of the container's own")?;
            }
            tmpfs(Path::new("/tmp/inner"))
        })?;
    }
    Ok(())
}

/// A directory on the machine's own disk: tmpfs can be id-mapped only since Linux 6.3.
struct OnDisk(PathBuf);

impl Drop for OnDisk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn idmapped_binds_translate_owners() -> Result<()> {
    needs!(root);
    let disk = OnDisk(PathBuf::from(format!(
        "/var/tmp/condo-rootfs-{}",
        std::process::id()
    )));
    fs::create_dir_all(&disk.0)?;
    fs::write(disk.0.join("file"), "")?;
    let source = disk.0.to_str().context("a path")?.to_owned();
    let mut bench = Bench::new()?;
    bench.base();
    let map = json!([{ "containerID": 0, "hostID": 4000, "size": 1000 }]);
    bench.spec["mounts"]
        .as_array_mut()
        .context("mounts")?
        .push(json!({
            "destination": "/data", "type": "bind", "source": source, "options": ["rbind", "ridmap"],
            "uidMappings": map, "gidMappings": map,
        }));
    bench.run(|| {
        ensure!(fs::metadata("/data/file")?.uid() == 4000);
        Ok(())
    })?;
    let mut bench = Bench::in_userns()?;
    bench.base().mount("/data", "bind", &source, &["bind", "idmap"]);
    bench.run(|| {
        let file = fs::metadata("/data/file")?;
        ensure!(
            (file.uid(), file.gid()) == (0, 0),
            "{} {}",
            file.uid(),
            file.gid()
        );
        fs::write("/data/mine", "")?;
        Ok(())
    })?;
    ensure!(fs::metadata(disk.0.join("mine"))?.uid() == 0);
    Ok(())
}

const DEFAULT: &[(&str, u64, u64)] = &[
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

fn check_default_devices() -> Result<()> {
    for &(name, major, minor) in DEFAULT {
        let node = fs::symlink_metadata(format!("/dev/{name}"))?;
        ensure!(node.file_type().is_char_device(), "{name}");
        ensure!(node.rdev() == nix::sys::stat::makedev(major, minor), "{name}");
    }
    for (name, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        ensure!(fs::read_link(format!("/dev/{name}"))? == Path::new(to));
    }
    fs::write("/dev/null", "x").context("write to /dev/null")?;
    Ok(())
}

fn devices_are_made_as_root() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    bench.base();
    bench.spec["linux"]["devices"] = json!([
        { "path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o620, "uid": 5, "gid": 6 },
        { "path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o444 },
        { "path": "/dev/pipe", "type": "p" },
        { "path": "/dev/disk", "type": "b", "major": 7, "minor": 77 },
    ]);
    bench.run(|| {
        check_default_devices()?;
        let tun = fs::metadata("/dev/net/tun")?;
        ensure!((tun.mode() & 0o7777, tun.uid(), tun.gid()) == (0o620, 5, 6));
        ensure!(fs::metadata("/dev/zero")?.mode() & 0o7777 == 0o444);
        ensure!(fs::metadata("/dev/pipe")?.file_type().is_fifo());
        ensure!(fs::metadata("/dev/disk")?.file_type().is_block_device());
        Ok(())
    })?;
    // Without a tmpfs the image's own files are in the way, among them links to elsewhere.
    for userns in [false, true] {
        let mut bench = Bench::new()?;
        bench.userns = userns;
        fs::write(bench.rootfs.join("etc/passwd"), "p")?;
        symlink("/etc/passwd", bench.rootfs.join("dev/null"))?;
        fs::write(bench.rootfs.join("dev/full"), "not full")?;
        bench.run(|| {
            check_default_devices()?;
            ensure!(read("/etc/passwd")? == "p");
            Ok(())
        })?;
    }
    Ok(())
}

fn devices_are_bound_in_a_userns() -> Result<()> {
    needs!(root);
    let mut bench = Bench::in_userns()?;
    bench.base();
    bench.spec["linux"]["devices"] = json!([{ "path": "/dev/ptmx2", "type": "p" }, { "path": "/dev/random", "type": "c", "major": 1, "minor": 8 }]);
    bench.run(check_default_devices)?;
    let mut bench = Bench::in_userns()?;
    bench.spec["linux"]["devices"] = json!([{ "path": "/dev/null", "type": "c", "major": 1, "minor": 9 }]);
    let words = bench.refused()?;
    ensure!(
        words.contains("linux.devices[0]: `/dev/null` is not character device 1:9"),
        "{words}"
    );
    Ok(())
}

fn links_in_the_image_do_not_lead_to_the_host() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    bench.base();
    symlink("/mnt/outside", bench.rootfs.join("absolute"))?;
    symlink("../../../../../mnt/outside", bench.rootfs.join("etc/relative"))?;
    symlink("../run/systemd/stub.conf", bench.rootfs.join("etc/resolv.conf"))?;
    symlink("/mnt/outside/created", bench.rootfs.join("etc/hosts"))?;
    fs::write(outside("payload"), "from the host")?;
    bench
        .mount("/absolute/dir", "tmpfs", "tmpfs", &[])
        .mount("/etc/relative/file", "bind", "/mnt/outside/payload", &["bind"])
        .mount("/etc/resolv.conf", "bind", "/mnt/outside/payload", &["bind"])
        .mount("/etc/hosts", "bind", "/mnt/outside/payload", &["bind"]);
    bench.run(|| {
        mounted("/mnt/outside/dir")?;
        for path in [
            "/mnt/outside/file",
            "/run/systemd/stub.conf",
            "/mnt/outside/created",
            "/etc/resolv.conf",
        ] {
            ensure!(read(path)? == "from the host", "{path}");
        }
        Ok(())
    })?;
    let names: Vec<_> = fs::read_dir(outside(""))?
        .filter_map(|e| Some(e.ok()?.file_name()))
        .collect();
    ensure!(names == ["payload"], "created on the host: {names:?}");
    ensure!(!Path::new("/run/systemd/stub.conf").exists());
    // A circle ends.
    let mut bench = Bench::new()?;
    symlink("b", bench.rootfs.join("a"))?;
    symlink("a", bench.rootfs.join("b"))?;
    bench.mount("/a/c", "tmpfs", "tmpfs", &[]);
    ensure!(bench.refused()?.starts_with("mount `/a/c`: "));
    Ok(())
}

fn links_into_procfs_are_refused() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    bench.base();
    symlink("/proc", bench.rootfs.join("alias"))?;
    bench.mount("/alias/sys", "tmpfs", "tmpfs", &[]);
    let words = bench.refused()?;
    ensure!(words.contains("`/alias/sys` leads into procfs"), "{words}");
    let mut bench = Bench::new()?;
    bench.base().mount("/proc/self/attr", "tmpfs", "tmpfs", &[]);
    let words = bench.refused()?;
    ensure!(
        words.contains("mounts[3].destination: `/proc/self/attr` is inside `/proc`"),
        "{words}"
    );
    Ok(())
}

fn a_link_to_the_root_is_no_place() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    symlink("/", bench.rootfs.join("alias"))?;
    bench.mount("/alias", "tmpfs", "tmpfs", &[]);
    let words = bench.refused()?;
    ensure!(words.contains("leads to the root itself"), "{words}");
    Ok(())
}

fn a_link_where_the_console_belongs_is_not_followed_into_procfs() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    bench.mount("/proc", "proc", "proc", &[]).mount(
        "/dev/pts",
        "devpts",
        "devpts",
        &["newinstance", "ptmxmode=0666"],
    );
    symlink("/proc/version", bench.rootfs.join("dev/console"))?;
    bench.run_with(
        |assembled| {
            let peer = open_peer(assembled.open_ptmx()?.as_fd())?;
            let words = assembled.attach_console(peer.as_fd()).unwrap_err().to_string();
            ensure!(words.contains("leads into procfs"), "{words}");
            Ok(())
        },
        || Ok(()),
    )
}

fn files_outside_of_dev_are_not_replaced_by_devices() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    fs::write(outside("data"), "precious")?;
    bench.base().mount("/vol", "bind", "/mnt/outside", &["bind"]);
    bench.spec["linux"]["devices"] = json!([{ "path": "/vol/data", "type": "c", "major": 1, "minor": 3 }]);
    let words = bench.refused()?;
    ensure!(words.contains("`/vol/data` is taken"), "{words}");
    ensure!(fs::read_to_string(outside("data"))? == "precious");
    Ok(())
}

fn symlinked_proc_and_sys_are_refused() -> Result<()> {
    needs!(root);
    for (name, fstype) in [("proc", "proc"), ("sys", "sysfs")] {
        let mut bench = Bench::new()?;
        fs::remove_dir(bench.rootfs.join(name))?;
        symlink("etc", bench.rootfs.join(name))?;
        bench.mount(&format!("/{name}"), fstype, fstype, &[]);
        let words = bench.refused()?;
        ensure!(words.contains("not a directory but a symbolic link"), "{words}");
    }
    Ok(())
}

fn a_symlinked_dev_does_not_matter() -> Result<()> {
    needs!(root);
    for userns in [false, true] {
        let mut bench = Bench::new()?;
        bench.userns = userns;
        fs::remove_dir(bench.rootfs.join("dev"))?;
        symlink("/mnt/outside", bench.rootfs.join("dev"))?;
        bench.base();
        bench.run_with(
            |assembled| {
                let master = assembled.open_ptmx()?;
                assembled.attach_console(open_peer(master.as_fd())?.as_fd())?;
                Ok(())
            },
            check_default_devices,
        )?;
        ensure!(fs::read_dir(outside(""))?.count() == 0, "made on the host");
    }
    Ok(())
}

fn a_symlinked_rootfs_is_refused() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    symlink("/", outside("link"))?;
    for path in [outside("link"), outside("link/mnt/rootfs")] {
        bench.rootfs = path;
        let words = bench.refused()?;
        ensure!(
            words.contains("root.path") && words.contains("symbolic link"),
            "{words}"
        );
    }
    Ok(())
}

fn files_of_procfs_can_be_replaced() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    fs::write(outside("uptime"), "1.00 1.00\n")?;
    bench
        .base()
        .mount("/proc/uptime", "bind", "/mnt/outside/uptime", &["bind", "ro"]);
    bench.run(|| {
        ensure!(read("/proc/uptime")? == "1.00 1.00\n");
        Ok(())
    })
}

fn a_fake_proc_cannot_be_bound() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    bench.mount("/proc", "bind", "/mnt/outside", &["bind"]);
    let words = bench.refused()?;
    ensure!(words.contains("should be procfs"), "{words}");
    let mut bench = Bench::new()?;
    bench.mount("/proc", "bind", "/proc", &["rbind"]);
    bench.run(|| {
        fs::metadata("/proc/self/status")
            .map(drop)
            .context("the host's procfs")
    })
}

fn the_default_mounts_work_in_a_userns() -> Result<()> {
    needs!(root);
    let mut bench = Bench::in_userns()?;
    bench.netns = true;
    bench.cgroupns = true;
    bench
        .base()
        .mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        )
        .mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])
        .mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
        .mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        );
    bench.run(|| {
        check_default_devices()?;
        ensure!(fs::metadata("/dev/shm")?.mode() & 0o7777 == 0o1777);
        ensure!(mounted("/sys")?.contains(" - sysfs ") && mounted("/sys")?.contains("ro,"));
        ensure!(is_readonly("/sys/fs/cgroup"));
        mounted("/dev/mqueue").map(drop)
    })
}

fn init_of_a_rootless_caller_opens_the_sources_itself() -> Result<()> {
    needs!(root);
    let mut bench = Bench::in_userns()?;
    bench.late = true;
    fs::write(outside("file"), "one")?;
    bench
        .base()
        .mount("/data", "bind", "/mnt/outside", &["rbind", "ro", "nosuid"])
        .mount("/sys", "sysfs", "sysfs", &["ro"]);
    bench.spec["linux"]["maskedPaths"] = json!(["/proc/timer_list", "/etc"]);
    bench.run(|| {
        check_default_devices()?;
        ensure!(read("/data/file")? == "one" && mounted("/data")?.contains("ro,nosuid"));
        Ok(())
    })
}

fn sysfs_without_a_netns_is_the_hosts() -> Result<()> {
    needs!(root);
    let mut bench = Bench::in_userns()?;
    bench
        .base()
        .mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]);
    bench.run(|| {
        ensure!(Path::new("/sys/kernel").is_dir());
        for line in mount_table()
            .lines()
            .filter(|l| l.split(' ').nth(4).is_some_and(|p| p.starts_with("/sys")))
        {
            ensure!(
                line.split(' ').nth(5).is_some_and(|o| o.starts_with("ro,")),
                "writable: {line}"
            );
        }
        Ok(())
    })
}

fn chroot_works_where_pivot_root_does_not() -> Result<()> {
    needs!(root);
    for userns in [false, true] {
        let mut bench = Bench::new()?;
        bench.userns = userns;
        bench.no_pivot = true;
        bench.base();
        bench.run(|| {
            ensure!(!Path::new(CORNER).exists() && Path::new("/bin/busybox").exists());
            check_default_devices()
        })?;
    }
    Ok(())
}

/// The container's cgroup, in every hierarchy this machine has.
struct Cgroups {
    name: String,
    mounts: Vec<PathBuf>,
}

impl Cgroups {
    fn new() -> Result<Self> {
        let name = format!("/condo-test-rootfs-{}", std::process::id());
        let mounts = match Host::probe()?.cgroups {
            condo::host::CgroupLayout::Unified(mount) => vec![mount],
            condo::host::CgroupLayout::Hybrid { v1, unified } => {
                v1.into_iter().map(|h| h.mount).chain(unified).collect()
            }
        };
        let cgroups = Self { name, mounts };
        for dir in cgroups.dirs() {
            fs::create_dir(&dir)?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                // Only a v1 cpuset starts empty and takes no process until it has these.
                if dir.join("tasks").exists() && dir.join(file).exists() {
                    fs::write(dir.join(file), fs::read(dir.with_file_name(file))?)?;
                }
            }
        }
        Ok(cgroups)
    }

    fn dirs(&self) -> Vec<PathBuf> {
        self.mounts
            .iter()
            .map(|m| m.join(self.name.trim_start_matches('/')))
            .collect()
    }

    fn join(&self) -> Result<()> {
        for dir in self.dirs() {
            fs::write(dir.join("cgroup.procs"), "0").with_context(|| format!("join {}", dir.display()))?;
        }
        Ok(())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for dir in self.dirs() {
            let _ = fs::remove_dir(dir);
        }
    }
}

fn check_v1(writable: bool) -> Result<()> {
    for name in ["memory", "pids", "unified", "systemd"] {
        let dir = format!("/sys/fs/cgroup/{name}");
        let me = read(&format!("{dir}/cgroup.procs"))?;
        ensure!(
            me.lines().any(|l| l == "1"),
            "{dir} is not the container's own: {me:?}"
        );
        ensure!(
            fs::create_dir(format!("{dir}/below")).is_ok() == writable,
            "{dir}"
        );
        if writable {
            fs::remove_dir(format!("{dir}/below"))?;
        }
    }
    ensure!(is_readonly("/sys/fs/cgroup") != writable);
    Ok(())
}

fn v1_cgroups_with_a_namespace() -> Result<()> {
    needs!(root, hybrid);
    for option in ["ro", "rw"] {
        let mut bench = Bench::new()?;
        bench.cgroup = Some(Cgroups::new()?);
        bench.cgroupns = true;
        bench.base().mount("/sys", "sysfs", "sysfs", &["ro"]);
        bench.mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", option],
        );
        bench.run(|| {
            ensure!(mounted("/sys/fs/cgroup/memory")?.contains(" - cgroup "));
            ensure!(mounted("/sys/fs/cgroup/unified")?.contains(" - cgroup2 "));
            check_v1(option == "rw")
        })?;
    }
    Ok(())
}

fn v1_cgroups_without_a_namespace() -> Result<()> {
    needs!(root, hybrid);
    let mut bench = Bench::new()?;
    bench.cgroup = Some(Cgroups::new()?);
    bench.base().mount("/sys", "sysfs", "sysfs", &["ro"]);
    bench.mount(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["nosuid", "noexec", "nodev", "relatime", "ro"],
    );
    bench.run(|| check_v1(false))
}

fn unified_cgroups() -> Result<()> {
    needs!(root, cgroup2);
    for cgroupns in [true, false] {
        let mut bench = Bench::new()?;
        bench.cgroup = Some(Cgroups::new()?);
        bench.cgroupns = cgroupns;
        bench.base().mount("/sys", "sysfs", "sysfs", &["ro"]);
        bench.mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        );
        bench.run(|| {
            ensure!(read("/sys/fs/cgroup/cgroup.procs")?.lines().any(|l| l == "1"));
            ensure!(is_readonly("/sys/fs/cgroup"));
            Ok(())
        })?;
    }
    Ok(())
}

fn cgroup2_on_a_hybrid_host() -> Result<()> {
    needs!(root, hybrid);
    let mut bench = Bench::in_userns()?;
    bench.cgroup = None;
    bench.cgroupns = true;
    bench.netns = true;
    bench.base().mount("/sys", "sysfs", "sysfs", &["ro"]);
    bench.mount(
        "/sys/fs/cgroup",
        "cgroup2",
        "cgroup",
        &["nosuid", "noexec", "nodev", "rw"],
    );
    bench.run(|| {
        ensure!(mounted("/sys/fs/cgroup")?.contains(" - cgroup2 "));
        ensure!(Path::new("/sys/fs/cgroup/cgroup.procs").exists());
        Ok(())
    })
}
