//! The OCI runtime: from a bundle to a running container and back to nothing.
//!
//! [`plan`] decides, [`claim`] reserves, [`init`] does, [`state`] remembers, [`container`] is what later invocations work with.

pub mod bundle;
pub mod checkpoint;
pub mod claim;
pub mod console;
pub mod container;
pub mod flow;
pub mod foreground;
pub mod hooks;
pub mod id;
pub mod init;
mod lsm;
pub mod notify;
pub mod plan;
mod rootless;
pub mod spelling;
pub mod state;
pub mod status;
mod sysctl;
pub mod waiting;
mod zero;
