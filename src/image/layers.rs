//! The layers of images that have several: each is on the disk once, for all images that have it over the same layers.
//!
//! ```text
//! <lib>/images/.layers/
//!   lock                 shared by whoever puts an image together, exclusive for whoever removes layers
//!   <chain>/layer.json   what is known about it
//!   <chain>/upper/       the layer as overlayfs takes it
//!   .tmp-<chain>/        being made, by whoever holds the lock
//!   .lock-<chain>
//! ```
//! `<chain>` is the digest of a layer and of all those below it, for what a layer's archive does not say is taken from below.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use serde::{Deserialize, Serialize};

use super::archive::{Archive, OnProgress};
use super::digest::{Digest, Hashing};
use super::layer;
use super::making::make_dir;
use super::store::names_with_prefix;
use super::tarball::{Limits, Tarball};
use super::tree::Contents;
use crate::error::{During, Error, Result};
use crate::files::overlay::{UPPER, WORK};
use crate::files::{self, Lock};
use crate::undo::Undo;

const ABOUT: &str = "layer.json";
const TEMPORARY: &str = ".tmp-";
const LOCK: &str = ".lock-";
/// How far down a tree is measured that is removed.
const DEEPEST: u32 = 256;

/// The folder of layers.
#[derive(Debug, Clone)]
pub(super) struct Layers {
    dir: PathBuf,
}

/// A layer that is there.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) chain: Digest,
    pub(super) about: About,
}

/// What is known about a layer: `layer.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct About {
    /// The digest of its archive, decompressed.
    pub(super) diff_id: String,
    /// What it adds.
    #[serde(flatten)]
    pub(super) contents: Contents,
}

/// Where a layer comes from.
pub(super) struct Source<'a, 'p> {
    /// The digest of its archive, decompressed.
    pub(super) diff_id: &'a Digest,
    /// Asked for the archive when the layer is to be made.
    pub(super) archive: &'a mut dyn FnMut() -> Result<Archive<'static>>,
    /// What the image may still ask for.
    pub(super) limits: &'a mut Limits,
    pub(super) progress: &'a mut OnProgress<'p>,
}

/// What is taken away, and how much room it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// What it was, in words.
    pub what: String,
    /// Bytes of the disk.
    pub bytes: u64,
}

impl Layers {
    pub(super) fn new(images: &Path) -> Self {
        Self {
            dir: images.join(".layers"),
        }
    }

    /// Held while layers are found or made for an image that is not there yet: nobody removes one meanwhile.
    pub(super) fn hold(&self) -> Result<Lock> {
        files::create_dir_all(&self.dir, 0o700)?;
        Lock::shared(&self.dir.join("lock"))
    }

    /// The directory of a layer, for overlayfs.
    pub(super) fn path(&self, chain: &str) -> PathBuf {
        self.dir.join(chain).join(UPPER)
    }

    /// The layer, if it is there.
    pub(super) fn get(&self, chain: &Digest) -> Result<Option<Layer>> {
        let about = match files::read(&self.dir.join(chain.hex()).join(ABOUT)) {
            Err(e) if e.is_gone() => return Ok(None),
            other => other?,
        };
        let about = serde_json::from_slice(&about).during(|| format!("read about layer `{chain}`"))?;
        Ok(Some(Layer {
            chain: chain.clone(),
            about,
        }))
    }

    /// Makes a layer over those below, the lowest first. Whoever makes the same at the same time waits, and finds it made; only
    /// who makes it is asked for the archive.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for an archive that is not the one meant, and what [`super::Images::import`] refuses.
    pub(super) fn make(&self, below: &[Layer], source: Source<'_, '_>) -> Result<Layer> {
        let diff_id = source.diff_id;
        let chain = Digest::chain(below.last().map(|layer| &layer.chain), diff_id);
        let lock_path = self.dir.join(format!("{LOCK}{}", chain.hex()));
        let lock = Lock::wait(&lock_path)?;
        let temporary = self.dir.join(format!("{TEMPORARY}{}", chain.hex()));
        let mut undo = Undo::new();
        undo.push(|| {
            let removed = files::remove_file(&lock_path);
            drop(lock);
            removed
        });
        if let Some(made) = self.get(&chain)? {
            return Ok(made);
        }
        files::remove_tree(&temporary)?;
        undo.push(|| files::remove_tree(&temporary));
        let lower: Vec<_> = below
            .iter()
            .rev()
            .map(|layer| self.path(layer.chain.hex()))
            .collect();
        self.begin(&temporary, lower.first())?;
        let contents =
            fill(&temporary, &lower, source).during(|| format!("unpack layer `{}`", diff_id.short()))?;
        let about = About {
            diff_id: diff_id.to_string(),
            contents,
        };
        files::remove_tree(&temporary.join(WORK))?;
        files::write_atomic(&temporary.join(ABOUT), &serde_json::to_vec_pretty(&about)?, 0o600)?;
        // Data before name: after a power failure the layer is whole or is not there.
        rustix::fs::syncfs(fs::File::open(&temporary)?).during(|| "write the layer to disk")?;
        let named = self.dir.join(chain.hex());
        rustix::fs::renameat_with(CWD, &temporary, CWD, &named, RenameFlags::NOREPLACE)
            .during(|| format!("name layer `{chain}`"))?;
        fs::File::open(&self.dir)?.sync_all()?;
        undo.run()?;
        Ok(Layer { chain, about })
    }

