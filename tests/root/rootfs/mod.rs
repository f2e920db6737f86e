//! The mount tree, on a rootfs in a tmpfs of the test's own mount namespace: nothing outlives the test process.

mod bench;
mod cgroups;
mod console;
mod devices;
mod inside;
mod links;
mod masks;
mod mounts;
mod procfs;
mod tree;

/// The tests of all of it.
pub const TESTS: &[&[crate::harness::Test]] = &[
    cgroups::TESTS,
    console::TESTS,
    devices::TESTS,
    links::TESTS,
    masks::TESTS,
    mounts::TESTS,
    procfs::TESTS,
    tree::TESTS,
];
