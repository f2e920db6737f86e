//! Values of keys, as LXD spells them.

use condo::host::Host;
use condo::net::filter::Action;
use condo::vps::record::facts::Facts;

use crate::reply::Problem;

/// Units of bytes. A bare `G` is none: it could be either.
const BYTES: [(&str, u64); 11] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// The priority of those for whom none is set.
const USUAL: u64 = 5;
/// What a step of priority is in weight, of which those have 100.
const WEIGHT: u64 = 100 / USUAL;

/// A whole number.
pub(crate) fn number(key: &str, text: &str) -> Result<u64, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    number.ok_or_else(|| Problem::value(key, text, "is not a whole number"))
}

/// A size in bytes.
pub(crate) fn size(key: &str, text: &str) -> Result<u64, Problem> {
    let unit = BYTES
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (digits, factor) = unit.unwrap_or((text, 1));
    let refuse = || Problem::value(key, text, "is not a size such as 512MiB or 4GB");
    let number = number(key, digits.trim()).map_err(|_| refuse())?;
    number.checked_mul(factor).ok_or_else(refuse)
}

/// A size, or a share of the host's memory.
pub(super) fn memory(key: &str, text: &str) -> Result<u64, Problem> {
    let Some(percent) = text.strip_suffix('%') else {
        return size(key, text);
    };
    let percent = number(key, percent)?;
    if !(1..=100).contains(&percent) {
        return Err(Problem::value(
            key,
            text,
            "is not a share of the host's memory, from 1% to 100%",
        ));
    }
    let host = Facts::probe(&Host::probe()?)?.memory;
    Ok(host / 100 * percent)
}

/// Units of bits.
const BITS: [(&str, u64); 8] = [
    ("Tbit", 1_000_000_000_000),
    ("Gbit", 1_000_000_000),
    ("Mbit", 1_000_000),
    ("kbit", 1000),
    ("Gibit", 1 << 30),
    ("Mibit", 1 << 20),
    ("Kibit", 1 << 10),
    ("bit", 1),
];

/// Bits a second.
pub(super) fn bits(key: &str, text: &str) -> Result<u64, Problem> {
    let unit = BITS
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (digits, factor) = unit.unwrap_or((text, 1));
    let refuse = || Problem::value(key, text, "is not a rate such as 100Mbit");
    let number = number(key, digits.trim()).map_err(|_| refuse())?;
    number.checked_mul(factor).ok_or_else(refuse)
}

/// Bits a second in the largest unit that they are a multiple of.
pub(super) fn bit_rate(bits: u64) -> String {
    let unit = BITS[..4]
        .iter()
        .find(|(_, factor)| bits > 0 && bits.is_multiple_of(*factor));
    unit.map_or(format!("{bits}bit"), |(unit, factor)| {
        format!("{}{unit}", bits / factor)
    })
}

/// The weight that a priority from 0 to 10 stands for; nothing for 5, which all have.
pub(super) fn weight(key: &str, text: &str) -> Result<Option<u64>, Problem> {
    match number(key, text)? {
        USUAL => Ok(None),
        // The kernel's schedulers have no weight of 0.
        0 => Ok(Some(WEIGHT / 2)),
        priority @ 1..=10 => Ok(Some(priority * WEIGHT)),
        _ => Err(Problem::value(key, text, "is not a priority from 0 to 10")),
    }
}

/// The priority that comes next to a weight.
pub(super) fn priority(weight: u64) -> u64 {
    (weight / WEIGHT).min(10)
}

/// A number of seconds.
pub(super) fn seconds(key: &str, text: &str) -> Result<u32, Problem> {
    let number = number(key, text)?;
    u32::try_from(number).map_err(|_| Problem::value(key, text, "is too long"))
}

/// Yes or no.
pub(crate) fn truth(key: &str, text: &str) -> Result<bool, Problem> {
    match text.to_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(Problem::value(key, text, "is neither true nor false")),
    }
}

/// Refuses a value that is none of these.
pub(super) fn only(key: &str, text: &str, known: &[&str]) -> Result<(), Problem> {
    if known.contains(&text) {
        return Ok(());
    }
    Err(Problem::value(
        key,
        text,
        &format!("is not supported: {} is", known.join(", ")),
    ))
}

/// A whole number, of either sign.
pub(crate) fn whole(key: &str, text: &str) -> Result<i32, Problem> {
    let number = text.parse().ok().filter(|number| *number != i32::MIN);
    number.ok_or_else(|| Problem::value(key, text, "is not a whole number"))
}

/// What becomes of packets, as ACLs say it.
pub(crate) fn policy(key: &str, text: &str) -> Result<Action, Problem> {
    match text {
        "allow" => Ok(Action::Allow),
        "drop" => Ok(Action::Deny),
        _ => Err(Problem::value(key, text, "is not supported: allow and drop are")),
    }
}

/// A size in the largest unit that it is a multiple of.
pub(crate) fn bytes(size: u64) -> String {
    let unit = BYTES[..4]
        .iter()
        .rev()
        .find(|(_, factor)| size > 0 && size.is_multiple_of(*factor));
    unit.map_or(size.to_string(), |(unit, factor)| {
        format!("{}{unit}", size / factor)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [
            ("1024", 1024),
            ("10GiB", 10 << 30),
            ("4GB", 4_000_000_000),
            ("1 MiB", 1 << 20),
            ("7B", 7),
        ] {
            assert_eq!(size("size", text).unwrap(), expected, "{text}");
        }
        for bad in ["", "4G", "-1", "1.5GiB", "GiB", "99999999999TiB", "0x1"] {
            assert!(size("size", bad).is_err(), "{bad}");
        }
        for text in ["1GiB", "1500MiB", "1025"] {
            assert_eq!(bytes(size("size", text).unwrap()), text);
        }
    }
}
