//! The folder of images: an image exists whole or not at all.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, RenameFlags};
use serde::{Deserialize, Serialize};

use super::archive::{Archive, OnProgress, Progress};
use super::recipe::Recipe;
use super::room::Room;
use super::tarball::{Limits, Tarball};
use super::tree::{Contents, Tree};
use super::{inspect, validate_name};
use crate::error::{During, Error, Result};
use crate::files::{self, Lock, Root};
use crate::undo::Undo;

const MANIFEST: &str = "manifest.json";
const ROOTFS: &str = "rootfs";
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
    /// The archive or recipe it was made from.
    pub source: String,
}

/// What [`Images::import`] cannot or shall not find out itself.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The program to start as process 1; found in the tree when not given.
    pub init: Option<Vec<String>>,
    /// The signal that asks it to power off; derived from the init when not given.
    pub stop_signal: Option<String>,
    /// What the archive may ask for at most.
    pub limits: Limits,
}

impl Images {
    /// The images below `dir`, which is created when the first one is.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// All images, by name.
    pub fn list(&self) -> Result<Vec<Image>> {
        let mut names = self.names_with_prefix("")?;
        names.retain(|name| validate_name(name).is_ok());
        names.sort_unstable();
        let mut images = Vec::new();
        for name in names {
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
        Ok(Image {
            name: name.into(),
            layers: vec![self.path(name).join(ROOTFS)],
            manifest,
        })
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

    /// Makes an image out of an archive.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Busy`] while another invocation makes it, [`Error::Invalid`] for an archive that is hostile,
    /// beyond the limits or no system.
    pub fn import(
        &self,
        name: &str,
        archive: Archive<'_>,
        options: &ImportOptions,
        progress: &mut OnProgress<'_>,
    ) -> Result<Image> {
        self.make(name, |root, _| {
            let source = archive.label().to_owned();
            let contents = unpack(root, archive, &options.limits, progress)?;
            progress(Progress {
                stage: "finishing",
                done: 0,
                total: None,
            });
            describe(root, source, options, &contents)
        })
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

    /// Makes an image under its temporary name, then gives it the real one. `fill` gets the root and an empty directory for
    /// work, which goes away in any case.
    pub(super) fn make(
        &self,
        name: &str,
        fill: impl FnOnce(&Root, &Path) -> Result<Manifest>,
    ) -> Result<Image> {
        validate_name(name)?;
        self.prepare()?;
        self.must_not_exist(name)?;
        let lock = self.lock(name)?;
        self.must_not_exist(name)?;
        let temporary = self.temporary(name);
        files::remove_tree(&temporary)?;
        let mut undo = Undo::new();
        undo.push(|| self.unlock(name, lock));
        undo.push(|| files::remove_tree(&temporary));

        let image = temporary.join("image");
        let (work, rootfs) = (temporary.join("work"), image.join(ROOTFS));
        make_dir(&temporary, 0o700)?;
        make_dir(&image, 0o700)?;
        make_dir(&work, 0o700)?;
        make_dir(&rootfs, 0o755)?;
        let root = Root::open(&rootfs)?;
        let mut manifest = fill(&root, &work)?;
        name.clone_into(&mut manifest.name);
        files::write_atomic(
            &image.join(MANIFEST),
            &serde_json::to_vec_pretty(&manifest)?,
            0o600,
        )?;
        // Data before name: after a power failure the image is whole or is not there.
        let dir = fs::File::open(&image)?;
        rustix::fs::syncfs(&dir).during(|| "write the image to disk")?;
        rustix::fs::renameat_with(CWD, &image, CWD, self.path(name), RenameFlags::NOREPLACE)
            .during(|| format!("name image `{name}`"))?;
        fs::File::open(&self.dir)?.sync_all()?;
        undo.run()?;
        self.get(name)
    }

    fn must_not_exist(&self, name: &str) -> Result<()> {
        if self.exists(name) {
            return Err(Error::Exists {
                kind: "image",
                name: name.into(),
            });
        }
        Ok(())
    }

    /// The folder, open to nobody but root: it holds set-user-ID programs of real root that tenants' images brought along.
    fn prepare(&self) -> Result<()> {
        files::create_dir_all(&self.dir, 0o700)?;
        fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o700))
            .during(|| format!("close `{}` to others", self.dir.display()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn temporary(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{TEMPORARY}{name}"))
    }

    fn lock(&self, name: &str) -> Result<Lock> {
        Lock::now(&self.dir.join(format!("{LOCK}{name}"))).map_err(|e| match e {
            Error::Busy(_) => Error::Busy(format!("image `{name}`")),
            other => other,
        })
    }

    /// Takes the lock's file away while it is held; a waiter notices and makes a new one.
    fn unlock(&self, name: &str, lock: Lock) -> Result<()> {
        let removed = files::remove_file(&self.dir.join(format!("{LOCK}{name}")));
        drop(lock);
        removed
    }

    /// What of the names in the folder follows `prefix`.
    fn names_with_prefix(&self, prefix: &str) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.during(|| format!("read `{}`", self.dir.display()))?,
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
}

/// Unpacks an archive into an empty root.
pub(super) fn unpack(
    root: &Root,
    archive: Archive<'_>,
    limits: &Limits,
    progress: &mut OnProgress<'_>,
) -> Result<Contents> {
    if let Some(size) = archive.size() {
        // What is unpacked is hardly ever smaller.
        Room::new(root.as_fd()).check(size)?;
    }
    let mut tarball = Tarball::new(archive.decode(limits.bytes, progress)?, limits.clone());
    let mut tree = Tree::new(root);
    tree.fill(&mut tarball)?;
    tree.finish()
}

/// The manifest of a finished tree (but for the name).
pub(super) fn describe(
    root: &Root,
    source: String,
    options: &ImportOptions,
    contents: &Contents,
) -> Result<Manifest> {
    let init = inspect::init(root, options.init.as_deref())?;
    let stop_signal = match &options.stop_signal {
        Some(asked) => asked.clone(),
        None => inspect::stop_signal(root, &init).to_owned(),
    };
    Ok(Manifest {
        name: String::new(),
        stop_signal,
        architecture: inspect::architecture(root, &init),
        init,
        os: inspect::os_name(root),
        size_bytes: contents.bytes,
        files: contents.files,
        highest_id: contents.highest_id,
        devices_skipped: contents.devices,
        created: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs()),
        source,
    })
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

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new()
        .mode(mode)
        .create(path)
        // Whatever the umask is.
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .during(|| format!("create directory `{}`", path.display()))
}
