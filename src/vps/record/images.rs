//! Images as the VPS manager handles them.

use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{During, Error, Result};
use crate::image::registry::{Credentials, OnPull, PullOptions, Reference};
use crate::image::{self, Archive, Image, ImportOptions, Progress, Recipe};
use crate::process::signal;
use crate::vps::record::ids;
use crate::vps::record::instance::Condo;
use crate::vps::record::view::{ImageView, PrunedView};

/// An image to be made of a root filesystem archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportRequest {
    /// The archive of a root filesystem, an OCI layout or of `docker save`, plain or compressed with gzip, zstd or xz; `-` for
    /// standard input. Or the directory of an OCI layout.
    pub archive: PathBuf,
    /// The image's name.
    pub name: String,
    /// Program and arguments of PID 1; found in the archive when empty.
    pub init: Vec<String>,
    /// The signal that asks it to shut down; by the kind of init when absent.
    pub stop_signal: Option<String>,
    /// What is said of it elsewhere than in the archive, as the `metadata.yaml` of LXD's images.
    pub metadata: Option<String>,
}

/// An image to be made of one in a registry.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// Its name there: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`.
    pub reference: String,
    /// The image's name, if not the last part of that.
    pub name: Option<String>,
    /// Program and arguments of PID 1; found in the image when empty.
    pub init: Vec<String>,
    /// The signal that asks it to shut down; by the kind of init when absent.
    pub stop_signal: Option<String>,
    /// Who we are to the registry, if that is not in a file.
    pub credentials: Option<Credentials>,
    /// The file it is in, if not one of the usual.
    pub auth_file: Option<PathBuf>,
    /// Whether the registry need not prove who it is.
    pub insecure: bool,
}

/// Told at every step of something long: what is going on.
pub type Report<'a> = &'a dyn Fn(&str);

impl Condo {
    /// Builds an image from a recipe of condo's own, by name, or from one in a directory.
    pub fn image_build(&self, recipe: &Path, name: Option<&str>, report: Report<'_>) -> Result<ImageView> {
        let recipe = match recipe.to_str() {
            Some(known) if Recipe::names().contains(&known) => Recipe::named(known)?,
            _ if recipe.is_dir() => Recipe::from_dir(recipe)?,
            other => Recipe::named(other.unwrap_or_default())?,
        };
        let recipe = match name {
            Some(name) => recipe.called(name)?,
            None => recipe,
        };
        let images = self.images();
        images.sweep()?;
        let image = images.build(&recipe, &mut |progress| report(&said(progress)))?;
        self.image_view(image)
    }

    /// Makes an image of an archive.
    pub fn image_import(&self, request: &ImportRequest, report: Report<'_>) -> Result<ImageView> {
        if let Some(wanted) = &request.stop_signal {
            signal::parse("--stop-signal", wanted)?;
        }
        let options = ImportOptions {
            init: Some(request.init.clone()).filter(|init| !init.is_empty()),
            stop_signal: request.stop_signal.clone(),
            metadata: request.metadata.clone(),
            ..ImportOptions::default()
        };
        let images = self.images();
        images.sweep()?;
        let mut progress = |progress: Progress<'_>| report(&said(progress));
        let made = if request.archive.is_dir() {
            images.import_dir(&request.name, &request.archive, &options, &mut progress)
        } else {
            let archive = Archive::open(&request.archive)?;
            images.import(&request.name, archive, &options, &mut progress)
        };
        self.image_view(made.during(|| format!("import `{}`", request.archive.display()))?)
    }

    /// Makes an image of an archive that is being written.
    pub(in crate::vps) fn image_of(
        &self,
        name: &str,
        archive: Archive<'_>,
        options: &ImportOptions,
    ) -> Result<ImageView> {
        self.image_view(self.images().import(name, archive, options, &mut |_| {})?)
    }

    /// Writes an image as an archive: the same bytes each time.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for one in several layers.
    pub fn image_export(&self, name: &str, to: &mut dyn Write) -> Result<()> {
        let images = self.images();
        images.export(&images.get(name)?, to)
    }

    /// What an image is known by: the SHA-256 of its archive, or of what a registry knows it by.
    pub fn image_fingerprint(&self, name: &str) -> Result<String> {
        let image = self.images().get(name)?;
        let digest = image
            .manifest
            .digest
            .as_deref()
            .and_then(|digest| digest.strip_prefix("sha256:"));
        if let Some(digest) = digest {
            return Ok(digest.to_owned());
        }
        let mut hash = Hashing(Sha256::new());
        if image.layers.len() == 1 {
            self.images().export(&image, &mut hash)?;
        } else {
            hash.0.update(image.manifest.layers.join(" "));
        }
        Ok(image::hex(&hash.0.finalize()))
    }

