//! Tasks about what VPSs have, and what is beside them: files, images, networks.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use condo::error::Result;
use condo::net::filter::Filter;
use condo::net::publication::Publication;
use condo::vps::record::images::ImportRequest;
use condo::vps::record::instance::Condo;
use condo::vps::record::name::Name;
use condo::vps::record::snapshots::SnapshotName;
use condo::vps::run::transfer::single::Given;
use condo::vps::wire::networks::{NetworkChange, NewNetwork};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::task::{done, nothing};

/// What is done to a file inside.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FileTask {
    /// Told; the content of a file goes to the errand's output.
    Read,
    /// Made of what is the errand's input, or as a folder or a link.
    Write(Given),
    /// Removed, if it is no folder with something in it.
    Remove,
}

impl FileTask {
    pub(super) fn run(self, condo: &Condo, vps: &Name, path: &std::path::Path) -> Result<Value> {
        match self {
            Self::Read => {
                let mut output = own(std::io::stdout().as_fd())?;
                Ok(serde_json::to_value(condo.file_read(vps, path, &mut output)?)?)
            }
            Self::Write(given) => {
                let mut input = own(std::io::stdin().as_fd())?;
                condo.file_write(vps, path, &given, &mut input).map(nothing)
            }
            Self::Remove => condo.file_remove(vps, path).map(nothing),
        }
    }
}

/// One of the errand's streams as the file that it is.
fn own(stream: BorrowedFd<'_>) -> Result<File> {
    Ok(File::from(stream.try_clone_to_owned()?))
}

/// What is done about the image of this name.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ImageTask {
    /// Made of the archive that is the errand's input, with what is said of it elsewhere.
    Import(Option<String>),
    /// Called otherwise.
    Rename(String),
    /// Made of a VPS, as it is or was.
    Publish(Name, Option<SnapshotName>),
}

impl ImageTask {
    pub(super) fn run(self, condo: &Condo, image: String) -> Result<Value> {
        match self {
            Self::Import(metadata) => {
                let request = ImportRequest {
                    archive: PathBuf::from("-"),
                    name: image,
                    init: Vec::new(),
                    stop_signal: None,
                    metadata,
                };
                condo.image_import(&request, &|_| {}).map(done)
            }
            Self::Rename(new) => condo.image_rename(&image, &new).map(nothing),
            Self::Publish(vps, snapshot) => condo.image_publish(&vps, snapshot.as_ref(), &image).map(done),
        }
    }
}

/// What is done about networks and what leads over them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum NetworkTask {
    Create(NewNetwork),
    Change(Name, NetworkChange),
    Delete(Name),
    /// Ports of the host that lead to a VPS.
    Publish(Name, Vec<Publication>),
    /// Ports that do so no more.
    Unpublish(Name, Vec<Publication>),
    /// The firewall of a VPS.
    Screen(Name, Filter),
}

impl NetworkTask {
    pub(super) fn run(self, condo: &Condo) -> Result<Value> {
        match self {
            Self::Create(new) => condo.create_network(&new).map(done),
            Self::Change(name, change) => condo.change_network(&name, &change).map(done),
            Self::Delete(name) => condo.delete_network(&name).map(nothing),
            Self::Publish(vps, ports) => condo.publish(&vps, &ports).map(done),
            Self::Unpublish(vps, ports) => condo.unpublish(&vps, &texts(&ports)).map(done),
            Self::Screen(vps, wanted) => {
                let change = |filter: &mut Filter| {
                    filter.clone_from(&wanted);
                    Ok(())
                };
                condo.change_firewall(&vps, &change).map(done)
            }
        }
    }
}

/// Ports as they are written.
pub(super) fn texts(ports: &[Publication]) -> Vec<String> {
    ports.iter().map(ToString::to_string).collect()
}
