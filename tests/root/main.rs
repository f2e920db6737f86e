//! Tests of kernel effects: one integration binary whose modules mirror `src/`, with its own runner (see [`harness`]).

#[macro_use]
mod harness;
mod image;
mod storage;

fn main() -> std::process::ExitCode {
    harness::main(&[image::TESTS, storage::TESTS])
}
