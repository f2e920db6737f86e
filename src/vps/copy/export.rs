//! A VPS into an archive.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::error::{During, Error, Result};
use crate::files::{self, Lock};
use crate::storage::tree::open_dir;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::pending;
use crate::vps::record::snapshots::{Snapshot, SnapshotName};
use crate::vps::record::store::{Record, now, random_uuid};

use super::archive::{Header, ImageHeader, Packer, VERSION, tree_digest};
use super::capture::{Captured, PARTS, at};
use super::snapshot::LAYER;
use super::whole;

/// The end of the name of an archive that is being written.
pub const UNFINISHED: &str = ".unfinished";

/// What of a VPS goes into an archive.
#[derive(Debug, Clone, Default)]
pub struct ExportOptions {
    /// As it was at this snapshot; as it is now when absent.
    pub snapshot: Option<SnapshotName>,
    /// Only what has changed since this one.
    pub since: Option<SnapshotName>,
    /// Without the image: whoever reads it has one with the same files.
    pub without_image: bool,
}

/// An archive that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Its bytes.
    pub bytes: u64,
    /// The state it holds.
    pub id: String,
}

/// One state of a VPS, as an archive has it.
pub(super) struct State<'a> {
    pub(super) record: &'a Record,
    pub(super) snapshot: &'a Snapshot,
    pub(super) layer: &'a OwnedFd,
    /// An earlier one, which whoever reads the archive has.
    pub(super) since: Option<(&'a Snapshot, &'a OwnedFd)>,
    pub(super) with_image: bool,
    /// What the image's files are.
    pub(super) digest: &'a str,
}

impl Condo {
    /// Writes a VPS into a file, which is there whole or not at all, or to standard output (`-`).
    pub fn export(&self, vps: &Name, options: &ExportOptions, to: &Path) -> Result<Exported> {
        if to == Path::new("-") {
            return self
                .export_to(vps, options, std::io::stdout().lock())
                .map(|(_, done)| done);
        }
        let unfinished = unfinished(to);
        // What a killed export has left has the same name, and is written anew.
        let _lock = Lock::now(&unfinished)?;
        let file = File::create(&unfinished).during(|| format!("create `{}`", unfinished.display()))?;
        let work = || -> Result<Exported> {
            let (writer, done) = self.export_to(vps, options, BufWriter::with_capacity(1 << 20, file))?;
            let file = writer.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.sync_all()?;
            std::fs::rename(&unfinished, to)?;
            Ok(done)
        };
        work()
            .during(|| format!("write `{}`", to.display()))
            .inspect_err(|_| {
                let _ = files::remove_file(&unfinished);
            })
    }

    fn export_to<W: Write>(&self, vps: &Name, options: &ExportOptions, writer: W) -> Result<(W, Exported)> {
        let _lock = self.lock_copies(vps)?;
        self.sweep_copies(vps)?;
        let record = self.store.get(vps)?;
        pending::refuse(&record)?;
        whole::refuse(record.config.disk.backend, "an archive of this VPS")?;
        let copy = |name: &SnapshotName| -> Result<(Snapshot, OwnedFd)> {
            Ok((
                self.snapshot(vps, name)?,
                at(&self.snapshot_dir(vps, name).join(LAYER))?,
            ))
        };
        let older = options.since.as_ref().map(copy).transpose()?;
        let since = older.as_ref().map(|(snapshot, layer)| (snapshot, layer));
        let with_image = !options.without_image && since.is_none();
        let pack = |snapshot: &Snapshot, layer: &OwnedFd| {
            let image = self.images().get(&snapshot.config.image)?;
            let digest = &tree_digest(&image.tree()?)?;
            let state = State {
                record: &record,
                snapshot,
                layer,
                since,
                with_image,
                digest,
            };
            self.pack(&state, writer)
        };
        if let Some(name) = &options.snapshot {
            let (snapshot, layer) = copy(name)?;
            return pack(&snapshot, &layer);
        }
        self.with_passing(vps, |layer, captured| {
            let snapshot = Snapshot::passing(vps, captured)?;
            pack(&snapshot, &at(layer)?)
        })
    }

    /// Writes one state.
    pub(super) fn pack<W: Write>(&self, state: &State<'_>, writer: W) -> Result<(W, Exported)> {
        let snapshot = state.snapshot;
        let image = self.images().get(&snapshot.config.image)?;
        if let Some((older, _)) = state
            .since
            .filter(|(older, _)| older.config.image != snapshot.config.image)
        {
            let problem = format!(
                "is of another image, `{}`; export all of the VPS",
                older.config.image
            );
            return Err(Error::invalid("--since", &older.name, problem));
        }
        let header = Header {
            version: VERSION,
            id: snapshot.id.clone(),
            since: state.since.map(|(older, _)| older.id.clone()),
            name: state.record.name.clone(),
            address: state.record.address,
            created: snapshot.created,
            started: snapshot.started,
            config: snapshot.config.clone(),
            image: ImageHeader {
                digest: state.digest.to_owned(),
                included: state.with_image,
                manifest: serde_json::to_value(&image.manifest)?,
            },
        };
        let mut packer = Packer::new(writer, &header)?;
        if state.with_image {
            packer.tree("image", &image.tree()?, None)?;
        }
        for part in PARTS {
            let top = match open_dir(state.layer, part) {
                Err(e) if e.is_gone() => continue,
                other => other?,
            };
            let older = state
                .since
                .and_then(|(older, dir)| Some((open_dir(dir, part).ok()?, older.created)));
            let older = older.as_ref().map(|(older, taken)| (older, *taken));
            packer.tree(&format!("layer/{part}"), &top, older)?;
        }
        let (writer, bytes) = packer.finish()?;
        let id = header.id;
        Ok((writer, Exported { bytes, id }))
    }
}

impl Snapshot {
    /// What is known of a copy that nobody keeps.
    pub(super) fn passing(vps: &Name, captured: &Captured) -> Result<Self> {
        Ok(Self {
            name: vps.as_str().parse()?,
            id: random_uuid()?,
            created: now(),
            frozen_ms: None,
            files: captured.copied.files,
            bytes: captured.copied.bytes,
            rotates: false,
            started: captured.started,
            config: captured.record.config.clone(),
        })
    }
}

/// The name of a file until it is whole.
fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(UNFINISHED);
    path.with_file_name(name)
}
