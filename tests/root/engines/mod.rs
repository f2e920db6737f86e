//! `condo-runtime` under the engines that call it, as Debian packages them: each test has daemons of its own in a room of
//! its own ([`room`]), set up by the files of `examples/engines`.

mod beside;
mod client;
mod containerd;
mod cri;
mod docker;
mod image;
mod long;
mod podman;
mod room;

/// The tests of all engines.
pub const TESTS: &[&[crate::harness::Test]] = &[
    beside::TESTS,
    containerd::TESTS,
    cri::TESTS,
    docker::TESTS,
    podman::TESTS,
];

/// A file of `examples/engines` with the path of the runtime under test.
fn example(text: &str) -> String {
    text.replace(
        "/usr/local/bin/condo-runtime",
        &crate::harness::condo_runtime().display().to_string(),
    )
}
