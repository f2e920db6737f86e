//! Tests of kernel effects: one integration binary whose modules mirror `src/`, with its own runner (see [`harness`]).
//!
//! `cargo test --test root -- [--list] [--seed N] [PART OF A NAME]...`; with `scripts/guest` the same binary runs in a
//! virtual machine with cgroup v2.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test's way to fail, and the runner's to report"
)]
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "test modules take what they need of the harness"
    unreachable_pub,
    reason = "tests; the lints know only those of the standard runner as such"
#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test binary: what clippy allows in #[test] functions, for a runner of our own"
)]

#[macro_use]
mod harness;
mod rootfs;

mod cgroups;
mod image;
mod self_test;
mod storage;

fn main() -> std::process::ExitCode {
    // Tests that misbehave on purpose; `self_test` looks at what the runner says about them.
    if std::env::var_os(self_test::CULPRITS_ONLY).is_some() {
        return harness::main(&[self_test::CULPRITS]);
    }
    harness::main(&[
        rootfs::TESTS,
        self_test::TESTS, //
        cgroups::TESTS, //
        self_test::TESTS,
        image::TESTS,
        storage::TESTS,
    ])
mod seccomp;

fn main() -> std::process::ExitCode {
    harness::main(&[seccomp::TESTS])
mod net;

fn main() -> std::process::ExitCode {
    harness::main(&[net::TESTS])
}
