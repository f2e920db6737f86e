//! What registries and layouts say of an image: an index of manifests, the manifest of one machine, its configuration. The
//! types are image-spec's; Docker's older documents have the same fields under other media types.

use std::path::Path;

use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, Os};
use serde::Deserialize;

use super::digest::Digest;
use super::store::Process;
use crate::error::{During, Error, Result};
use crate::files::Root;

/// Most that is taken of a document: what Docker's registry takes.
pub(super) const LARGEST: u64 = 4 << 20;
/// Most layers of an image. overlayfs takes 500, Docker makes up to 127.
const MOST_LAYERS: usize = 256;

/// The document types that are asked for and understood.
pub(super) const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
pub(super) const MANIFESTS: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const CONFIGS: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];

/// Something with a digest and a size, to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// What it is called by.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

/// A document of either kind.
#[derive(Debug)]
pub enum Document {
    /// Of several images, the one for this machine.
    Index(Blob),
    /// An image.
    Manifest(Manifest),
}

/// What an image consists of.
#[derive(Debug)]
pub struct Manifest {
    /// Its configuration.
    pub config: Blob,
    /// Its layers' archives as they are packed, the lowest first.
    pub layers: Vec<Blob>,
}

/// The configuration of an image.
#[derive(Debug, Clone)]
pub struct Config {
    /// Digests of its layers' archives, decompressed, the lowest first.
    pub diff_ids: Vec<Digest>,
    /// How its program runs.
    pub process: Process,
    /// Its program with the arguments.
    pub program: Vec<String>,
    /// The signal that asks its program to end.
    pub stop_signal: Option<String>,
}

impl TryFrom<&Descriptor> for Blob {
    type Error = Error;

    fn try_from(descriptor: &Descriptor) -> Result<Self> {
        Ok(Self {
            digest: Digest::parse(descriptor.digest().as_ref())?,
            size: descriptor.size(),
        })
    }
}

/// Reads an index or a manifest, which may not say itself which it is.
///
/// # Errors
/// [`Error::Invalid`] for what is not the image of a system for this machine, [`Error::Json`].
pub fn document(text: &[u8]) -> Result<Document> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "schemaVersion", default)]
        version: u32,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let kind: Kind = serde_json::from_slice(text).during(|| "read the image's manifest")?;
    if kind.version != 2 {
        return Err(Error::invalid(
            "schemaVersion",
            kind.version,
            "is not 2: the image is older than Docker 1.10; push it again with a newer program",
        ));
    }
    if kind.manifests.is_some() {
        let index: ImageIndex = serde_json::from_slice(text).during(|| "read the image's index")?;
        return Ok(Document::Index(choose(&index)?));
    }
    let manifest: ImageManifest = serde_json::from_slice(text).during(|| "read the image's manifest")?;
    Ok(Document::Manifest(read_manifest(&manifest)?))
}

fn read_manifest(manifest: &ImageManifest) -> Result<Manifest> {
    let kind = manifest.config().media_type().as_ref();
    if !CONFIGS.contains(&kind) {
        return Err(Error::invalid(
            "image",
            kind,
            "is not the image of a root filesystem",
        ));
    }
    if manifest.layers().is_empty() || manifest.layers().len() > MOST_LAYERS {
        let problem = format!("are not 1 to {MOST_LAYERS}");
        return Err(Error::invalid("layers", manifest.layers().len(), problem));
    }
    let layer = |descriptor: &Descriptor| {
        let kind = descriptor.media_type().as_ref();
        let tar = kind.contains(".tar") && !kind.contains("encrypted");
        if tar {
            Blob::try_from(descriptor)
        } else {
            Err(Error::invalid("layer", kind, "is not a tar archive"))
        }
    };
    Ok(Manifest {
        config: manifest.config().try_into()?,
        layers: manifest.layers().iter().map(layer).collect::<Result<_>>()?,
    })
}

/// The machine of this host, as images call it.
fn machine() -> Arch {
    match std::env::consts::ARCH {
        "x86_64" => Arch::Amd64,
        "aarch64" => Arch::ARM64,
        other => Arch::Other(other.to_owned()),
    }
}

