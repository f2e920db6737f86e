//! Attacks: what a tenant, or whoever wrote an image, tries against the host, its operator and its neighbours.

mod archives;
mod descriptors;
mod disk;
mod network;
mod users;

/// The tests of all subjects.
pub const TESTS: &[&[crate::harness::Test]] = &[
    archives::TESTS,
    descriptors::TESTS,
    disk::TESTS,
    network::TESTS,
    users::TESTS,
];
