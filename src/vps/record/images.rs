//! Images as the VPS manager handles them.

use std::path::{Path, PathBuf};

use crate::error::{During, Error, Result};
use crate::image::{Archive, Image, ImportOptions, Progress, Recipe};
use crate::process::signal;
use crate::vps::record::instance::Condo;
use crate::vps::record::view::ImageView;

/// An image to be made of a root filesystem archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportRequest {
    /// The archive: a tar, plain or compressed with gzip, zstd or xz; `-` for standard input.
    pub archive: PathBuf,
    /// The image's name.
    pub name: String,
    /// Program and arguments of PID 1; found in the archive when empty.
    pub init: Vec<String>,
    /// The signal that asks it to shut down; by the kind of init when absent.
    pub stop_signal: Option<String>,
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
            ..ImportOptions::default()
        };
        let images = self.images();
        images.sweep()?;
        let archive = Archive::open(&request.archive)?;
        let image = images
            .import(&request.name, archive, &options, &mut |progress| {
                report(&said(progress));
            })
            .during(|| format!("import `{}`", request.archive.display()))?;
        self.image_view(image)
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

    /// Removes an image that no VPS is based on.
    pub fn image_remove(&self, name: &str) -> Result<()> {
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
        })
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
