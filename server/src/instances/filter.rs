//! `filter=`: which objects of a list are shown, as `status eq Running and not name eq web.*`.

use regex_lite::{Regex, RegexBuilder};
use serde_json::Value;

use crate::reply::Problem;

/// The longest filter, in bytes.
const LONGEST: usize = 8192;

/// Conditions, any group of which has to hold as a whole.
#[derive(Debug)]
pub(crate) struct Filter(Vec<Vec<Condition>>);

#[derive(Debug)]
struct Condition {
    field: String,
    value: Regex,
    /// Whether it must not match.
    other: bool,
}

impl Filter {
    /// Reads a filter.
    pub(crate) fn read(text: &str) -> Result<Self, Problem> {
        let refuse = |problem: &str| Problem::value("filter", text, problem);
        if text.len() > LONGEST {
            return Err(refuse("is too long"));
        }
        let words = words(text);
        let mut words = words.iter().map(String::as_str).peekable();
        let mut groups = vec![Vec::new()];
        while let Some(mut word) = words.next() {
            let mut other = false;
            while word == "not" {
                other = !other;
                word = words.next().ok_or_else(|| refuse("ends with `not`"))?;
            }
            match words.next() {
                Some("eq") => {}
                Some("ne") => other = !other,
                _ => return Err(refuse("has no `eq` or `ne` after a field")),
            }
            let value = words
                .next()
                .ok_or_else(|| refuse("has no value after `eq` or `ne`"))?;
            let value = pattern(value).ok_or_else(|| refuse("has a value that is no regular expression"))?;
            if let Some(group) = groups.last_mut() {
                group.push(Condition {
                    field: word.to_owned(),
                    value,
                    other,
                });
            }
            match words.next() {
                None => break,
                Some("and") => {}
                Some("or") => groups.push(Vec::new()),
                Some(_) => return Err(refuse("has neither `and` nor `or` between two conditions")),
            }
            if words.peek().is_none() {
                return Err(refuse("ends with `and` or `or`"));
            }
        }
        Ok(Self(groups))
    }

    /// Whether an object is to be shown.
    pub(crate) fn fits(&self, object: &Value) -> bool {
        self.0
            .iter()
            .any(|group| group.iter().all(|condition| condition.holds(object)))
    }
}

impl Condition {
    fn holds(&self, object: &Value) -> bool {
        let matched = match find(object, &self.field) {
            Some(Value::String(text)) => self.value.is_match(text),
            Some(other @ (Value::Bool(_) | Value::Number(_))) => self.value.is_match(&other.to_string()),
            _ => false,
        };
        matched != self.other
    }
}

/// A field by its path. Keys of `config` have dots themselves.
fn find<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    if let Some(found) = object.get(path) {
        return Some(found);
    }
    path.match_indices('.')
        .find_map(|(at, _)| find(object.get(&path[..at])?, &path[at + 1..]))
}

/// A value is a regular expression for all of the field, or for a part if it says where that begins or ends.
fn pattern(value: &str) -> Option<Regex> {
    let whole = if value.contains(['^', '$']) {
        value.to_owned()
    } else {
        format!("^{value}$")
    };
    RegexBuilder::new(&whole).case_insensitive(true).build().ok()
}

/// Words between blanks; quotes keep one together.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    let mut begun = false;
    for c in text.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                begun = true;
            }
            c if c.is_whitespace() && !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_compared() {
        let web = json!({ "name": "web", "status": "Running", "ephemeral": false,
            "config": { "limits.cpu": "2" }, "expanded_devices": { "root": { "type": "disk" } } });
        for (filter, expected) in [
            ("", true),
            ("status eq running", true),
            ("name eq we", false),
            ("name eq (^we$|^web.*)", true),
            ("name ne web", false),
            ("not name eq db and status eq Running", true),
            ("name eq db or config.limits.cpu eq 2", true),
            ("expanded_devices.root.type eq \"disk\"", true),
            ("ephemeral eq false", true),
            ("nothing eq x", false),
        ] {
            assert_eq!(Filter::read(filter).unwrap().fits(&web), expected, "{filter}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "name",
            "name eq",
            "name is web",
            "name eq web and",
            "name eq web db eq x",
            "not",
            "name eq [",
        ] {
            assert!(Filter::read(bad).is_err(), "{bad}");
        }
    }
}
