//! The name of a VPS: a DNS label, because it is also its host name, a cgroup and a directory.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Longest DNS label (RFC 1035, 2.3.4).
const MAX: usize = 63;

/// A validated name: `[a-z][a-z0-9-]{0,62}` that does not end in `-`.
///
/// Made only by parsing, so that no path, cgroup or configuration line is ever built from anything else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match problem(text) {
            Some(problem) => Err(Error::invalid("NAME", text, problem)),
            None => Ok(Self(text.to_owned())),
        }
    }
}

fn problem(text: &str) -> Option<&'static str> {
    let bytes = text.as_bytes();
    let Some(first) = bytes.first() else {
        return Some("is empty; a VPS needs a name");
    };
    if !first.is_ascii_lowercase() {
        return Some("must begin with a lower case letter");
    }
    if bytes.len() > MAX {
        return Some("is longer than 63 characters");
    }
    let allowed = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    if !bytes.iter().all(allowed) {
        return Some("may hold only lower case letters, digits and `-`");
    }
    (bytes.last() == Some(&b'-')).then_some("must not end with `-`")
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl AsRef<std::path::Path> for Name {
    fn as_ref(&self) -> &std::path::Path {
        self.0.as_ref()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dns_labels_are_names() {
        for good in ["a", "web", "web-1", "a--b", &"a".repeat(63)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let long = "a".repeat(64);
        for bad in [
            "", "-a", "1a", "A", "aB", "a-", "a_b", "a.b", "a/b", "..", "a\n", "a\0", "ä", " a", &long,
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn stored_names_are_checked_again() {
        assert!(serde_json::from_str::<Name>(r#""../etc""#).is_err());
    }

    proptest! {
        #[test]
        fn a_name_is_one_harmless_path_component(text in ".{0,70}") {
            if let Ok(name) = text.parse::<Name>() {
                let path = std::path::Path::new("/x").join(&name);
                prop_assert_eq!(path.components().count(), 3);
                prop_assert_eq!(path.parent().unwrap(), std::path::Path::new("/x"));
            }
        }
    }
}
