//! Images in layers as files: an OCI image layout (image-spec `image-layout.md`), and what `docker save` writes.
//!
//! Either may be hostile: every file is found inside of the root, and what has a digest is held against it.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::archive::Archive;
use super::assemble::Layered;
use super::digest::Digest;
use super::oci::{self, Blob, Document, LARGEST, Manifest};
use crate::error::{During, Error, Result};
use crate::files::Root;

/// How many indexes may lead from one to the next.
const DEEPEST: usize = 4;

/// An image in files.
pub(super) struct Layout<'r> {
    root: &'r Root,
    pub(super) image: Layered,
    /// The archives of its layers, the lowest first.
    layers: Vec<PathBuf>,
}

/// An entry of Docker's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: PathBuf,
    layers: Vec<PathBuf>,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
}

impl<'r> Layout<'r> {
    /// The image in this tree; nothing if it holds none.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it holds several, or none for this machine; [`Error::Corrupt`] for a damaged one.
    pub(super) fn find(root: &'r Root, source: &str) -> Result<Option<Self>> {
        if root.has(Path::new("oci-layout")) && root.has(Path::new("index.json")) {
            return Self::oci(root, source).map(Some);
        }
        match saved(root) {
            None => Ok(None),
            Some(saved) => Self::docker(root, source, saved).map(Some),
        }
    }

    fn oci(root: &'r Root, source: &str) -> Result<Self> {
        let mut text = read(root, Path::new("index.json"))?;
        let mut digest = None;
        for _ in 0..DEEPEST {
            match oci::document(&text)? {
                Document::Index(blob) => {
                    text = read_blob(root, &blob)?;
                    digest = Some(blob.digest);
                }
                Document::Manifest(manifest) => return Self::of(root, source, digest, &manifest),
            }
        }
        Err(Error::invalid("index", "index.json", "leads to no manifest"))
    }

    fn of(root: &'r Root, source: &str, digest: Option<Digest>, manifest: &Manifest) -> Result<Self> {
        let config = oci::config(&read_blob(root, &manifest.config)?)?;
        let layers = manifest.layers.iter().map(|blob| path_of(&blob.digest)).collect();
        Self::new(
            root,
            layers,
            Layered {
                digest,
                config,
                source: source.to_owned(),
            },
        )
    }

    fn docker(root: &'r Root, source: &str, saved: Vec<Saved>) -> Result<Self> {
        let count = saved.len();
        let names: Vec<_> = saved
            .iter()
            .flat_map(|image| image.repo_tags.clone().unwrap_or_default())
            .collect();
        let Ok([image]) = <[Saved; 1]>::try_from(saved) else {
            let problem = format!("has {count} images ({}); save one alone", names.join(", "));
            return Err(Error::invalid("archive", source, problem.escape_debug()));
        };
        let config = oci::config(&read(root, &image.config)?)?;
        Self::new(
            root,
            image.layers,
            Layered {
                digest: None,
                config,
                source: source.to_owned(),
            },
        )
    }

    fn new(root: &'r Root, layers: Vec<PathBuf>, image: Layered) -> Result<Self> {
        image.config.expect_layers(layers.len())?;
        Ok(Self { root, image, layers })
    }

    /// The archive of a layer.
    pub(super) fn layer(&self, number: usize) -> Result<Archive<'static>> {
        let path = self.layers.get(number).map_or(Path::new(""), PathBuf::as_path);
        let file: File = self.root.open_file(path)?;
        Ok(Archive::from_file(path.display().to_string(), file))
    }
}

/// Docker's list of what it saved, if there is one.
fn saved(root: &Root) -> Option<Vec<Saved>> {
    let text = read(root, Path::new("manifest.json")).ok()?;
    let saved: Vec<Saved> = serde_json::from_slice(&text).ok()?;
    (!saved.is_empty()).then_some(saved)
}

fn path_of(digest: &Digest) -> PathBuf {
    Path::new("blobs/sha256").join(digest.hex())
}

fn read_blob(root: &Root, blob: &Blob) -> Result<Vec<u8>> {
    let text = read(root, &path_of(&blob.digest))?;
    blob.digest
        .must_be(&Digest::of(&text), "a document of the image")?;
    Ok(text)
}

fn read(root: &Root, path: &Path) -> Result<Vec<u8>> {
    let text = root.read(path, LARGEST + 1)?;
    if text.len() as u64 > LARGEST {
        let problem = format!("has more than {LARGEST} bytes");
        return Err(Error::invalid("image document", path.display(), problem));
    }
    Ok(text)
}

impl super::Images {
    /// Makes an image of an OCI layout, or an unpacked archive of `docker save`, in a directory.
    ///
    /// # Errors
    /// As [`super::Images::import`].
    pub fn import_dir(
        &self,
        name: &str,
        dir: &Path,
        options: &super::ImportOptions,
        progress: &mut super::archive::OnProgress<'_>,
    ) -> Result<super::Image> {
        let root = Root::open(dir)?;
        let source = dir.display().to_string();
        let layout = Layout::find(&root, &source).during(|| format!("read `{source}`"))?.ok_or_else(|| {
            let problem = format!(
                "is a directory without an OCI layout; of a root filesystem make an archive: `tar -C {source} -c . | condo \
                 image import - --name {name}`"
            );
            Error::invalid("archive", &source, problem)
        })?;
        let held = self.layers().hold()?;
        let image = self.make(name, |_| {
            self.assemble(
                &layout.image,
                options,
                &mut |number| layout.layer(number),
                progress,
            )
        });
        drop(held);
        image
    }
}
