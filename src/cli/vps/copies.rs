//! Snapshots, clones, archives and moves: the commands, and the options of the first.

use clap::{Args as ClapArgs, Subcommand};

use super::archive::{ExportArgs, ImportArgs};
use super::migrate::{BackupArgs, MigrateArgs};
use super::usage::digits;
use crate::error::Result;
use crate::vps::record::name::Name;
use crate::vps::record::snapshots::SnapshotName;

/// The commands that copy VPSs.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(super) enum CopyCommand {
    /// Keep VPSs' disks as they are, and bring them back.
    Snapshot {
        #[command(subcommand)]
        command: SnapshotCommand,
    },
    /// Create a VPS out of another: its disk and limits, with a name, an address and an identity of its own.
    #[command(after_help = "Examples:\n  condo clone web web-2\n  condo clone web test --snapshot monday")]
    Clone {
        /// The VPS to copy.
        name: Name,
        /// The new VPS's name.
        new: Name,
        /// As it was at this snapshot, not as it is now.
        #[arg(long)]
        snapshot: Option<SnapshotName>,
    },
    /// Write a VPS into a file: its disk, its configuration and its image.
    #[command(
        after_help = "Examples:\n  condo export web -o web.condo\n  condo export web --since monday -o - | ssh backup 'cat > web.condo'"
    )]
    Export(ExportArgs),
    /// Create a VPS out of such files.
    #[command(
        after_help = "Examples:\n  condo import web.condo --name web\n  condo import monday.condo tuesday.condo --name web"
    )]
    Import(ImportArgs),
    /// Write VPSs into files in a folder, mostly only what has changed, and remove old ones.
    #[command(
        after_help = "Examples:\n  condo backup /srv/backup --all\n  condo backup /srv/backup web --keep-last 3 --keep-daily 14 --keep-weekly 8"
    )]
    Backup(BackupArgs),
    /// Move a VPS to another host over ssh: copied while it runs, then stopped for a moment.
    #[command(after_help = "Example:\n  condo migrate web ssh://root@other")]
    Migrate(MigrateArgs),
    /// Take a VPS that `condo migrate` sends from another host.
    #[command(hide = true)]
    Receive,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(super) enum SnapshotCommand {
    /// Keep a VPS's disk as it is now; a VPS that runs is frozen for a moment.
    #[command(
        after_help = "Examples:\n  condo snapshot create web before-upgrade\n  condo snapshot create --all --keep 7\n  condo snapshot create --due"
    )]
    Create(CreateArgs),
    /// List a VPS's snapshots, the oldest first.
    List {
        /// The VPS.
        name: Name,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Show one snapshot.
    Show {
        /// The VPS.
        name: Name,
        /// The snapshot.
        snapshot: SnapshotName,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Bring a VPS's disk back to a snapshot; name, address and limits stay.
    #[command(after_help = "Example:\n  condo snapshot restore web before-upgrade --force")]
    Restore {
        /// The VPS.
        name: Name,
        /// The snapshot.
        snapshot: SnapshotName,
        /// Also one that runs: it is stopped and started again.
        #[arg(short, long)]
        force: bool,
    },
    /// Remove snapshots.
    Delete {
        /// The VPS.
        name: Name,
        /// The snapshots.
        #[arg(value_name = "SNAPSHOT", required = true)]
        snapshots: Vec<SnapshotName>,
    },
    /// Tell which paths differ between a snapshot and another, or now.
    #[command(
        after_help = "Examples:\n  condo snapshot diff web monday\n  condo snapshot diff web monday tuesday --json"
    )]
    Diff {
        /// The VPS.
        name: Name,
        /// The snapshot.
        snapshot: SnapshotName,
        /// The later one, if not the VPS as it is now.
        other: Option<SnapshotName>,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct CreateArgs {
    /// The VPS.
    #[arg(required_unless_present_any = ["all", "due"])]
    pub(super) name: Option<Name>,
    /// The snapshot's name, if not one by the time.
    #[arg(conflicts_with_all = ["all", "due"])]
    pub(super) snapshot: Option<SnapshotName>,
    /// All VPSs.
    #[arg(short, long, conflicts_with = "name")]
    pub(super) all: bool,
    /// All VPSs whose schedule says that it is time (`condo set --schedule`; daily where nothing was said).
    #[arg(long, conflicts_with_all = ["name", "all", "keep"])]
    pub(super) due: bool,
    /// Remove it once there are N later ones that were made with this option.
    #[arg(long, value_name = "N", value_parser = keep)]
    pub(super) keep: Option<usize>,
}

fn keep(text: &str) -> Result<usize> {
    use crate::error::Error;
    let number = digits("--keep", text)?;
    let refuse = |problem| Err(Error::invalid("--keep", text, problem));
    match usize::try_from(number) {
        Ok(0) => refuse("must be above 0"),
        Ok(number) => Ok(number),
        Err(_) => refuse("is too many"),
    }
}
