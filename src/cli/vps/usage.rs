//! Values of options, and command lines that are wrong.

use std::error::Error as _;
use std::net::Ipv4Addr;

use clap::error::ErrorKind;

use crate::cli::exit::Exit;
use crate::cli::output;
use crate::error::{Error, Result};

/// Prints what clap has to say: help and version as they are, a mistake as one line.
pub(super) fn explain(e: &clap::Error) -> Exit {
    match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = e.print();
            Exit::Success
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = e.print();
            Exit::Usage
        }
        _ => {
            output::complain(&problem(e));
            Exit::Usage
        }
    }
}

/// A refused value in our own words; otherwise clap's, without its paragraphs.
pub(super) fn problem(e: &clap::Error) -> String {
    if let Some(own) = e.source().and_then(|source| source.downcast_ref::<Error>()) {
        return own.to_string();
    }
    let text = e.render().to_string();
    let lines = text
        .strip_prefix("error: ")
        .unwrap_or(&text)
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    lines
        .map(
            |line| match (line.strip_prefix("Usage: "), line.strip_prefix("tip: ")) {
                (Some(usage), _) => format!("(usage: {usage})"),
                (_, Some(tip)) => format!("({tip})"),
                _ => line.to_owned(),
            },
        )
        .collect::<Vec<_>>()
        .join(" ")
}

/// A whole number: digits only, because `+1` and `1_000` are not what any other tool takes.
pub(super) fn digits(option: &str, text: &str) -> Result<u64> {
    let refuse = || Error::invalid(option, text, "is not a whole number");
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refuse());
    }
    text.parse().map_err(|_| refuse())
}

/// A decimal number such as `2` or `0.5`.
pub(super) fn number(option: &str, text: &str) -> Result<f64> {
    let refuse = || Error::invalid(option, text, "is not a number such as 2 or 0.5");
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && text.starts_with(|c: char| c.is_ascii_digit());
    if !plain {
        return Err(refuse());
    }
    text.parse().map_err(|_| refuse())
}

/// An IPv4 address.
pub(super) fn address(text: &str) -> Result<Ipv4Addr> {
    text.parse()
        .map_err(|_| Error::invalid("--ip", text, "is not an IPv4 address"))
}

/// An environment variable with its value.
pub(super) fn assignment(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Error::invalid("--env", text, "is not of the form NAME=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_digits() {
        assert_eq!(digits("--pids", "40").unwrap(), 40);
        for bad in ["", "+1", "-1", "1 ", "0x1", "1_0", "99999999999999999999", "١"] {
            assert!(digits("--pids", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn numbers_have_one_point() {
        assert!((number("--cpus", "0.5").unwrap() - 0.5).abs() < f64::EPSILON);
        for bad in ["", ".", ".5", "1e3", "inf", "NaN", "-1", "+1", "1.2.3", "1 "] {
            assert!(number("--cpus", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn assignments_have_a_name() {
        assert_eq!(assignment("A=b=c").unwrap(), ("A".into(), "b=c".into()));
        assert!(assignment("A").is_err() && assignment("=b").is_err());
    }
}
