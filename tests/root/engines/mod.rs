//! `condo-runtime` under the engines that call it, as Debian packages them: each test has daemons of its own in a room of
//! its own ([`room`]), set up by the files of `examples/engines`.

mod beside;
mod client;
mod containerd;
mod cri;
mod docker;
mod image;
mod inside;
mod long;
mod podman;
mod room;
mod swarm;
mod vps;

/// The tests of all engines.
pub const TESTS: &[&[crate::harness::Test]] = &[
    beside::TESTS,
    containerd::TESTS,
    cri::TESTS,
    docker::TESTS,
    inside::TESTS,
    podman::TESTS,
    swarm::TESTS,
    vps::TESTS,
];

/// A file of `examples/engines` with the paths of the runtime under test, by both of its names.
fn example(text: &str) -> String {
    let runtime = crate::harness::condo_runtime();
    let second = crate::harness::tempdir().join("condo-vps");
    let _ = std::os::unix::fs::symlink(&runtime, &second);
    text.replace("/usr/local/bin/condo-runtime", &runtime.display().to_string())
        .replace("/usr/local/bin/condo-vps", &second.display().to_string())
}
