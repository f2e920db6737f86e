//! The table of fields of config.json, against what the tests of the code prove of each.

use std::collections::{BTreeMap, BTreeSet};

use super::tests_by_name::test_names;
use super::{Document, top};

/// What the page says of every field of config.json.
fn documented_fields(text: &str) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    for row in text
        .lines()
        .filter(|line| line.starts_with("| `") || line.starts_with("|  | `"))
    {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let object = cells[1].trim_matches('`');
        for name in cells[2].split_whitespace().map(|name| name.trim_matches('`')) {
            let field = [object, name].join(".").trim_start_matches('.').to_owned();
            let twice = fields.insert(field.clone(), cells[3].to_owned());
            assert_eq!(twice, None, "oci/config.md has two rows for `{field}`");
        }
    }
    fields
}

/// What the tests hold the code to: the rows of `tests/data/config`, which `runtime::plan::golden` proves one by one.
fn golden_rows() -> Vec<serde_json::Value> {
    let folder = top().join("tests/data/config");
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
    let page = Document::read(&super::book().join("oci/config.md")).text;
    let (documented, proven) = (documented_fields(&page), proven_fields());
    assert!(proven.len() > 150, "{} fields", proven.len());
    let wrong: Vec<_> = proven
        .iter()
        .filter(|(field, verdict)| documented.get(*field) != Some(verdict))
        .map(|(field, verdict)| {
            format!(
                "`{field}` is {verdict}, oci/config.md says {:?}",
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
        "oci/config.md has fields that are none: {invented:?}"
    );
}

#[test]
fn the_root_tests_that_see_a_field_exist() {
    let mut tests = BTreeSet::new();
    test_names(&top().join("tests/root"), "", &mut tests);
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
