//! Links, anchors, the book's table of contents, and the size of README.md.

use std::collections::BTreeSet;
use std::path::Path;

use super::markdown::{anchors, links, parts};
use super::{Document, book, documents, files, pages, top};

/// What is wrong with a link of a document.
fn complaint(document: &Document, link: &str) -> Option<String> {
    let (path, anchor) = link.split_once('#').map_or((link, None), |(p, a)| (p, Some(a)));
    let target = match path {
        "" => document.path.clone(),
        path => document.path.parent()?.join(path),
    };
    if !target.exists() {
        return Some("leads nowhere".into());
    }
    let anchor = anchor?;
    let known = anchors(&std::fs::read_to_string(&target).ok()?);
    (!known.iter().any(|a| a == anchor)).then(|| format!("there is no heading `{anchor}`"))
}

#[test]
fn every_link_leads_somewhere() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for document in documents() {
        for link in parts(&document.text).0.into_iter().flat_map(links) {
            if link.starts_with("https://") {
                continue;
            }
            seen += 1;
            let complaint = complaint(&document, &link);
            wrong.extend(complaint.map(|c| format!("{}: ({link}) {c}", document.name())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 80, "only {seen} links were found");
}

#[test]
fn a_wrong_link_is_seen() {
    let readme = Document::read(&top().join("README.md"));
    let wrong = |link: &str| complaint(&readme, link).is_some();
    assert!(wrong("docs/src/nowhere.md") && wrong("docs/src/network.md#nothing") && wrong("#nothing"));
    assert!(!wrong("docs/src/network.md#what-it-does-to-the-host") && !wrong("#the-book"));
}

#[test]
fn every_page_is_in_the_table_of_contents_once() {
    let contents = Document::read(&book().join("SUMMARY.md"));
    let listed: Vec<String> = contents.text.lines().flat_map(links).collect();
    let once: BTreeSet<&String> = listed.iter().collect();
    assert_eq!(once.len(), listed.len(), "a page is listed twice");
    let there: BTreeSet<String> = files(&book(), "md")
        .iter()
        .filter_map(|path| path.strip_prefix(book()).ok()?.to_str().map(str::to_owned))
        .filter(|path| path != "SUMMARY.md")
        .collect();
    let listed: BTreeSet<String> = listed.into_iter().collect();
    assert_eq!(there, listed, "left: the pages, right: SUMMARY.md");
}

#[test]
fn the_readme_is_one_screen() {
    let text = Document::read(&top().join("README.md")).text;
    let count = text.lines().count();
    assert!(
        count <= 150,
        "README.md has {count} lines; the rest belongs into docs/src"
    );
}

/// Tables, pictures in text and addresses cannot be broken; prose can.
#[test]
fn lines_have_a_sane_width() {
    let mut wrong = Vec::new();
    for document in pages().iter().chain([&Document::read(&top().join("README.md"))]) {
        for line in parts(&document.text).0 {
            if line.chars().count() > 140 && !line.starts_with('|') {
                wrong.push(format!("{}: {line}", document.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// mdBook copies what lies beside the pages, so that a picture outside of the book would be missing in it.
#[test]
fn pictures_of_the_book_lie_in_it() {
    for page in pages() {
        for line in page.text.lines().filter(|line| line.starts_with("![")) {
            for picture in links(line) {
                let inside = Path::new(&picture)
                    .components()
                    .all(|part| part.as_os_str() != "..");
                assert!(inside, "{}: ({picture}) is outside of docs/src", page.name());
            }
        }
    }
}
