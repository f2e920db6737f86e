//! The arguments of `checkpoint` and `restore`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::oci::numbers::whole;

// What `checkpoint` and `restore` both take.
#[derive(Debug, Args)]
pub(in crate::cli::oci) struct Images {
    /// Directory of the image files
    #[arg(long, default_value = "checkpoint", value_name = "DIR")]
    pub(in crate::cli::oci) image_path: PathBuf,
    /// Directory for CRIU's log and other files of the moment [default: that of the images]
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli::oci) work_path: Option<PathBuf>,
    /// Allow established TCP connections
    #[arg(long)]
    pub(in crate::cli::oci) tcp_established: bool,
    /// Allow unix sockets whose other end is outside
    #[arg(long)]
    pub(in crate::cli::oci) ext_unix_sk: bool,
    /// Allow a terminal and a session that began outside
    #[arg(long)]
    pub(in crate::cli::oci) shell_job: bool,
    /// Save file locks and take them again
    #[arg(long)]
    pub(in crate::cli::oci) file_locks: bool,
    /// What becomes of cgroups: soft, full, strict or ignore [default: soft]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "MODE")]
    pub(in crate::cli::oci) manage_cgroups_mode: String,
    /// Leave a namespace empty (network, which always is: its content is the caller's)
    #[arg(long, value_name = "NAMESPACE")]
    pub(in crate::cli::oci) empty_ns: Vec<String>,
    /// Drop memory from older images that newer ones have
    #[arg(long)]
    pub(in crate::cli::oci) auto_dedup: bool,
    /// Fetch memory when it is needed (userfaultfd)
    #[arg(long)]
    pub(in crate::cli::oci) lazy_pages: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli::oci) struct Checkpoint {
    #[command(flatten)]
    pub(in crate::cli::oci) images: Images,
    /// Earlier pre-dump, relative to the images: only what changed since is saved
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli::oci) parent_path: Option<PathBuf>,
    /// Let the container go on
    #[arg(long)]
    pub(in crate::cli::oci) leave_running: bool,
    /// Leave out TCP connections that are not accepted yet
    #[arg(long)]
    pub(in crate::cli::oci) tcp_skip_in_flight: bool,
    /// Give files that were deleted while open a name again
    #[arg(long)]
    pub(in crate::cli::oci) link_remap: bool,
    /// Descriptor that gets a zero byte, and is closed, when pages can be fetched
    #[arg(long, default_value_t = -1, hide_default_value = true, value_name = "FD", allow_hyphen_values = true, value_parser = whole::<i32>)]
    pub(in crate::cli::oci) status_fd: i32,
    /// Send memory to the page server there; with --lazy-pages, be one there until all is fetched
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(in crate::cli::oci) page_server: Option<String>,
    /// Save memory only, and let the container go on
    #[arg(long)]
    pub(in crate::cli::oci) pre_dump: bool,
    /// The container's id
    #[arg(value_name = "ID")]
    pub(in crate::cli::oci) id: String,
}

#[derive(Debug, Args)]
pub(in crate::cli::oci) struct Restore {
    #[command(flatten)]
    pub(in crate::cli::oci) images: Images,
    /// Path of the bundle
    #[arg(long, short, default_value = ".", value_name = "DIR")]
    pub(in crate::cli::oci) bundle: PathBuf,
    /// Socket that receives the master of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub(in crate::cli::oci) console_socket: Option<PathBuf>,
    /// Bring established TCP connections back closed
    #[arg(long)]
    pub(in crate::cli::oci) tcp_close: bool,
    /// Return when the container runs
    #[arg(long, short)]
    pub(in crate::cli::oci) detach: bool,
    /// File to write init's pid to
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli::oci) pid_file: Option<PathBuf>,
    /// Do not adopt the container's orphans
    #[arg(long)]
    pub(in crate::cli::oci) no_subreaper: bool,
    /// Do not use pivot_root (for a root on a ramdisk)
    #[arg(long)]
    pub(in crate::cli::oci) no_pivot: bool,
    /// Let this many descriptors from 3 on take the places of saved ones
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = whole::<u32>)]
    pub(in crate::cli::oci) preserve_fds: u32,
    /// Obsolete: the images know where their parent is
    #[arg(long, value_name = "DIR", hide = true)]
    pub(in crate::cli::oci) parent_path: Option<PathBuf>,
    /// LSM profile of the processes: apparmor:NAME or selinux:LABEL
    #[arg(long, value_name = "PROFILE")]
    pub(in crate::cli::oci) lsm_profile: Option<String>,
    /// SELinux context of mounts
    #[arg(long, value_name = "CONTEXT")]
    pub(in crate::cli::oci) lsm_mount_context: Option<String>,
    /// The container's id
    #[arg(value_name = "ID")]
    pub(in crate::cli::oci) id: String,
}
