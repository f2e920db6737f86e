//! Images as the VPS manager handles them.

use std::path::{Path, PathBuf};

use super::lifecycle::{Condo, unfinished};
use super::view::ImageView;
use crate::error::Result;

/// An image to be made of a root filesystem archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportRequest {
    /// The archive: a tar, plain or compressed with gzip, zstd or xz.
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
    /// Builds an image from a recipe, under the recipe's name or another.
    pub fn image_build(&self, _recipe: &Path, _name: Option<&str>, _report: Report<'_>) -> Result<ImageView> {
        unfinished()
    }

    /// Makes an image of an archive.
    pub fn image_import(&self, _request: &ImportRequest, _report: Report<'_>) -> Result<ImageView> {
        unfinished()
    }

    /// All images, by name.
    pub fn image_list(&self) -> Result<Vec<ImageView>> {
        unfinished()
    }

    /// One image.
    pub fn image_show(&self, _name: &str) -> Result<ImageView> {
        unfinished()
    }

    /// Removes an image that no VPS is based on.
    pub fn image_remove(&self, _name: &str) -> Result<()> {
        unfinished()
    }
}
