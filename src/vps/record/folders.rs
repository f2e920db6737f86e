//! Where this instance of condo keeps its state, and the names it goes by on the host.
//!
//! ```text
//! /var/lib/condo (DIR/lib)         survives a reboot
//!   condo.db                       records, see store
//!   condo.db.network               a copy of what it says of the network
//!   condo.db.projects              a copy of what it says of projects
//!   images/                        see image
//!   events/                        see events
//!   vps/NAME/record.json           a copy of its record
//!   vps/NAME/traffic.json          a copy of what it has sent and received
//!   vps/NAME/running               there until its end is recorded
//!   vps/NAME/disk/                 the VPS's own layer
//!   vps/NAME/bundle/config.json    rendered at every start
//!   vps/NAME/bundle/rootfs/        where the root disk is mounted while it runs
//!   vps/NAME/first-boot.json       what its owner gave for the first start, until then
//!   vps/NAME/provisioned           there after the first start: what is left to be done inside
//!   vps/NAME/hostname              the host name that condo wrote inside
//!   vps/NAME/resolv.conf           the name servers, likewise
//!   vps/NAME/rebuild.json          there while its disk is emptied for another system
//!   vps/NAME/rescue/               disk, first-boot.json, provisioned, hostname, resolv.conf of a rescue system
//!   vps/NAME/console.log           bounded
//!   vps/NAME/snapshots/SNAPSHOT/   snapshot.json and layer/, see snapshots; a name with a dot before it is not whole
//!   vps/NAME/copies.lock           held by whoever makes, changes or uses them
//!   arriving/NAME/                 what an import has read and not checked yet
//! /etc/condo (DIR/etc)             the operator's
//!   condo.toml                     see settings
//! /run/condo (DIR/run)             gone after a reboot, as everything it describes
//!   api.socket                     of condo-server, if that runs: others may pass to it, and all else here is closed to them
//!   lock/NAME                      held by whoever changes the VPS; stays when the VPS is deleted
//!   vps/NAME/                      what belongs to one run of it
//!   names/NETWORK/NAME             names that the network's name server knows
//!   runtime/                       state of the OCI runtime: `condo-runtime --root` of this directory works on a VPS
//! ```
//! `--root DIR` (or `CONDO_ROOT`) moves all of them, so that several condos live side by side: such an instance marks every name
//! it uses on the host with a short hash of its root.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::name::Name;
use crate::error::{During, Error, Result};
use crate::files;

const RUN: &str = "/run/condo";
const LIB: &str = "/var/lib/condo";
const ETC: &str = "/etc/condo";
/// Mode of what is closed to others.
const PRIVATE: u32 = 0o700;
/// Mode of what others may pass through to something whose name they know.
const PASSAGE: u32 = 0o711;

/// The directories of one instance. Cheap to clone, touches nothing after [`Folders::open`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders {
    run: PathBuf,
    lib: PathBuf,
    etc: PathBuf,
    mark: Option<String>,
}

impl Folders {
    /// Finds and creates the directories: the host's own, or those below `root`. None but `run` lets others in.
    pub fn open(root: Option<&Path>) -> Result<Self> {
        let folders = match root {
            None => Self::default(),
            Some(root) => {
                files::create_dir_all(root, 0o700)?;
                let canonical = root
                    .canonicalize()
                    .during(|| format!("resolve `{}`", root.display()))?;
                refuse_public(&canonical)?;
                Self::below(&canonical)
            }
        };
        own(&folders.lib, PRIVATE)?;
        // Sockets for others are here. They get through, see nothing, and everything beside the sockets is closed to them itself.
        own(&folders.run, PASSAGE)?;
        [folders.locks(), folders.runs(), folders.runtime()]
            .iter()
            .try_for_each(|dir| own(dir, PRIVATE))?;
        Ok(folders)
    }

