//! What is printed: tables, JSON, and words for numbers.

use std::io::Write;

use anyhow::{Context, Result};
use comfy_table::{ContentArrangement, Table, presets};

use crate::error::Error;

/// A table without borders: columns of text with a heading, two blanks apart.
pub fn table<const N: usize>(heading: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(heading);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    trimmed(&table.to_string())
}

/// Fields below one another, their names in a column of equal width.
pub fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    fields
        .iter()
        .map(|(name, value)| format!("{name:width$}  {value}"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn trimmed(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// The reader of standard output has seen enough (`condo list | head -1`), which is nobody's failure.
#[derive(Debug, thiserror::Error)]
#[error("the reader of standard output is gone")]
pub struct ReaderGone;

/// What a failure of writing to standard output means.
pub fn unwritten(e: Error) -> anyhow::Error {
    match e.root() {
        Error::Io(io) if io.kind() == std::io::ErrorKind::BrokenPipe => ReaderGone.into(),
        _ => anyhow::Error::new(e).context("write to standard output"),
    }
}

/// Writes a text and a line break to standard output.
pub fn print(text: &str) -> Result<()> {
    write(format!("{text}\n").as_bytes())
}

/// Writes to standard output as it is.
pub fn write(bytes: &[u8]) -> Result<()> {
    let written = std::io::stdout().lock().write_all(bytes);
    written.map_err(|e| unwritten(e.into()))
}

/// Writes a value as JSON for people and scripts: indented, one document.
pub fn print_json(value: &impl serde::Serialize) -> Result<()> {
    print(&serde_json::to_string_pretty(value).context("write as JSON")?)
}

/// Writes `condo: …` to standard error as one line. A standard error that is gone is nobody's failure.
pub fn complain(problem: &str) {
    let _ = writeln!(std::io::stderr().lock(), "condo: {}", one_line(problem));
}

/// The text without line breaks and other control characters: names and values of others must not draw on the terminal.
pub fn one_line(text: &str) -> String {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().map(visible).collect()
}

/// A duration by its two largest units: `42s`, `3m 5s`, `2d 4h`.
pub fn duration(seconds: u64) -> String {
    let units = [
        ("d", seconds / 86_400),
        ("h", seconds / 3600 % 24),
        ("m", seconds / 60 % 60),
        ("s", seconds % 60),
    ];
    let first = units.iter().position(|(_, n)| *n > 0).unwrap_or(units.len() - 1);
    units[first..]
        .iter()
        .take(2)
        .filter(|(_, n)| *n > 0 || seconds == 0)
        .map(|(unit, n)| format!("{n}{unit}"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// A moment in seconds since 1970 as `2026-11-21 18:45:02 UTC`.
pub fn moment(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// A moment as part of a name: `20261121-184502`.
pub fn stamp(seconds: i64) -> String {
    let digits: String = moment(seconds).chars().filter(char::is_ascii_digit).collect();
    let (date, time) = digits.split_at(digits.len().saturating_sub(6));
    format!("{date}-{time}")
}

/// The Gregorian date of a day counted from 1970-01-01, by years that begin in March so that the leap day comes last.
fn date(days: i64) -> (i64, i64, i64) {
    // From 0000-03-01; 400 years are 146097 days.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_columns_and_nothing_else() {
        let rows = [
            ["web".to_owned(), "running".to_owned()],
            ["database".to_owned(), String::new()],
        ];
        assert_eq!(
            table(["NAME", "STATUS"], rows),
            "NAME      STATUS\nweb       running\ndatabase"
        );
        assert_eq!(table(["NAME"], []), "NAME");
    }

    #[test]
    fn fields_line_up() {
        let text = fields(&[("name", "web".into()), ("address", "10.0.0.2".into())]);
        assert_eq!(text, "name     web\naddress  10.0.0.2");
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (42, "42s"),
            (185, "3m 5s"),
            (3600, "1h"),
            (187_201, "2d 4h"),
            (86_401, "1d"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn moments_are_dates() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_795_286_702, "2026-11-21 18:45:02 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(moment(seconds), text);
        }
    }

    #[test]
    fn a_moment_can_be_part_of_a_name() {
        assert_eq!(stamp(1_795_286_702), "20261121-184502");
    }

    #[test]
    fn what_others_wrote_cannot_draw_on_the_terminal() {
        assert_eq!(one_line("a\x1b[2Jb\nc"), "a [2Jb c");
    }
}
