//! Tests of kernel effects: one integration binary whose modules mirror `src/`, with its own runner (see [`harness`]).
//!
//! `cargo test --test root -- [--list] [--seed N] [--in-guest] [--quick] [PART OF A NAME]...`; with `scripts/guest` the same binary runs in a
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
)]

#[macro_use]
mod harness;

mod api;
mod attack;
mod bench;
mod cgroups;
mod docs;
mod engines;
mod image;
mod net;
mod rootfs;
mod runtime;
mod seccomp;
mod self_test;
mod storage;
mod vps;

/// The tests of modules that have no list of their own.
const MODULES: &[&[harness::Test]] = &[
    api::TESTS,
    api::ansible::TESTS,
    api::acls::TESTS,
    api::browser::TESTS,
    api::clients::TESTS,
    api::files::TESTS,
    api::host::TESTS,
    api::images::TESTS,
    api::metrics::TESTS,
    api::load::TESTS,
    api::projects::TESTS,
    api::remote::TESTS,
    api::schema::TESTS,
    api::setup::TESTS,
    api::socket::TESTS,
    api::tenants::TESTS,
    cgroups::TESTS,
    cgroups::reader::TESTS,
    cgroups::resources::TESTS,
    docs::TESTS,
    net::TESTS,
    net::doors::TESTS,
    net::doors6::TESTS,
    net::others::TESTS,
    net::shape::TESTS,
    net::shortcut::TESTS,
    runtime::apparmor::TESTS,
    runtime::binds::TESTS,
    runtime::budget::TESTS,
    runtime::capabilities::TESTS,
    runtime::checkpoint::choices::TESTS,
    runtime::checkpoint::life::TESTS,
    runtime::checkpoint::memory::TESTS,
    runtime::checkpoint::outside::TESTS,
    runtime::checkpoint::refusals::TESTS,
    runtime::command_line::TESTS,
    runtime::config::TESTS,
    runtime::crash::TESTS,
    runtime::devices::TESTS,
    runtime::faults::TESTS,
    runtime::figures::TESTS,
    runtime::filters::TESTS,
    runtime::hooks::TESTS,
    runtime::hostile::TESTS,
    runtime::lifecycle::TESTS,
    runtime::managers::TESTS,
    runtime::namespaces::TESTS,
    runtime::notify::TESTS,
    runtime::priorities::TESTS,
    runtime::process::TESTS,
    runtime::reading::TESTS,
    runtime::refusals::TESTS,
    runtime::resources::TESTS,
    runtime::rootless::TESTS,
    runtime::rootless::delegated::TESTS,
    runtime::rootless::nested::TESTS,
    runtime::rootless::ranges::TESTS,
    runtime::security::TESTS,
    runtime::selinux::TESTS,
    runtime::signals::TESTS,
    runtime::systemd::TESTS,
    runtime::terminal::TESTS,
    seccomp::TESTS,
    self_test::TESTS,
    storage::TESTS,
];

fn main() -> std::process::ExitCode {
    if let Ok(rounds) = std::env::var("CONDO_BENCH") {
        let rounds = rounds.parse().expect("CONDO_BENCH is a number of rounds");
        let times = std::env::var_os("CONDO_BENCH_TIMES").unwrap_or_default();
        let take_in = |subject, title| bench::figures::take_in(subject, title, &times);
        let measured = match std::env::var("CONDO_BENCH_OF").as_deref() {
            Ok("network") => bench::network::main(rounds),
            Ok("vps") => take_in("vpss", "A VPS's start, exec and end next to Docker's and LXC's"),
            Ok("ssh") => take_in("ssh", "From a Debian's creation to the first login"),
            _ => bench::main(rounds),
        };
        measured.expect("the benchmark");
        return std::process::ExitCode::SUCCESS;
    }
    // Tests that misbehave on purpose; `self_test` looks at what the runner says about them.
    if std::env::var_os(self_test::CULPRITS_ONLY).is_some() {
        return harness::main(&[self_test::CULPRITS]);
    }
    // An attacker, started by a test.
    if attack::from_inside().expect("the attack") {
        return std::process::ExitCode::SUCCESS;
    }
    harness::main(
        &[
            MODULES,
            attack::TESTS,
            engines::TESTS,
            image::ALL,
            rootfs::TESTS,
            vps::TESTS,
        ]
        .concat(),
    )
}