    fn below(root: &Path) -> Self {
        use std::os::unix::ffi::OsStrExt;
        let digest = Sha256::digest(root.as_os_str().as_bytes());
        let mark = digest.iter().take(4).map(|b| format!("{b:02x}")).collect();
        Self {
            run: root.join("run"),
            lib: root.join("lib"),
            etc: root.join("etc"),
            mark: Some(mark),
        }
    }

    /// State that ends with the boot.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// State that lasts.
    pub fn lib(&self) -> &Path {
        &self.lib
    }

    /// What the operator has set. Nothing here makes or changes files there.
    pub fn settings(&self) -> PathBuf {
        self.etc.join("condo.toml")
    }

    /// The operator's plans.
    pub fn plans(&self) -> PathBuf {
        self.etc.join("plans.toml")
    }

    /// The database of records.
    pub fn database(&self) -> PathBuf {
        self.lib.join("condo.db")
    }

    /// What happened to VPSs.
    pub fn events(&self) -> PathBuf {
        self.lib.join("events")
    }

    /// The image store.
    pub fn images(&self) -> PathBuf {
        self.lib.join("images")
    }

    /// What lasts of one VPS.
    pub fn vps(&self, name: &Name) -> PathBuf {
        self.all().join(name)
    }

    /// What lasts of all of them.
    pub fn all(&self) -> PathBuf {
        self.lib.join("vps")
    }

    /// The copy of its record, from which a lost database is made anew.
    pub fn record(&self, name: &Name) -> PathBuf {
        self.vps(name).join("record.json")
    }

    /// The copy of what a VPS has sent and received.
    pub fn traffic(&self, name: &Name) -> PathBuf {
        self.vps(name).join("traffic.json")
    }

    /// The copy of the networks.
    pub fn network(&self) -> PathBuf {
        self.lib.join("condo.db.network")
    }

    /// There while it runs, and after a run whose end nobody saw: a power loss leaves nothing else.
    pub fn running(&self, name: &Name) -> PathBuf {
        self.vps(name).join("running")
    }

    /// Its own layer of the root disk.
    pub fn disk(&self, name: &Name) -> PathBuf {
        self.vps(name).join("disk")
    }

    /// Its own system.
    pub fn seat(&self, name: &Name) -> Seat {
        Seat(self.vps(name))
    }

    /// The system it is rescued with.
    pub fn rescue(&self, name: &Name) -> Seat {
        Seat(self.vps(name).join("rescue"))
    }

    /// There while its disk is emptied for another system.
    pub fn rebuild(&self, name: &Name) -> PathBuf {
        self.vps(name).join("rebuild.json")
    }

    /// All that lasts of it and goes by its name, in an order that is the same for every name.
    pub fn of(&self, name: &Name) -> Vec<PathBuf> {
        vec![self.vps(name)]
    }

    /// Its OCI bundle.
    pub fn bundle(&self, name: &Name) -> PathBuf {
        self.vps(name).join("bundle")
    }

    /// Where its root disk is mounted.
    pub fn rootfs(&self, name: &Name) -> PathBuf {
        self.bundle(name).join("rootfs")
    }

    /// What its console said.
    pub fn console_log(&self, name: &Name) -> PathBuf {
        self.vps(name).join("console.log")
    }

    /// Its snapshots.
    pub fn snapshots(&self, name: &Name) -> PathBuf {
        self.vps(name).join("snapshots")
    }

    /// Where archives are read to before they become VPSs, a folder for each name.
    pub fn arriving(&self) -> PathBuf {
        self.lib.join("arriving")
    }

    /// Held by whoever makes, changes or uses its snapshots.
    pub fn copies_lock(&self, name: &Name) -> PathBuf {
        self.vps(name).join("copies.lock")
    }

    /// The copy of the projects.
    pub fn projects(&self) -> PathBuf {
        self.lib.join("condo.db.projects")
    }

    /// What VPSs leave in the run directory.
    pub fn runs(&self) -> PathBuf {
        self.run.join("vps")
    }

