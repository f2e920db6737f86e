//! The VPS manager as its user sees it: every test drives the program `condo` on an instance of its own, below a directory of
//! its own and in a network namespace of its own.

mod archives;
mod back_ends;
mod bad_input;
mod budget;
mod concurrency;
mod console;
mod copies;
mod cuts;
pub mod debian;
pub mod disk;
mod dns;
mod enter;
mod exits;
mod figures;
mod fio;
mod first_boot;
pub mod house;
mod identity;
mod inits;
mod isolation;
mod kills;
mod layered;
mod life;
mod limits;
mod moves;
mod nested;
mod network;
mod networks;
mod policy;
mod ports;
mod programs;
mod projects;
mod records;
mod repair;
mod services;
mod storm;
mod supervision;
pub mod terminal;
mod transfer;
mod usage;

/// The tests of all subjects.
pub const TESTS: &[&[crate::harness::Test]] = &[
    archives::TESTS,
    back_ends::TESTS,
    bad_input::TESTS,
    budget::TESTS,
    concurrency::TESTS,
    console::TESTS,
    copies::TESTS,
    debian::TESTS,
    disk::TESTS,
    dns::TESTS,
    enter::TESTS,
    exits::TESTS,
    figures::TESTS,
    fio::TESTS,
    first_boot::TESTS,
    inits::TESTS,
    identity::TESTS,
    isolation::TESTS,
    kills::TESTS,
    cuts::TESTS,
    layered::TESTS,
    life::TESTS,
    limits::TESTS,
    moves::TESTS,
    nested::TESTS,
    network::TESTS,
    policy::TESTS,
    ports::TESTS,
    networks::TESTS,
    programs::TESTS,
    projects::TESTS,
    records::TESTS,
    repair::TESTS,
    services::TESTS,
    storm::TESTS,
    supervision::TESTS,
    usage::TESTS,
    transfer::TESTS,
];
