//! The command line, flag by flag as engines send it.

mod saved;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::error::{Error, Result};
pub(super) use saved::{Checkpoint, Images, Restore};

/// An OCI runtime with runc's command line: namespaces, cgroups, seccomp and capabilities for containers.
#[derive(Debug, Parser)]
#[command(
    name = "condo-runtime",
    disable_version_flag = true,
    disable_help_subcommand = true
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// Flags before the command.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// Directory for the state of containers
    #[arg(long, default_value = "/run/condo-runtime", value_name = "DIR")]
    pub(super) root: PathBuf,
    /// Write the log to this file instead of standard error
    #[arg(long, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
    /// Form of the log
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(super) log_format: LogFormat,
    /// Log what is done, not only what fails
    #[arg(long)]
    pub(super) debug: bool,
    /// Manage cgroups through systemd
    #[arg(long)]
    pub(super) systemd_cgroup: bool,
    /// Run without privileges
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value = "auto", default_missing_value = "true", require_equals = true)]
    pub(super) rootless: String,
    /// Who manages cgroups
    #[arg(long, value_name = "MANAGER", default_value = "cgroupfs")]
    pub(super) cgroup_manager: String,
    /// Print the versions of the runtime and of the spec
    #[arg(long, short = 'v')]
    pub(super) version: bool,
}

impl Global {
    /// What this version does not have is refused, never ignored.
    pub(super) fn check(&self) -> Result<()> {
        let systemd = self.systemd_cgroup || self.cgroup_manager == "systemd";
        if systemd {
            return Err(Error::unsupported(
                "`--systemd-cgroup`",
                "this version manages cgroups itself; leave it out",
            ));
        }
        if self.cgroup_manager != "cgroupfs" {
            let problem = "is not a cgroup manager of this version: use `cgroupfs`";
            return Err(Error::invalid("--cgroup-manager", &self.cgroup_manager, problem));
        }
        if !matches!(self.rootless.as_str(), "auto" | "false") {
            return Err(Error::invalid(
                "--rootless",
                &self.rootless,
                "is not supported: run condo-runtime as root",
            ));
        }
        Ok(())
    }
}

/// Forms of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

/// The commands. Only the one that was asked for is built.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(super) enum Command {
    /// Create a container, whose program waits for start
    Create(Create),
    /// Start the program of a created container
    Start(Id),
    /// Print the state of a container as JSON
    State(Id),
    /// Send a signal to a container's init (default SIGTERM)
    Kill(Kill),
    /// Delete a container and all that belongs to it
    Delete(Delete),
    /// Create and start a container, and wait for its end
    Run(Run),
    /// Run a further process in a container
    Exec(Exec),
    /// List the containers
    List(List),
    /// Suspend all processes of a container
    Pause(Id),
    /// Resume the processes of a paused container
    Resume(Id),
    /// List the processes of a container
    Ps(Ps),
    /// Change the limits of a container
    Update(Box<Update>),
    /// Print figures and out-of-memory events of a container
    Events(Events),
    /// Save a running container to files, with the help of CRIU
    Checkpoint(Box<Checkpoint>),
    /// Bring a saved container back
    Restore(Box<Restore>),
    /// Print what this runtime can do
    Features,
    /// Write a new config.json
    Spec(Spec),
}

impl Command {
    /// Whether processes of a container will have this program as their first.
    pub(super) fn makes_processes(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Run(_) | Self::Exec(_))
    }
}

/// A container.
#[derive(Debug, Args)]
pub(super) struct Id {
    /// The container's id
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

/// `create`
#[derive(Debug, Args)]
pub(super) struct Create {
    /// Path of the bundle
    #[arg(long, short, default_value = ".", value_name = "DIR")]
    pub(super) bundle: PathBuf,
    /// Socket that receives the master of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// Socket that receives init's pidfd
    #[arg(long, value_name = "SOCKET")]
    pub(super) pidfd_socket: Option<PathBuf>,
    /// File to write init's pid to
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// Do not use pivot_root (for a root on a ramdisk)
    #[arg(long)]
    pub(super) no_pivot: bool,
    /// Stay in the caller's session keyring
    #[arg(long)]
    pub(super) no_new_keyring: bool,
    /// Pass this many descriptors from 3 on to the program
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(super) preserve_fds: u32,
    /// The new container's id
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

/// `run`
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) create: Create,
    /// Return when the program runs
    #[arg(long, short)]
    pub(super) detach: bool,
    /// Keep the container after its end
    #[arg(long)]
    pub(super) keep: bool,
    /// Do not adopt the container's orphans
    #[arg(long)]
    pub(super) no_subreaper: bool,
}

