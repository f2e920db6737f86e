//! Digests: names of content that cannot be something else.

use std::fmt;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

const ALGORITHM: &str = "sha256:";

/// A SHA-256 digest, as `sha256:` and 64 hexadecimal digits of image-spec `descriptor.md`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    hex: String,
}

/// Bytes as two hexadecimal digits each.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Digest {
    /// Reads one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is none, or one of another algorithm.
    pub fn parse(text: &str) -> Result<Self> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        text.strip_prefix(ALGORITHM)
            .filter(|hex| hex.len() == 64 && hex.bytes().all(digit))
            .map(|hex| Self { hex: hex.to_owned() })
            .ok_or_else(|| {
                let problem = "is not `sha256:` and 64 hexadecimal digits";
                Error::invalid("digest", text.escape_debug(), problem)
            })
    }

    /// The digest of these bytes.
    pub fn of(data: &[u8]) -> Self {
        Self::from_hash(Sha256::new_with_prefix(data))
    }

    /// The digits alone, which make a file name.
    pub(super) fn hex(&self) -> &str {
        &self.hex
    }

    /// Enough of it to know it again.
    pub(super) fn short(&self) -> &str {
        &self.hex[..12]
    }

    /// What identifies a layer with all those below it: `ChainID` of image-spec `config.md`.
    pub(super) fn chain(below: Option<&Self>, layer: &Self) -> Self {
        match below {
            None => layer.clone(),
            Some(below) => Self::of(format!("{below} {layer}").as_bytes()),
        }
    }

    pub(super) fn from_hash(hash: Sha256) -> Self {
        Self {
            hex: hex(&hash.finalize()),
        }
    }

    /// Refuses content that has another digest.
    pub(super) fn must_be(&self, found: &Self, what: &str) -> Result<()> {
        if self == found {
            return Ok(());
        }
        Err(Error::Corrupt(format!(
            "{what} should have the digest `{self}` and has `{found}`: it was damaged or exchanged on its way"
        )))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}{}", self.hex)
    }
}

/// A reader that computes the digest of what goes through it.
pub(super) struct Hashing<R> {
    reader: R,
    hash: Sha256,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            hash: Sha256::new(),
        }
    }

    /// The state after all that was read, to go on with.
    pub(super) fn into_hash(self) -> Sha256 {
        self.hash
    }

    /// The digest of all that was read.
    pub(super) fn digest(self) -> Digest {
        Digest::from_hash(self.hash)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_sha256_is_a_digest() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::parse(empty).unwrap(), Digest::of(b""));
        assert_eq!(Digest::of(b"").to_string(), empty);
        for bad in [
            "",
            "sha256:",
            &empty[7..],
            &empty[..70],
            &empty.to_uppercase(),
            "sha256:../../../../../../../../../../../../../../../../../../../../../etc",
            "sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
    }

    /// The second is what image-spec writes as `Digest(ChainID(L₀) + " " + DiffID(L₁))`.
    #[test]
    fn a_chain_depends_on_everything_below() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(Digest::chain(None, &a), a);
        let both = Digest::chain(Some(&a), &b);
        assert_eq!(both, Digest::of(format!("{a} {b}").as_bytes()));
        assert_ne!(both, Digest::chain(Some(&b), &a));
    }

    #[test]
    fn what_is_read_is_hashed() {
        let mut reader = Hashing::new(&b"content"[..]);
        io::copy(&mut reader, &mut io::sink()).unwrap();
        let found = reader.digest();
        Digest::of(b"content").must_be(&found, "it").unwrap();
        assert!(Digest::of(b"other").must_be(&found, "it").is_err());
    }
}
