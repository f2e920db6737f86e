//! Signals as users write them.

use nix::sys::signal::Signal as Name;
use rustix::process::Signal;

use crate::error::{Error, Result};

/// Lowest and highest realtime signals as the kernel numbers them; C libraries keep the first two for themselves.
const REALTIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Whether a text names signal 0, by which `kill(2)` only asks whether there is somebody.
pub fn is_question(text: &str) -> bool {
    number(text) == Some(0)
}

/// Reads `TERM`, `SIGTERM`, `15`, `+15` or `SIGRTMIN+3`; `field` names the option in the error.
pub fn parse(field: &str, text: &str) -> Result<Signal> {
    let unknown = || {
        Error::invalid(
            field,
            text,
            "is not a signal: use a name such as TERM or a number",
        )
    };
    let number = match number(text) {
        Some(number) => number,
        None => named(&text.to_ascii_uppercase()).ok_or_else(unknown)?,
    };
    from_number(number).ok_or_else(unknown)
}

/// The signal of this number, realtime signals included.
pub fn from_number(number: i32) -> Option<Signal> {
    Signal::from_named_raw(number).or_else(|| crate::sys::signal::realtime(number))
}

fn named(text: &str) -> Option<i32> {
    let name = text.strip_prefix("SIG").unwrap_or(text);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let number = REALTIME.start().checked_add(offset_by('+', offset)?)?;
        return Some(number).filter(|n| REALTIME.contains(n));
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        let number = REALTIME.end().checked_sub(offset_by('-', offset)?)?;
        return Some(number).filter(|n| REALTIME.contains(n));
    }
    format!("SIG{name}")
        .parse::<Name>()
        .ok()
        .map(|signal| signal as i32)
}

/// Nothing, or the sign and a number.
fn offset_by(sign: char, text: &str) -> Option<i32> {
    if text.is_empty() {
        return Some(0);
    }
    digits(text.strip_prefix(sign)?)
}

/// A number as Go reads one, as far as it is not negative.
fn number(text: &str) -> Option<i32> {
    digits(text.strip_prefix('+').unwrap_or(text))
}

/// A number without a sign.
fn digits(text: &str) -> Option<i32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_realtime_signals_are_read() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGKILL", 9),
            ("hup", 1),
            ("15", 15),
            ("+15", 15),
            ("015", 15),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(parse("signal", text).unwrap().as_raw(), number, "{text}");
        }
        for bad in [
            "",
            "SIG",
            "NOPE",
            "0",
            "65",
            "-1",
            "SIGRTMIN+40",
            "RTMIN+-1",
            "15x",
            "+",
            "++9",
            "+-9",
            "+TERM",
            "+0",
            "9 ",
            "TERMINATE",
            "RTMIN+31",
            "RTMIN+",
            "RTMIN3",
            "RTMIN++1",
            "RTMAX-31",
            "RTMIN+99999999999",
        ] {
            assert!(parse("signal", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn zero_is_a_question() {
        for (text, is) in [
            ("0", true),
            ("+0", true),
            ("00", true),
            ("", false),
            ("-0", false),
            ("1", false),
        ] {
            assert_eq!(is_question(text), is, "{text}");
        }
    }
}
