//! What lasts of VPSs: [`config`] is what the user asked for, checked once against [`facts`]; [`store`] keeps it and claims what
//! must be unique; [`folders`] says where everything is;
//! [`settings`] is what the operator has set for the host.

pub mod attachment;
pub mod change;
mod claims;
pub mod config;
pub mod cpuset;
pub mod device;
pub mod disk;
pub mod domain;
pub mod events;
pub mod facts;
pub mod first_boot;
pub mod folders;
pub mod ids;
pub mod images;
pub mod instance;
pub mod labels;
pub mod limits;
pub mod name;
pub mod network;
pub mod pending;
pub mod permit;
pub mod plans;
pub mod policy;
pub mod project;
pub mod rescue;
pub mod schedule;
pub mod settings;
pub mod size;
pub mod snapshots;
pub mod store;
pub mod traffic;
pub mod view;
