//! A root file system to be, built and entered by a child of the test.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use condo::host::Host;
use condo::rootfs::{Assembled, Facts, MountsOf, RootfsPlan, Sources, assemble};
use condo::sys::clone::{Clone, Side};
use condo::sys::mount::{Attributes, attr, set_attributes};
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use serde_json::{Value, json};

use super::cgroups::Cgroups;
use super::inside::{is_readonly, mount_table};
use crate::harness;

/// The test's own corner: a tmpfs in a private mount namespace.
pub const CORNER: &str = "/mnt";

/// A container to be.
pub struct Bench {
    pub rootfs: PathBuf,
    pub spec: Value,
    pub userns: bool,
    pub cgroupns: bool,
    pub netns: bool,
    pub no_pivot: bool,
    /// Sources are opened by init.
    pub late: bool,
    pub cgroup: Option<Cgroups>,
}

const NOTHING_BEFORE: fn(&Assembled) -> Result<()> = |_| Ok(());

impl Bench {
    pub fn new() -> Result<Self> {
        Self::with_userns(false)
    }

    pub fn in_userns() -> Result<Self> {
        Self::with_userns(true)
    }

    pub fn with_userns(userns: bool) -> Result<Self> {
        harness::private_mounts()?;
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
            userns,
            cgroupns: false,
            netns: false,
            no_pivot: false,
            late: false,
            cgroup: None,
        })
    }

    pub fn mount(&mut self, destination: &str, fstype: &str, source: &str, options: &[&str]) -> &mut Self {
        self.push(json!({ "destination": destination, "type": fstype, "source": source, "options": options }))
    }

    /// The mount that everyone has there.
    pub fn usual(&mut self, destination: &str) -> &mut Self {
        self.push(harness::usual_mount(destination))
    }

    pub fn push(&mut self, mount: Value) -> &mut Self {
        self.spec["mounts"].as_array_mut().expect("mounts").push(mount);
        self
    }

    pub fn base(&mut self) -> &mut Self {
        self.mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])
            .usual("/dev")
            .usual("/dev/pts")
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
            mounts: MountsOf::Container,
            no_pivot: self.no_pivot,
        };
        Ok(RootfsPlan::from_spec(
            &spec,
            &self.rootfs,
            Path::new(CORNER),
            &facts,
        )?)
    }

    fn namespaces(&self) -> CloneFlags {
        let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
        flags.set(CloneFlags::CLONE_NEWUSER, self.userns);
        flags.set(CloneFlags::CLONE_NEWNET, self.netns);
        flags
    }

    /// Builds the tree in a child and runs `inside` in it; the host's mount table must be the same afterwards.
    pub fn run(&self, inside: impl FnOnce() -> Result<()>) -> Result<()> {
        self.run_with(NOTHING_BEFORE, inside)
    }

    pub fn run_with(
        &self,
        before: impl FnOnce(&Assembled) -> Result<()>,
        inside: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let table = mount_table();
        let plan = self.plan()?;
        let sources = plan.open_sources()?;
        if self.userns {
            harness::give(&self.rootfs, 100_000)?;
        }
        let (mut go, mut wait) = std::os::unix::net::UnixStream::pair()?;
        let clone = Clone {
            flags: self.namespaces().bits() as u64,
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

    fn parent(&self, pid: i32, plan: &RootfsPlan, sources: &Sources) -> Result<()> {
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
        sources: Sources,
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
        let assembled = assemble(plan, sources, &mut |_, _| Ok(()))?;
        before(&assembled)?;
        assembled.enter()?;
        inside()
    }

    /// Planning, opening or assembling must fail, with an error that begins with `subject` and goes on to say `reason`.
    pub fn refused(&self, subject: &str, reason: &str) -> Result<()> {
        let built = || -> Result<Assembled> {
            let plan = self.plan()?;
            let sources = plan.open_sources()?;
            Ok(assemble(&plan, sources, &mut |_, _| Ok(()))?)
        };
        let Err(error) = built() else {
            bail!("it was not refused");
        };
        let said = error.to_string();
        let rest = said.strip_prefix(subject);
        ensure!(
            rest.is_some_and(|rest| rest.contains(reason)),
            "not `{subject}` … `{reason}` but: {said}"
        );
        Ok(())
    }
}

/// Makes the machine's own files read-only in this test's mount namespace: should the code under test ever leave the
/// container's root, it finds nothing to break. `/var/tmp` stays writable for what has to be on a disk.
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

pub fn outside(name: &str) -> PathBuf {
    Path::new(CORNER).join("outside").join(name)
}

pub fn tmpfs(at: &Path) -> Result<()> {
    fs::create_dir_all(at)?;
    mount(Some("t"), at, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    Ok(())
}
