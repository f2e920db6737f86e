//! Messages that the book explains, against those that the programs have.

use super::commands::programs;
use super::markdown::spans;
use super::{Document, book, files, top};

/// The code's text without comments, and with the literals whole that go on in the next line.
fn source() -> String {
    let mut all = String::new();
    for path in files(&top().join("src"), "rs") {
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let line = line.trim();
            if line.starts_with("//") {
                continue;
            }
            match line.strip_suffix('\\') {
                Some(part) => all.push_str(part),
                None => {
                    all.push_str(line);
                    all.push('\n');
                }
            }
        }
    }
    all
}

/// What of a message does not differ from case to case. `Error::Unsupported` puts its own words between two of them.
fn fixed(message: &str) -> impl Iterator<Item = &str> {
    message
        .split('…')
        .flat_map(|part| part.split(" is not supported here: "))
        .map(|part| part.trim_matches([' ', '`', ':', ',']))
        .filter(|part| !part.is_empty())
}

/// The first cell of a row, where it is a message.
fn message(row: &str) -> Option<&str> {
    let cell = row.strip_prefix("| ")?.split(" | ").next()?;
    cell.starts_with('`').then(|| spans(cell).first().copied())?
}

#[test]
fn every_message_explained_is_one_of_the_programs() {
    let page = Document::read(&book().join("troubleshooting.md"));
    let source = source();
    let mut seen = 0;
    let mut wrong = Vec::new();
    for message in page.text.lines().filter_map(message) {
        seen += 1;
        let missing = fixed(message).find(|part| !source.contains(part));
        wrong.extend(missing.map(|part| format!("`{message}`: no program says `{part}`")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 40, "only {seen} messages were found");
}

#[test]
fn a_wrong_message_is_seen() {
    let source = source();
    assert!(fixed("is above the … of memory of this host").all(|part| source.contains(part)));
    assert!(fixed("is above the … of memory of that host").any(|part| !source.contains(part)));
    assert_eq!(message("| message | what to do |"), None);
    assert_eq!(message("| ``a `…` b`` | c |"), Some("a `…` b"));
}

/// The command lines of the programs that a line of code tells the user to type, between backticks or as `start it: condo …`, with
/// a word for whatever is filled in.
fn remedies(line: &str) -> Vec<Vec<&str>> {
    let unquoted = line
        .split_once(" it: ")
        .and_then(|(_, rest)| rest.split('"').next());
    let typed = spans(line).into_iter().chain(unquoted);
    let filled = |word| if str::starts_with(word, '{') { "x" } else { word };
    typed
        .map(|command| command.split_whitespace().map(filled).collect::<Vec<_>>())
        .filter(|words| words.len() > 1 && ["condo", "condo-runtime"].contains(&words[0]))
        .collect()
}

/// Why a program does not understand a command line, if it does not.
fn not_understood(words: &[&str]) -> Option<String> {
    let programs = programs();
    let program = programs
        .into_iter()
        .find(|program| program.get_name() == words[0])?;
    let e = program.try_get_matches_from(words).err()?;
    Some(format!(
        "`{}`: {}",
        words.join(" "),
        e.to_string().lines().next()?
    ))
}

#[test]
fn every_command_that_a_message_names_is_understood() {
    let source = source();
    let found: Vec<_> = source.lines().flat_map(remedies).collect();
    let wrong: Vec<_> = found.iter().filter_map(|words| not_understood(words)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(found.len() >= 5, "only {} remedies were found", found.len());
}

#[test]
fn a_wrong_remedy_is_seen() {
    let remedies = |line| {
        remedies(line)
            .iter()
            .filter_map(|words| not_understood(words))
            .count()
    };
    assert_eq!(remedies(r#""make one: `condo image import {name} FILE`""#), 1);
    assert_eq!(remedies(r#""start it: condo begin {name}""#), 1);
    assert_eq!(remedies(r#""start it: condo start {name}""#), 0);
}
