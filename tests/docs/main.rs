//! What users read, against the programs: every command, option, field, message and test that it names exists, and every link leads
//! somewhere.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

mod commands;
mod fields;
mod links;
mod markdown;
mod messages;
mod security;
mod tests_by_name;

use std::path::{Path, PathBuf};

/// The top of the repository.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The book's pages.
fn book() -> PathBuf {
    top().join("docs/src")
}

/// A file that users read, by its path from the top.
struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        Self {
            path: path.to_path_buf(),
            text,
        }
    }

    /// Its path from the top, for complaints.
    fn name(&self) -> String {
        self.path.strip_prefix(top()).unwrap().display().to_string()
    }
}

/// The book's pages, [`book`]'s `SUMMARY.md` included.
fn pages() -> Vec<Document> {
    files(&book(), "md")
        .iter()
        .map(|path| Document::read(path))
        .collect()
}

/// Everything that users and contributors read, but for the changelog, which may name what is gone.
fn documents() -> Vec<Document> {
    let mut all = pages();
    for name in [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "benches/README.md",
        "tests/guest/README.md",
    ] {
        all.push(Document::read(&top().join(name)));
    }
    all
}

/// All files below a directory with this extension, sorted.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}
