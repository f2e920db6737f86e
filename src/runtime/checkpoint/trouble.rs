//! Why CRIU failed: its answer says little, its log says it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::criu::plain;
use crate::error::Error;

/// How much of the log's end is looked at.
const TAIL: u64 = 64 * 1024;
/// How many lines are told.
const LINES: usize = 3;
/// What lines that tell of errors have; the second is of a page server, which CRIU takes for information.
const COMPLAINTS: [&str; 2] = ["Error (", "Can't connect to server"];

/// Removes an older log, which would be quoted when CRIU does not come to write its own.
pub(super) fn forget(dir: &Path, name: &str) {
    let _ = std::fs::remove_file(dir.join(name));
}

/// An error of CRIU's with the last complaints of the log `name` in `dir`, and where the rest is.
pub(super) fn explain(error: Error, dir: &Path, name: &str) -> Error {
    if !matches!(error.root(), Error::Init(_)) {
        return error;
    }
    let path = std::path::absolute(dir)
        .unwrap_or_else(|_| dir.to_path_buf())
        .join(name);
    match tail(&path) {
        Ok(text) => Error::Init(format!(
            "{error}{}; its log is `{}`",
            last(&text, &error.to_string()),
            path.display()
        )),
        // It did not come to write one.
        Err(_) => error,
    }
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines that tell of errors, else the very last one, in one line, without times, and without what was `said` already.
fn last(text: &str, said: &str) -> String {
    let lines = text.lines().map(|line| {
        let timed = line.split_once(") ").filter(|(time, _)| time.starts_with('('));
        plain(timed.map_or(line, |(_, rest)| rest))
    });
    let lines: Vec<String> = lines.filter(|line| !said.contains(line.as_str())).collect();
    let complains = |line: &str| COMPLAINTS.iter().any(|complaint| line.contains(complaint));
    let complaints: Vec<&String> = lines.iter().filter(|line| complains(line)).collect();
    let chosen = match complaints.len() {
        0 if !complains(said) => lines.last().into_iter().collect(),
        n => complaints[n.saturating_sub(LINES)..].to_vec(),
    };
    chosen.into_iter().map(|line| format!(": {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_picked_and_made_harmless() {
        let log = "(00.01) fine\n(00.02) Error (criu/a.c:1): one\n(00.03) Error (criu/a.c:2): two\n\
            (00.04)   7: Error (criu/b.c:3): three\x1b[31m\n(00.05) Error (criu/cr-dump.c:4): Dumping FAILED.\n";
        assert_eq!(
            last(log, "criu failed"),
            ": Error (criu/a.c:2): two: 7: Error (criu/b.c:3): three?[31m: Error (criu/cr-dump.c:4): Dumping FAILED."
        );
        assert_eq!(last(log, "Error (criu/a.c:2): two").matches("two").count(), 0);
        assert_eq!(last("(00.01) a\n(00.02) b\n", "x"), ": b");
        assert_eq!(last("", "x"), "");
        let server = "(00.01) Can't connect to server 10.0.0.1:27\n(00.02) Unlock network\n";
        assert_eq!(last(server, "x"), ": Can't connect to server 10.0.0.1:27");
    }
}
