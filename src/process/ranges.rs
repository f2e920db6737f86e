//! The "list format" of `cpuset(7)`: numbers and ranges, comma separated. Blanks and commas too many are taken, as runc takes them.

use crate::error::{Error, Result};

/// The numbers of a list such as `0-3,5`, each below `bound`.
///
/// # Errors
/// Names the field of a list that is malformed or has a number too high.
pub(super) fn numbers(field: &str, list: &str, bound: usize) -> Result<Vec<usize>> {
    let number = |text: &str| -> Option<usize> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|n| digits && *n < bound)
    };
    let malformed = || {
        let wanted = format!("must be a list such as `0-3,5` of numbers below {bound}");
        Error::invalid(field, list, wanted)
    };
    let mut found = Vec::new();
    let parts = list.split(',').map(str::trim).filter(|part| !part.is_empty());
    for part in parts {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => found.extend(first..=last),
            _ => return Err(malformed()),
        }
    }
    if found.is_empty() {
        return Err(malformed());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_spelled_out_and_bounded() {
        assert_eq!(numbers("f", "0-2,5", 6).unwrap(), [0, 1, 2, 5]);
        assert_eq!(numbers("f", " 0-1 ,,5,", 6).unwrap(), [0, 1, 5]);
        for bad in ["", ",", "6", "3-1", "-1", "+1", "0-1-2", "a", "0-4000000000000"] {
            let e = numbers("f", bad, 6).unwrap_err().to_string();
            assert!(e.starts_with(&format!("f: `{bad}` must be a list")), "{e}");
        }
    }
}
