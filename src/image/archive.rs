//! An archive to import: where its bytes come from, its compression, and how far the reading is.

use std::fs::File;
use std::io::{self, Cursor, IsTerminal, Read};
use std::path::Path;

use super::tarball::too_much;
use crate::error::{During, Error, Result};

/// How far a long operation is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// What is going on, for a human reader.
    pub stage: &'a str,
    /// Bytes done in this stage.
    pub done: u64,
    /// Bytes of the whole stage, where they are known.
    pub total: Option<u64>,
    /// The layer it is about, the lowest being 0.
    pub layer: Option<usize>,
}

impl<'a> Progress<'a> {
    /// A stage that begins.
    pub(super) fn stage(stage: &'a str) -> Self {
        Self {
            stage,
            done: 0,
            total: None,
            layer: None,
        }
    }
}

/// Called as the work goes on.
pub type OnProgress<'a> = dyn FnMut(Progress<'_>) + 'a;

/// The path that stands for it.
const STANDARD_INPUT: &str = "-";
/// Bytes between two reports.
const REPORT: u64 = 1 << 20;
/// Memory a decompressor may take: twice what `xz -9` needs.
const MEMORY: u64 = 128 << 20;
/// The same for zstd, as the logarithm of its window: the most that `zstd` itself takes without being told.
const WINDOW_LOG: u32 = 27;

/// A tar archive, plain or compressed with gzip, zstd or xz (told apart by their first bytes).
pub struct Archive<'a> {
    label: String,
    reader: Box<dyn Read + 'a>,
    size: Option<u64>,
}

impl std::fmt::Debug for Archive<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive")
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}

impl<'a> Archive<'a> {
    /// An archive in a file; `-` is standard input.
    pub fn open(path: &Path) -> Result<Self> {
        if path == Path::new(STANDARD_INPUT) {
            return Self::from_standard_input();
        }
        let open = || -> Result<(File, u64)> {
            let file = File::open(path)?;
            let status = file.metadata()?;
            if status.is_dir() {
                return Err(Error::invalid(
                    "archive",
                    path.display(),
                    "is a directory, not an archive",
                ));
            }
            Ok((file, status.len()))
        };
        let (file, size) = open().during(|| format!("open `{}`", path.display()))?;
        Ok(Self {
            label: path.display().to_string(),
            reader: Box::new(file),
            // A fifo has no size.
            size: Some(size).filter(|size| *size > 0),
        })
    }

    /// An archive in an open file.
    pub(super) fn from_file(label: String, file: File) -> Self {
        let size = file.metadata().ok().map(|status| status.len());
        Self {
            label,
            reader: Box::new(file),
            size,
        }
    }

    fn from_standard_input() -> Result<Self> {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            return Err(Error::invalid(
                "archive",
                STANDARD_INPUT,
                "is a terminal; pipe an archive in, or name its file",
            ));
        }
        Ok(Self::from_reader("standard input", stdin.lock()))
    }

    /// An archive out of a stream; `label` names it in the manifest.
    pub fn from_reader(label: impl Into<String>, reader: impl Read + 'a) -> Self {
        Self {
            label: label.into(),
            reader: Box::new(reader),
            size: None,
        }
    }

    /// Where it comes from.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Its size in bytes as it is, where that is known.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// The tar stream inside, of at most `limit` bytes.
    pub fn decode(self, limit: u64, progress: &'a mut OnProgress<'_>) -> Result<impl Read + 'a> {
        let counted = Counted {
            reader: self.reader,
            done: 0,
            reported: 0,
            total: self.size,
            progress,
        };
        let reader = decompress(counted).during(|| format!("read `{}`", self.label))?;
        Ok(Capped {
            reader,
            left: limit,
            limit,
        })
    }
}

/// Tells how much has been read.
struct Counted<'a, 'p, R> {
    reader: R,
    done: u64,
    reported: u64,
    total: Option<u64>,
    progress: &'a mut OnProgress<'p>,
}

impl<R: Read> Read for Counted<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.done += count as u64;
        if count == 0 || self.done - self.reported >= REPORT {
            self.reported = self.done;
            (self.progress)(Progress {
                stage: "unpacking",
                done: self.done,
                total: self.total,
                layer: None,
            });
        }
        Ok(count)
    }
}

/// Fails, instead of ending, when more comes than is allowed: a decompression bomb.
struct Capped<R> {
    reader: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => {
                return Err(io::Error::other(too_much(
                    "bytes after decompression",
                    self.limit,
                )));
            }
        }
        Ok(count)
    }
}

fn decompress<'a>(mut reader: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut magic = Vec::new();
    reader.by_ref().take(6).read_to_end(&mut magic)?;
    let whole = io::BufReader::with_capacity(1 << 16, Cursor::new(magic.clone()).chain(reader));
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
            decoder.window_log_max(WINDOW_LOG)?;
            Box::new(decoder)
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            let stream = liblzma::stream::Stream::new_stream_decoder(MEMORY, liblzma::stream::CONCATENATED)
                .map_err(io::Error::from)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(whole, stream))
        }
        [b'B', b'Z', b'h', ..] => {
            return Err(Error::unsupported("bzip2", "use gzip, zstd or xz"));
        }
        _ => Box::new(whole),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn decoded(data: &[u8], limit: u64) -> io::Result<Vec<u8>> {
        let mut ignore = |_: Progress<'_>| {};
        let mut out = Vec::new();
        Archive::from_reader("test", data)
            .decode(limit, &mut ignore)
            .map_err(io::Error::other)?
            .read_to_end(&mut out)
            .map(|_| out)
    }

    fn samples(content: &[u8]) -> [Vec<u8>; 4] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(content).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(content).unwrap();
        [
            content.to_vec(),
            gzip.finish().unwrap(),
            xz.finish().unwrap(),
            zstd::stream::encode_all(content, 1).unwrap(),
        ]
    }

    #[test]
    fn compressions_are_told_by_their_magic() {
        for data in samples(b"hello, world, hello") {
            assert_eq!(decoded(&data, 100).unwrap(), b"hello, world, hello");
        }
    }

    #[test]
    fn a_bomb_and_a_truncated_stream_fail() {
        let content = vec![0; 1 << 20];
        for data in samples(&content) {
            assert!(
                decoded(&data, 1000)
                    .unwrap_err()
                    .to_string()
                    .contains("limit of 1000")
            );
        }
        for data in &samples(&content)[1..] {
            assert!(decoded(&data[..data.len() - 5], 1 << 30).is_err());
        }
    }

    #[test]
    fn progress_reaches_the_end() {
        let mut last = 0;
        let mut note = |p: Progress<'_>| last = p.done;
        let mut reader = Archive::from_reader("test", &[7; 3000][..])
            .decode(9000, &mut note)
            .unwrap();
        io::copy(&mut reader, &mut io::sink()).unwrap();
        drop(reader);
        assert_eq!(last, 3000);
    }
}
