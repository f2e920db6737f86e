//! The options about what a VPS is used for.

use clap::Args;

use super::usage::digits;
use crate::vps::record::device::Device;
use crate::vps::record::ids;
use crate::vps::record::permit::Permit;

// As `create` has them.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Kernel")]
pub(super) struct InsideArgs {
    /// What of the host's kernel it may use that is closed otherwise. Several: comma or again.
    #[arg(long, value_name = "WHAT", value_delimiter = ',', long_help = permits())]
    pub(super) permit: Vec<Permit>,
    /// Make it ready for containers and sandboxes of its own: Docker, Podman, bubblewrap.
    #[arg(long)]
    pub(super) nesting: bool,
    /// Leave sysinfo(2) to the kernel, which tells the host's memory and load. For programs inside that let others answer their system
    /// calls (the interception of LXC and Incus): a process can have one who is asked.
    #[arg(long)]
    pub(super) host_sysinfo: bool,
    /// User and group ids it has, a multiple of 65536; 65536 by default, and 262144 with --nesting.
    #[arg(long, value_name = "N", value_parser = |t: &str| digits("--ids", t).and_then(ids::check))]
    pub(super) ids: Option<u32>,
    /// A device of the host's that it may open: fuse, kvm, tun or a path below /dev. Several: comma or again.
    #[arg(long, value_name = "DEVICE", value_delimiter = ',')]
    pub(super) device: Vec<Device>,
}

/// The help of `--permit`, with what there is.
fn permits() -> String {
    let mut help =
        "What of the host's kernel it may use that is closed otherwise. Several: comma or again.\n"
            .to_owned();
    for permit in Permit::ALL {
        help.push_str(&format!("\n- {}: {}", permit.as_str(), permit.meaning()));
    }
    help
}
