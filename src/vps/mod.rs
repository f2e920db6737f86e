//! The VPS manager: a VPS is an OCI bundle that condo writes for itself, plus a record, a root disk and a network.
//!
//! ```text
//!  report   VPSs as they are shown
//!  copy     copies in time and space: snapshots, clones, archives, moves
//!  run      one run of a VPS: its first files, its bundle, its monitor, its end, and programs that enter it
//!  wire     what VPSs ask of `net`
//!  record   what lasts: the configuration, checked against the host's facts; claims of what must be unique; folders
//! ```
//! A room names those below it, never those above.

pub mod copy;
pub mod record;
pub mod report;
pub mod run;
pub mod wire;