    /// The `metadata.yaml` that came along with an image, if one did.
    pub fn image_metadata(&self, name: &str) -> Result<Option<String>> {
        let image = self.images().get(name)?;
        self.images().kept_metadata(&image)
    }

    /// Calls an image otherwise, on which no VPS is based.
    pub fn image_rename(&self, name: &str, new: &str) -> Result<()> {
        let _lock = self.lock_images()?;
        match self.image_show(name)?.used_by.first() {
            Some(vps) => Err(Error::Status(format!(
                "the image is in use by `{vps}`, which knows it by its name"
            ))),
            None => self.images().rename(name, new),
        }
    }

    /// Makes an image of one in a registry.
    pub fn image_pull(&self, request: &PullRequest, report: &OnPull<'_>) -> Result<ImageView> {
        if let Some(wanted) = &request.stop_signal {
            signal::parse("--stop-signal", wanted)?;
        }
        let reference = Reference::parse(&request.reference)?;
        let name = request.name.clone().unwrap_or_else(|| reference.image_name());
        let options = PullOptions {
            import: ImportOptions {
                init: Some(request.init.clone()).filter(|init| !init.is_empty()),
                stop_signal: request.stop_signal.clone(),
                ..ImportOptions::default()
            },
            credentials: request.credentials.clone(),
            auth_file: request.auth_file.clone(),
            insecure: request.insecure,
            registries: self.settings()?.registries,
        };
        let images = self.images();
        images.sweep()?;
        self.image_view(images.pull(&reference, &name, &options, report)?)
    }

    /// Takes away layers that no image needs and what was left half made; with `all`, images that no VPS is based on as well.
    pub fn image_prune(&self, all: bool) -> Result<Vec<PrunedView>> {
        let images = self.images();
        let mut removed = Vec::new();
        if all {
            for image in self
                .image_list()?
                .into_iter()
                .filter(|image| image.used_by.is_empty())
            {
                // A VPS may have come since.
                if self.remove_image(&image.name).is_ok() {
                    // Its layers are told of below.
                    let size = if image.layers > 0 { 0 } else { image.size };
                    let what = format!("image {}", image.name);
                    removed.push(PrunedView { what, size });
                }
            }
        }
        let rest = images.prune()?.into_iter();
        removed.extend(rest.map(|r| PrunedView {
            what: r.what,
            size: r.bytes,
        }));
        Ok(removed)
    }

    /// All images, by name.
    pub fn image_list(&self) -> Result<Vec<ImageView>> {
        self.images()
            .list()?
            .into_iter()
            .map(|image| self.image_view(image))
            .collect()
    }

    /// One image.
    pub fn image_show(&self, name: &str) -> Result<ImageView> {
        self.image_view(self.images().get(name)?)
    }

    /// Removes an image that no VPS is based on, with the layers that no other image has.
    pub fn image_remove(&self, name: &str) -> Result<()> {
        self.remove_image(name)?;
        match self.images().prune_layers() {
            Ok(_) | Err(Error::Busy(_)) => {}
            Err(e) => log::warn!("layers that nothing needs may be left: {e}"),
        }
        Ok(())
    }

    fn remove_image(&self, name: &str) -> Result<()> {
        let _lock = self.lock_images()?;
        let image = self.image_show(name)?;
        match image.used_by.first() {
            Some(vps) => Err(Error::Status(format!(
                "the image is in use by `{vps}`; delete that first"
            ))),
            None => self.images().remove(name),
        }
    }

    fn image_view(&self, image: Image) -> Result<ImageView> {
        let mut used_by = Vec::new();
        for record in self.store.list()? {
            // A snapshot is a layer over an image as the VPS's own disk is.
            if record.needs(&image.name)
                || self
                    .snapshots(&record.name)?
                    .iter()
                    .any(|snapshot| snapshot.config.image == image.name)
            {
                used_by.push(record.name);
            }
        }
        Ok(ImageView {
            name: image.name,
            architecture: image.manifest.architecture,
            init: image.manifest.init,
            stop_signal: image.manifest.stop_signal,
            size: image.manifest.size_bytes,
            created: i64::try_from(image.manifest.created).unwrap_or(i64::MAX),
            used_by,
            source: image.manifest.source,
            digest: image.manifest.digest,
            layers: image.manifest.layers.len(),
            ids: ids::enough_for(image.manifest.highest_id),
        })
    }
}

/// Bytes that only their digest matters of.
struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A step in words: what, and how far.
fn said(progress: Progress<'_>) -> String {
    const MIB: u64 = 1 << 20;
    match (progress.done / MIB, progress.total) {
        (0, None) => progress.stage.to_owned(),
        (done, None) => format!("{} {done} MiB", progress.stage),
        (done, Some(total)) => format!("{} {done} of {} MiB", progress.stage, total / MIB),
    }
}
