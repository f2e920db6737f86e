//! `/1.0/instances`: VPSs.

pub(crate) mod backups;
mod change;
mod console;
mod create;
mod exec;
pub(crate) mod files;
mod filter;
mod hub;
pub(crate) mod logs;
mod power;
mod relay;
mod show;
pub(crate) mod snapshots;
mod stream;
mod view;

pub(crate) use change::{configured, patch, put, rename};
pub(crate) use console::console;
pub(crate) use create::create;
pub(crate) use exec::exec;
pub(crate) use filter::Filter;
pub(crate) use power::{delete, set_state};
pub(crate) use show::{get, list, state};
pub(crate) use view::labels;
