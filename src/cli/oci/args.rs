//! The command line, flag by flag as engines send it.

mod saved;
mod update;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use super::numbers::whole;
use crate::cgroups::Manager;
use crate::host::Caller;
pub(super) use saved::{Checkpoint, Images, Restore};
pub(super) use update::Update;

/// An OCI runtime with runc's command line: namespaces, cgroups, seccomp and capabilities for containers.
#[derive(Debug, Parser)]
#[command(
    name = "condo-runtime",
    disable_version_flag = true,
    args_override_self = true
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
    /// Directory for the state of containers [default: /run/condo-runtime; not as root, $XDG_RUNTIME_DIR/condo-runtime]
    #[arg(long, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,
    /// Write the log to this file instead of standard error
    #[arg(long, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
    /// Form of the log
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(super) log_format: LogFormat,
    /// Log what is done, not only what fails
    #[arg(long)]
    pub(super) debug: bool,
    /// Have systemd make the cgroups of new containers: --cgroup-manager systemd
    #[arg(long)]
    pub(super) systemd_cgroup: bool,
    /// Go on without a cgroup where the caller may not make one; auto: unless called by the machine's root
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    pub(super) rootless: Rootless,
    /// Who makes the cgroups of new containers
    #[arg(long, value_enum, value_name = "MANAGER", default_value = "cgroupfs")]
    pub(super) cgroup_manager: CgroupManager,
    /// Print the versions of the runtime and of the spec
    #[arg(long, short = 'v')]
    pub(super) version: bool,
}

impl Global {
    /// The flags before the command, as far as they are understood, from a command line that is not.
    pub(super) fn salvage(words: &[OsString]) -> Result<Self, clap::Error> {
        let known = Cli::command().ignore_errors(true);
        Self::from_arg_matches(&known.try_get_matches_from(words)?)
    }

    /// Whether a cgroup that the caller may not make is done without.
    pub(super) fn rootless(&self, caller: &Caller) -> bool {
        match self.rootless {
            Rootless::True => true,
            Rootless::False => false,
            Rootless::Auto => !caller.privileged,
        }
    }

    /// Who makes the cgroups of new containers.
    pub(super) fn manager(&self) -> Manager {
        match (self.systemd_cgroup, self.cgroup_manager) {
            (true, _) | (_, CgroupManager::Systemd) => Manager::Systemd,
            (false, CgroupManager::Cgroupfs) => Manager::Cgroupfs,
            (false, CgroupManager::Disabled) => Manager::Disabled,
        }
    }
}

/// When a missing cgroup is no failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Rootless {
    #[value(aliases = ["1", "t", "T", "TRUE", "True"])]
    True,
    #[value(aliases = ["0", "f", "F", "FALSE", "False"])]
    False,
    Auto,
}

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CgroupManager {
    /// This program
    Cgroupfs,
    /// systemd, as scopes named by cgroupsPath slice:prefix:name (cgroup v2 only)
    Systemd,
    /// Nobody: containers have no limits, and no cgroup to be paused or counted by
    Disabled,
}

/// Forms of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

/// The commands. Only the one that was asked for is built. Their arguments below bear no text of their own: it would take the
/// place of what is said here in each command's help.
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
    Exec(Box<Exec>),
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

#[derive(Debug, Args)]
pub(super) struct Id {
    /// The container's id
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

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
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = whole::<u32>)]
    pub(super) preserve_fds: u32,
    /// The new container's id
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

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

#[derive(Debug, Args)]
pub(super) struct Exec {
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub(super) cwd: Option<PathBuf>,
    /// Set an environment variable
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub(super) env: Vec<OsString>,
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
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = BoolishValueParser::new())]
    pub(super) no_new_privs: Option<bool>,
    /// Add a capability
    #[arg(long = "cap", short, value_name = "CAPABILITY")]
    pub(super) cap: Vec<String>,
    /// Pass this many descriptors from 3 on to the program
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = whole::<u32>)]
    pub(super) preserve_fds: u32,
    /// Socket that receives the master of the process's terminal
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// Socket that receives the process's pidfd
    #[arg(long, value_name = "SOCKET")]
    pub(super) pidfd_socket: Option<PathBuf>,
    /// Run in a cgroup below the container's, which is there
    #[arg(long, value_name = "[CONTROLLER:]PATH")]
    pub(super) cgroup: Vec<String>,
    /// Go on in a paused container
    #[arg(long)]
    pub(super) ignore_paused: bool,
    /// Obsolete: exec adopts nobody's orphans
    #[arg(long, hide = true)]
    pub(super) no_subreaper: bool,
    /// The container's id
    #[arg(value_name = "ID")]
    pub(super) id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(super) args: Vec<OsString>,
}

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

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Kill the container if it runs; a missing one is no error
    #[arg(long, short)]
    pub(super) force: bool,
    /// The container's id
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// table or json
    #[arg(long, short, default_value = "table", value_name = "FORMAT")]
    pub(super) format: String,
    /// Print ids only
    #[arg(long, short)]
    pub(super) quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct Spec {
    /// Path of the bundle
    #[arg(long, short, default_value = ".", value_name = "DIR")]
    pub(super) bundle: PathBuf,
    /// Write one that an ordinary user can run: the caller is root in a user namespace
    #[arg(long)]
    pub(super) rootless: bool,
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_says_what_it_is_for() {
        let mut cli = Cli::command();
        cli.build();
        let mut said = std::collections::HashSet::new();
        for command in cli.get_subcommands() {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(
                about.contains(' ') && !about.contains('`'),
                "{}: {about}",
                command.get_name()
            );
            assert!(said.insert(about.clone()), "{about}");
        }
    }
}
