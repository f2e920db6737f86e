//! Tests of kernel effects: one integration binary whose modules mirror `src/`, with its own runner (see [`harness`]).

#[macro_use]
mod harness;

mod cgroups;

fn main() -> std::process::ExitCode {
    harness::main(&[cgroups::TESTS])
}
