//! Which networks' rules were found whole, so that they are read again only after somebody else has changed rules: reading all takes longer
//! than what a command does to them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::error::{During, Result};
use crate::files;
use crate::net::{self, Generation, Network};
use crate::vps::record::instance::Condo;

/// What is known of the rules of one moment. It is kept in a file: a line for each network whose rules are whole, and of which moment.
pub(super) struct Seen {
    path: PathBuf,
    rules: Generation,
    /// By the names of their bridges.
    whole: BTreeSet<String>,
    /// Whether the file says less.
    more: bool,
}

impl Seen {
    /// What is known of the rules as they are now; the moment comes before any reading, so that a change meanwhile is not missed.
    pub(super) fn now(condo: &Condo) -> Result<Self> {
        let (path, rules) = (path(condo), net::generation()?);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        Ok(Self {
            whole: whole(&text, &rules.to_string()),
            path,
            rules,
            more: false,
        })
    }

    /// Whether a network's rules stand; they are read where that is not known.
    pub(super) fn stand(&mut self, network: &Network) -> Result<bool> {
        let stand = self.whole.contains(&network.bridge) || network.rules_stand()?;
        if stand {
            self.more |= self.whole.insert(network.bridge.clone());
        }
        Ok(stand)
    }

    /// Spares the next command the reading.
    pub(super) fn keep(&self) -> Result<()> {
        if !self.more {
            return Ok(());
        }
        let lines = self
            .whole
            .iter()
            .map(|bridge| format!("{} {bridge}\n", self.rules));
        // In place: a part of a line is none, and a kill leaves no second file.
        std::fs::write(&self.path, lines.collect::<String>())
            .during(|| format!("write `{}`", self.path.display()))
    }
}

/// Does work that changes rules as they are to be: those that were whole are whole after it, unless somebody else changed some meanwhile,
/// which shows in the kernel's count.
pub(super) fn across(condo: &Condo, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = Seen::now(condo)?;
    // Counted after the moment before and before the moment after: what another thread does in between is somebody else's.
    let made = net::changes();
    work()?;
    let made = net::changes().wrapping_sub(made);
    let rules = before.rules.after(made);
    if made == 0 || before.whole.is_empty() || net::generation()? != rules {
        return Ok(());
    }
    let more = true;
    Seen {
        rules,
        more,
        ..before
    }
    .keep()
}

/// Where it is kept. Without the file all is read.
pub(super) fn forget(condo: &Condo) -> Result<()> {
    files::remove_file(&path(condo))
}

fn path(condo: &Condo) -> PathBuf {
    condo.folders.run().join("rules.seen")
}

/// The bridges that whole lines of this moment name.
fn whole(text: &str, rules: &str) -> BTreeSet<String> {
    let lines = text
        .split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'));
    let of_now = lines.filter_map(|line| line.strip_prefix(rules)?.strip_prefix(' '));
    of_now.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_of_the_same_moment_count() {
        let text = "1 7 9 condo0\n1 8 9 condo-a\n1 7 9 condo-b\n1 7 9 cond";
        let found = |rules| whole(text, rules).into_iter().collect::<Vec<_>>();
        assert_eq!(found("1 7 9"), ["condo-b", "condo0"]);
        assert_eq!(found("1 8 9"), ["condo-a"]);
        assert!(found("2 7 9").is_empty() && whole("", "1 7 9").is_empty());
    }
}
