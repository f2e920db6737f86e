//! An image being made: all of it, or nothing.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, RenameFlags};

use super::archive::{Archive, OnProgress, Progress};
use super::layout::Layout;
use super::room::Room;
use super::store::{Image, ImportOptions, MANIFEST, METADATA, Manifest, Process, ROOTFS};
use super::tarball::{Limits, Tarball};
use super::tree::{Contents, Tree};
use super::{Images, gaps, inspect, validate_name};
use crate::error::{During, Result};
use crate::files::{self, Lock, Root};
use crate::undo::Undo;

/// Bytes that are kept of what an image says of itself.
const MOST_METADATA: u64 = 64 << 10;

impl Images {
    /// Makes an image out of an archive.
    ///
    /// # Errors
    /// `Error::Exists`, `Error::Busy` while another invocation makes it, `Error::Invalid` for an archive that is hostile,
    /// beyond the limits or no system.
    pub fn import(
        &self,
        name: &str,
        archive: Archive<'_>,
        options: &ImportOptions,
        progress: &mut OnProgress<'_>,
    ) -> Result<Image> {
        let mut held = None;
        let image = self.make(name, |place| {
            let source = archive.label().to_owned();
            let root = place.root()?;
            let contents = unpack(&root, archive, &options.limits, progress)?;
            // Only now is it known what the archive holds: it may have been a stream.
            if place.is_unified(&root) {
                let root = place.take_inner_root(&root)?;
                progress(Progress::stage("finishing"));
                gaps::fill(&root)?;
                return describe(&root, source, options, &contents);
            }
            if let Some(layout) = Layout::find(&root, &source)? {
                place.set_root_aside()?;
                held = Some(self.layers().hold()?);
                return self.assemble(
                    &layout.image,
                    options,
                    &mut |number| layout.layer(number),
                    progress,
                );
            }
            if let Some(text) = &options.metadata {
                files::write_atomic(&place.image.join(METADATA), text.as_bytes(), 0o600)?;
            }
            progress(Progress::stage("finishing"));
            gaps::fill(&root)?;
            describe(&root, source, options, &contents)
        });
        drop(held);
        image
    }

    /// Makes an image of a finished root filesystem on the same file system, which is moved. What is known of it is another host's
    /// word, but for the program it starts, which has to be there.
    pub fn adopt(&self, name: &str, manifest: Manifest, rootfs: &Path) -> Result<Image> {
        inspect::init(&Root::open(rootfs)?, Some(&manifest.init))?;
        self.make(name, |place| {
            let root = place.image.join(ROOTFS);
            fs::rename(rootfs, &root).during(|| format!("take `{}`", rootfs.display()))?;
            fs::set_permissions(&root, fs::Permissions::from_mode(0o755))?;
            Ok(Manifest {
                layers: Vec::new(),
                digest: None,
                ..manifest
            })
        })
    }

    /// Makes an image under its temporary name, then gives it the real one.
    pub(super) fn make(&self, name: &str, fill: impl FnOnce(&Place) -> Result<Manifest>) -> Result<Image> {
        validate_name(name)?;
        self.prepare()?;
        self.must_not_exist(name)?;
        let lock = self.lock(name)?;
        self.must_not_exist(name)?;
        self.make_locked(name, lock, fill)
    }

    /// The same, but waits for whoever makes an image of that name, and is content with the one that is there if it is the same.
    pub(super) fn make_or_find(
        &self,
        name: &str,
        is_same: impl Fn(&Image) -> bool,
        fill: impl FnOnce(&Place) -> Result<Manifest>,
    ) -> Result<Image> {
        validate_name(name)?;
        self.prepare()?;
        let lock = self.wait_for_lock(name)?;
        match self.get(name) {
            Ok(image) if is_same(&image) => {
                self.unlock(name, lock)?;
                Ok(image)
            }
            _ => match self.must_not_exist(name) {
                Ok(()) => self.make_locked(name, lock, fill),
                Err(e) => self.unlock(name, lock).and(Err(e)),
            },
        }
    }

    fn make_locked(
        &self,
        name: &str,
        lock: Lock,
        fill: impl FnOnce(&Place) -> Result<Manifest>,
    ) -> Result<Image> {
        let temporary = self.temporary(name);
        files::remove_tree(&temporary)?;
        let mut undo = Undo::new();
        undo.push(|| self.unlock(name, lock));
        undo.push(|| files::remove_tree(&temporary));

        let place = Place::new(&temporary)?;
        let image = &place.image;
        let mut manifest = fill(&place)?;
        name.clone_into(&mut manifest.name);
        files::write_atomic(
            &image.join(MANIFEST),
            &serde_json::to_vec_pretty(&manifest)?,
            0o600,
        )?;
        // Data before name: after a power failure the image is whole or is not there.
        let dir = fs::File::open(image)?;
        rustix::fs::syncfs(&dir).during(|| "write the image to disk")?;
        rustix::fs::renameat_with(CWD, image, CWD, self.path(name), RenameFlags::NOREPLACE)
            .during(|| format!("name image `{name}`"))?;
        fs::File::open(self.dir())?.sync_all()?;
        undo.run()?;
        self.get(name)
    }
}

/// Where an image is being made.
pub(super) struct Place {
    /// What becomes the image's directory.
    image: PathBuf,
    /// Empty, and gone with the rest.
    pub(super) work: PathBuf,
}

impl Place {
    fn new(temporary: &Path) -> Result<Self> {
        let (image, work) = (temporary.join("image"), temporary.join("work"));
        for dir in [temporary, &image, &work] {
            make_dir(dir, 0o700)?;
        }
        Ok(Self { image, work })
    }

    /// An empty root filesystem in it.
    pub(super) fn root(&self) -> Result<Root> {
        let rootfs = self.image.join(ROOTFS);
        make_dir(&rootfs, 0o755)?;
        Root::open(&rootfs)
    }

    /// Whether what was unpacked is an image of LXD's: a root filesystem and words about it side by side.
    fn is_unified(&self, root: &Root) -> bool {
        root.get_dir(Path::new(ROOTFS)).is_ok() && root.open_file(Path::new(METADATA)).is_ok()
    }

    /// Of an image of LXD's, the root filesystem becomes the image's, and the words are kept.
    fn take_inner_root(&self, unpacked: &Root) -> Result<Root> {
        let text = unpacked.read(Path::new(METADATA), MOST_METADATA)?;
        self.set_root_aside()?;
        let rootfs = self.image.join(ROOTFS);
        fs::rename(self.work.join(ROOTFS).join(ROOTFS), &rootfs).during(|| "take the root filesystem")?;
        files::write_atomic(&self.image.join(METADATA), &text, 0o600)?;
        Root::open(&rootfs)
    }

    /// What was unpacked is no root filesystem: it does not become part of the image.
    fn set_root_aside(&self) -> Result<()> {
        fs::rename(self.image.join(ROOTFS), self.work.join(ROOTFS)).during(|| "set the layout aside")
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
        layers: Vec::new(),
        digest: None,
        process: Process::default(),
    })
}

/// Makes a directory with this mode, whatever the umask is.
pub(super) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new()
        .mode(mode)
        .create(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .during(|| format!("create directory `{}`", path.display()))
}
