//! What VPSs ask of [`net`](crate::net).

pub(super) mod network;
pub mod networks;
