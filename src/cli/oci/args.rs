//! The command line, flag by flag as engines send it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::error::{Error, Result};

/// An OCI runtime with runc's command line: namespaces, cgroups, seccomp and capabilities for containers.
#[derive(Debug, Parser)]
#[command(name = "condo-runtime", disable_version_flag = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags before the command.
#[derive(Debug, Args)]
pub struct Global {
    /// Directory for the state of containers
    #[arg(long, default_value = "/run/condo-runtime", value_name = "DIR")]
    pub root: PathBuf,
    /// Write the log to this file instead of standard error
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Form of the log
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// Log what is done, not only what fails
    #[arg(long)]
    pub debug: bool,
    /// Manage cgroups through systemd
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Run without privileges
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value = "auto", default_missing_value = "true", require_equals = true)]
    pub rootless: String,
    /// Who manages cgroups
    #[arg(long, value_name = "MANAGER", default_value = "cgroupfs")]
    pub cgroup_manager: String,
    /// Print the versions of the runtime and of the spec
    #[arg(long, short = 'v')]
    pub version: bool,
}

impl Global {
    /// What this version does not have is refused, never ignored.
    pub fn check(&self) -> Result<()> {
        let systemd = self.systemd_cgroup || self.cgroup_manager == "systemd";
        if systemd {
            return Err(Error::unsupported("`--systemd-cgroup`", "this version manages cgroups itself; leave it out"));
        }
        if self.cgroup_manager != "cgroupfs" {
            let problem = "is not a cgroup manager of this version: use `cgroupfs`";
            return Err(Error::invalid("--cgroup-manager", &self.cgroup_manager, problem));
        }
        if !matches!(self.rootless.as_str(), "auto" | "false") {
            return Err(Error::invalid("--rootless", &self.rootless, "is not supported: run condo-runtime as root"));
        }
        Ok(())
    }
}

/// Forms of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
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
    /// Write a new config.json
    Spec(Spec),
}

impl Command {
    /// Whether processes of a container will have this program as their first.
    pub fn makes_processes(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Run(_) | Self::Exec(_))
    }
}

/// A container.
#[derive(Debug, Args)]
pub struct Id {
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `create`
#[derive(Debug, Args)]
pub struct Create {
    /// Path of the bundle
    #[arg(long, short, default_value = ".", value_name = "DIR")]
    pub bundle: PathBuf,
    /// Socket that receives the master of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Socket that receives init's pidfd
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// File to write init's pid to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Do not use pivot_root (for a root on a ramdisk)
    #[arg(long)]
    pub no_pivot: bool,
    /// Stay in the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Pass this many descriptors from 3 on to the program
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub preserve_fds: u32,
    /// The new container's id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `run`
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub create: Create,
    /// Return when the program runs
    #[arg(long, short)]
    pub detach: bool,
    /// Keep the container after its end
    #[arg(long)]
    pub keep: bool,
    /// Do not adopt the container's orphans
    #[arg(long)]
    pub no_subreaper: bool,
}

/// `exec`
#[derive(Debug, Args)]
pub struct Exec {
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// Set an environment variable
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// Give the process a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// User to run as
    #[arg(long, short, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// Additional groups
    #[arg(long = "additional-gids", short = 'g', value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// File with the process as JSON
    #[arg(long, short, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Return when the program runs
    #[arg(long, short)]
    pub detach: bool,
    /// File to write the process's pid to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// The process can gain no privileges
    #[arg(long)]
    pub no_new_privs: bool,
    /// Add a capability
    #[arg(long = "cap", short, value_name = "CAPABILITY")]
    pub cap: Vec<String>,
    /// Pass this many descriptors from 3 on to the program
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub preserve_fds: u32,
    /// Socket that receives the master of the process's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Socket that receives the process's pidfd
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Go on in a paused container
    #[arg(long)]
    pub ignore_paused: bool,
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub args: Vec<String>,
}

/// `kill`
#[derive(Debug, Args)]
pub struct Kill {
    /// Signal all processes of the container
    #[arg(long, short)]
    pub all: bool,
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
    /// Name or number
    #[arg(default_value = "SIGTERM", value_name = "SIGNAL")]
    pub signal: String,
}

/// `delete`
#[derive(Debug, Args)]
pub struct Delete {
    /// Kill the container if it runs; a missing one is no error
    #[arg(long, short)]
    pub force: bool,
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `list`
#[derive(Debug, Args)]
pub struct List {
    /// table or json
    #[arg(long, short, default_value = "table", value_name = "FORMAT")]
    pub format: String,
    /// Print ids only
    #[arg(long, short)]
    pub quiet: bool,
}

/// `spec`
#[derive(Debug, Args)]
pub struct Spec {
    /// Path of the bundle
    #[arg(long, short, default_value = ".", value_name = "DIR")]
    pub bundle: PathBuf,
}
