//! One instance of condo: where its state is, and what it works with.

use std::path::{Path, PathBuf};

use super::folders::Folders;
use super::name::Name;
use super::store::{Record, Store};
use super::view::VpsStatus;
use crate::error::{Error, Result};
use crate::files::Lock;
use crate::host::Host;
use crate::image::Images;
use crate::namespaces::ranges::Ranges;
use crate::runtime::container::Container;
use crate::runtime::id::Id;
use crate::runtime::status::Status;

/// One instance of condo, opened once per process.
#[derive(Debug)]
pub struct Condo {
    /// Where its state is.
    pub folders: Folders,
    /// The machine.
    pub host: Host,
    /// Its records.
    pub store: Store,
    root: Option<PathBuf>,
}

impl Condo {
    /// The instance below `root`, or the host's own.
    pub(in crate::vps) fn at(root: Option<&Path>, host: Host) -> Result<Self> {
        let folders = Folders::open(root)?;
        let store = Store::open(&folders)?;
        Ok(Self {
            folders,
            host,
            store,
            root: root.map(Into::into),
        })
    }

    /// Refuses root of a user namespace (of a VPS, of a container) that has no user ids for VPSs of its own.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub(in crate::vps) fn must_have_ids(&self) -> Result<()> {
        let caller = &self.host.caller;
        if !caller.admin || caller.privileged || Ranges::open()?.count() > 0 {
            return Ok(());
        }
        let why = "this root is one of a user namespace (of a VPS or a container), which has no user ids beyond its own: give \
                   the VPS that it is in more (condo create --nesting, or --ids 131072 and more); condo-runtime works here";
        Err(Error::unsupported("a VPS inside another", why))
    }

    /// The same instance for work within a project: what is made goes into it, and of all VPSs only its are there.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Error::NotFound) for a project that is not there.
    pub fn within(self, project: Option<Name>) -> Result<Self> {
        if let Some(name) = &project {
            self.store.must_have_project(name)?;
        }
        Ok(Self {
            store: self.store.within(project),
            ..self
        })
    }

    /// The project that is worked in, if it is only one.
    pub fn project(&self) -> Option<&Name> {
        self.store.project_meant()
    }

    /// The records of the VPSs that are meant by all of them.
    ///
    /// # Errors
    /// What the database says.
    pub fn members(&self) -> Result<Vec<Record>> {
        let mut records = self.store.list()?;
        if let Some(project) = self.project() {
            records.retain(|record| record.project() == project.as_str());
        }
        Ok(records)
    }

    /// The `--root` this instance was opened with.
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// Its images.
    pub(in crate::vps) fn images(&self) -> Images {
        Images::new(self.folders.images())
    }

    /// Held while a VPS is based on an image and while an image is removed, so that the two do not cross.
    pub(in crate::vps) fn lock_images(&self) -> Result<Lock> {
        Lock::wait(&self.folders.run().join("images.lock"))
    }

    /// Held by whoever changes the VPS.
    pub(in crate::vps) fn lock(&self, name: &Name) -> Result<Lock> {
        Lock::wait(&self.folders.lock(name))
    }

    /// The VPS's container, if there is one.
    pub(in crate::vps) fn container(&self, name: &Name) -> Result<Option<Container>> {
        match Container::load(&self.folders.runtime(), &Id::new(name.as_str())?) {
            Err(e) if e.is_gone() => Ok(None),
            other => other.map(Some),
        }
    }

    /// What the VPS is doing now.
    pub(in crate::vps) fn status(&self, name: &Name) -> Result<VpsStatus> {
        let container = self.container(name)?;
        Ok(container.map_or(VpsStatus::Stopped, |c| shown(c.status(&self.host))))
    }
}

pub(in crate::vps) fn shown(status: Status) -> VpsStatus {
    match status {
        Status::Created | Status::Creating => VpsStatus::Created,
        Status::Running => VpsStatus::Running,
        Status::Paused => VpsStatus::Paused,
        Status::Stopped => VpsStatus::Stopped,
    }
}