/// The image for this machine. One that does not say what it is for is taken when it is the only one.
fn choose(index: &ImageIndex) -> Result<Blob> {
    let is_known = |d: &&Descriptor| {
        let kind = d.media_type().as_ref();
        MANIFESTS.contains(&kind) || INDEXES.contains(&kind)
    };
    let known: Vec<_> = index.manifests().iter().filter(is_known).collect();
    if let [only] = known.as_slice()
        && only.platform().is_none()
    {
        return Blob::try_from(*only);
    }
    let ours = known.iter().find(|d| {
        d.platform()
            .as_ref()
            .is_some_and(|p| *p.os() == Os::Linux && *p.architecture() == machine())
    });
    if let Some(ours) = ours {
        return Blob::try_from(*ours);
    }
    let named = known.iter().map(|d| match d.platform() {
        Some(p) => format!("{}/{}", p.os(), p.architecture()),
        None => d.digest().to_string(),
    });
    let there: Vec<_> = named.collect();
    let problem = format!("has no single image for it, it has {}", there.join(", "));
    Err(Error::invalid(
        "platform",
        format!("linux/{}", machine()),
        format!("the index {problem}"),
    ))
}

/// Reads a configuration.
///
/// # Errors
/// [`Error::Invalid`] for one of another machine, [`Error::Json`].
pub fn config(text: &[u8]) -> Result<Config> {
    let read: ImageConfiguration =
        serde_json::from_slice(text).during(|| "read the image's configuration")?;
    if *read.os() != Os::Linux || *read.architecture() != machine() {
        let problem = format!("is not `linux/{}`, which this host is", machine());
        return Err(Error::invalid(
            "image",
            format!("{}/{}", read.os(), read.architecture()),
            problem,
        ));
    }
    let diff_ids = read
        .rootfs()
        .diff_ids()
        .iter()
        .map(|id| Digest::parse(id))
        .collect::<Result<Vec<_>>>()?;
    if diff_ids.is_empty() || diff_ids.len() > MOST_LAYERS {
        let problem = format!("are not 1 to {MOST_LAYERS}");
        return Err(Error::invalid("diff_ids", diff_ids.len(), problem));
    }
    let config = read.config().clone().unwrap_or_default();
    let list = |field: &Option<Vec<String>>| field.clone().unwrap_or_default();
    let text = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    let program = [list(config.entrypoint()), list(config.cmd())].concat();
    let process = Process {
        env: list(config.env()),
        user: text(config.user()).unwrap_or_default(),
        working_dir: text(config.working_dir()).unwrap_or_default(),
    };
    for value in program
        .iter()
        .chain(&process.env)
        .chain([&process.user, &process.working_dir])
    {
        if value.contains('\0') {
            return Err(Error::invalid("image", value.escape_debug(), "holds a zero byte"));
        }
    }
    Ok(Config {
        diff_ids,
        process,
        program,
        stop_signal: text(config.stop_signal()),
    })
}

impl Config {
    /// Refuses an image that has not as many archives as layers.
    pub(super) fn expect_layers(&self, archives: usize) -> Result<()> {
        if archives == self.diff_ids.len() {
            return Ok(());
        }
        let problem = format!(
            "are not as many as the configuration's {} diff_ids",
            self.diff_ids.len()
        );
        Err(Error::invalid("layers", archives, problem))
    }

    /// Whether nothing is configured but a shell to be typed into, as in the images of distributions.
    pub(super) fn runs_no_more_than_a_shell(&self) -> bool {
        match self.program.as_slice() {
            [] => true,
            [one] => one.rsplit('/').next().is_some_and(|name| name.ends_with("sh")),
            _ => false,
        }
    }

    /// The program with its absolute path, looked for as the image's environment says.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it names none, or one that is not there.
    pub(super) fn program_in(&self, root: &Root) -> Result<Vec<String>> {
        let Some((program, arguments)) = self.program.split_first().filter(|(p, _)| !p.is_empty()) else {
            return Err(Error::invalid(
                "image",
                "Entrypoint",
                "is not set and there is no init; name the program to start as process 1 with `--init`",
            ));
        };
        let path = self
            .process
            .env
            .iter()
            .find_map(|line| line.strip_prefix("PATH="));
        let path = path.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let found = if program.contains('/') {
            let from = Path::new("/").join(&self.process.working_dir);
            Some(from.join(program)).filter(|path| root.has(path))
        } else {
            let places = path.split(':').filter(|dir| dir.starts_with('/'));
            places
                .map(|dir| Path::new(dir).join(program))
                .find(|path| root.has(path))
        };
        let found = found
            .and_then(|path| path.into_os_string().into_string().ok())
            .ok_or_else(|| {
                Error::invalid(
                    "Entrypoint",
                    program,
                    "is not in the image; name another program with `--init`",
                )
            })?;
        Ok(std::iter::once(found).chain(arguments.iter().cloned()).collect())
    }
}

#[cfg(test)]
mod tests;
