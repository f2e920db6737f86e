//! VPSs as they are shown to people and scripts.

pub mod figures;
pub mod doctor;
mod list;
pub mod metrics;
pub mod stats;
mod tables;
