//! README.md against the programs: its tables of commands, and every command line and option it shows.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::Command;

/// The programs, with the options that every command has (`--help`).
fn programs() -> [Command; 2] {
    [condo::cli::vps::command(), condo::cli::oci::command()].map(|mut program| {
        program.build();
        program
    })
}

fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
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

/// The words of everything in the text that is written as code: spans between backticks and lines after a prompt.
fn code(text: &str) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            // What comes before the prompt is a time, what comes after ` # ` is a remark.
            lines.extend(line.split_once("$ ").map(|(_, typed)| typed));
        } else {
            lines.extend(line.split('`').skip(1).step_by(2));
        }
    }
    let typed = lines.iter().filter_map(|line| line.split(" # ").next());
    typed.flat_map(|line| line.split("&&")).map(words).collect()
}

/// A command line up to ` -- `, after which it is another program's, and without `sudo`.
fn words(line: &str) -> Vec<String> {
    let all = line.split_whitespace().skip_while(|word| *word == "sudo");
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

/// The commands that a table of the README has a row for.
fn rows(text: &str, leaves: &BTreeSet<String>) -> BTreeSet<String> {
    let cells = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let commands = cells.map(|cell| words(cell).join(" "));
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
    let text = readme();
    for program in programs() {
        let leaves = leaves(&program, program.get_name());
        let documented = rows(&text, &leaves);
        let missing: Vec<_> = leaves.difference(&documented).collect();
        assert!(missing.is_empty(), "README.md has no row for {missing:?}");
    }
}

#[test]
fn every_command_line_shown_exists() {
    let text = readme();
    let mut seen = 0;
    let mut wrong = Vec::new();
    for line in code(&text) {
        for program in programs() {
            if line.first().is_some_and(|word| word == program.get_name()) {
                seen += 1;
                wrong.extend(complaint(&program, &line[1..]).map(|c| format!("`{}`: {c}", line.join(" "))));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        seen > 40,
        "only {seen} command lines were found: did README.md change its form?"
    );
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

/// What README.md says of every field of config.json.
fn documented_fields(text: &str) -> BTreeMap<String, String> {
    let table = text.split("### Fields of config.json").nth(1).unwrap();
    let table = table.split("</details>").next().unwrap();
    let mut fields = BTreeMap::new();
    for row in table
        .lines()
        .filter(|line| line.starts_with("| `") || line.starts_with("|  | `"))
    {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let object = cells[1].trim_matches('`');
        for name in cells[2].split_whitespace().map(|name| name.trim_matches('`')) {
            let field = [object, name].join(".").trim_start_matches('.').to_owned();
            let twice = fields.insert(field.clone(), cells[3].to_owned());
            assert_eq!(twice, None, "README.md has two rows for `{field}`");
        }
    }
    fields
}

/// What the tests hold the code to: the rows of `tests/data/config`, which `runtime::plan::golden` proves one by one.
fn golden_rows() -> Vec<serde_json::Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config");
    let files = std::fs::read_dir(folder).unwrap();
    let rows = |file: std::io::Result<std::fs::DirEntry>| -> Vec<serde_json::Value> {
        serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap()
    };
    files.flat_map(rows).collect()
}

fn proven_fields() -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    for row in golden_rows() {
        let field = row["field"].as_str().unwrap();
        let verdict = match (row.get("refused"), row.get("ignored")) {
            // The one whose every value but 1.x is refused.
            (Some(_), _) if field == "ociVersion" => "yes",
            (Some(_), _) => "refused",
            (None, Some(_)) => "ignored",
            (None, None) => "yes",
        };
        fields.insert(field.to_owned(), verdict.to_owned());
    }
    fields
}

#[test]
fn every_field_of_config_json_is_in_the_table_as_it_is() {
    let (documented, proven) = (documented_fields(&readme()), proven_fields());
    assert!(proven.len() > 150, "{} fields", proven.len());
    let wrong: Vec<_> = proven
        .iter()
        .filter(|(field, verdict)| documented.get(*field) != Some(verdict))
        .map(|(field, verdict)| {
            format!(
                "`{field}` is {verdict}, README.md says {:?}",
                documented.get(field)
            )
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let invented: Vec<_> = documented
        .keys()
        .filter(|field| !proven.contains_key(*field))
        .collect();
    assert!(
        invented.is_empty(),
        "README.md has fields that are none: {invented:?}"
    );
}

/// The names of all test functions below a directory, after those of the modules they are in: marked as tests, or listed in a
/// `tests![…]` of the root tests, whose runner calls them the same.
fn test_names(folder: &Path, module: &str, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let module = match path.file_stem().unwrap().to_str().unwrap() {
            "mod" => module.to_owned(),
            name => format!("{module}{name}::"),
        };
        if path.is_dir() {
            test_names(&path, &module, names);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let marked = text.split("#[test]").skip(1);
            let function = |after: &str| Some(after.split_once("fn ")?.1.split('(').next()?.to_owned());
            let mut found: Vec<String> = marked.filter_map(function).collect();
            for list in text.split("tests![").skip(1) {
                let list = list.split(']').next().unwrap().replace('\n', " ");
                // Behind the name some say where they run and how long they may: `name in guest: 300`.
                let name = |entry: &str| {
                    entry
                        .split([':', ' '])
                        .find(|word| !word.is_empty())
                        .map(str::to_owned)
                };
                found.extend(list.split(',').filter_map(name));
            }
            names.extend(found.into_iter().map(|name| format!("{module}{name}")));
        }
    }
}

#[test]
fn the_root_tests_that_see_a_field_exist() {
    let mut tests = BTreeSet::new();
    test_names(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/root"),
        "",
        &mut tests,
    );
    let mut missing = BTreeSet::new();
    let mut seen = 0;
    for row in golden_rows() {
        for test in row
            .get("seen")
            .and_then(|list| list.as_array())
            .into_iter()
            .flatten()
        {
            seen += 1;
            let name = test.as_str().unwrap();
            if !tests.contains(name) {
                missing.insert(name.to_owned());
            }
        }
    }
    assert!(
        missing.is_empty(),
        "tests/data/config names tests that are not there: {missing:#?}"
    );
    assert!(seen > 150, "only {seen} names: did the rows change their form?");
}

#[test]
fn every_defence_has_its_tests() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(top.join("SECURITY.md")).unwrap();
    let mut named_fully = BTreeSet::new();
    test_names(&top.join("tests/root"), "", &mut named_fully);
    test_names(&top.join("src"), "", &mut named_fully);
    let tests: BTreeSet<&str> = named_fully
        .iter()
        .filter_map(|name| name.rsplit("::").next())
        .collect();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| CVE-"))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() >= 15, "only {} rows", rows.len());
    let mut named = BTreeSet::new();
    for row in &rows {
        let cell: Vec<&str> = row[4].split('`').skip(1).step_by(2).collect();
        assert!(!cell.is_empty(), "{} has no test", row[1]);
        named.extend(cell);
    }
    let missing: Vec<_> = named.iter().filter(|name| !tests.contains(**name)).collect();
    assert!(
        missing.is_empty(),
        "SECURITY.md names tests that are not there: {missing:?}"
    );
    let is_regression = |name: &&&str| {
        ["cve_", "crun_2", "crio_2", "youki_2"]
            .iter()
            .any(|p| name.starts_with(p))
    };
    let unlisted: Vec<_> = tests
        .iter()
        .filter(is_regression)
        .filter(|name| !named.contains(**name))
        .collect();
    assert!(unlisted.is_empty(), "SECURITY.md has no row for {unlisted:?}");
}