/// `exec`
#[derive(Debug, Args)]
pub(super) struct Exec {
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub(super) cwd: Option<PathBuf>,
    /// Set an environment variable
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub(super) env: Vec<String>,
    /// Give the process a terminal
    #[arg(long, short)]
    pub(super) tty: bool,
    /// User to run as
    #[arg(long, short, value_name = "UID[:GID]")]
    pub(super) user: Option<String>,
    /// Additional groups
    #[arg(long = "additional-gids", short = 'g', value_name = "GID")]
    pub(super) additional_gids: Vec<u32>,
    /// File with the process as JSON
    #[arg(long, short, value_name = "FILE")]
    pub(super) process: Option<PathBuf>,
    /// Return when the program runs
    #[arg(long, short)]
    pub(super) detach: bool,
    /// File to write the process's pid to
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    pub(super) process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    pub(super) apparmor: Option<String>,
    /// The process can gain no privileges
    #[arg(long)]
    pub(super) no_new_privs: bool,
    /// Add a capability
    #[arg(long = "cap", short, value_name = "CAPABILITY")]
    pub(super) cap: Vec<String>,
    /// Pass this many descriptors from 3 on to the program
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(super) preserve_fds: u32,
    /// Socket that receives the master of the process's terminal
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// Socket that receives the process's pidfd
    #[arg(long, value_name = "SOCKET")]
    pub(super) pidfd_socket: Option<PathBuf>,
    /// Go on in a paused container
    #[arg(long)]
    pub(super) ignore_paused: bool,
    /// The container's id
    #[arg(value_name = "ID")]
    pub(super) id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(super) args: Vec<String>,
}

/// `kill`
#[derive(Debug, Args)]
pub(super) struct Kill {
    /// Signal all processes of the container
    #[arg(long, short)]
    pub(super) all: bool,
    /// The container's id
    #[arg(value_name = "ID")]
    pub(super) id: String,
    /// Name or number
    #[arg(default_value = "SIGTERM", value_name = "SIGNAL")]
    pub(super) signal: String,
}

/// `delete`
#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Kill the container if it runs; a missing one is no error
    #[arg(long, short)]
    pub(super) force: bool,
    /// The container's id
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

/// `list`
#[derive(Debug, Args)]
pub(super) struct List {
    /// table or json
    #[arg(long, short, default_value = "table", value_name = "FORMAT")]
    pub(super) format: String,
    /// Print ids only
    #[arg(long, short)]
    pub(super) quiet: bool,
}

/// `spec`
#[derive(Debug, Args)]
pub(super) struct Spec {
    /// Path of the bundle
    #[arg(long, short, default_value = ".", value_name = "DIR")]
    pub(super) bundle: PathBuf,
}

/// `ps`
#[derive(Debug, Args)]
pub(super) struct Ps {
    /// table or json
    #[arg(long, short, default_value = "table", value_name = "FORMAT")]
    pub(super) format: String,
    /// The container's id
    #[arg(value_name = "ID")]
    pub(super) id: String,
    /// Options for the host's ps
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "PS OPTIONS"
    )]
    pub(super) options: Vec<String>,
}

/// `events`
#[derive(Debug, Args)]
pub(super) struct Events {
    /// Time between two reports
    #[arg(long, default_value = "5s", value_name = "DURATION")]
    pub(super) interval: String,
    /// Print the figures once
    #[arg(long)]
    pub(super) stats: bool,
    /// The container's id
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

/// `update`
#[derive(Debug, Args)]
pub(super) struct Update {
    /// File with the new resources as JSON, or - for standard input
    #[arg(long, short, value_name = "FILE", allow_hyphen_values = true)]
    pub(super) resources: Option<PathBuf>,
    /// Relative share of disk time, 10 to 1000
    #[arg(long, value_name = "N")]
    pub(super) blkio_weight: Option<u16>,
    /// Period of the processor quota in microseconds
    #[arg(long, value_name = "USECS")]
    pub(super) cpu_period: Option<u64>,
    /// Processor time per period in microseconds
    #[arg(long, value_name = "USECS", allow_hyphen_values = true)]
    pub(super) cpu_quota: Option<i64>,
    /// Processor time that may be saved up, in microseconds
    #[arg(long, value_name = "USECS")]
    pub(super) cpu_burst: Option<u64>,
    /// Relative share of processor time
    #[arg(long, value_name = "N")]
    pub(super) cpu_share: Option<u64>,
    /// Period of the realtime quota in microseconds
    #[arg(long, value_name = "USECS")]
    pub(super) cpu_rt_period: Option<u64>,
    /// Realtime per period in microseconds
    #[arg(long, value_name = "USECS", allow_hyphen_values = true)]
    pub(super) cpu_rt_runtime: Option<i64>,
    /// 1 runs only when nobody else wants the processor
    #[arg(long, value_name = "0|1")]
    pub(super) cpu_idle: Option<i64>,
    /// Processors to use
    #[arg(long, value_name = "LIST")]
    pub(super) cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    pub(super) cpuset_mems: Option<String>,
    /// Memory limit in bytes, or with a suffix; -1 for none
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(super) memory: Option<String>,
    /// Memory that is protected in bytes, or with a suffix
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(super) memory_reservation: Option<String>,
    /// Limit of memory and swap together; -1 for none
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(super) memory_swap: Option<String>,
    /// Most processes; -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(super) pids_limit: Option<i64>,
    /// Intel RDT: cache schema
    #[arg(long, value_name = "SCHEMA")]
    pub(super) l3_cache_schema: Option<String>,
    /// Intel RDT: memory bandwidth schema
    #[arg(long, value_name = "SCHEMA")]
    pub(super) mem_bw_schema: Option<String>,
    /// The container's id
    #[arg(value_name = "ID")]
    pub(super) id: String,
}
