//! One run of a VPS, from its claims to its end: [`spec`] renders the bundle, purely; [`monitor`] boots it and stays with it;
//! [`power`] starts and stops what the bundle describes; [`enter`] and [`console`] go in.

mod attach;
mod autostart;
mod console;
mod create;
mod crowded;
mod disk;
mod engines;
pub mod enter;
mod farewell;
mod figures;
mod freeze;
mod identity;
pub mod monitor;
mod nodes;
mod open;
mod power;
mod provision;
mod remains;
mod resize;
pub mod spec;
mod still;
mod streams;
pub mod transfer;
mod users;
