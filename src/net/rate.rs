//! How fast a VPS may send and receive, and how people write that down.

use crate::error::{Error, Result};

/// A slower line would not finish a single handshake.
const LEAST: u64 = 8_000;
/// The fastest that the kernel's counters of nanoseconds can tell from the next faster one.
const MOST: u64 = 1_000_000_000_000;
/// A bucket that holds less could never let a full packet go.
const SMALLEST_BURST: u64 = 2_000;
/// `tcf_tbf` counts the bucket in nanoseconds, 32 bits of them: seconds of the rate.
const LONGEST_BURST: u64 = 4;

/// Units as `tc(8)` has them, in bits a second. `bps` is bytes, and thousands are thousands.
const UNITS: [(&str, u64); 11] = [
    ("", 1),
    ("bit", 1),
    ("kbit", 1_000),
    ("mbit", 1_000_000),
    ("gbit", 1_000_000_000),
    ("tbit", 1_000_000_000_000),
    ("bps", 8),
    ("kbps", 8_000),
    ("mbps", 8_000_000),
    ("gbps", 8_000_000_000),
    ("tbps", 8_000_000_000_000),
];

/// Limits on what goes through a VPS's interfaces; one that is absent does not hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// What it receives, in bits a second.
    pub incoming: Option<u64>,
    /// What it sends, in bits a second.
    pub outgoing: Option<u64>,
    /// How much may come at once after a pause, in bytes; ten milliseconds' worth when absent.
    pub burst: Option<u64>,
}

impl Rates {
    /// Refuses what the kernel cannot hold a line to. Fields are named by their options.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the option, its value and what would do.
    pub fn check(&self) -> Result<()> {
        for (option, rate) in [("--rate-in", self.incoming), ("--rate-out", self.outgoing)] {
            let Some(rate) = rate else { continue };
            if rate < LEAST {
                return Err(Error::invalid(
                    option,
                    display(rate),
                    "is below 8kbit; rates without a unit are bits a second",
                ));
            }
            if rate > MOST {
                return Err(Error::invalid(option, display(rate), "is above 1000gbit"));
            }
        }
        let Some(burst) = self.burst else { return Ok(()) };
        let slowest = self.incoming.into_iter().chain(self.outgoing).min();
        let Some(slowest) = slowest else {
            return Err(Error::invalid(
                "--burst",
                burst,
                "needs a rate that it is a burst of: --rate, --rate-in or --rate-out",
            ));
        };
        if burst < SMALLEST_BURST {
            return Err(Error::invalid(
                "--burst",
                burst,
                "is less than a packet: 2K at least",
            ));
        }
        let longest = (slowest / 8).saturating_mul(LONGEST_BURST).max(SMALLEST_BURST);
        if burst > longest {
            let problem = format!(
                "is more than {LONGEST_BURST} seconds of {}: {longest} bytes at most",
                display(slowest)
            );
            return Err(Error::invalid("--burst", burst, problem));
        }
        Ok(())
    }
}

/// Reads a rate as `tc(8)` does, in bits a second. `option` names it in the error (`--rate-in`).
///
/// # Errors
/// [`Error::Invalid`] for anything but a number with at most three decimals and a unit.
pub fn parse(option: &str, text: &str) -> Result<u64> {
    exact(text).ok_or_else(|| {
        Error::invalid(
            option,
            text,
            "is not a rate; write a number with a unit, such as 10mbit or 1.5gbit (mbps is megabytes a second)",
        )
    })
}

fn exact(text: &str) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.to_ascii_lowercase();
    let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || decimals.is_empty() || decimals.len() > 3 {
        return None;
    }
    let parts = 10_u64.pow(u32::try_from(decimals.len()).ok()?);
    let part = decimals.parse::<u64>().ok()?.checked_mul(*scale)? / parts;
    whole.parse::<u64>().ok()?.checked_mul(*scale)?.checked_add(part)
}

/// A rate for people, in the largest unit that says it exactly enough: `10mbit`, `1.5gbit`.
pub fn display(bits: u64) -> String {
    let (unit, scale) = UNITS[1..6]
        .iter()
        .rev()
        .find(|(_, scale)| bits >= *scale)
        .copied()
        .unwrap_or(("bit", 1));
    let thousandths = u128::from(bits) * 1000 / u128::from(scale);
    let (whole, part) = (thousandths / 1000, thousandths % 1000);
    let decimals = format!("{part:03}");
    match decimals.trim_end_matches('0') {
        "" => format!("{whole}{unit}"),
        decimals => format!("{whole}.{decimals}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_tc() {
        for (text, bits) in [
            ("10mbit", 10_000_000),
            ("10Mbit", 10_000_000),
            ("1.5gbit", 1_500_000_000),
            ("64kbit", 64_000),
            ("1mbps", 8_000_000),
            ("9600", 9_600),
            ("9600bit", 9_600),
            ("0", 0),
        ] {
            assert_eq!(parse("--rate-in", text).unwrap(), bits, "{text}");
        }
        for bad in [
            "",
            "mbit",
            "-1mbit",
            "1 mbit",
            "1.mbit",
            ".5mbit",
            "1mb",
            "1e6",
            "1.2345mbit",
            "99999999999tbit",
        ] {
            let e = parse("--rate-in", bad).unwrap_err().to_string();
            assert!(e.starts_with("--rate-in: `"), "{bad}: {e}");
        }
    }

    #[test]
    fn a_rate_is_shown_as_it_is_given() {
        for text in ["10mbit", "1.5gbit", "64kbit", "999bit", "1tbit"] {
            assert_eq!(display(parse("", text).unwrap()), text);
        }
    }

    #[test]
    fn what_no_line_can_be_held_to_is_refused() {
        let check = |incoming, outgoing, burst| {
            let rates = Rates {
                incoming,
                outgoing,
                burst,
            };
            rates.check().map_err(|e| e.to_string())
        };
        check(Some(8_000), Some(MOST), Some(2_000)).unwrap();
        check(None, None, None).unwrap();
        assert!(
            check(Some(0), None, None)
                .unwrap_err()
                .starts_with("--rate-in: `0bit`")
        );
        assert!(
            check(None, Some(MOST + 1), None)
                .unwrap_err()
                .starts_with("--rate-out")
        );
        assert!(
            check(None, None, Some(9000))
                .unwrap_err()
                .contains("needs a rate")
        );
        assert!(
            check(Some(1 << 20), None, Some(1))
                .unwrap_err()
                .contains("less than a packet")
        );
        assert!(
            check(Some(80_000), None, Some(50_000))
                .unwrap_err()
                .contains("more than 4 seconds")
        );
    }
}
