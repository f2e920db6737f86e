//! Attacks: what a tenant, or whoever wrote an image, tries against the host, its operator and its neighbours.

mod archives;
mod disk;
mod network;

/// The tests of all subjects.
pub const TESTS: &[&[crate::harness::Test]] = &[archives::TESTS, disk::TESTS, network::TESTS];
