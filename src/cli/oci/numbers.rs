//! Numbers and sizes as callers of runc write them, who have what Go's packages take.

use crate::error::{Error, Result};

/// What each letter of a size stands for, as a power of two.
const LETTERS: [(char, u32); 5] = [('k', 10), ('m', 20), ('g', 30), ('t', 40), ('p', 50)];

/// A whole number as Go reads a flag: `0x1f`, `0b11`, `0o17`, `017`, and `_` between digits.
pub(super) fn whole<T: TryFrom<i64>>(text: &str) -> std::result::Result<T, String> {
    read(text)
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| "must be a whole number that is not too large".into())
}

/// A whole number without a sign as Go reads one out of a text: decimal digits.
pub(super) fn unsigned(text: &str) -> std::result::Result<u64, String> {
    let number = Some(text).filter(|text| !text.starts_with('+'));
    number
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| "must be a whole number without a sign that is not too large".into())
}

fn read(text: &str) -> Option<i64> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let rest = rest.to_ascii_lowercase();
    let prefixes = [("0x", 16), ("0b", 2), ("0o", 8), ("0", 8)];
    let base = prefixes.into_iter().find(|(prefix, _)| rest.starts_with(prefix));
    let (digits, radix) = match base {
        Some((prefix, radix)) if rest != "0" => (&rest[prefix.len()..], radix),
        _ => (&rest[..], 10),
    };
    // One may also follow the base.
    let separated = match base {
        Some(_) => digits.strip_prefix('_').unwrap_or(digits),
        None => digits,
    };
    if separated
        .split('_')
        .any(|part| !part.starts_with(|c: char| c.is_digit(radix)))
    {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{}", separated.replace('_', "")), radix).ok()
}

/// A size in bytes: a number, which may have a point and an exponent, then perhaps a blank, and a letter with `b` or `ib`. -1 is no limit.
///
/// # Errors
/// [`Error::Invalid`], which names `option`.
pub(super) fn bytes(option: &str, text: &str) -> Result<i64> {
    if text == "-1" {
        return Ok(-1);
    }
    let size = size(text).ok_or_else(|| {
        Error::invalid(
            option,
            text,
            "is not a size; write a number with a suffix, such as 512M, 1.5G or 4G (1K is 1024 bytes)",
        )
    })?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what is behind the point is cut off, and what is too large was refused"
    )]
    if size < i64::MAX as f64 {
        Ok(size as i64)
    } else {
        Err(Error::invalid(option, text, "is too large"))
    }
}

fn size(text: &str) -> Option<f64> {
    let last = text.rfind(|c: char| c.is_ascii_digit() || matches!(c, '.' | ' '))?;
    let (number, suffix) = text.split_at(last + 1);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let number: f64 = number.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0)?;
    let suffix = suffix.to_ascii_lowercase();
    if matches!(&suffix[..], "" | "b") {
        return Some(number);
    }
    let (_, shift) = LETTERS
        .into_iter()
        .find(|(letter, _)| suffix.starts_with(*letter))?;
    matches!(&suffix[1..], "" | "b" | "ib").then(|| number * 2f64.powi(i32::try_from(shift).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_without_a_sign_have_none() {
        assert_eq!(
            (unsigned("0"), unsigned("18446744073709551615")),
            (Ok(0), Ok(u64::MAX))
        );
        for text in ["", "+5", "-1", "0x5", "1_0", " 1", "18446744073709551616"] {
            assert!(unsigned(text).is_err(), "{text}");
        }
    }

    #[test]
    fn whole_numbers_have_bases() {
        for (text, number) in [
            ("0", 0),
            ("-1", -1),
            ("+5", 5),
            ("0x1F", 31),
            ("-0x10", -16),
            ("0b11", 3),
            ("0o17", 15),
            ("017", 15),
            ("1_000", 1000),
            ("0x_1", 1),
            ("0_7", 7),
            ("9223372036854775807", i64::MAX),
        ] {
            assert_eq!(whole(text), Ok(number), "{text}");
        }
        for text in [
            "",
            "-",
            "x",
            "08",
            "0x",
            "1_",
            "_1",
            "1__0",
            "1.0",
            " 1",
            "--1",
            "+-1",
            "0x-1",
            "9223372036854775808",
        ] {
            assert!(whole::<i64>(text).is_err(), "{text}");
        }
        assert!(whole::<u16>("65536").is_err() && whole::<u32>("-1").is_err());
    }

    #[test]
    fn sizes_have_blanks_and_exponents() {
        for (text, size) in [
            ("-1", -1),
            ("0", 0),
            ("50", 50),
            ("50 M", 50 << 20),
            ("50 mib", 50 << 20),
            ("5 ", 5),
            ("5b", 5),
            ("1e3", 1000),
            ("1.5G", 3 << 29),
            (".5k", 512),
            ("2.", 2),
            ("1p", 1 << 50),
        ] {
            assert_eq!(bytes("--memory", text).ok(), Some(size), "{text}");
        }
        for text in [
            "", "M", "-5", "5  M", " 5", "5MM", "5mi", "5bb", "inf M", "nan 1", "5 MiBs", "9000000P",
        ] {
            assert!(bytes("--memory", text).is_err(), "{text}");
        }
    }
}
