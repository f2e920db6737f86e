//! Sizes as people write them: `4G`, `512M`, `1.5G`, `4096`. Base 1024, as memory is sold.

use crate::error::{Error, Result};

/// The letters and the power of two each stands for.
const SUFFIXES: [(&str, u32); 4] = [("K", 10), ("M", 20), ("G", 30), ("T", 40)];

/// More digits than this after the point would be cut off silently.
const MAX_DECIMALS: usize = 6;

/// Reads a size in bytes. `option` names it in the error (`--memory`).
///
/// Digits, at most one point, then nothing or one of `B K M G T` (also `KiB`, `MB`; either case). Signs, blanks, exponents
/// and anything behind the suffix are refused.
pub fn parse(option: &str, text: &str) -> Result<u64> {
    exact(text).ok_or_else(|| {
        Error::invalid(
            option,
            text,
            "is not a size; write a number with a suffix, such as 512M, 1.5G or 4G (1K is 1024 bytes)",
        )
    })
}

fn exact(text: &str) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let shift = shift(suffix)?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || decimals.is_empty() || decimals.len() > MAX_DECIMALS {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    let scale = 10_u64.pow(u32::try_from(decimals.len()).ok()?);
    let part = decimals.parse::<u64>().ok()?.checked_mul(1 << shift)? / scale;
    // Kernel and OCI fields are signed.
    whole.checked_add(part).filter(|n| i64::try_from(*n).is_ok())
}

/// The power of two a suffix stands for: a letter, which `B` or `iB` may follow.
fn shift(suffix: &str) -> Option<u32> {
    let upper = suffix.to_ascii_uppercase();
    if matches!(upper.as_str(), "" | "B") {
        return Some(0);
    }
    let (_, shift) = SUFFIXES.iter().find(|(letter, _)| upper.starts_with(letter))?;
    matches!(&upper[1..], "" | "B" | "IB").then_some(*shift)
}

/// A size for people: the largest suffix that leaves at least 1, with one decimal where it says something (`1.5G`).
pub fn display(bytes: u64) -> String {
    let (suffix, shift) = SUFFIXES
        .iter()
        .rev()
        .find(|(_, shift)| bytes >> shift >= 1)
        .copied()
        .unwrap_or(("B", 0));
    let tenths = (u128::from(bytes) * 10) >> shift;
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole}{suffix}"),
        (whole, tenth) => format!("{whole}.{tenth}{suffix}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_base_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1B", 1),
            ("1K", 1024),
            ("1k", 1024),
            ("64KB", 65536),
            ("512M", 512 << 20),
            ("1.5G", 3 << 29),
            ("0.5MiB", 1 << 19),
            ("4g", 4 << 30),
            ("2T", 2 << 40),
        ] {
            assert_eq!(parse("--memory", text).unwrap(), bytes, "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "G",
            "-1G",
            "+1G",
            "1 G",
            " 1G",
            "1G ",
            "1GG",
            "1Gx",
            "1iB",
            "1e3",
            "1.G",
            ".5G",
            "1.2.3G",
            "1,5G",
            "0x10",
            "1P",
            "9223372036854775808",
            "9999999999T",
            "1.0000001G",
            "١G",
            "1BB",
            "inf",
            "NaN",
            "1G\n",
        ] {
            assert!(parse("--memory", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_error_names_the_option() {
        let text = parse("--swap", "much").unwrap_err().to_string();
        assert!(text.starts_with("--swap: `much` is not a size"), "{text}");
    }

    #[test]
    fn sizes_are_shown_short() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1K"),
            (3 << 29, "1.5G"),
            (512 << 20, "512M"),
        ] {
            assert_eq!(display(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_read(bytes in 0_u64..1 << 50) {
            let read = parse("x", &display(bytes)).unwrap();
            prop_assert!(read <= bytes && bytes - read <= bytes / 10);
        }

        #[test]
        fn no_text_panics(text in ".{0,24}") {
            let _ = parse("x", &text);
        }
    }
}
