//! Attacks: what a tenant, or whoever wrote an image, tries against the host, its operator and its neighbours.

mod archives;
mod descriptors;
mod devices;
mod disk;
mod memory;
mod network;
mod program;
mod sockets;
mod tables;
mod users;

pub use memory::from_inside;

/// The tests of all subjects.
pub const TESTS: &[&[crate::harness::Test]] = &[
    archives::TESTS,
    descriptors::TESTS,
    devices::TESTS,
    disk::TESTS,
    memory::TESTS,
    network::TESTS,
    sockets::TESTS,
    tables::TESTS,
    users::TESTS,
];
