//! Flags as the flag library of runc takes them and its callers therefore send them: long ones with a single dash
//! (`-no-subreaper`), those that are on or off with a value (`--systemd-cgroup=false`), and those without one (`--cwd ""`), which scripts
//! write for a variable that is not set.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command, CommandFactory};

use super::args::Cli;

/// The flags that empty text is a value for, or a wrong one. To all others it is as if they were not there.
const NEED_A_VALUE: [&str; 12] = [
    "blkio-weight",
    "cap",
    "cgroup",
    "cpu-idle",
    "env",
    "format",
    "interval",
    "no-new-privs",
    "pids-limit",
    "preserve-fds",
    "root",
    "status-fd",
];

/// The same words, with two dashes before every long flag, and without flags that are off or have an empty value. What belongs to the
/// container's program is left alone.
pub(super) fn normal(words: Vec<OsString>) -> Vec<OsString> {
    // The table of flags costs more than it takes to see that nobody needs it.
    if words
        .iter()
        .any(|word| is_single(word) || has_value(word) || word.is_empty())
    {
        let mut known = Cli::command();
        known.build();
        rewrite(&known, words)
    } else {
        words
    }
}

/// `-word`, which may also be short flags in a row.
fn is_single(word: &OsStr) -> bool {
    matches!(word.as_encoded_bytes(), [b'-', first, _, ..] if *first != b'-')
}

/// `--word=value`.
fn has_value(word: &OsStr) -> bool {
    let bytes = word.as_encoded_bytes();
    bytes.starts_with(b"-") && bytes.contains(&b'=')
}

fn rewrite(root: &Command, words: Vec<OsString>) -> Vec<OsString> {
    let mut level = root;
    let mut words = words.into_iter();
    // With the flag that each is of, so that a later empty value can take it away.
    let mut done: Vec<(Option<&Arg>, OsString)> = words.next().map(|word| (None, word)).into_iter().collect();
    while let Some(word) = words.next() {
        let text = word.to_str().unwrap_or_default();
        if text.len() > 1 && text.starts_with('-') && text != "--" {
            let flag = find(level, text);
            let value = flag
                .is_some_and(|f| takes_next(f, text))
                .then(|| words.next())
                .flatten();
            if let Some(flag) = flag.filter(|flag| is_unset(flag, text, value.as_deref())) {
                done.retain(|(of, _)| of.is_none_or(|of| of.get_id() != flag.get_id()));
                continue;
            }
            let switch = flag.filter(|flag| !flag.get_action().takes_values());
            let (word, text) = match switch.and_then(|_| text.split_once('=')) {
                Some((name, value)) if is_true(value) => (OsString::from(name), name),
                Some((_, value)) if is_false(value) => continue,
                _ => (word.clone(), text),
            };
            // A single letter keeps its single dash.
            let long = is_single(&word) && flag.is_some_and(|f| f.get_long() == Some(name(text)));
            done.push((flag, if long { format!("-{text}").into() } else { word }));
            done.extend(value.map(|value| (flag, value)));
            continue;
        }
        let inner = level.find_subcommand(text);
        let ends = text == "--" || level.get_positionals().any(Arg::is_trailing_var_arg_set);
        done.push((None, word));
        match inner {
            Some(command) => level = command,
            None if ends => break,
            None => {}
        }
    }
    done.into_iter().map(|(_, word)| word).chain(words).collect()
}

/// Whether a flag that could do without is given an empty value.
fn is_unset(flag: &Arg, text: &str, next: Option<&OsStr>) -> bool {
    let empty = match text.split_once('=') {
        Some((_, value)) => value.is_empty(),
        None => next.is_some_and(OsStr::is_empty),
    };
    let needed = flag.get_long().is_some_and(|name| NEED_A_VALUE.contains(&name));
    empty && flag.get_action().takes_values() && !needed
}

/// As `strconv.ParseBool` of Go has it.
fn is_true(value: &str) -> bool {
    ["1", "t", "T", "true", "TRUE", "True"].contains(&value)
}

fn is_false(value: &str) -> bool {
    ["0", "f", "F", "false", "FALSE", "False"].contains(&value)
}

