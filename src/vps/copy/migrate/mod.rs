//! A VPS moved to another host, over ssh: rounds of copying while it runs, then a short stop.
//!
//! ```text
//!  here (send)                                    there (receive)
//!  hello name, token          ──────────────>     none, or: arrived, by this token
//!  image, by its digest       ──────────────>     none, or: done, it is here
//!  state (archive), state …   ──────────────>     its disk follows
//!  ── recorded here: leaving, token; it is stopped
//!  state                      ──────────────>
//!  commit                     ──────────────>     recorded there: arrived by this token; it is started
//!  it is deleted here         <──────────────     arrived
//! ```
//! Until the commit is recorded there, the VPS is this host's; from then on it is the other's. Between the two records it starts
//! nowhere: a VPS that is leaving does not start here until `migrate`, run again, has asked the other host whether it has it. There
//! the same lock is held by whoever receives a VPS of this name, so that the answer is final.

mod receive;
mod send;
mod target;
mod unclear;
mod wire;

pub use send::{MigrateOptions, Migrated};
pub use target::Target;
