//! Names of images.

use crate::error::{Error, Result};

/// Longest name; it is a file name with a prefix, and is shown in tables.
const LONGEST: usize = 63;

/// Checks the name of an image: `[a-z0-9][a-z0-9._-]{0,62}`, so that it is a file name, never hidden and never an option.
///
/// # Errors
/// [`Error::Invalid`] with the rule.
pub fn validate_name(name: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    let good = bytes.len() <= LONGEST
        && bytes.first().is_some_and(|b| plain(*b))
        && bytes.iter().all(|b| plain(*b) || b"._-".contains(b));
    if good {
        return Ok(());
    }
    Err(Error::invalid(
        "image name",
        name.escape_debug(),
        "must be 1 to 63 of `a-z`, `0-9`, `.`, `_` and `-`, beginning with a letter or digit",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_paths_options_or_hidden_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            ".tmp-x",
            "-x",
            "a/b",
            "A",
            "a b",
            "a\n",
            "ä",
            &"a".repeat(64),
        ] {
            assert!(validate_name(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "debian-12", "0", "a.b_c-d", &"a".repeat(63)] {
            assert!(validate_name(good).is_ok(), "{good:?}");
        }
    }
}
