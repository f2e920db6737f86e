//! What is downloaded, until it has been unpacked.
//!
//! ```text
//! <lib>/images/.blobs/
//!   <digest>             whole, and what its digest says
//!   .part-<digest>       as far as it came; the next pull goes on from there
//!   .lock-<digest>       held by whoever downloads it
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::client::Client;
use crate::error::{During, Error, Result};
use crate::files::{self, Lock};
use crate::image::digest::{Digest, Hashing};
use crate::image::layers::Removed;
use crate::image::oci::Blob;
use crate::image::room::Room;
use crate::image::store::names_with_prefix;

const PART: &str = ".part-";
const LOCK: &str = ".lock-";
/// How often a download goes on after the connection broke.
const TRIES: u32 = 5;
const BUFFER: usize = 1 << 16;

/// The folder of downloads.
#[derive(Debug, Clone)]
pub(in crate::image) struct Blobs {
    dir: PathBuf,
}

/// A download, as it goes on.
pub(super) struct Watch<'a> {
    /// Told how many bytes there are.
    pub(super) progress: &'a (dyn Fn(u64) + Sync),
    /// Set when it need not go on.
    pub(super) over: &'a AtomicBool,
}

impl Blobs {
    pub(in crate::image) fn new(images: &Path) -> Self {
        Self {
            dir: images.join(".blobs"),
        }
    }

    /// Opens a blob that is there.
    pub(super) fn open(&self, digest: &Digest) -> Result<File> {
        let path = self.dir.join(digest.hex());
        File::open(&path).during(|| format!("open `{}`", path.display()))
    }

    /// Forgets a blob that was unpacked.
    pub(super) fn forget(&self, digest: &Digest) -> Result<()> {
        files::remove_file(&self.dir.join(digest.hex()))
    }

    /// Sees to it that a blob is there. Whoever wants the same at the same time waits, and finds it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for one that is not what it should be; what is left of it is removed.
    pub(super) fn fetch(&self, client: &Client, blob: &Blob, watch: &Watch<'_>) -> Result<()> {
        files::create_dir_all(&self.dir, 0o700)?;
        let lock_path = self.dir.join(format!("{LOCK}{}", blob.digest.hex()));
        let lock = Lock::wait(&lock_path)?;
        let path = self.dir.join(blob.digest.hex());
        let result = if files::exists(&path) {
            Ok(())
        } else {
            self.download(client, blob, watch, &path)
        };
        let removed = files::remove_file(&lock_path);
        drop(lock);
        result?;
        (watch.progress)(blob.size);
        removed
    }

    fn download(&self, client: &Client, blob: &Blob, watch: &Watch<'_>, path: &Path) -> Result<()> {
        let part = self.dir.join(format!("{PART}{}", blob.digest.hex()));
        let mut tries = 0;
        let found = loop {
            let before = fs::metadata(&part).map_or(0, |status| status.len());
            match self.attempt(client, blob, watch, &part) {
                Ok(found) => break found,
                Err(e) if watch.over.load(Ordering::Relaxed) || !is_passing(&e) => return Err(e),
                Err(e) => {
                    // One that gets further each time may go on.
                    let after = fs::metadata(&part).map_or(0, |status| status.len());
                    tries = if after > before { 0 } else { tries + 1 };
                    if tries >= TRIES {
                        return Err(e).during(|| "it is resumed by the same command");
                    }
                    log::info!("download of `{}` goes on at byte {after}: {e}", blob.digest);
                    std::thread::sleep(std::time::Duration::from_millis(200 << tries));
                }
            }
        };
        if let Err(e) = blob.digest.must_be(&found, "the layer") {
            files::remove_file(&part)?;
            return Err(e);
        }
        fs::rename(&part, path).during(|| format!("name blob `{}`", blob.digest))
    }

    /// Goes on with a download up to its end, and says what digest it has now.
    fn attempt(&self, client: &Client, blob: &Blob, watch: &Watch<'_>, part: &Path) -> Result<Digest> {
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(part)?;
        let mut have = file.metadata()?.len();
        Room::new(file.as_fd()).check(blob.size.saturating_sub(have))?;
        let mut hash = Sha256::new();
        // What came before is read again: the digest is that of the whole.
        if have > blob.size {
            file.set_len(0)?;
            have = 0;
        } else {
            let mut hashing = Hashing::new(&mut file);
            io::copy(&mut hashing, &mut io::sink())?;
            hash = hashing.into_hash();
        }
        if have < blob.size {
            let (from, mut stream) = client.blob(&format!("blobs/{}", blob.digest), have)?;
            if from != have {
                // This registry sends it whole or not at all.
                (have, hash) = (0, Sha256::new());
                file.set_len(0)?;
                file.rewind()?;
            }
            copy(&mut stream, (&mut file, &mut hash), have, blob, watch)?;
        }
        // Before it gets the name of what is whole, which it would keep through a power failure.
        file.sync_data()?;
        Ok(Digest::from_hash(hash))
    }

    /// Takes away everything that nobody is about to unpack.
    pub(in crate::image) fn prune(&self) -> Result<Vec<Removed>> {
        let mut removed = Vec::new();
        for name in names_with_prefix(&self.dir, "")? {
            let path = self.dir.join(&name);
            let digest = name.trim_start_matches(PART).trim_start_matches(LOCK);
            let bytes = fs::metadata(&path).map_or(0, |status| status.len());
            files::remove_file(&path)?;
            if !name.starts_with(LOCK) {
                let short = digest.get(..12).unwrap_or(digest);
                removed.push(Removed {
                    what: format!("download {short}"),
                    bytes,
                });
            }
        }
        Ok(removed)
    }
}

/// Takes what is still missing of a blob, and no byte more.
fn copy(
    stream: &mut impl Read,
    (file, hash): (&mut File, &mut Sha256),
    mut have: u64,
    blob: &Blob,
    watch: &Watch<'_>,
) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    while have < blob.size {
        if watch.over.load(Ordering::Relaxed) {
            return Err(Error::Status("another layer failed".into()));
        }
        let most = usize::try_from(blob.size - have).unwrap_or(BUFFER).min(BUFFER);
        let count = stream.read(&mut buffer[..most])?;
        if count == 0 {
            let problem = format!("the connection ended at byte {have} of {}", blob.size);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem).into());
        }
        file.write_all(&buffer[..count])?;
        hash.update(&buffer[..count]);
        have += count as u64;
        (watch.progress)(have);
    }
    Ok(())
}

/// Whether a failure may go away by itself: one of the network, and not of the disk.
fn is_passing(e: &Error) -> bool {
    let of_the_network =
        [Errno::CONNRESET, Errno::TIMEDOUT, Errno::CONNREFUSED, Errno::PIPE].map(Errno::raw_os_error);
    matches!(e.root(), Error::Io(_)) && e.errno().is_none_or(|number| of_the_network.contains(&number))
}
