//! Instances configured anew: `PUT` replaces, `PATCH` adds.

use axum::extract::Path;
use axum::http::HeaderMap;
use condo::vps::record::config::VpsConfig;
use condo::vps::record::facts::Facts;
use condo::vps::record::instance::Condo;
use condo::vps::record::labels::Labels;
use condo::vps::record::name::Name;
use condo::vps::record::store::Record;
use serde::Deserialize;

use super::power::act;
use super::show::{exists, seen};
use super::{snapshots, view};
use crate::errand::Task;
use crate::keys::{self, Devices, Keys, Setup};
use crate::operations::Plan;
use crate::profiles::Profiles;
use crate::reply::{Answer, Problem, Reply};
use crate::request::{Body, Params, name, unchanged};
use crate::server::Server;

/// The body of both.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    description: Option<String>,
    config: Option<Keys>,
    devices: Option<Devices>,
    profiles: Option<Vec<String>>,
    ephemeral: bool,
    restore: Option<String>,
}

/// `PUT /1.0/instances/NAME`.
pub(crate) async fn put(
    server: Server,
    Path(text): Path<String>,
    params: Params,
    headers: HeaderMap,
    Body(wanted): Body<Wanted>,
) -> Answer {
    let name = name(&text)?;
    if let Some(snapshot) = wanted.restore.as_deref().filter(|snapshot| !snapshot.is_empty()) {
        let plan = Plan::of_instance("Restoring snapshot", params.project(), &text);
        let task = Task::Restore(name.clone(), snapshots::of(&server, &name, snapshot).await?);
        return act(&server, plan, task, "instance-restored", &name);
    }
    let labels = Labels {
        description: wanted.description.clone().unwrap_or_default(),
        profiles: wanted.profiles.clone().unwrap_or_default(),
        keys: keys::lasting(wanted.config.clone().unwrap_or_default()),
        devices: wanted.devices.clone().unwrap_or_default(),
    };
    let config = checked(&server, &name, &headers, wanted.ephemeral, move |_| labels).await?;
    let plan = Plan::of_instance("Updating instance", params.project(), &text);
    act(
        &server,
        plan,
        Task::Configure(name.clone(), Box::new(config)),
        "instance-updated",
        &name,
    )
}

/// `PATCH /1.0/instances/NAME`.
pub(crate) async fn patch(
    server: Server,
    Path(text): Path<String>,
    params: Params,
    headers: HeaderMap,
    Body(wanted): Body<Wanted>,
) -> Answer {
    let name = name(&text)?;
    let Wanted {
        description,
        config,
        devices,
        profiles,
        ephemeral,
        ..
    } = wanted;
    let added = move |labels: &Labels| {
        let mut labels = labels.clone();
        labels.description = description.unwrap_or(labels.description);
        labels.profiles = profiles.unwrap_or(labels.profiles);
        labels.keys.extend(keys::lasting(config.unwrap_or_default()));
        // An empty value takes a key away.
        labels.keys.retain(|_, value| !value.is_empty());
        labels.devices.extend(devices.unwrap_or_default());
        labels
    };
    let config = checked(&server, &name, &headers, ephemeral, added).await?;
    server
        .run(Task::Configure(name.clone(), Box::new(config)))
        .await?;
    let source = format!("/1.0/instances/{name}");
    server
        .events
        .lifecycle(params.project(), "instance-updated", &source);
    Ok(Reply::empty())
}

/// The configuration that is wanted, once it is known to be possible here and that nobody else has changed it.
async fn checked(
    server: &Server,
    name: &Name,
    headers: &HeaderMap,
    ephemeral: bool,
    labels: impl FnOnce(&Labels) -> Labels + Send + 'static,
) -> Result<VpsConfig, Problem> {
    if ephemeral {
        return Err(Problem::value(
            "ephemeral",
            "true",
            "is not supported: delete it when it has stopped",
        ));
    }
    let (seen, profiles) = seen(server, name).await?;
    unchanged(headers, &view::changeable(&view::instance(&seen, &profiles)))?;
    let record = seen.record;
    let granted = view::connected(&record);
    let config = server.read(move |condo| {
        // What the command line has changed since is what a client has read, and adds to.
        let labels = labels(&view::labels(&record, &profiles));
        Ok(configured(condo, &profiles, &record, labels))
    });
    let config = config.await??;
    server.must_not_empower(&granted, &config)?;
    Ok(config)
}

/// A VPS's configuration with other labels, and what these make of it.
pub(crate) fn configured(
    condo: &Condo,
    profiles: &Profiles,
    record: &Record,
    labels: Labels,
) -> Result<VpsConfig, Problem> {
    profiles.must_have(&labels.profiles)?;
    let own = Setup {
        keys: labels.keys.clone(),
        devices: labels.devices.clone(),
    };
    let mut config = record.config.clone();
    profiles.expand(&labels.profiles, &own).apply(&mut config)?;
    lasting(&record.config, &mut config)?;
    if let Some(ip) = config.ip.filter(|ip| *ip != record.address) {
        return Err(Problem::value(
            "ipv4.address",
            &ip.to_string(),
            "is not the address it has, which lasts",
        ));
    }
    config.ip = record.config.ip;
    config.labels = labels;
    let facts = Facts::probe(&condo.host)?;
    config.clone().with_defaults(&facts).validate(&facts)?;
    Ok(config)
}

/// Refuses to change what an instance has for as long as it is there. A disk of which nothing is said stays as it is.
fn lasting(before: &VpsConfig, after: &mut VpsConfig) -> Result<(), Problem> {
    after.disk.size = after.disk.size.or(before.disk.size);
    if after.nesting != before.nesting {
        let problem = "cannot be changed later: make another instance with it, or without";
        return Err(Problem::value(
            "security.nesting",
            &after.nesting.to_string(),
            problem,
        ));
    }
    if after.ids != before.ids {
        let problem = "cannot be changed later: make another instance with it";
        let ids = after.ids.map(|ids| ids.to_string()).unwrap_or_default();
        return Err(Problem::value("security.idmap.size", &ids, problem));
    }
    if let Some(device) = after.devices.symmetric_difference(&before.devices).next() {
        let problem = "cannot be added or removed later: make another instance with it, or without";
        return Err(Problem::value("devices", &device.to_string(), problem));
    }
    Ok(())
}

/// The body of `POST /1.0/instances/NAME`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Moved {
    name: String,
    migration: bool,
}

/// `POST /1.0/instances/NAME`: another name.
pub(crate) async fn rename(
    server: Server,
    Path(text): Path<String>,
    params: Params,
    Body(wanted): Body<Moved>,
) -> Answer {
    let name = exists(&server, name(&text)?).await?;
    if wanted.migration {
        return Err(Problem::value(
            "migration",
            "true",
            "is not supported: an instance can be called otherwise, not moved",
        ));
    }
    let new: Name = wanted.name.parse()?;
    let plan = Plan::of_instance("Renaming instance", params.project(), &text);
    act(
        &server,
        plan,
        Task::Rename(name, new.clone()),
        "instance-renamed",
        &new,
    )
}
