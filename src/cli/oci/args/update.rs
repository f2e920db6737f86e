//! The arguments of `update`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::oci::numbers::{unsigned, whole};

#[derive(Debug, Args)]
pub(in crate::cli::oci) struct Update {
    /// File with the new resources as JSON, or - for standard input
    #[arg(long, short, value_name = "FILE", allow_hyphen_values = true)]
    pub(in crate::cli::oci) resources: Option<PathBuf>,
    /// Relative share of disk time, 10 to 1000
    #[arg(long, value_name = "N", value_parser = whole::<u16>)]
    pub(in crate::cli::oci) blkio_weight: Option<u16>,
    /// Period of the processor quota in microseconds
    #[arg(long, value_name = "USECS", value_parser = unsigned)]
    pub(in crate::cli::oci) cpu_period: Option<u64>,
    /// Processor time per period in microseconds
    #[arg(long, value_name = "USECS", allow_hyphen_values = true)]
    pub(in crate::cli::oci) cpu_quota: Option<i64>,
    /// Processor time that may be saved up, in microseconds
    #[arg(long, value_name = "USECS", value_parser = unsigned)]
    pub(in crate::cli::oci) cpu_burst: Option<u64>,
    /// Relative share of processor time
    #[arg(long, value_name = "N", value_parser = unsigned)]
    pub(in crate::cli::oci) cpu_share: Option<u64>,
    /// Period of the realtime quota in microseconds
    #[arg(long, value_name = "USECS", value_parser = unsigned)]
    pub(in crate::cli::oci) cpu_rt_period: Option<u64>,
    /// Realtime per period in microseconds
    #[arg(long, value_name = "USECS", allow_hyphen_values = true)]
    pub(in crate::cli::oci) cpu_rt_runtime: Option<i64>,
    /// 1 runs only when nobody else wants the processor
    #[arg(long, value_name = "0|1")]
    pub(in crate::cli::oci) cpu_idle: Option<i64>,
    /// Processors to use
    #[arg(long, value_name = "LIST")]
    pub(in crate::cli::oci) cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    pub(in crate::cli::oci) cpuset_mems: Option<String>,
    /// Memory limit in bytes, or with a suffix; -1 for none
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(in crate::cli::oci) memory: Option<String>,
    /// Memory that is protected in bytes, or with a suffix
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(in crate::cli::oci) memory_reservation: Option<String>,
    /// Limit of memory and swap together; -1 for none
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(in crate::cli::oci) memory_swap: Option<String>,
    /// Most processes; -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = whole::<i64>)]
    pub(in crate::cli::oci) pids_limit: Option<i64>,
    /// Obsolete: the kernel has no such limit any more
    #[arg(long, value_name = "SIZE", hide = true)]
    pub(in crate::cli::oci) kernel_memory: Option<String>,
    /// Obsolete, as above
    #[arg(long, value_name = "SIZE", hide = true)]
    pub(in crate::cli::oci) kernel_memory_tcp: Option<String>,
    /// Intel RDT: cache schema
    #[arg(long, value_name = "SCHEMA")]
    pub(in crate::cli::oci) l3_cache_schema: Option<String>,
    /// Intel RDT: memory bandwidth schema
    #[arg(long, value_name = "SCHEMA")]
    pub(in crate::cli::oci) mem_bw_schema: Option<String>,
    /// The container's id
    #[arg(value_name = "ID")]
    pub(in crate::cli::oci) id: String,
}
