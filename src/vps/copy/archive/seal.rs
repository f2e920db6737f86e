//! The seal: what was written is what is read, to the last byte.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

/// A frame that zstd decompressors skip (RFC 8878, 3.1.2), and its length: that of the digest.
const HEAD: [u8; 8] = [0x5e, 0x2a, 0x4d, 0x18, 32, 0, 0, 0];
const SEAL: usize = HEAD.len() + 32;

/// A writer that puts a seal behind what goes through it.
pub struct Sealing<W> {
    writer: W,
    hash: Sha256,
    written: u64,
}

impl<W> std::fmt::Debug for Sealing<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealing")
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl<W: Write> Sealing<W> {
    /// Seals what is written to `writer`.
    pub fn new(writer: W) -> Self {
        Self {
            writer,
            hash: Sha256::new(),
            written: 0,
        }
    }

    /// Writes the seal; how many bytes there are with it.
    pub fn seal(mut self) -> io::Result<(W, u64)> {
        self.writer.write_all(&HEAD)?;
        self.writer.write_all(&self.hash.finalize())?;
        self.writer.flush()?;
        Ok((self.writer, self.written + SEAL as u64))
    }
}

impl<W: Write> Write for Sealing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.writer.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// A reader of what was sealed. Its end is an error unless the seal is there and right.
pub struct Sealed<R> {
    reader: R,
    hash: Sha256,
    /// Read and not handed on: what may turn out to be the seal is kept back.
    kept: Vec<u8>,
    over: bool,
}

impl<R> std::fmt::Debug for Sealed<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealed")
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

impl<R: Read> Sealed<R> {
    /// Reads what [`Sealing`] wrote.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            hash: Sha256::new(),
            kept: Vec::new(),
            over: false,
        }
    }

    fn check(&self) -> io::Result<()> {
        let digest = self.hash.clone().finalize();
        let right = self
            .kept
            .strip_prefix(&HEAD)
            .is_some_and(|sealed| sealed == digest.as_slice());
        right.then_some(()).ok_or_else(|| {
            let text = "the archive was damaged or cut off: its checksum is not right";
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }
}

impl<R: Read> Read for Sealed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while !self.over && self.kept.len() <= SEAL {
            let before = self.kept.len();
            self.kept.resize(before + (1 << 16), 0);
            let count = self.reader.read(&mut self.kept[before..]);
            self.kept
                .truncate(before + count.as_ref().map_or(0, |count| *count));
            match count {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => self.over = other? == 0,
            }
        }
        let count = self.kept.len().saturating_sub(SEAL).min(buffer.len());
        if count == 0 {
            return self.check().map(|()| 0);
        }
        buffer[..count].copy_from_slice(&self.kept[..count]);
        self.hash.update(&self.kept[..count]);
        self.kept.drain(..count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(content: &[u8]) -> Vec<u8> {
        let mut writer = Sealing::new(Vec::new());
        writer.write_all(content).unwrap();
        writer.seal().unwrap().0
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        Sealed::new(bytes).read_to_end(&mut content).map(|_| content)
    }

    #[test]
    fn what_was_sealed_is_read_and_nothing_else() {
        for length in [0, 1, 39, 40, 41, 70_000, 200_000] {
            let content: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let mut bytes = sealed(&content);
            assert_eq!(read(&bytes).unwrap(), content);
            assert!(read(&bytes[..bytes.len() - 1]).is_err(), "cut at its end");
            assert!(read(&bytes[..bytes.len() / 2]).is_err(), "cut in the middle");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            assert!(read(&bytes).is_err(), "one bit");
        }
        assert!(read(b"").is_err());
        let mut longer = sealed(b"abc");
        longer.push(0);
        assert!(read(&longer).is_err());
    }
}
