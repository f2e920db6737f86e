//! Lists of processors as the kernel writes them (`cpuset(7)`, list format): `0`, `0-3`, `0,2,4-7`.

use std::collections::BTreeSet;

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

/// The list that [`parse`] reads as these processors.
pub fn display(cpus: &BTreeSet<u32>) -> String {
    let numbers: Vec<String> = cpus.iter().map(u32::to_string).collect();
    numbers.join(",")
}

/// A processor number without sign or blanks, small enough that a range of them is no attack on memory.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| digits && *n < 65_536)
}

#[cfg(test)]
mod tests {
    use super::*;

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
