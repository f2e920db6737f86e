//! An image out of a registry, end to end.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use super::blobs::{Blobs, Watch};
use super::client::Client;
use super::credentials::Credentials;
use super::reference::{Reference, is_host};
use super::{Registries, Settings};
use crate::error::{During, Error, Result};
use crate::image::archive::{Archive, Progress};
use crate::image::assemble::Layered;
use crate::image::digest::Digest;
use crate::image::oci::{self, Blob, Document, INDEXES, LARGEST, MANIFESTS, Manifest};
use crate::image::{Image, Images, ImportOptions};

/// Layers that are downloaded at once: as many as Docker.
const AT_ONCE: usize = 3;
/// How many indexes may lead from one to the next.
const DEEPEST: usize = 4;

/// Told how the pull goes on, by several threads.
pub type OnPull<'a> = dyn Fn(Progress<'_>) + Sync + 'a;

/// How to pull.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// What the image cannot or shall not say itself.
    pub import: ImportOptions,
    /// Who we are to the registry; as files say when absent.
    pub credentials: Option<Credentials>,
    /// The file that says it, if not one of the usual.
    pub auth_file: Option<std::path::PathBuf>,
    /// Also without TLS, and with a certificate that nobody vouches for.
    pub insecure: bool,
    /// What is set for registries.
    pub registries: Registries,
}

/// An image that a registry has.
struct Found {
    client: Client,
    digest: Digest,
    manifest: Manifest,
    config: oci::Config,
}

impl Images {
    /// Makes an image of one in a registry. What an interrupted pull has downloaded is not downloaded again, and layers that
    /// other images have are shared.
    ///
    /// # Errors
    /// [`Error::Exists`] when the name stands for another image, [`Error::Corrupt`] for content that is not what its digest
    /// says, and what keeps the registry from being read.
    pub fn pull(
        &self,
        reference: &Reference,
        name: &str,
        options: &PullOptions,
        progress: &OnPull<'_>,
    ) -> Result<Image> {
        crate::image::validate_name(name)?;
        progress(Progress::stage("asking the registry"));
        let found = find(reference, options).during(|| format!("pull `{reference}`"))?;
        let _held = self.layers().hold()?;
        let is_same = |image: &Image| image.manifest.digest.as_ref() == Some(&found.digest.to_string());
        self.make_or_find(name, is_same, |_| {
            let wanted = self.wanted(&found)?;
            let blobs = Blobs::new(self.dir());
            let layered = Layered {
                digest: Some(found.digest.clone()),
                config: found.config.clone(),
                source: reference.to_string(),
            };
            let fetch = Fetch {
                found: &found,
                blobs: &blobs,
                wanted: &wanted,
                progress,
            };
            let manifest = fetch.run(|arrivals| {
                let mut supply = |number: usize| arrivals.wait_for(number);
                self.assemble(&layered, &options.import, &mut supply, &mut |p| progress(p))
            })?;
            for number in &wanted {
                blobs.forget(&found.manifest.layers[*number].digest)?;
            }
            Ok(manifest)
        })
        .during(|| format!("pull `{reference}`"))
    }

    /// The layers that are not there yet.
    fn wanted(&self, found: &Found) -> Result<BTreeSet<usize>> {
        let mut chain = None;
        let mut wanted = BTreeSet::new();
        for (number, diff_id) in found.config.diff_ids.iter().enumerate() {
            let this = Digest::chain(chain.as_ref(), diff_id);
            if self.layers().get(&this)?.is_none() {
                wanted.insert(number);
            }
            chain = Some(this);
        }
        Ok(wanted)
    }
}

/// Finds the image at a mirror of its registry or there.
fn find(reference: &Reference, options: &PullOptions) -> Result<Found> {
    let mut settings = options
        .registries
        .get(reference.host())
        .cloned()
        .unwrap_or_default();
    settings.insecure |= options.insecure;
    for mirror in &settings.mirrors {
        match find_at_mirror(reference, mirror, &settings, options) {
            Ok(found) => return Ok(found),
            Err(e) => log::warn!("mirror `{mirror}` does not have `{reference}`: {e}"),
        }
    }
    let credentials = match &options.credentials {
        Some(credentials) => Some(credentials.clone()),
        None => Credentials::find(reference.host(), options.auth_file.as_deref())?,
    };
    let at = |scheme: &str| {
        let base = format!("{scheme}://{}", reference.server());
        let client = Client::new(base, reference.path(), credentials.clone(), &settings)?;
        find_at(client, reference)
    };
    match at("https") {
        // One that does not speak TLS, which was allowed.
        Err(e) if settings.insecure && matches!(e.root(), Error::Io(_)) => {
            at("http").map_err(|plain| match plain.root() {
                Error::Io(_) => e,
                _ => plain,
            })
        }
        other => other,
    }
}

