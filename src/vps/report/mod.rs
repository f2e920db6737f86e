//! VPSs as they are shown to people and scripts.

pub mod figures;
mod list;
