//! What VPSs ask of [`net`](crate::net).

pub(super) mod damage;
pub(super) mod doors;
pub(super) mod live;
pub(super) mod network;
pub mod networks;
pub(super) mod resolver;
mod seen;
pub(super) mod services;
pub(super) mod traffic;
