//! The options that limit a VPS.

use clap::Args;

use super::usage::{digits, number};
use crate::net::rate;
use crate::vps::record::limits::Limits;
use crate::vps::record::size;

// Each option, as `create` has it. What is above the host or cannot be enforced is refused by the configuration's check.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// Processor time, in processors: 0.5 is half of one.
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = |t: &str| number("--cpus", t))]
    cpus: Option<f64>,
    /// Share of processor time when it is short, 1 to 10000; others have 100.
    #[arg(long, value_name = "N", value_parser = |t: &str| digits("--cpu-weight", t))]
    cpu_weight: Option<u64>,
    /// The processors it may run on, such as 0-3 or 0,2.
    #[arg(long, value_name = "LIST")]
    cpuset: Option<String>,
    /// Memory.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = |t: &str| size::parse("--memory", t))]
    memory: Option<u64>,
    /// Swap beside the memory; none by default when memory is limited.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = |t: &str| size::parse("--swap", t))]
    swap: Option<u64>,
    /// Processes and threads; 4096 by default.
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = |t: &str| digits("--pids", t))]
    pids: Option<u64>,
    /// Bytes read from the disk per second.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = |t: &str| size::parse("--io-read", t))]
    io_read: Option<u64>,
    /// Bytes written to the disk per second.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = |t: &str| size::parse("--io-write", t))]
    io_write: Option<u64>,
    /// Reads from the disk per second.
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = |t: &str| digits("--iops-read", t))]
    iops_read: Option<u64>,
    /// Writes to the disk per second.
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = |t: &str| digits("--iops-write", t))]
    iops_write: Option<u64>,
    /// Share of the disk's time when it is short, 10 to 1000; others have 100.
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = |t: &str| digits("--io-weight", t))]
    io_weight: Option<u64>,
    /// Bandwidth both ways, of all interfaces together: --rate-in and --rate-out in one.
    #[arg(long, value_name = "RATE", allow_hyphen_values = true, value_parser = |t: &str| rate::parse("--rate", t))]
    rate: Option<u64>,
    /// Bandwidth of what it receives, such as 10mbit; units as tc has them.
    #[arg(long, value_name = "RATE", allow_hyphen_values = true, value_parser = |t: &str| rate::parse("--rate-in", t))]
    rate_in: Option<u64>,
    /// Bandwidth of what it sends.
    #[arg(long, value_name = "RATE", allow_hyphen_values = true, value_parser = |t: &str| rate::parse("--rate-out", t))]
    rate_out: Option<u64>,
    /// How much may come at once after a pause, beyond the rates; 10 ms of them by default.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = |t: &str| size::parse("--burst", t))]
    burst: Option<u64>,
}

impl From<LimitArgs> for Limits {
    fn from(args: LimitArgs) -> Self {
        Self {
            cpus: args.cpus,
            cpu_weight: args.cpu_weight,
            cpuset: args.cpuset,
            memory: args.memory,
            swap: args.swap,
            pids: args.pids,
            io_read: args.io_read,
            io_write: args.io_write,
            iops_read: args.iops_read,
            iops_write: args.iops_write,
            io_weight: args.io_weight,
            rate_in: args.rate_in.or(args.rate),
            rate_out: args.rate_out.or(args.rate),
            burst: args.burst,
        }
    }
}
