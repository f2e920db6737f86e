//! What can be asked of a checkpoint and of a restore.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::{criu, rpc};
use crate::error::{Error, Result};
use crate::files;
use crate::namespaces::Kind;

/// The annotation that names a configuration file of CRIU for one container; an empty one means no file.
pub const CONFIG_ANNOTATION: &str = "org.criu.config";
/// The file for containers without the annotation: where runc's users have their settings already.
const DEFAULT_CONFIG: &str = "/etc/criu/runc.conf";

/// What both directions take.
#[derive(Debug, Default)]
pub struct Common {
    /// The directory of the image files.
    pub images: PathBuf,
    /// Where CRIU puts its log and other files of the moment; beside the images when absent.
    pub work: Option<PathBuf>,
    /// Established TCP connections are saved and continued.
    pub tcp_established: bool,
    /// Unix sockets whose other end is outside are allowed.
    pub ext_unix_sk: bool,
    /// A terminal of the caller's as standard stream, and a session that began outside, are allowed.
    pub shell_job: bool,
    /// File locks are saved and taken again.
    pub file_locks: bool,
    /// What becomes of cgroups and their values.
    pub cgroups: CgroupMode,
    /// Memory images are freed while they are read, and of what a later image has anew.
    pub auto_dedup: bool,
    /// Memory is fetched when it is needed (`userfaultfd(2)`).
    pub lazy_pages: bool,
}

/// `checkpoint`.
#[derive(Debug, Default)]
pub struct Dump<'a> {
    /// See [`Common`].
    pub common: Common,
    /// An earlier pre-dump, relative to the images: only memory that changed since is saved.
    pub parent: Option<PathBuf>,
    /// The container goes on.
    pub leave_running: bool,
    /// Connections that are not accepted yet are left out.
    pub tcp_skip_in_flight: bool,
    /// Files that were deleted while open get a name again.
    pub link_remap: bool,
    /// Gets a zero byte when pages can be fetched, and is closed.
    pub status: Option<OwnedFd>,
    /// Memory goes to this page server instead of files.
    pub page_server: Option<(String, u16)>,
    /// Only memory is saved, and the container goes on.
    pub pre_dump: bool,
    /// While it can be read from and pages wait to be fetched, the checkpoint is given up.
    pub interrupt: Option<BorrowedFd<'a>>,
}

/// `restore`.
#[derive(Debug, Default)]
pub struct Restore {
    /// See [`Common`].
    pub common: Common,
    /// Established TCP connections come back closed.
    pub tcp_close: bool,
    /// LSM profile or label of the processes, `apparmor:NAME` or `selinux:LABEL`.
    pub lsm_profile: Option<String>,
    /// SELinux context of mounts.
    pub lsm_mount_context: Option<String>,
}

impl Restore {
    /// The oldest CRIU that does all of it.
    pub(super) fn oldest(&self) -> (i32, i32) {
        match (&self.lsm_profile, &self.lsm_mount_context) {
            (None, None) => criu::OLDEST,
            _ => criu::OLDEST_FOR_LSM,
        }
    }
}

/// CRIU's ways with cgroups. The numbers are those of its protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupMode {
    /// Not touched: processes stay in the cgroup that condo made.
    Ignore = 0,
    /// Cgroups that are there keep their values, missing ones are made.
    Soft = 3,
    /// Values are written whether the cgroup was there or not.
    Full = 4,
    /// A cgroup that is there already is an error.
    Strict = 5,
    /// What this CRIU takes for best (`soft`).
    #[default]
    Default = 6,
}

impl CgroupMode {
    /// Reads `--manage-cgroups-mode`.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "" => Ok(Self::Default),
            "soft" => Ok(Self::Soft),
            "full" => Ok(Self::Full),
            "strict" => Ok(Self::Strict),
            "ignore" => Ok(Self::Ignore),
            _ => Err(Error::invalid(
                "--manage-cgroups-mode",
                name,
                "is not a mode: use `soft`, `full`, `strict` or `ignore`",
            )),
        }
    }
}

