//! The folder of images: an image exists whole or not at all.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::layer;
use super::layers::Layers;
use super::recipe::Recipe;
use super::tarball::Limits;
use super::validate_name;
use crate::error::{During, Error, Result};
use crate::files::{self, Lock};

pub(super) const MANIFEST: &str = "manifest.json";
/// What LXD's images say of themselves.
pub(super) const METADATA: &str = "metadata.yaml";
pub(super) const ROOTFS: &str = "rootfs";
/// Prefix of what is being made or removed. No image can have such a name.
const TEMPORARY: &str = ".tmp-";
const LOCK: &str = ".lock-";

/// The images of this host.
#[derive(Debug, Clone)]
pub struct Images {
    dir: PathBuf,
}

/// One image.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// Its root filesystem, to be used read-only: the layers, the uppermost first.
    pub layers: Vec<PathBuf>,
    /// What is known about it.
    pub manifest: Manifest,
}

/// What condo knows about an image: `manifest.json`.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Manifest {
    /// The image's name.
    pub name: String,
    /// The program (and its arguments) to start as process 1.
    pub init: Vec<String>,
    /// The signal that asks it to power off, as `SIGTERM` or `SIGRTMIN+3`.
    pub stop_signal: String,
    /// The machine its programs are for, as `uname -m` says it, or `unknown`.
    pub architecture: String,
    /// The name of the system, `PRETTY_NAME` of `os-release(5)`; may be empty.
    pub os: String,
    /// Content of its regular files, in bytes.
    pub size_bytes: u64,
    /// Number of files of every kind.
    pub files: u64,
    /// The highest user or group number that owns a file: the id range of a VPS must reach this far.
    pub highest_id: u32,
    /// Device nodes of the archive that were left out.
    pub devices_skipped: u64,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The archive, recipe or registry it was made from.
    pub source: String,
    /// Its layers, the lowest first, by the digest of each with all below it. Empty when it has a root filesystem of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
    /// The digest of its manifest, of one that came in layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What its configuration says of how its program runs.
    #[serde(default)]
    pub process: Process,
}

/// How an image wants its program to be run.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Process {
    /// Its environment, as `NAME=VALUE`.
    pub env: Vec<String>,
    /// Who it is, `USER[:GROUP]` by name or number; root when empty.
    pub user: String,
    /// Where it begins; `/` when empty.
    pub working_dir: String,
}

/// What [`Images::import`] cannot or shall not find out itself.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The program to start as process 1; found in the tree when not given.
    pub init: Option<Vec<String>>,
    /// The signal that asks it to power off; derived from the init when not given.
    pub stop_signal: Option<String>,
    /// What is said of it elsewhere than in the archive, as LXD's `metadata.yaml`.
    pub metadata: Option<String>,
    /// What the archive may ask for at most.
    pub limits: Limits,
}

impl Image {
    /// Its root filesystem as one read-only tree, whether it has one of its own or is made of layers.
    pub fn tree(&self) -> Result<OwnedFd> {
        let tree =
            layer::view(&self.layers).during(|| format!("join the layers of image `{}`", self.name))?;
        tree.get(Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY)
    }
}