/// The flag that a word names: by its long name with any number of dashes, or by its letter.
fn find<'a>(level: &'a Command, text: &str) -> Option<&'a Arg> {
    let name = name(text);
    let mut letters = name.chars();
    let letter = letters.next().filter(|_| letters.next().is_none());
    level
        .get_arguments()
        .find(|a| a.get_long() == Some(name) || (letter.is_some() && a.get_short() == letter))
}

/// What a word calls its flag, without dashes and value.
fn name(text: &str) -> &str {
    text.trim_start_matches('-').split('=').next().unwrap_or_default()
}

/// Whether the next word is the flag's value.
fn takes_next(flag: &Arg, text: &str) -> bool {
    flag.get_action().takes_values() && !flag.is_require_equals_set() && !text.contains('=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(line: &str) -> String {
        let words = line.split(' ').map(OsString::from).collect();
        let words: Vec<_> = super::normal(words)
            .into_iter()
            .map(|w| w.into_string().unwrap())
            .collect();
        words.join(" ")
    }

    #[test]
    fn long_flags_get_their_second_dash() {
        for (given, wanted) in [
            (
                "x -root /r run -no-subreaper -bundle=/b id",
                "x --root /r run --no-subreaper --bundle=/b id",
            ),
            ("x run --no-subreaper id", "x run --no-subreaper id"),
            ("x exec -cwd /bin -tty id sh", "x exec --cwd /bin --tty id sh"),
            ("x exec -u 5:6 -cwd / id id", "x exec -u 5:6 --cwd / id id"),
            (
                "x --log-format json kill -all id KILL",
                "x --log-format json kill --all id KILL",
            ),
        ] {
            assert_eq!(normal(given), wanted);
        }
    }

    #[test]
    fn what_is_on_or_off_may_have_a_value() {
        for (given, wanted) in [
            ("x --systemd-cgroup=false --debug=true run id", "x --debug run id"),
            ("x exec -d=false -tty=1 id a=b -t=0", "x exec --tty id a=b -t=0"),
            ("x delete --force=T -f=F id", "x delete --force id"),
            ("x kill --all=perhaps id", "x kill --all=perhaps id"),
            (
                "x --rootless=false run --bundle=true id",
                "x --rootless=false run --bundle=true id",
            ),
            ("x exec -e A=false id", "x exec -e A=false id"),
        ] {
            assert_eq!(normal(given), wanted);
        }
    }

    #[test]
    fn an_empty_value_is_as_if_the_flag_were_not_there() {
        for (given, wanted) in [
            (
                &["x", "--log", "", "run", "--bundle", "", "id"][..],
                &["x", "run", "id"][..],
            ),
            (&["x", "run", "-b", "", "--pid-file=", "id"], &["x", "run", "id"]),
            // Of several the last counts.
            (
                &[
                    "x", "exec", "--cwd=/a", "-cwd", "/b", "--cwd", "", "-t", "id", "", "--cwd", "",
                ],
                &["x", "exec", "-t", "id", "", "--cwd", ""],
            ),
            (
                &["x", "exec", "--cwd", "", "--cwd", "/b", "id"],
                &["x", "exec", "--cwd", "/b", "id"],
            ),
            // What needs one, and what is no flag's.
            (&["x", "exec", "-e", "", "id"], &["x", "exec", "-e", "", "id"]),
            (&["x", "list", "--format="], &["x", "list", "--format="]),
            (&["x", "kill", "id", ""], &["x", "kill", "id", ""]),
            (&["x", "exec", "id", "--cwd="], &["x", "exec", "id", "--cwd="]),
        ] {
            let words = given.iter().map(OsString::from).collect();
            assert_eq!(super::normal(words), *wanted, "{given:?}");
        }
    }

    #[test]
    fn what_is_no_flag_of_ours_stays() {
        for line in [
            "x exec id ls -all -cwd",
            "x exec -t id find / -name x -tty",
            "x ps id -pid",
            "x exec -e -cwd id env",
            "x exec -td id sh",
            "x update -r - id",
            "x exec -- id -tty",
        ] {
            assert_eq!(normal(line), line);
        }
    }
}
