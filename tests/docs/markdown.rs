//! As much of Markdown as these documents use: fences, code spans, links, headings.

/// A document's lines outside of fences, and what is typed after a prompt within them.
pub(super) fn parts(text: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut prose, mut typed) = (Vec::new(), Vec::new());
    let mut fenced = false;
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            // What comes before the prompt is a time, what comes after ` # ` is a remark.
            let command = line.split_once("$ ").map(|(_, typed)| typed);
            typed.extend(command.and_then(|command| command.split(" # ").next()));
        } else {
            prose.push(line);
        }
    }
    (prose, typed)
}

/// The code spans of a line: between as many backticks as they begin with, without the blank that keeps a backtick apart.
pub(super) fn spans(line: &str) -> Vec<&str> {
    split(line).0
}

/// Where a line's links and images lead, as they are written.
pub(super) fn links(line: &str) -> Vec<String> {
    let plain = split(line).1;
    let mut targets = Vec::new();
    for after in plain.split("](").skip(1) {
        targets.extend(after.split(')').next().map(str::to_owned));
    }
    targets
}

/// A line's code spans, and the rest of it.
fn split(line: &str) -> (Vec<&str>, String) {
    let (mut spans, mut plain) = (Vec::new(), String::new());
    let mut rest = line;
    while let Some(begin) = rest.find('`') {
        let ticks = rest[begin..].len() - rest[begin..].trim_start_matches('`').len();
        let inside = &rest[begin + ticks..];
        plain.push_str(&rest[..begin]);
        match end(inside, ticks) {
            Some(length) => {
                spans.push(inside[..length].trim());
                rest = &inside[length + ticks..];
            }
            None => rest = inside,
        }
    }
    plain.push_str(rest);
    (spans, plain)
}

/// How long a span is that ends with exactly so many backticks.
fn end(text: &str, ticks: usize) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = text[at..].find('`') {
        let run = text[at + found..].len() - text[at + found..].trim_start_matches('`').len();
        if run == ticks {
            return Some(at + found);
        }
        at += found + run;
    }
    None
}

/// The anchors of a document's headings, as GitHub and mdBook make them.
pub(super) fn anchors(text: &str) -> Vec<String> {
    let headings = parts(text).0.into_iter().filter(|line| line.starts_with('#'));
    headings
        .map(|line| slug(line.trim_start_matches('#').trim()))
        .collect()
}

fn slug(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c })
        .collect::<String>()
        .to_lowercase()
}

#[test]
fn spans_end_as_they_begin() {
    assert_eq!(spans("a `b` c ``d `e` f`` `` `g` ``"), ["b", "d `e` f", "`g`"]);
    assert_eq!(spans("no `end"), Vec::<&str>::new());
}

#[test]
fn links_are_found_outside_of_code() {
    assert_eq!(links("[a](b.md) `[c](d)` ![e](f.svg#g)"), ["b.md", "f.svg#g"]);
}

#[test]
fn headings_become_anchors() {
    assert_eq!(
        anchors("# The demo, as it ran\n```text\n# no\n```\n## A `b`-c"),
        ["the-demo-as-it-ran", "a-b-c"]
    );
}
