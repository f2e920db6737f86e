//! Signals by name or number.

use nix::sys::signal::Signal;

use crate::error::{Error, Result};

/// `SIGRTMIN` and `SIGRTMAX` as programs see them: the C library keeps the kernel's first two real-time signals for itself
/// (`signal(7)`).
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Reads `KILL`, `SIGTERM`, `9`, `RTMIN+3`.
pub(super) fn parse(text: &str) -> Result<i32> {
    by_number(text)
        .or_else(|| by_name(&text.to_ascii_uppercase()))
        .ok_or_else(|| {
            Error::invalid(
                "--signal",
                text,
                "is not a signal's name (such as TERM) or number (1 to 64)",
            )
        })
}

fn by_number(text: &str) -> Option<i32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| plain && (1..=64).contains(n))
}

fn by_name(upper: &str) -> Option<i32> {
    let name = upper.strip_prefix("SIG").unwrap_or(upper);
    let Some(offset) = name.strip_prefix("RTMIN") else {
        return format!("SIG{name}")
            .parse::<Signal>()
            .ok()
            .map(|signal| signal as i32);
    };
    let offset = match offset.strip_prefix('+') {
        None if offset.is_empty() => 0,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse::<i32>().ok()?,
        _ => return None,
    };
    REAL_TIME
        .start()
        .checked_add(offset)
        .filter(|signal| REAL_TIME.contains(signal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("KILL", 9),
            ("SIGTERM", 15),
            ("sigpwr", 30),
            ("1", 1),
            ("64", 64),
            ("RTMIN+3", 37),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for bad in [
            "",
            "SIG",
            "0",
            "65",
            "-9",
            "+9",
            "9 ",
            "TERMINATE",
            "RTMIN+31",
            "RTMIN+-1",
            "RTMIN+",
            "RTMIN3",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
