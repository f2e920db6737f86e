//! The house's outer walls: what `src/lib.rs` says about its staircase is read from there and held against the code.
//!
//! A text scan, no compiler: it sees every name written as a path from the root of the crate, which is how this crate names
//! things across modules. Each rule has a test that it can fail.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

mod lexer;
mod rules;

use std::fs;
use std::path::{Path, PathBuf};

use rules::House;

fn source_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(source_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn the_house_stands() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let house = House::of(&fs::read_to_string(src.join("lib.rs")).unwrap());
    let mut files: Vec<(String, String)> = source_files(&src)
        .iter()
        .map(|path| {
            let name = path.strip_prefix(&src).unwrap().to_str().unwrap();
            (name.to_owned(), fs::read_to_string(path).unwrap())
        })
        .collect();
    // The room beside `cli` is a crate of its own, whose dependencies are linked into nothing else.
    let api = Path::new(env!("CARGO_MANIFEST_DIR")).join("server/src");
    files.extend(source_files(&api).iter().map(|path| {
        let name = path.strip_prefix(&api).unwrap().to_str().unwrap();
        (format!("api/{name}"), fs::read_to_string(path).unwrap())
    }));
    let declared = files
        .iter()
        .flat_map(|(name, text)| rules::test_modules(name, text));
    let only_tests: Vec<String> = declared.collect();
    let complaints: Vec<String> = files
        .iter()
        .flat_map(|(name, text)| house.check(name, text, &only_tests))
        .collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
