//! VPSs as they are shown to people and scripts.

pub mod doctor;
pub mod figures;
mod host;
mod list;
pub mod metrics;
pub mod repair;
pub mod stats;
mod tables;
pub mod watch;
