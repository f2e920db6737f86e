//! Rescue: another system boots in a VPS's place, with its address and limits, and has the VPS's own disk at `/mnt`.
//!
//! It has a disk of its own, which goes with it, and stays in force until it is ended: `stop`, `start` and a reboot inside concern
//! the rescue system.

use std::time::Duration;

use super::provision;
use crate::error::{Error, Result};
use crate::files;
use crate::vps::record::first_boot::FirstBoot;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::pending::{self, Pending};
use crate::vps::record::rescue::Rescue;
use crate::vps::record::store::Record;
use crate::vps::record::view::VpsStatus;

/// How a VPS is to be rescued.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RescueRequest {
    /// The image to boot; the VPS's own when absent.
    pub image: Option<String>,
    /// What the rescue system is given.
    pub first_boot: FirstBoot,
    /// Whether a VPS that runs is stopped for it.
    pub force: bool,
    /// How long that may take to shut down by itself.
    pub timeout: Duration,
}

impl Condo {
    /// Boots a rescue system. One that is stopped is started again.
    ///
    /// # Errors
    /// [`Error::Status`] for a VPS that runs, without `force`, and for one that is rescued already with another image.
    pub fn rescue(&self, name: &Name, request: &RescueRequest) -> Result<()> {
        let (record, lock) = self.hold_settled(name)?;
        pending::refuse(&record)?;
        let status = self.status(name)?;
        match &record.config.rescue {
            Some(rescue) => refuse_another(name, rescue, status, request)?,
            None => self.prepare_rescue(&record, status, request)?,
        }
        drop(lock);
        self.start(name)
    }

    fn prepare_rescue(&self, record: &Record, status: VpsStatus, request: &RescueRequest) -> Result<()> {
        if status != VpsStatus::Stopped && !request.force {
            let text = format!("the VPS is {}: stop it first, or use --force", status.as_str());
            return Err(Error::Status(text));
        }
        let name = &record.name;
        let rescue = Rescue {
            image: request
                .image
                .clone()
                .unwrap_or_else(|| record.config.image.clone()),
            resume: self.is_to_run(record)?,
            ending: false,
        };
        let image = self.images().get(&rescue.image)?;
        record.config.check_owners(&image)?;
        provision::check(&image, &request.first_boot)?;
        self.set_starting(name, rescue.resume)?;
        self.shut_down(record, Some(request.timeout))?;
        self.take_down(record)?;
        let seat = self.folders.rescue(name);
        // What an earlier one left.
        files::remove_tree(seat.path())?;
        files::create_dir_all(seat.path(), 0o700)?;
        request.first_boot.save(&seat.first_boot())?;
        let _images = self.lock_images()?;
        self.images().get(&rescue.image)?;
        self.store.reconfigure(name, &|config| {
            config.rescue = Some(rescue.clone());
            Ok(())
        })?;
        Ok(())
    }

    /// Ends the rescue: its system is stopped and its disk removed, and the VPS's own system runs again if it did before. Whether
    /// it does. Killed in the middle, the VPS does not start until the same is run again, which finishes it.
    ///
    /// # Errors
    /// [`Error::Status`] for a VPS that is not being rescued.
    pub fn end_rescue(&self, name: &Name, timeout: Duration) -> Result<bool> {
        let (record, lock) = self.hold(name)?;
        let Some(rescue) = record.config.rescue.clone() else {
            if record.config.pending == Some(Pending::Starting) {
                drop(lock);
                return self.see_start(name).map(|()| true);
            }
            return Err(Error::Status("the VPS is not in rescue".into()));
        };
        self.shut_down(&record, Some(timeout))?;
        self.take_down(&record)?;
        let resume = rescue.resume;
        self.store.reconfigure(name, &|config| {
            config.rescue = Some(Rescue {
                ending: true,
                ..rescue.clone()
            });
            Ok(())
        })?;
        self.remove_rescue(&record)?;
        self.store.reconfigure(name, &|config| {
            config.rescue = None;
            config.pending = resume.then_some(Pending::Starting);
            Ok(())
        })?;
        drop(lock);
        if resume {
            self.see_start(name)?;
        }
        Ok(resume)
    }

    /// Removes the disk of a VPS's rescue system, and what is known of it, if there is one.
    pub(super) fn remove_rescue(&self, record: &Record) -> Result<()> {
        let rescue = self.folders.rescue(&record.name);
        record.config.disk.backend.volume(rescue.disk()).remove()?;
        files::remove_tree(rescue.path())
    }
}

fn refuse_another(name: &Name, rescue: &Rescue, status: VpsStatus, request: &RescueRequest) -> Result<()> {
    let same = request.image.as_ref().is_none_or(|image| *image == rescue.image);
    if status == VpsStatus::Stopped && same && request.first_boot.is_empty() {
        return Ok(());
    }
    Err(Error::Status(format!(
        "the VPS is in rescue already, with image `{}`; end that first: condo rescue {name} --end",
        rescue.image
    )))
}
