//! SECURITY.md's rows, against the tests they name.

use std::collections::BTreeSet;

use super::tests_by_name::test_names;
use super::top;

#[test]
fn every_defence_has_its_tests() {
    let text = std::fs::read_to_string(top().join("SECURITY.md")).unwrap();
    let mut named_fully = BTreeSet::new();
    test_names(&top().join("tests/root"), "", &mut named_fully);
    test_names(&top().join("src"), "", &mut named_fully);
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
