//! Ports of the host that lead to a VPS, and its firewall: changed at once and for good.

use crate::error::{Error, Result};
use crate::net::filter::Filter;
use crate::net::publication::{Door, Publication};
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::store::Record;
use crate::vps::record::view::VpsStatus;
use crate::vps::wire::{doors, services};

impl Condo {
    /// Makes ports of the host lead to a VPS, while it runs; those that do already are left. All of them or none.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a port that another VPS has, or that a program of the host listens at.
    pub fn publish(&self, name: &Name, publications: &[Publication]) -> Result<Record> {
        let (before, _lock) = self.hold_settled(name)?;
        let kept = &before.config.publish;
        let new: Vec<Publication> = publications
            .iter()
            .filter(|p| !kept.contains(p))
            .copied()
            .collect();
        doors::check(&new)?;
        let record = self.store.publish(name, &new)?;
        if !self.is_up(name)? {
            return Ok(record);
        }
        services::provide(self, &record).inspect_err(|_| {
            let closed = services::close(self, &before, &new);
            if let Err(e) = closed.and_then(|()| self.store.unpublish(name, &new).map(drop)) {
                log::warn!("ports that were not published are not all taken back: {e}");
            }
        })?;
        Ok(record)
    }

    /// Takes ports back: as they were published, or only the host's side of it. Without any, all of them.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that is not published, and then none is taken back.
    pub fn unpublish(&self, name: &Name, ports: &[String]) -> Result<Record> {
        let (mut record, _lock) = self.hold_settled(name)?;
        let gone = published(&record, ports)?;
        record.config.publish.retain(|kept| !gone.contains(kept));
        // What leads to a VPS without being in its record would never be found again.
        services::close(self, &record, &gone)?;
        self.store.unpublish(name, &gone)
    }

    /// Changes the firewall of a VPS, all of it at one moment.
    ///
    /// # Errors
    /// What `change` says, and [`Error::Invalid`] for rules that nothing fits. Then the firewall stays as it was.
    pub fn change_firewall(&self, name: &Name, change: &dyn Fn(&mut Filter) -> Result<()>) -> Result<Record> {
        let (record, _lock) = self.hold_settled(name)?;
        let mut filter = record.config.firewall.clone();
        change(&mut filter)?;
        filter.check()?;
        let up = self.is_up(name)?;
        if up {
            services::screen(self, &record, &filter)?;
        }
        let stored = self.store.reconfigure(name, &|config| {
            config.firewall.clone_from(&filter);
            Ok(())
        });
        if stored.is_err() && up {
            services::screen(self, &record, &record.config.firewall)?;
        }
        stored
    }

    fn is_up(&self, name: &Name) -> Result<bool> {
        Ok(self.status(name)? != VpsStatus::Stopped)
    }
}

/// Which publications are meant; all without any.
fn published(record: &Record, ports: &[String]) -> Result<Vec<Publication>> {
    let all = &record.config.publish;
    if ports.is_empty() {
        return Ok(all.iter().copied().collect());
    }
    let meant = |text: &String| {
        let whole = text.parse::<Publication>();
        let door = text.parse::<Door>();
        if let (Err(e), Err(_)) = (&whole, &door) {
            return Err(Error::invalid("PORT", text, problem(e)));
        }
        let fits = |p: &&Publication| {
            whole.as_ref().is_ok_and(|w| w == *p) || door.as_ref().is_ok_and(|d| *d == p.door)
        };
        all.iter().find(fits).copied().ok_or_else(|| {
            let problem = format!("is not published; `condo show {}` lists what is", record.name);
            Error::invalid("PORT", text, problem)
        })
    };
    ports.iter().map(meant).collect()
}

fn problem(e: &Error) -> String {
    match e.root() {
        Error::Invalid { problem, .. } => problem.clone(),
        other => other.to_string(),
    }
}
