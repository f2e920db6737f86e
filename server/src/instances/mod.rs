//! `/1.0/instances`: VPSs.

mod change;
mod create;
mod exec;
mod filter;
mod hub;
pub(crate) mod logs;
mod power;
mod relay;
mod show;
mod stream;
mod view;

pub(crate) use change::{configured, patch, put};
pub(crate) use create::create;
pub(crate) use exec::exec;
pub(crate) use power::{delete, set_state};
pub(crate) use show::{get, list, no_copies, state};
pub(crate) use view::labels;