/// Reads `--page-server`.
pub fn page_server(text: &str) -> Result<(String, u16)> {
    let parsed = text.rsplit_once(':').and_then(|(address, port)| {
        let bracketed = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        // Without brackets the port could be the address's last part.
        let plain = (!address.contains([':', '[', ']'])).then_some(address);
        let address = bracketed.or(plain).filter(|address| !address.is_empty())?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        Some((address.to_owned(), port))
    });
    parsed.ok_or_else(|| Error::invalid("--page-server", text, "is not ADDRESS:PORT"))
}

impl Common {
    /// Makes sure of the directories. The one of the images is made where `make` says so, that of the log in any case.
    pub(super) fn check_folders(&self, make: bool) -> Result<()> {
        if make {
            files::create_dir_all(&self.images, 0o700)?;
        } else if !self.images.is_dir() {
            return Err(Error::NotFound {
                kind: "checkpoint directory",
                name: self.images.display().to_string(),
            });
        }
        self.work
            .iter()
            .try_for_each(|work| files::create_dir_all(work, 0o700))
    }

    /// Those that CRIU works in: the images', then the one for the log if that is another.
    pub(super) fn folders(&self) -> Vec<&Path> {
        std::iter::once(&self.images)
            .chain(&self.work)
            .map(PathBuf::as_path)
            .collect()
    }

    /// Where the log is.
    pub(super) fn log(&self) -> &Path {
        self.work.as_ref().unwrap_or(&self.images)
    }

    /// Options for CRIU with all that both directions have; `folders` are open [`Common::folders`].
    pub(super) fn request(
        &self,
        folders: &[OwnedFd],
        annotations: &BTreeMap<String, String>,
    ) -> rpc::Options {
        rpc::Options {
            images_dir_fd: folders.first().map_or(-1, AsRawFd::as_raw_fd),
            work_dir_fd: folders.get(1).map(AsRawFd::as_raw_fd),
            log_level: 4,
            notify_scripts: true,
            orphan_pts_master: true,
            tcp_established: self.tcp_established,
            ext_unix_sk: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            auto_dedup: self.auto_dedup,
            lazy_pages: self.lazy_pages,
            manage_cgroups: true,
            manage_cgroups_mode: self.cgroups as i32,
            // The network is condo's and the caller's to make: interfaces, addresses and rules are not saved.
            empty_ns: u32::try_from(Kind::Network.flag()).unwrap_or(0),
            config_file: config_file(annotations),
            ..rpc::Options::default()
        }
    }
}

fn config_file(annotations: &BTreeMap<String, String>) -> Option<String> {
    match annotations.get(CONFIG_ANNOTATION) {
        None => Some(DEFAULT_CONFIG.to_owned()),
        Some(path) if path.is_empty() => None,
        Some(path) => Some(path.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_servers_and_modes() {
        assert_eq!(page_server("10.0.0.1:27").unwrap(), ("10.0.0.1".into(), 27));
        assert_eq!(page_server("[fd00::1]:9").unwrap(), ("fd00::1".into(), 9));
        let hosts = ["", "host", ":1", "[]:1", "[host:1", "fd00::1:9"];
        let ports = ["host:", "host:0", "host:70000", "host:x"];
        for bad in hosts.into_iter().chain(ports) {
            assert!(page_server(bad).is_err(), "{bad}");
        }
        assert_eq!(CgroupMode::from_name("full").unwrap() as i32, 4);
        assert!(CgroupMode::from_name("Soft").is_err());
    }

    #[test]
    fn an_annotation_chooses_criu_s_configuration() {
        let with =
            |path: &str| config_file(&BTreeMap::from([(CONFIG_ANNOTATION.to_owned(), path.to_owned())]));
        assert_eq!(config_file(&BTreeMap::new()).as_deref(), Some(DEFAULT_CONFIG));
        assert_eq!(with(""), None);
        assert_eq!(with("/x").as_deref(), Some("/x"));
    }
}
