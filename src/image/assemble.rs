//! Images out of layers, wherever these come from.

use std::path::PathBuf;

use super::archive::{Archive, OnProgress, Progress};
use super::digest::Digest;
use super::layer;
use super::layers::{Layer, Source};
use super::making::describe;
use super::oci::Config;
use super::store::{ImportOptions, Manifest, Process};
use super::tree::Contents;
use super::{Images, inspect};
use crate::error::Result;
use crate::files::Root;

/// Hands out the archive of the layer with this number, the lowest being 0.
pub(super) type Supply<'a> = dyn FnMut(usize) -> Result<Archive<'static>> + 'a;

/// An image in layers.
#[derive(Debug)]
pub(super) struct Layered {
    /// Of its manifest.
    pub(super) digest: Option<Digest>,
    pub(super) config: Config,
    /// Where it comes from.
    pub(super) source: String,
}

impl Images {
    /// Makes the layers that are not there yet, and says what the image is. The caller holds the layers.
    pub(super) fn assemble(
        &self,
        image: &Layered,
        options: &ImportOptions,
        supply: &mut Supply<'_>,
        progress: &mut OnProgress<'_>,
    ) -> Result<Manifest> {
        let layers = self.layers();
        let mut limits = options.limits.clone();
        let mut made: Vec<Layer> = Vec::new();
        for (number, diff_id) in image.config.diff_ids.iter().enumerate() {
            let chain = Digest::chain(made.last().map(|layer| &layer.chain), diff_id);
            let layer = match layers.get(&chain)? {
                Some(layer) => layer,
                None => layers.make(
                    &made,
                    Source {
                        diff_id,
                        archive: &mut || supply(number),
                        limits: &mut limits,
                        progress: &mut |p| {
                            progress(Progress {
                                layer: Some(number),
                                ..p
                            });
                        },
                    },
                )?,
            };
            made.push(layer);
        }
        progress(Progress::stage("finishing"));
        let mut contents = Contents::default();
        made.iter().for_each(|layer| contents.add(&layer.about.contents));
        let paths: Vec<PathBuf> = made
            .iter()
            .rev()
            .map(|layer| layers.path(layer.chain.hex()))
            .collect();
        let root = layer::view(&paths)?;
        let manifest = described(&root, image, options, &contents)?;
        Ok(Manifest {
            layers: made.iter().map(|layer| layer.chain.hex().to_owned()).collect(),
            digest: image.digest.as_ref().map(ToString::to_string),
            ..manifest
        })
    }
}

/// The manifest. An image with an init is a system and runs it as root; without one it is a program, and its configuration
/// says how that runs.
fn described(root: &Root, image: &Layered, options: &ImportOptions, contents: &Contents) -> Result<Manifest> {
    let config = &image.config;
    let mut options = options.clone();
    let mut process = Process {
        env: config.process.env.clone(),
        ..Process::default()
    };
    if options.init.is_none() && !is_system(root, config) {
        options.init = Some(config.program_in(root)?);
        options.stop_signal = options.stop_signal.or_else(|| config.stop_signal.clone());
        process = config.process.clone();
    }
    let manifest = describe(root, image.source.clone(), &options, contents)?;
    Ok(Manifest { process, ..manifest })
}

/// Whether it has an init that is meant. Every small image has busybox's, and few mean it: not one that says what else to run.
fn is_system(root: &Root, config: &Config) -> bool {
    inspect::init(root, None)
        .is_ok_and(|init| config.runs_no_more_than_a_shell() || !inspect::is_busybox(root, &init))
}
