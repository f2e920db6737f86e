//! Commands, options and targets of the Makefile that documents name.

use std::collections::BTreeSet;

use clap::Command;

use super::markdown::{parts, spans};
use super::{Document, documents, pages, top};

/// The programs, with the options that every command has (`--help`).
pub(super) fn programs() -> [Command; 2] {
    [condo::cli::vps::command(), condo::cli::oci::command()].map(|mut program| {
        program.build();
        program
    })
}

/// The words of everything in a document that is written as code: spans between backticks and lines after a prompt.
fn code(document: &Document) -> Vec<Vec<String>> {
    let (prose, typed) = parts(&document.text);
    let lines = prose.into_iter().flat_map(spans).chain(typed);
    lines.flat_map(|line| line.split("&&")).map(words).collect()
}

/// `condo image build`, `condo start`, …: all commands that do something, by their full names.
fn leaves(command: &Command, name: &str) -> BTreeSet<String> {
    // `help` is clap's own and not worth a line.
    let below: Vec<_> = command
        .get_subcommands()
        .filter(|c| c.get_name() != "help")
        .collect();
    if below.is_empty() {
        return BTreeSet::from([name.to_owned()]);
    }
    let each = below
        .iter()
        .map(|c| leaves(c, &format!("{name} {}", c.get_name())));
    each.flatten().collect()
}

/// A command line up to ` -- `, after which it is another program's, and without `sudo` and variables before it.
fn words(line: &str) -> Vec<String> {
    let before = |word: &&str| *word == "sudo" || is_variable(word);
    let all = line.split_whitespace().skip_while(before);
    all.take_while(|word| *word != "--").map(str::to_owned).collect()
}

/// What is wrong with a command line that starts with a program's name.
fn complaint(program: &Command, words: &[String]) -> Option<String> {
    let mut command = program;
    let mut known: BTreeSet<&str> = program.get_arguments().filter_map(|a| a.get_long()).collect();
    for word in words {
        if let Some(option) = word.strip_prefix("--") {
            let name = option.split('=').next()?;
            if !known.contains(name) {
                return Some(format!("{} has no `--{name}`", command.get_name()));
            }
        } else if let Some(next) = command.find_subcommand(word) {
            command = next;
            known.extend(next.get_arguments().filter_map(|a| a.get_long()));
        } else if command.get_subcommands().next().is_some()
            && !is_placeholder(word)
            && !takes_value(command, words, word)
            && !is_subject(command, words, word)
        {
            return Some(format!("{} has no command `{word}`", command.get_name()));
        }
    }
    None
}

/// `COMMAND`, `NAME…`: stands for something.
fn is_placeholder(word: &str) -> bool {
    word.trim_end_matches('…').chars().all(|c| c.is_ascii_uppercase())
}

/// Whether a word is the value of the option before it (`--root DIR`).
fn takes_value(command: &Command, words: &[String], word: &String) -> bool {
    let before = words.iter().take_while(|w| *w != word).last();
    before
        .and_then(|before| before.strip_prefix("--"))
        .is_some_and(|name| {
            command
                .get_arguments()
                .any(|a| a.get_long() == Some(name) && a.get_action().takes_values())
        })
}

/// Whether a word is what the command after it is about (`firewall web allow`).
fn is_subject(command: &Command, words: &[String], word: &String) -> bool {
    let after = words.iter().skip_while(|w| *w != word).nth(1);
    after.is_some_and(|after| command.find_subcommand(after).is_some())
}

/// `NAME=value`
fn is_variable(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
}

/// The commands that a table has a row for.
fn rows(text: &str, leaves: &BTreeSet<String>) -> BTreeSet<String> {
    let cells = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    // `condo firewall NAME allow` is `condo firewall allow`.
    let named = |cell| words(cell).into_iter().filter(|word| !is_placeholder(word));
    let commands = cells.map(|cell| named(cell).collect::<Vec<_>>().join(" "));
    // `condo image list` and not `condo image`: the longest command it starts with.
    let named = |cell: String| {
        let of_cell = leaves
            .iter()
            .filter(|leaf| format!("{cell} ").starts_with(&format!("{leaf} ")));
        of_cell.max_by_key(|leaf| leaf.len()).cloned()
    };
    commands.filter_map(named).collect()
}

#[test]
fn every_command_has_its_row() {
    for (program, page) in programs().into_iter().zip(["vps/commands.md", "oci/commands.md"]) {
        let text = Document::read(&super::book().join(page)).text;
        let leaves = leaves(&program, program.get_name());
        let documented = rows(&text, &leaves);
        let missing: Vec<_> = leaves.difference(&documented).collect();
        assert!(missing.is_empty(), "{page} has no row for {missing:?}");
    }
}