    /// The folder of a new layer. The root of the uppermost layer is the root of the image: it begins as the one below.
    fn begin(&self, temporary: &Path, below: Option<&PathBuf>) -> Result<()> {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        make_dir(temporary, 0o700)?;
        make_dir(&temporary.join(WORK), 0o700)?;
        let upper = temporary.join(UPPER);
        make_dir(&upper, 0o755)?;
        if let Some(below) = below {
            let status = fs::symlink_metadata(below)?;
            std::os::unix::fs::chown(&upper, Some(status.uid()), Some(status.gid()))?;
            fs::set_permissions(&upper, fs::Permissions::from_mode(status.mode() & 0o7777))?;
        }
        Ok(())
    }

    /// Takes away what is in none of these chains, what was left half made, and what `others` removes. Nothing while an image is
    /// being put together.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub(super) fn prune(
        &self,
        needed: impl FnOnce() -> Result<BTreeSet<String>>,
        others: impl FnOnce() -> Result<Vec<Removed>>,
    ) -> Result<Vec<Removed>> {
        if !files::exists(&self.dir) {
            return Ok(Vec::new());
        }
        let _alone = Lock::now(&self.dir.join("lock")).map_err(|e| match e {
            Error::Busy(_) => Error::Busy("an image that is being made".into()),
            other => other,
        })?;
        let needed = needed()?;
        let mut removed = others()?;
        for name in names_with_prefix(&self.dir, "")? {
            let what = match (
                name.strip_prefix(TEMPORARY),
                Digest::parse(&format!("sha256:{name}")),
            ) {
                (Some(_), _) => "a layer that was left half made".to_owned(),
                (_, Ok(chain)) if !needed.contains(&name) => format!("layer {}", chain.short()),
                _ => {
                    if name.starts_with(LOCK) {
                        files::remove_file(&self.dir.join(&name))?;
                    }
                    continue;
                }
            };
            removed.push(self.take_away(&name, what)?);
        }
        Ok(removed)
    }

    /// Removes under a name that nothing is found by: a layer is there whole or not at all.
    fn take_away(&self, name: &str, what: String) -> Result<Removed> {
        let path = self.dir.join(name);
        let bytes = size_of(&path, DEEPEST);
        let temporary = self
            .dir
            .join(format!("{TEMPORARY}{}", name.trim_start_matches(TEMPORARY)));
        if temporary != path {
            files::remove_tree(&temporary)?;
            fs::rename(&path, &temporary).during(|| format!("remove `{}`", path.display()))?;
        }
        files::remove_tree(&temporary)?;
        Ok(Removed { what, bytes })
    }
}

/// Unpacks the archive, all of it, and holds it against its digest.
fn fill(dir: &Path, below: &[PathBuf], source: Source<'_, '_>) -> Result<Contents> {
    let archive = (source.archive)()?;
    let limits = source.limits;
    let mut stream = Hashing::new(archive.decode(limits.bytes, source.progress)?);
    let mut tarball = Tarball::new(stream.by_ref(), limits.clone());
    let contents = layer::unpack(below, dir, &mut tarball)?;
    *limits = tarball.left();
    // What comes behind the end of the archive belongs to the digest as well.
    std::io::copy(&mut stream, &mut std::io::sink())?;
    source.diff_id.must_be(&stream.digest(), "the layer")?;
    Ok(contents)
}

/// What a tree takes of the disk, in bytes; about, for nobody vouches for what was left half made.
pub(super) fn size_of(path: &Path, depth: u32) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(status) = fs::symlink_metadata(path) else {
        return 0;
    };
    let entries = match fs::read_dir(path) {
        Ok(entries) if status.is_dir() && depth > 0 => entries,
        _ => return status.blocks() * 512,
    };
    let below = entries.flatten().map(|entry| size_of(&entry.path(), depth - 1));
    status.blocks() * 512 + below.sum::<u64>()
}