fn find_at_mirror(
    reference: &Reference,
    mirror: &str,
    settings: &Settings,
    options: &PullOptions,
) -> Result<Found> {
    let (scheme, rest) = match mirror.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        None => ("https", mirror),
        Some(_) => ("", mirror),
    };
    let (host, prefix) = rest
        .trim_end_matches('/')
        .split_once('/')
        .unwrap_or((rest.trim_end_matches('/'), ""));
    if scheme.is_empty() || !is_host(host) {
        let problem = "is not `[http[s]://]HOST[:PORT][/PATH]`";
        return Err(Error::invalid("mirrors", mirror, problem));
    }
    let repository = match prefix {
        "" => reference.path().to_owned(),
        prefix => format!("{prefix}/{}", reference.path()),
    };
    // Who we are at the registry is no business of its mirrors.
    let credentials = Credentials::find(host, options.auth_file.as_deref())?;
    find_at(
        Client::new(format!("{scheme}://{host}"), &repository, credentials, settings)?,
        reference,
    )
}

/// Reads index, manifest and configuration, each held against the digest it was named by.
fn find_at(client: Client, reference: &Reference) -> Result<Found> {
    let accept = [MANIFESTS, INDEXES].concat().join(", ");
    let mut version = reference.version();
    let mut expected = reference.digest().cloned();
    for _ in 0..DEEPEST {
        let text = client.document(&format!("manifests/{version}"), &accept, LARGEST)?;
        let digest = Digest::of(&text);
        if let Some(expected) = &expected {
            expected.must_be(&digest, "the manifest")?;
        }
        match oci::document(&text)? {
            Document::Index(Blob { digest, .. }) => {
                version = digest.to_string();
                expected = Some(digest);
            }
            Document::Manifest(manifest) => {
                let text = client.document(&format!("blobs/{}", manifest.config.digest), "*/*", LARGEST)?;
                manifest
                    .config
                    .digest
                    .must_be(&Digest::of(&text), "the configuration")?;
                let config = oci::config(&text)?;
                config.expect_layers(manifest.layers.len())?;
                return Ok(Found {
                    client,
                    digest,
                    manifest,
                    config,
                });
            }
        }
    }
    Err(Error::invalid("index", reference, "leads to no manifest"))
}

/// The downloads of one pull.
struct Fetch<'a> {
    found: &'a Found,
    blobs: &'a Blobs,
    wanted: &'a BTreeSet<usize>,
    progress: &'a OnPull<'a>,
}

/// Layers as they come in.
struct Arrivals<'a> {
    fetch: &'a Fetch<'a>,
    arrived: mpsc::Receiver<(usize, Result<()>)>,
    there: BTreeSet<usize>,
}

impl Fetch<'_> {
    /// Downloads several layers at once while `unpack` takes them in their order.
    fn run<T>(&self, unpack: impl FnOnce(&mut Arrivals<'_>) -> Result<T>) -> Result<T> {
        let over = AtomicBool::new(false);
        let next = AtomicUsize::new(0);
        let queue: Vec<usize> = self.wanted.iter().copied().collect();
        let (tell, arrived) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(queue.len()) {
                let tell = tell.clone();
                let (over, next, queue) = (&over, &next, &queue);
                scope.spawn(move || {
                    while let Some(number) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let result = self.one(*number, over);
                        let failed = result.is_err();
                        if tell.send((*number, result)).is_err() || failed {
                            return;
                        }
                    }
                });
            }
            drop(tell);
            let done = unpack(&mut Arrivals {
                fetch: self,
                arrived,
                there: BTreeSet::new(),
            });
            over.store(true, Ordering::Relaxed);
            done
        })
    }

    fn one(&self, number: usize, over: &AtomicBool) -> Result<()> {
        let blob = &self.found.manifest.layers[number];
        let progress = |done: u64| {
            (self.progress)(Progress {
                stage: "downloading",
                done,
                total: Some(blob.size),
                layer: Some(number),
            });
        };
        let watch = Watch {
            progress: &progress,
            over,
        };
        self.blobs
            .fetch(&self.found.client, blob, &watch)
            .during(|| format!("download layer `{}`", blob.digest.short()))
    }
}

impl Arrivals<'_> {
    /// The archive of a layer, once it is there.
    fn wait_for(&mut self, number: usize) -> Result<Archive<'static>> {
        while !self.there.contains(&number) {
            match self.arrived.recv() {
                Ok((arrived, result)) => {
                    result?;
                    self.there.insert(arrived);
                }
                Err(_) => return Err(Error::Status("the download has ended".into())),
            }
        }
        let digest = &self.fetch.found.manifest.layers[number].digest;
        let file = match self.fetch.blobs.open(digest) {
            // Another pull wanted it as well, and is done with it.
            Err(e) if e.is_gone() => {
                self.fetch.one(number, &AtomicBool::new(false))?;
                self.fetch.blobs.open(digest)?
            }
            other => other?,
        };
        Ok(Archive::from_file(digest.to_string(), file))
    }
}
