//! The VPS manager: a VPS is an OCI bundle that condo writes for itself, plus a record, a root disk and a network.
//!
//! [`config`] is what the user asked for, checked once against [`facts`]; [`store`] claims what must be unique; [`spec`]
//! renders the bundle, purely; [`lifecycle`] starts and stops what the bundle describes.

pub mod config;
pub mod cpuset;
pub mod facts;
pub mod folders;
pub mod images;
pub mod lifecycle;
pub mod name;
pub mod size;
pub mod spec;
pub mod store;
pub mod view;
