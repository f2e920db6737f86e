//! VPSs as they are shown to people and scripts.

mod list;
