//! VPSs as they are shown to people and scripts.

pub mod doctor;
pub mod figures;
mod list;
pub mod metrics;
pub mod stats;
mod tables;
