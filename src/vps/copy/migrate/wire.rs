//! What the two hosts say to each other: messages with their length before them, and archives in pieces.

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{During, Error, Result};
use crate::vps::record::name::Name;

/// Longest message and longest piece.
const MOST: usize = 1 << 20;
/// The conversation described above.
pub(super) const VERSION: u32 = 2;

/// What the host that has the VPS says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Said {
    /// First: what this is about.
    Hello {
        version: u32,
        name: Name,
        token: String,
        /// How this host calls the other, for its messages.
        to: String,
    },
    /// Whether an image with these files is there: then they need not be sent.
    Image { name: String, digest: String },
    /// An archive follows in pieces.
    State,
    /// It is yours.
    Commit {
        /// Whether it ran.
        start: bool,
    },
}

/// What the other host answers to each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Answer {
    /// There is no such VPS here, or no such image.
    None,
    /// It is here, by this token, and runs if it is to.
    Arrived { address: Ipv4Addr },
    /// Done.
    Done,
    /// That cannot be done, and nothing of it is here.
    Refused { why: String },
}

pub(super) fn send(writer: &mut impl Write, message: &impl Serialize) -> Result<()> {
    piece(writer, &serde_json::to_vec(message)?)?;
    writer.flush().during(|| "speak to the other host")
}

/// One message. Nothing when the other side has ended.
pub(super) fn receive<T: DeserializeOwned>(reader: &mut impl Read) -> Result<Option<T>> {
    let message = match next(reader) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other.during(|| "listen to the other host")?,
    };
    serde_json::from_slice(&message)
        .map(Some)
        .during(|| "understand the other host, which may have another condo")
}

fn piece(writer: &mut impl Write, bytes: &[u8]) -> Result<()> {
    let length =
        u32::try_from(bytes.len()).map_err(|_| Error::Corrupt("a message that is too long".into()))?;
    let work = || {
        writer.write_all(&length.to_be_bytes())?;
        writer.write_all(bytes)
    };
    let mut work = work;
    work().during(|| "speak to the other host")
}

fn next(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    reader.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MOST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message that is too long",
        ));
    }
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A writer that sends what is written in pieces. The last one is empty.
pub(super) struct Pieces<'w, W: Write> {
    writer: &'w mut W,
    kept: Vec<u8>,
}

impl<'w, W: Write> Pieces<'w, W> {
    pub(super) fn new(writer: &'w mut W) -> Self {
        Self {
            writer,
            kept: Vec::with_capacity(MOST),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let length = u32::try_from(self.kept.len()).unwrap_or(0);
        self.writer.write_all(&length.to_be_bytes())?;
        self.writer.write_all(&self.kept)?;
        self.kept.clear();
        Ok(())
    }

    /// Sends the rest and says that it was all.
    pub(super) fn end(mut self) -> io::Result<()> {
        if !self.kept.is_empty() {
            self.send()?;
        }
        self.writer.write_all(&[0; 4])?;
        self.writer.flush()
    }
}

impl<W: Write> Write for Pieces<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.kept.len() == MOST {
            self.send()?;
        }
        let count = bytes.len().min(MOST - self.kept.len());
        self.kept.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader of what [`Pieces`] sent. It ends behind the empty piece.
pub(super) struct Whole<'r, R: Read> {
    reader: &'r mut R,
    kept: Vec<u8>,
    at: usize,
    over: bool,
}

impl<'r, R: Read> Whole<'r, R> {
    pub(super) fn new(reader: &'r mut R) -> Self {
        Self {
            reader,
            kept: Vec::new(),
            at: 0,
            over: false,
        }
    }
}

impl<R: Read> Read for Whole<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.kept.len() && !self.over {
            self.kept = next(self.reader)?;
            self.at = 0;
            self.over = self.kept.is_empty();
        }
        let count = buffer.len().min(self.kept.len() - self.at);
        buffer[..count].copy_from_slice(&self.kept[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_and_messages_share_a_line() {
        let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let mut line = Vec::new();
        send(&mut line, &Said::State).unwrap();
        let mut pieces = Pieces::new(&mut line);
        pieces.write_all(&content).unwrap();
        pieces.end().unwrap();
        send(&mut line, &Said::Commit { start: true }).unwrap();
        let mut reader = line.as_slice();
        assert!(matches!(receive(&mut reader).unwrap(), Some(Said::State)));
        let mut read = Vec::new();
        Whole::new(&mut reader).read_to_end(&mut read).unwrap();
        assert!(read == content);
        assert!(matches!(
            receive(&mut reader).unwrap(),
            Some(Said::Commit { start: true })
        ));
        assert!(receive::<Said>(&mut reader).unwrap().is_none());
    }

    #[test]
    fn a_line_that_is_cut_is_an_error() {
        let mut line = Vec::new();
        let mut pieces = Pieces::new(&mut line);
        pieces.write_all(b"abc").unwrap();
        pieces.end().unwrap();
        line.truncate(5);
        assert!(
            Whole::new(&mut line.as_slice())
                .read_to_end(&mut Vec::new())
                .is_err()
        );
        assert!(receive::<Said>(&mut [0xff; 8].as_slice()).is_err());
    }
}
