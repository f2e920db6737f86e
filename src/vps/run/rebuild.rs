//! A VPS gets a new system: its disk is emptied and based on an image, and all else of it stays.
//!
//! ```text
//!  vps/NAME/rebuild.json    from the decision until it is carried out
//! ```
//! Whoever finds that file carries it out first: the disk may be half removed, and what is left of it is no system any more.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::provision;
use crate::error::{During, Error, Result};
use crate::files;
use crate::vps::record::events::Kind;
use crate::vps::record::first_boot::FirstBoot;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::pending;
use crate::vps::record::store::Record;
use crate::vps::record::view::VpsStatus;

/// What a VPS is rebuilt to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuild {
    /// The image of the new system.
    pub image: String,
    /// What the new system is given at its first start.
    #[serde(default)]
    pub first_boot: FirstBoot,
}

impl Condo {
    /// Rebuilds a stopped VPS, or with `force` any, which is then ended first. Name, address, user ids, limits and neighbours stay;
    /// the machine's id stays, ssh host keys are new. Returns whether it ran.
    ///
    /// # Errors
    /// [`Error::Status`] for a VPS that runs, without `force`, and for one in rescue; nothing is changed then.
    pub fn rebuild(&self, name: &Name, rebuild: &Rebuild, force: bool) -> Result<bool> {
        let (record, _lock) = self.hold(name)?;
        self.settle(&record)?;
        pending::refuse(&record)?;
        let status = self.status(name)?;
        if status != VpsStatus::Stopped && !force {
            let text = format!("the VPS is {}: stop it first, or use --force", status.as_str());
            return Err(Error::Status(text));
        }
        if record.config.rescue.is_some() {
            let text = format!("the VPS is in rescue; end that first: condo rescue {name} --end");
            return Err(Error::Status(text));
        }
        let image = self.images().get(&rebuild.image)?;
        record.config.check_owners(&image)?;
        provision::check(&image, &rebuild.first_boot)?;
        let _copies = self.no_copies(name)?;
        let ran = self.is_to_run(&record)?;
        self.set_starting(name, ran)?;
        self.shut_down(&record, None)?;
        self.take_down(&record)?;
        let plan = serde_json::to_vec(rebuild)?;
        files::write_atomic(&self.folders.rebuild(name), &plan, 0o600)?;
        self.finish_rebuild(record)?;
        Ok(ran)
    }

    /// Carries out what was decided about a stopped VPS, if anything was; its record as it is then.
    pub(in crate::vps) fn finish_rebuild(&self, record: Record) -> Result<Record> {
        let path = self.folders.rebuild(&record.name);
        let text = match files::read(&path) {
            Err(e) if e.is_gone() => return Ok(record),
            other => other?,
        };
        let plan: Rebuild = serde_json::from_slice(&text).during(|| format!("read `{}`", path.display()))?;
        let work = || -> Result<Record> {
            let images = self.lock_images()?;
            self.images().get(&plan.image)?;
            let record = self.store.reconfigure(&record.name, &|config| {
                config.image.clone_from(&plan.image);
                Ok(())
            })?;
            drop(images);
            let seat = self.folders.seat(&record.name);
            self.volume(&record).remove()?;
            files::remove_file(&seat.provisioned())?;
            files::remove_file(&seat.hostname())?;
            files::remove_file(&seat.resolvers())?;
            plan.first_boot.save(&seat.first_boot())?;
            files::remove_file(&path)?;
            self.tell(&record, Kind::Rebuilt, json!({ "image": plan.image }));
            Ok(record)
        };
        work().during(|| format!("rebuild the VPS from image `{}`", plan.image))
    }
}
