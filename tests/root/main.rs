//! Tests of kernel effects: one integration binary whose modules mirror `src/`, with its own runner (see [`harness`]).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    reason = "tests; the lints know only those of the standard runner as such"
)]

#[macro_use]
mod harness;
mod seccomp;

fn main() -> std::process::ExitCode {
    harness::main(&[seccomp::TESTS])
}
