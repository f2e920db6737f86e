//! The options of a VPS's disk.

use clap::Args;

use super::usage::digits;
use crate::storage::Quota;
use crate::vps::record::size;

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Disk")]
pub(super) struct DiskArgs {
    /// How much fits on its disk.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = |t: &str| size::parse("--disk", t))]
    disk: Option<u64>,
    /// How many files and directories fit on its disk.
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = |t: &str| digits("--inodes", t))]
    inodes: Option<u64>,
}

impl From<DiskArgs> for Quota {
    fn from(args: DiskArgs) -> Self {
        Self {
            size: args.disk,
            inodes: args.inodes,
        }
    }
}