    /// What it leaves in the run directory.
    pub fn run_of(&self, name: &Name) -> PathBuf {
        self.runs().join(name)
    }

    /// The lock held by whoever changes it. Not in [`Folders::run_of`], which `delete` removes while it holds the lock.
    pub fn lock(&self, name: &Name) -> PathBuf {
        self.locks().join(name)
    }

    /// Where the locks are.
    pub fn locks(&self) -> PathBuf {
        self.run.join("lock")
    }

    /// The OCI runtime's state directory.
    pub fn runtime(&self) -> PathBuf {
        self.run.join("runtime")
    }

    /// The cgroup all VPSs of this instance are in: absolute, because a relative one would land below the caller's own.
    pub fn cgroup_parent(&self) -> String {
        self.named("/condo", "/condo-")
    }

    /// The cgroup of one VPS.
    pub fn cgroup(&self, name: &Name) -> String {
        format!("{}/{name}", self.cgroup_parent())
    }

    /// The cgroup that the VPSs of a project are in, if it has one for all. No VPS has a name that begins with a dot.
    pub fn project_cgroup(&self, project: &Name) -> String {
        format!("{}/.project-{project}", self.cgroup_parent())
    }

    /// The bridge of this instance (at most 15 bytes, IFNAMSIZ).
    pub fn bridge(&self) -> String {
        self.named("condo0", "condo-")
    }

    /// The nftables table of this instance, in family `inet`.
    pub fn table(&self) -> String {
        self.named("condo", "condo-")
    }

    /// The link of the network with this number; that of the default one, which has 0, is [`Folders::bridge`].
    pub fn link(&self, number: u32) -> String {
        match (&self.mark, number) {
            (_, 0) => self.bridge(),
            (None, number) => format!("condo{number}"),
            (Some(mark), number) => format!("c{mark}n{number}"),
        }
    }

    /// The host's end of a VPS's veth pair (at most 15 bytes: `id` has at most five digits, see store). Beside a mark there is no
    /// room for an interface's number: it is the first letter, from `c` for `eth0` on.
    pub fn interface(&self, id: u32, number: u8) -> String {
        match (&self.mark, number) {
            (None, 0) => format!("condo-{id}"),
            (None, number) => format!("condo-{id}-{number}"),
            (Some(mark), number) => format!("{}{mark}-{id}", char::from(b'c' + number)),
        }
    }

    /// The hash that marks this instance's names, unless it is the host's own.
    pub fn mark(&self) -> Option<&str> {
        self.mark.as_deref()
    }

    fn named(&self, own: &str, prefix: &str) -> String {
        match &self.mark {
            None => own.to_owned(),
            Some(mark) => format!("{prefix}{mark}"),
        }
    }
}

/// What lasts of one system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat(PathBuf);

impl Seat {
    /// The directory of all this.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its own layer of the root disk.
    pub fn disk(&self) -> PathBuf {
        self.0.join("disk")
    }

    /// There once its first start has written its files.
    pub fn provisioned(&self) -> PathBuf {
        self.0.join("provisioned")
    }

    /// The host name that was written inside.
    pub fn hostname(&self) -> PathBuf {
        self.0.join("hostname")
    }

    /// The `resolv.conf` that was written inside.
    pub fn resolvers(&self) -> PathBuf {
        self.0.join("resolv.conf")
    }

    /// What its owner gave for the first start.
    pub fn first_boot(&self) -> PathBuf {
        self.0.join("first-boot.json")
    }
}

impl Default for Folders {
    /// The host's own instance.
    fn default() -> Self {
        Self {
            run: RUN.into(),
            lib: LIB.into(),
            etc: ETC.into(),
            mark: None,
        }
    }
}

