//! Tests of kernel effects: one integration binary whose modules mirror `src/`, with its own runner (see [`harness`]).
#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test binary: what clippy allows in #[test] functions, for a runner of our own"
)]

#[macro_use]
mod harness;
mod net;

fn main() -> std::process::ExitCode {
    harness::main(&[net::TESTS])
}
