//! The environment: the variables of `environ(7)`, each once.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::error::{Error, Result};
use crate::files::Root;

/// The most of an image's `/etc/passwd` that is read.
const MAX_PASSWD: u64 = 1 << 20;

/// Checks `process.env`: a program could neither read nor unset what is not `NAME=VALUE`.
pub fn check(env: &[OsString]) -> Result<()> {
    match env.iter().find(|line| name(line).is_none_or(<[u8]>::is_empty)) {
        Some(line) => Err(Error::invalid("process.env", line.display(), "is not NAME=VALUE")),
        None => Ok(()),
    }
}

/// Leaves the last of several lines for a variable, which is the one that counts: programs differ in which they find.
pub fn each_once(env: &[OsString]) -> Vec<OsString> {
    let mut seen = HashSet::new();
    let mut kept: Vec<OsString> = env
        .iter()
        .rev()
        .filter(|line| seen.insert(name(line)))
        .cloned()
        .collect();
    kept.reverse();
    kept
}

/// Gives `HOME` to an environment without one or with an empty one: by the `/etc/passwd` of the root this process is in, as other
/// runtimes do.
pub fn add_home(env: &mut Vec<OsString>, uid: u32) {
    if variable(env, "HOME").is_some_and(|home| !home.is_empty()) {
        return;
    }
    let passwd = Root::open(Path::new("/")).and_then(|root| root.read(Path::new("/etc/passwd"), MAX_PASSWD));
    let home = home_of(uid, &passwd.unwrap_or_default());
    env.retain(|line| name(line) != Some(b"HOME"));
    env.push(OsString::from_vec([b"HOME=", home.as_bytes()].concat()));
}

/// The home directory of a user by `passwd(5)`, which may be empty; `/` for one who is not there.
fn home_of(uid: u32, passwd: &[u8]) -> OsString {
    let home = passwd.split(|b| *b == b'\n').find_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let fields: Vec<&[u8]> = line.split(|b| *b == b':').collect();
        let number = std::str::from_utf8(fields.get(2)?).ok()?.parse::<u32>().ok()?;
        (number == uid).then(|| fields.get(5).copied().unwrap_or_default())
    });
    // A NUL byte would end the variable, and the list of them.
    let usable = home.filter(|home| !home.contains(&0));
    OsStr::from_bytes(usable.unwrap_or(b"/")).to_owned()
}

/// The value of a variable in `KEY=value` lines; the last one counts.
pub fn variable<'e>(env: &'e [OsString], key: &str) -> Option<&'e OsStr> {
    let value = |line: &'e OsString| line.as_bytes().strip_prefix(key.as_bytes())?.strip_prefix(b"=");
    env.iter().rev().find_map(value).map(OsStr::from_bytes)
}

/// What is before the first `=`.
fn name(line: &OsString) -> Option<&[u8]> {
    let line = line.as_bytes();
    let end = line.iter().position(|b| *b == b'=')?;
    Some(&line[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Vec<OsString> {
        lines.iter().map(OsString::from).collect()
    }

    #[test]
    fn a_variable_s_last_value_counts() {
        let env = lines(&["A=1", "AB=2", "A=3"]);
        assert_eq!(variable(&env, "A"), Some(OsStr::new("3")));
    }

    #[test]
    fn of_lines_for_one_variable_the_last_stays() {
        let env = each_once(&lines(&["A=1", "B=", "A=2", "AB=1", "A=3=4", "B=5"]));
        assert_eq!(env, lines(&["AB=1", "A=3=4", "B=5"]));
    }

    #[test]
    fn lines_that_name_nothing_are_refused() {
        check(&lines(&["A=", "A=1"])).unwrap();
        for bad in ["", "A", "=1"] {
            assert!(check(&lines(&["A=1", bad])).is_err(), "{bad}");
        }
    }

    #[test]
    fn homes_are_found_by_number() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nbad\n:x:x\nuser:x:7:7::/home/\xff:\nuser2:x:7:7::/other:\nnone:x:8:8:::\nshort:x:9\nwindows:x:11:11::/w\r\n";
        assert_eq!(home_of(0, passwd), "/root");
        assert_eq!(home_of(7, passwd).as_bytes(), b"/home/\xff");
        assert_eq!(home_of(11, passwd), "/w");
        for empty in [8, 9] {
            assert_eq!(home_of(empty, passwd), "");
        }
        assert_eq!(home_of(10, passwd), "/");
    }
}