impl Images {
    /// The images below `dir`, which is created when the first one is.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// All images, by name.
    pub fn list(&self) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        for name in self.names()? {
            match self.get(&name) {
                Ok(image) => images.push(image),
                // Removed since, or damaged: the others are still there.
                Err(e) => log::warn!("image left out of the list: {e}"),
            }
        }
        Ok(images)
    }

    /// One image.
    ///
    /// # Errors
    /// [`Error::NotFound`] saying which recipe or command makes one.
    pub fn get(&self, name: &str) -> Result<Image> {
        validate_name(name)?;
        let manifest = match files::read(&self.path(name).join(MANIFEST)) {
            Err(e) if e.is_gone() => return Err(missing(name)),
            other => other?,
        };
        let manifest =
            serde_json::from_slice(&manifest).during(|| format!("read the manifest of image `{name}`"))?;
        Ok(self.image(name, manifest))
    }

    fn image(&self, name: &str, manifest: Manifest) -> Image {
        let shared = self.layers();
        let layers = if manifest.layers.is_empty() {
            vec![self.path(name).join(ROOTFS)]
        } else {
            manifest
                .layers
                .iter()
                .rev()
                .map(|chain| shared.path(chain))
                .collect()
        };
        Image {
            name: name.into(),
            layers,
            manifest,
        }
    }

    /// Whether there is an image of this name.
    pub fn exists(&self, name: &str) -> bool {
        validate_name(name).is_ok() && files::exists(&self.path(name))
    }

    /// Removes an image. Whether a VPS still stands on it is the caller's question.
    ///
    /// # Errors
    /// [`Error::NotFound`], and [`Error::Busy`] while it is being made or removed.
    pub fn remove(&self, name: &str) -> Result<()> {
        if !self.exists(name) {
            return Err(missing(name));
        }
        let lock = self.lock(name)?;
        let temporary = self.temporary(name);
        files::remove_tree(&temporary)?;
        match fs::rename(self.path(name), &temporary) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(missing(name)),
            other => other.during(|| format!("remove image `{name}`"))?,
        }
        files::remove_tree(&temporary)?;
        self.unlock(name, lock)
    }

    /// Takes away what processes that died left half made. Returns how many.
    pub fn sweep(&self) -> Result<usize> {
        let left = self.names_with_prefix(TEMPORARY)?;
        for name in left.iter().chain(&self.names_with_prefix(LOCK)?) {
            // Somebody who holds the lock is at work.
            if let Ok(lock) = self.lock(name) {
                files::remove_tree(&self.temporary(name))?;
                self.unlock(name, lock)?;
            }
        }
        Ok(left
            .iter()
            .filter(|name| !files::exists(&self.temporary(name)))
            .count())
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The layers of images that have several.
    pub(super) fn layers(&self) -> Layers {
        Layers::new(&self.dir)
    }

    /// Calls an image otherwise. Whether a VPS knows it by its name is the caller's question.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Exists`], and [`Error::Busy`] while it is being made or removed.
    pub fn rename(&self, name: &str, new: &str) -> Result<()> {
        validate_name(new)?;
        let mut manifest = self.get(name)?.manifest;
        let (lock, other) = (self.lock(name)?, self.lock(new)?);
        self.must_not_exist(new)?;
        fs::rename(self.path(name), self.path(new)).during(|| format!("rename image `{name}`"))?;
        new.clone_into(&mut manifest.name);
        let text = serde_json::to_vec_pretty(&manifest)?;
        files::write_atomic(&self.path(new).join(MANIFEST), &text, 0o600)?;
        self.unlock(new, other)?;
        self.unlock(name, lock)
    }

    pub(super) fn must_not_exist(&self, name: &str) -> Result<()> {
        if self.exists(name) {
            return Err(Error::Exists {
                kind: "image",
                name: name.into(),
            });
        }
        Ok(())
    }

    /// The folder, open to nobody but root: it holds set-user-ID programs of real root that tenants' images brought along.
    pub(super) fn prepare(&self) -> Result<()> {
        files::create_dir_all(&self.dir, 0o700)?;
        fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o700))
            .during(|| format!("close `{}` to others", self.dir.display()))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn temporary(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{TEMPORARY}{name}"))
    }

    pub(super) fn lock(&self, name: &str) -> Result<Lock> {
        Lock::now(&self.dir.join(format!("{LOCK}{name}"))).map_err(|e| match e {
            Error::Busy(_) => Error::Busy(format!("image `{name}`")),
            other => other,
        })
    }

    pub(super) fn wait_for_lock(&self, name: &str) -> Result<Lock> {
        Lock::wait(&self.dir.join(format!("{LOCK}{name}")))
    }

    /// Takes the lock's file away while it is held; a waiter notices and makes a new one.
    pub(super) fn unlock(&self, name: &str, lock: Lock) -> Result<()> {
        let removed = files::remove_file(&self.dir.join(format!("{LOCK}{name}")));
        drop(lock);
        removed
    }

    /// The names of images, in order.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let mut names = self.names_with_prefix("")?;
        names.retain(|name| validate_name(name).is_ok());
        names.sort_unstable();
        Ok(names)
    }

    /// What of the names in the folder follows `prefix`.
    fn names_with_prefix(&self, prefix: &str) -> Result<Vec<String>> {
        names_with_prefix(&self.dir, prefix)
    }
}

/// What of the names in a folder follows `prefix`.
pub(super) fn names_with_prefix(dir: &Path, prefix: &str) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.during(|| format!("read `{}`", dir.display()))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|n| n.strip_prefix(prefix))
                .map(Into::into),
        );
    }
    Ok(names)
}

/// [`Error::NotFound`] with the ways to get an image.
fn missing(name: &str) -> Error {
    let recipe = if Recipe::names().contains(&name) {
        name
    } else {
        "busybox"
    };
    Error::During {
        what: format!(
            "find the image (make one: `condo image build {recipe}`, `condo image import FILE --name {name}`)"
        ),
        source: Box::new(Error::NotFound {
            kind: "image",
            name: name.into(),
        }),
    }
}
