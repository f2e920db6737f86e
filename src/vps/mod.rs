//! The VPS manager: a VPS is an OCI bundle that condo writes for itself, plus a record, a root disk and a network.
//!
//! [`config`] is what the user asked for, checked once against [`facts`]; [`store`] claims what must be unique; [`spec`]
//! renders the bundle, purely; [`lifecycle`] starts and stops what the bundle describes.

mod claims;
pub mod config;
mod console;
pub mod cpuset;
mod crowded;
mod engines;
pub mod enter;
pub mod facts;
mod farewell;
pub mod folders;
mod identity;
pub mod images;
mod instance;
pub mod lifecycle;
pub mod monitor;
pub mod name;
mod network;
mod nodes;
pub mod permit;
mod power;
mod provision;
mod remains;
pub mod size;
pub mod spec;
pub mod store;
mod streams;
mod users;
pub mod view;
