//! Address families that a VPS does not get.

use anyhow::{Result, ensure};

use super::program::{Arg, Entry, run};
use crate::vps::house::House;

tests![families_are_closed_by_every_entry];

const ENOSYS: i32 = 38;
const EAFNOSUPPORT: i32 = 97;

/// IPv4; ALG, vsock, XDP.
const INET: u32 = 2;
const CLOSED: [u32; 3] = [38, 40, 44];

/// The stream socket of a family, by i386's `socketcall` with its arguments in memory, where no filter looks.
fn by_socketcall(house: &House, name: &str, family: u32) -> Result<i32> {
    let call = (102, &[Arg::Number(1), Arg::Data(0)][..]);
    run(house, name, Entry::Narrow, &[call], &[family, 1, 0])
}

fn by_socket(house: &House, name: &str, entry: Entry, family: u32) -> Result<i32> {
    let number = if entry == Entry::Wide { 41 } else { 359 };
    let args = [family, 1, 0].map(Arg::Number);
    run(house, name, entry, &[(number, &args)], &[])
}

fn families_are_closed_by_every_entry() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    for entry in [Entry::Wide, Entry::Narrow] {
        let seen = by_socket(&house, "web", entry, INET)?;
        ensure!(seen == 0, "{entry:?}: an IPv4 socket fails with {seen}");
        for family in CLOSED {
            let seen = by_socket(&house, "web", entry, family)?;
            ensure!(
                seen == EAFNOSUPPORT,
                "{entry:?}: family {family} fails with {seen}"
            );
        }
    }
    for family in CLOSED.into_iter().chain([INET]) {
        let seen = by_socketcall(&house, "web", family)?;
        ensure!(seen == ENOSYS, "socketcall for family {family} fails with {seen}");
    }
    // Whom the operator trusts with it.
    house.running("old", "--permit socketcall")?;
    let seen = by_socketcall(&house, "old", INET)?;
    ensure!(seen == 0, "the permitted socketcall fails with {seen}");
    let shown = house.ok("show old")?;
    ensure!(
        shown
            .lines()
            .any(|l| l.starts_with("permitted") && l.ends_with("socketcall")),
        "{shown}"
    );
    house.leave()
}
