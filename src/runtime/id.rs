//! Container ids: they become directory names, so they are checked before anything else.

use std::fmt;

use crate::error::{Error, Result};

/// Longest id, by what a file name can hold.
const MAX: usize = 255;

/// A checked container id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id(String);

impl Id {
    /// Accepts letters, digits and `_+-.`, as the field does; not `.` and `..`.
    pub fn new(id: &str) -> Result<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        if id.is_empty() || id.len() > MAX || !id.chars().all(allowed) || id == "." || id == ".." {
            let problem = "is an invalid id format: use letters, digits, `_`, `+`, `-` and `.`";
            return Err(Error::invalid("container id", id, problem));
        }
        Ok(Self(id.to_string()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_leave_their_directory() {
        for bad in ["", ".", "..", "a/b", "../x", "a b", "a\0", "ä", &"x".repeat(256)] {
            assert!(Id::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "web-1", "a_b.c+d", "..."] {
            assert_eq!(Id::new(good).unwrap().as_str(), good);
        }
    }
}
