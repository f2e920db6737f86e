//! Which ids there are to make ranges of: those that the whole machine keeps for it, or what the user namespace that condo is in has
//! beyond its own first users.

use std::ops::Range;
use std::path::Path;

use super::ranges::SIZE;
use crate::error::{During, Result};
use crate::files;

/// Where ranges of the machine begin: behind what systemd-nspawn hands out by itself (systemd's UIDS-GIDS: 524288 to 1879048191) ...
const FIRST: u32 = 0x7000_0000;
/// ... and where they end: at its range for trees of foreign owners, and well below 2^31, which some programs take for negative.
const END: u32 = 0x7FFE_0000;
/// The others of a machine, for what comes after all of those are taken: the kernel knows no difference, and what shows them as negative
/// numbers is on the host alone ...
const OTHERS: u32 = 0x8000_0000;
/// ... up to those that mean "none" with 16 or 32 bits.
const LAST: u32 = 0xFFFE_0000;
// So that every range of either begins at one, and is whole.
const _: () = assert!((FIRST | END | OTHERS | LAST).is_multiple_of(SIZE));

/// Ids beside each other, and some of a machine's that are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    first: u32,
    end: u32,
    /// Where the others end.
    others: u32,
}

impl Span {
    /// The machine's.
    pub(super) const MACHINE: Self = Self {
        first: FIRST,
        end: END,
        others: LAST,
    };

    /// What this process's user namespace has to give.
    ///
    /// # Errors
    /// Where `/proc` cannot be read.
    pub(super) fn here() -> Result<Self> {
        let read = |path: &str| files::read_text(Path::new(path)).during(|| format!("read `{path}`"));
        Ok(Self::of(
            &read("/proc/self/uid_map")?,
            &read("/proc/self/gid_map")?,
        ))
    }

    /// By the two maps (`user_namespaces(7)`). The first range is what the namespace itself has users of.
    fn of(uids: &str, gids: &str) -> Self {
        match ids_from_root(uids).min(ids_from_root(gids)) {
            u32::MAX => Self::MACHINE,
            ids => Self {
                first: SIZE,
                end: (ids / SIZE * SIZE).max(SIZE),
                others: OTHERS,
            },
        }
    }

    /// The first id of the range with this number.
    pub(super) fn base(self, number: u32) -> u32 {
        match number.checked_sub(self.usual()) {
            None => self.first + number * SIZE,
            Some(other) => OTHERS + other * SIZE,
        }
    }

    /// How many ranges there are.
    pub(super) fn count(self) -> u32 {
        self.usual() + (self.others - OTHERS) / SIZE
    }

    /// How many of them there are before the others.
    pub(super) fn usual(self) -> u32 {
        (self.end - self.first) / SIZE
    }

    /// The numbers of all of them, from this one on; the others, as long as it is not one of them, after the usual ones.
    pub(super) fn numbers_from(self, number: u32) -> impl Iterator<Item = u32> {
        let (usual, others) = (0..self.usual(), self.usual()..self.count());
        let (first, then) = if others.contains(&number) {
            (others, usual)
        } else {
            (usual, others)
        };
        turned(first, number).chain(turned(then, number))
    }

    /// Whether an id is of those that ranges are made of.
    pub(super) fn contains(self, id: u32) -> bool {
        (self.first..self.end).contains(&id) || (OTHERS..self.others).contains(&id)
    }

    /// Whether a range begins at this id. Another would overlap two.
    pub(super) fn has(self, base: u32) -> bool {
        self.contains(base) && base.is_multiple_of(SIZE)
    }
}

/// All of these numbers, and this one first if it is among them.
fn turned(numbers: Range<u32>, first: u32) -> impl Iterator<Item = u32> {
    let first = if numbers.contains(&first) {
        first
    } else {
        numbers.start
    };
    (first..numbers.end).chain(numbers.start..first)
}

/// How many ids are mapped from 0 on, without a gap.
fn ids_from_root(map: &str) -> u32 {
    let line = |line: &str| {
        let mut fields = line.split_ascii_whitespace().map(str::parse::<u32>);
        let (inside, size) = (fields.next()?.ok()?, fields.nth(1)?.ok()?);
        Some((inside, size))
    };
    let mut lines: Vec<(u32, u32)> = map.lines().filter_map(line).collect();
    lines.sort_unstable();
    lines.iter().fold(0, |ids, (inside, size)| match *inside <= ids {
        true => ids.max(inside.saturating_add(*size)),
        false => ids,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_what_nobody_else_hands_out() {
        let all = "         0          0 4294967295\n";
        let span = Span::of(all, all);
        assert_eq!(span, Span::MACHINE);
        assert!(span.base(0) > 1_879_048_191 && span.base(span.usual() - 1) + SIZE <= 2_147_352_576);
    }

    #[test]
    fn a_namespace_has_what_is_behind_its_own_users() {
        let span = |uids: &str, gids: &str| Span::of(uids, gids);
        let four = span("0 1879048192 262144", "0 1879048192 262144");
        assert_eq!((four.base(0), four.count()), (65_536, 3));
        // An ordinary VPS, what Docker's userns-remap gives, a single user.
        for few in ["0 1879048192 65536", "0 100000 65536", "0 1000 1"] {
            assert_eq!(span(few, few).count(), 0, "{few}");
        }
        // As rootless engines have it; what is mapped to nothing in between ends it, and the lesser of both counts.
        let lines = "1 100000 200000\n0 1000 1\n";
        assert_eq!(span(lines, lines).count(), 2);
        assert_eq!(span(lines, "0 5 131072").count(), 1);
        assert_eq!(span("0 5 65536\n70000 200000 900000", lines).count(), 0);
    }

    #[test]
    fn a_machine_has_others_when_those_are_taken() {
        let span = Span::MACHINE;
        assert_eq!((span.usual(), span.count()), (4094, 36_860));
        assert_eq!((span.base(4094), span.base(36_859)), (0x8000_0000, 0xFFFD_0000));
        for number in [0, 4093, 4094, 36_859] {
            assert!(span.has(span.base(number)), "{number}");
        }
        for id in [
            0x7FFE_0000,
            0x7FFF_0000,
            0x8000_0001,
            0xFFFE_0000,
            0xFFFF_0000,
            u32::MAX,
        ] {
            assert!(!span.has(id), "{id}");
        }
        assert!(span.contains(0xFFFD_FFFF) && !span.contains(0x7FFF_FFFF) && !span.contains(0xFFFE_0000));
        let order = |number| span.numbers_from(number).collect::<Vec<_>>();
        for (number, begin, end) in [
            (0, [0, 1], 36_859),
            (4093, [4093, 0], 36_859),
            (36_859, [36_859, 4094], 4093),
        ] {
            let mut order = order(number);
            assert_eq!((order[..2].to_vec(), order[36_859]), (begin.to_vec(), end));
            order.sort_unstable();
            assert!(order.into_iter().eq(0..36_860));
        }
        assert!(Span::of("0 1000 1", "0 1000 1").numbers_from(7).next().is_none());
    }

    #[test]
    fn ranges_lie_beside_each_other() {
        let span = Span::of("0 0 200000", "0 0 200000");
        assert_eq!(span.count(), 2);
        let begin = |id: u32| span.has(id);
        assert!(begin(65_536) && begin(131_072));
        for id in [0, 1, 65_535, 65_537, 196_608, u32::MAX] {
            assert!(!begin(id), "{id}");
        }
        assert!(span.contains(196_607) && !span.contains(196_608) && !span.contains(65_535));
    }
}