/// Refuses a root in which others could put directories of their own in the place of ours. The sticky bit prevents that.
fn refuse_public(root: &Path) -> Result<()> {
    let mode = rustix::fs::stat(root)
        .during(|| format!("look at `{}`", root.display()))?
        .st_mode;
    if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        let problem = "may be written by other users; take their permission away: chmod go-w";
        return Err(Error::invalid("--root", root.display(), problem));
    }
    Ok(())
}

/// Makes a directory if it is not there, and takes it for condo alone. One that belongs to somebody else is refused: its owner could
/// swap what is in it.
fn own(dir: &Path, mode: u32) -> Result<()> {
    use rustix::fs::{Mode, OFlags};
    files::create_dir_all(dir, mode)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let work = || -> Result<()> {
        let fd = rustix::fs::open(dir, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(Error::invalid("--root", dir.display(), "belongs to another user"));
        }
        if stat.st_mode & 0o777 != mode {
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
        }
        Ok(())
    };
    work().during(|| format!("use `{}`", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_hosts_own_instance_has_plain_names() {
        let folders = Folders::default();
        let web: Name = "web".parse().unwrap();
        assert_eq!(folders.database(), Path::new("/var/lib/condo/condo.db"));
        assert_eq!(
            folders.rootfs(&web),
            Path::new("/var/lib/condo/vps/web/bundle/rootfs")
        );
        assert_eq!(folders.lock(&web), Path::new("/run/condo/lock/web"));
        assert_eq!(folders.cgroup(&web), "/condo/web");
        assert_eq!(folders.bridge(), "condo0");
        assert_eq!(folders.interface(7, 0), "condo-7");
        assert_eq!(folders.interface(7, 1), "condo-7-1");
        assert_eq!(
            (folders.link(0), folders.link(2)),
            ("condo0".into(), "condo2".into())
        );
    }

    #[test]
    fn another_root_marks_every_name_and_stays_within_an_interface_name() {
        let a = Folders::below(Path::new("/a"));
        let b = Folders::below(Path::new("/b"));
        assert_eq!(a.run(), Path::new("/a/run"));
        assert_eq!(a, Folders::below(Path::new("/a")));
        for (x, y) in [
            (a.cgroup_parent(), b.cgroup_parent()),
            (a.bridge(), b.bridge()),
            (a.table(), b.table()),
            (a.interface(17_500, 0), b.interface(17_500, 0)),
            (a.interface(17_500, 0), a.interface(17_500, 1)),
            (a.link(0), a.link(1)),
        ] {
            assert_ne!(x, y);
        }
        assert!(a.bridge().len() <= 15 && a.interface(99_999, 7).len() <= 15 && a.link(999).len() <= 15);
        assert!(a.cgroup_parent().starts_with("/condo-"));
    }

    #[test]
    fn a_root_open_to_others_is_refused() {
        let root = std::env::temp_dir().join(format!("condo-public-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o777)).unwrap();
        let refused = Folders::open(Some(&root));
        let left = std::fs::read_dir(&root).unwrap().count();
        std::fs::remove_dir_all(&root).unwrap();
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
        assert_eq!(left, 0);
    }

    #[test]
    fn what_is_in_the_directories_is_private_and_a_root_is_one_by_any_path() {
        let root = std::env::temp_dir().join(format!("condo-folders-{}", std::process::id()));
        std::fs::create_dir_all(root.join("lib")).unwrap();
        std::fs::set_permissions(root.join("lib"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let folders = Folders::open(Some(&root)).unwrap();
        let same = Folders::open(Some(&root.join("lib/.."))).unwrap();
        let mode = |dir: &Path| dir.metadata().unwrap().permissions().mode() & 0o777;
        let modes = (mode(folders.run()), mode(folders.lib()));
        let below = std::fs::read_dir(folders.run()).unwrap();
        let below: Vec<_> = below.map(|entry| mode(&entry.unwrap().path())).collect();
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(modes, (0o711, 0o700));
        assert_eq!(below, [0o700; 3]);
        assert_eq!(folders, same);
    }
}
