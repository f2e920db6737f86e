//! Lists of processors as the kernel writes them (`cpuset(7)`, list format): `0`, `0-3`, `0,2,4-7`.

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::{Error, Result};
use crate::files;

/// The processors that the host has, and runs on now.
///
/// # Errors
/// The kernel's, and [`Error::Corrupt`] for a list that is none.
pub fn online() -> Result<BTreeSet<u32>> {
    let list = files::read_text(Path::new("/sys/devices/system/cpu/online"))?;
    let list = list.trim();
    parse(list).ok_or_else(|| Error::Corrupt(format!("the kernel lists its processors as `{list}`")))
}

/// Reads a list; `None` when it is malformed, empty, or runs backwards.
pub fn parse(text: &str) -> Option<BTreeSet<u32>> {
    let mut cpus = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// A processor number without sign or blanks, small enough that a range of them is no attack on memory.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| digits && *n < 65_536)
}

/// The list that [`parse`] reads as these processors.
pub fn display(cpus: &BTreeSet<u32>) -> String {
    let mut spans: Vec<(u32, u32)> = Vec::new();
    for cpu in cpus {
        match spans.last_mut() {
            Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
            _ => spans.push((*cpu, *cpu)),
        }
    }
    let span = |(first, last): &(u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    spans.iter().map(span).collect::<Vec<_>>().join(",")
}

/// As many of the host's processors as `cpus` processors' worth of time can keep busy: what the VPS sees, so that programs that start
/// a thread for each start as many as it has time for. `None` when that is all of them.
///
/// Which ones follows from the VPS's number alone: neighbours by number lie beside each other and fill the host evenly, without a
/// look at the others.
pub fn share(cpus: f64, id: u32, host: &BTreeSet<u32>) -> Option<BTreeSet<u32>> {
    // Above 0 and not above the host's processors, by the check of the configuration.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let count = cpus.ceil() as usize;
    if count >= host.len() {
        return None;
    }
    let first = (id as usize).wrapping_sub(1).wrapping_mul(count) % host.len();
    Some(host.iter().cycle().skip(first).take(count).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_written_as_it_is_read() {
        for text in ["0", "0-2,5", "1,3,5-6"] {
            assert_eq!(display(&parse(text).unwrap()), text);
        }
        assert_eq!(display(&[0, 1].into()), "0-1");
    }

    #[test]
    fn shares_fill_the_host_evenly() {
        let host: BTreeSet<u32> = [0, 1, 2, 3, 6, 7].into();
        let list = |cpus, id| share(cpus, id, &host).map(|set| display(&set));
        assert_eq!(list(2.0, 1).as_deref(), Some("0-1"));
        assert_eq!(list(1.5, 2).as_deref(), Some("2-3"));
        assert_eq!(list(2.0, 3).as_deref(), Some("6-7"));
        assert_eq!(list(2.0, 4).as_deref(), Some("0-1"));
        assert_eq!(
            list(4.0, 2).as_deref(),
            Some("0-1,6-7"),
            "it goes on at the beginning"
        );
        assert_eq!(list(0.01, 99_999).as_deref(), Some("2"));
        assert_eq!(list(5.5, 1), None, "that is all");
    }

    #[test]
    fn lists_and_ranges() {
        assert_eq!(parse("0"), Some([0].into()));
        assert_eq!(parse("0-2,5"), Some([0, 1, 2, 5].into()));
        assert_eq!(display(&[0, 2].into()), "0,2");
    }

    #[test]
    fn malformed_lists() {
        for bad in [
            "",
            ",",
            "0,",
            "a",
            "3-1",
            "0-",
            "-1",
            "+1",
            "0 - 1",
            "0-1-2",
            "0-4294967295",
            "1\n",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
