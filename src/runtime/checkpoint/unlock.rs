//! The network lock of a checkpoint, where the network namespace outlives it.
//!
//! CRIU holds connections by rules of `iptables(8)` that drop all packets, from the dump until the restore. In a namespace that is
//! the caller's to keep, the restore adds the same rules once more, takes away one set, and fails to: the other is still there.
//! A dump that fails while pages are fetched late leaves them as well: CRIU has decided by then that there will be a restore.

use std::path::Path;
use std::process::Command;

use super::criu;
use crate::error::Result;
use crate::namespaces::{Kind, enter};

/// CRIU's chain.
const CHAIN: &str = "CRIU";
/// How many seconds others may hold the lock of `iptables`, which need not be honest in a namespace that is theirs as well.
const PATIENCE: &str = "10";

/// Takes away all jumps into CRIU's chain but one in a network namespace. To be called right before CRIU unlocks.
pub(super) fn all_but_one(network: &Path) -> Result<()> {
    take_away(network, |jumps| jumps.saturating_sub(1))
}

/// Takes away one set of jumps, that of a dump that has come to nothing after CRIU's last look at the network.
pub(super) fn once(network: &Path) -> Result<()> {
    take_away(network, |jumps| jumps.min(1))
}

fn take_away(network: &Path, of: impl Fn(usize) -> usize) -> Result<()> {
    let work = || {
        enter::join(Kind::Network, network)?;
        for program in ["iptables", "ip6tables"] {
            for list in ["INPUT", "OUTPUT"] {
                thin_out(program, list, &of);
            }
        }
        Ok(())
    };
    criu::to_its_end(0, work)
}

/// CRIU locks without these programs as well, and has complained by then if they fail.
fn thin_out(program: &str, list: &str, of: impl Fn(usize) -> usize) {
    let shown = Command::new(program)
        .args(["--wait", PATIENCE, "-S", list])
        .output();
    let shown = shown.map(|done| done.stdout).unwrap_or_default();
    for _ in 0..of(jumps(&String::from_utf8_lossy(&shown))) {
        let mut delete = Command::new(program);
        let delete = delete.args(["--wait", PATIENCE, "-D", list, "-j", CHAIN]);
        let _ = delete.output();
    }
}

fn jumps(rules: &str) -> usize {
    let end = format!("-j {CHAIN}");
    rules
        .lines()
        .filter(|rule| rule.starts_with("-A ") && rule.ends_with(&end))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_jumps_into_the_chain_count() {
        assert_eq!(
            jumps("-P INPUT ACCEPT\n-A INPUT -j CRIU\n-A INPUT -j CRIUX\n-A INPUT -j CRIU\n"),
            2
        );
        assert_eq!(jumps(""), 0);
    }
}
