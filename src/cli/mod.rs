//! The edge: command lines, what is printed, and exit codes. The only place that prints.

pub mod exit;
pub mod oci;
pub mod output;
pub mod progress;
pub mod report;
pub mod verbosity;
pub mod vps;
