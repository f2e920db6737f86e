//! The processors of a container of an engine's: as many as it has time for, so that `nproc` and what starts a thread for each
//! processor go by its limit, as in the manager's VPSs.
//!
//! A list that the engine named stays. What holds is found in the cgroup and in the container's own configuration: nothing is
//! remembered.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::cgroups::{Cgroup, Share};
use crate::error::Result;
use crate::host::Host;
use crate::namespaces::user::IdMap;
use crate::runtime::bundle;
use crate::runtime::container::Container;
use crate::vps::record::cpuset;
use crate::vps::record::ids::NESTING_RANGES;

/// How many user ids the range of one has.
const IDS: u32 = NESTING_RANGES * 65_536;

/// What is to be known of a container.
struct Seat {
    /// Its place among others: neighbours have processors beside each other.
    number: u32,
    /// What holds now.
    share: Share,
    /// The processors that it could run on.
    all: BTreeSet<u32>,
    /// Those that its configuration names.
    named: String,
}

/// Whether the processors of a container are not the engine's choice: none were named, or those are that [`fit`] chose.
pub fn are_ours(host: &Host, container: &Container) -> bool {
    let seat = Seat::of(host, container).ok().flatten();
    seat.is_some_and(|seat| seat.named.is_empty() || seat.chosen() == seat.named)
}

/// Puts a container on as many processors as it has time for, after its limits were set. No command is about that: it goes on where
/// that fails.
pub fn fit(host: &Host, container: &Container) {
    if let Err(e) = put(host, container) {
        log::warn!(
            "`nproc` in container `{}` does not go by its limit: {e}",
            container.state().id
        );
    }
}

fn put(host: &Host, container: &Container) -> Result<()> {
    let Some(seat) = Seat::of(host, container)? else {
        return Ok(());
    };
    let chosen = seat.chosen();
    if Some(&seat.all) == cpuset::parse(&chosen).as_ref() && seat.named.is_empty() {
        return Ok(());
    }
    container.update(host, json!({ "cpu": { "cpus": chosen } }))
}

/// The cgroup that a container's is in, unless that is the root of the hierarchy.
fn above(host: &Host, container: &Container) -> Option<Cgroup> {
    let own = Path::new(container.state().cgroup.as_ref()?.path());
    Cgroup::open(&host.cgroups, own.parent()?.to_str()?).ok()
}

impl Seat {
    /// `None` where processors are not handed out.
    fn of(host: &Host, container: &Container) -> Result<Option<Self>> {
        let Some(cgroup) = container.cgroup(host)? else {
            return Ok(None);
        };
        let share = cgroup.share()?;
        let all = match above(host, container) {
            Some(above) => cpuset::parse(above.share()?.list.trim()),
            // The root of the hierarchy.
            None => Some(cpuset::online()?),
        };
        let raw = container.config()?;
        let config: Value = serde_json::from_slice(&raw)?;
        let named = config["linux"]["resources"]["cpu"]["cpus"].as_str();
        let owner = IdMap::from_spec(&bundle::parse(&raw)?)?.root();
        Ok(all.map(|all| Self {
            number: owner.map_or(0, |(uid, _)| uid / IDS),
            share,
            all,
            named: named.unwrap_or_default().to_owned(),
        }))
    }

    /// The list of those that it is to run on.
    fn chosen(&self) -> String {
        let own = self
            .share
            .time
            .and_then(|time| cpuset::share(time, self.number, &self.all));
        cpuset::display(own.as_ref().unwrap_or(&self.all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(time: Option<f64>, number: u32) -> Seat {
        Seat {
            number,
            share: Share {
                time,
                list: "0-7".into(),
            },
            all: (0..8).collect(),
            named: String::new(),
        }
    }

    #[test]
    fn it_has_as_many_as_it_has_time_for() {
        assert_eq!(seat(Some(2.0), 1).chosen(), "0-1");
        assert_eq!(seat(Some(1.5), 2).chosen(), "2-3");
        assert_eq!(seat(Some(64.0), 1).chosen(), "0-7");
        assert_eq!(seat(None, 3).chosen(), "0-7");
    }
}