#[test]
fn every_command_line_shown_exists() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for document in documents() {
        for line in code(&document) {
            for program in programs() {
                if line.first().is_some_and(|word| word == program.get_name()) {
                    seen += 1;
                    let complaint = complaint(&program, &line[1..]);
                    wrong
                        .extend(complaint.map(|c| format!("{}: `{}`: {c}", document.name(), line.join(" "))));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        seen > 100,
        "only {seen} command lines were found: did the documents change their form?"
    );
}

/// Whether any command of a program has the option.
fn has_option(command: &Command, name: &str) -> bool {
    command.get_arguments().any(|a| a.get_long() == Some(name))
        || command.get_subcommands().any(|c| has_option(c, name))
}

#[test]
fn every_option_named_on_a_program_s_pages_exists() {
    let [condo, runtime] = programs();
    let of_condo = [
        "vps/commands",
        "vps/life",
        "vps/limits",
        "vps/inside",
        "images",
        "network",
        "security",
    ];
    let of_runtime = ["oci/commands", "oci/config", "oci/rootless", "oci/checkpoint"];
    let mut seen = 0;
    let mut wrong = Vec::new();
    for (program, names) in [(&condo, &of_condo[..]), (&runtime, &of_runtime[..])] {
        for name in names {
            let document = Document::read(&super::book().join(name).with_extension("md"));
            for span in parts(&document.text).0.into_iter().flat_map(spans) {
                let words = span.split_whitespace().filter_map(|word| word.strip_prefix("--"));
                let option = words
                    .filter(|_| span.starts_with("--"))
                    .map(|w| w.split('=').next());
                for option in option.flatten().filter(|option| !option.is_empty()) {
                    seen += 1;
                    if !has_option(program, option) {
                        wrong.push(format!(
                            "{}: {} has no `--{option}`",
                            document.name(),
                            program.get_name()
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 80, "only {seen} options were found");
}

#[test]
fn every_target_of_make_that_is_named_exists() {
    let makefile = std::fs::read_to_string(top().join("Makefile")).unwrap();
    let of_line = |line: &str| -> Option<String> {
        let (name, _) = line.split_once(": ##")?;
        Some(name.to_owned())
    };
    let targets: BTreeSet<String> = makefile.lines().filter_map(of_line).collect();
    let mut named = BTreeSet::new();
    for document in documents() {
        for line in code(&document)
            .iter()
            .filter(|line| line.first().is_some_and(|w| w == "make"))
        {
            for word in line[1..].iter().filter(|word| !word.contains('=')) {
                assert!(
                    targets.contains(word),
                    "{}: there is no `make {word}`",
                    document.name()
                );
                named.insert(word.clone());
            }
        }
    }
    let silent: Vec<_> = targets
        .difference(&named)
        .filter(|t| !["help", "clean"].contains(&t.as_str()))
        .collect();
    assert!(silent.is_empty(), "no document names `make` {silent:?}");
}

#[test]
fn every_script_that_is_named_exists() {
    let mut seen = 0;
    for document in documents() {
        for words in code(&document) {
            let script = words.iter().filter(|word| word.starts_with("scripts/"));
            for script in script {
                seen += 1;
                assert!(
                    top().join(script).exists(),
                    "{}: there is no `{script}`",
                    document.name()
                );
            }
        }
    }
    assert!(seen > 3, "only {seen} scripts were found");
    assert!(pages().len() > 15, "the book has few pages");
}

#[test]
fn a_wrong_line_is_seen() {
    let [condo, runtime] = programs();
    let check = |program: &Command, line: &str| complaint(program, &words(line)[1..]);
    assert!(
        check(&condo, "condo frobnicate web")
            .unwrap()
            .contains("no command")
    );
    assert!(
        check(&condo, "condo image frobnicate")
            .unwrap()
            .contains("no command")
    );
    assert!(
        check(&condo, "condo stop --gently web")
            .unwrap()
            .contains("no `--gently`")
    );
    assert!(check(&runtime, "condo-runtime rollback web").is_some());
    assert_eq!(check(&condo, "condo exec web -- ps --forest"), None);
    assert_eq!(check(&condo, "sudo condo --root /tmp/x stop web"), None);
    assert_eq!(check(&condo, "condo COMMAND --help"), None);
    let leaves = leaves(&condo, "condo");
    assert!(rows("| `condo image list` | x |", &leaves).contains("condo image list"));
    assert!(rows("| `condo imagine list` | x |", &leaves).is_empty());
}
