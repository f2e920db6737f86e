//! Requests about profiles.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use condo::vps::record::config::VpsConfig;
use condo::vps::record::instance::Condo;
use condo::vps::record::name::Name;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{DEFAULT, KIND, Profile, Profiles};
use crate::errand::Task;
use crate::instances::configured;
use crate::keys::{Devices, Keys};
use crate::reply::{Answer, Problem, Reply};
use crate::request::{Body, Params, unchanged};
use crate::server::Server;

/// The longest name.
const LONGEST: usize = 63;

/// A body with a whole profile or a part of one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    name: String,
    description: Option<String>,
    config: Option<Keys>,
    devices: Option<Devices>,
}

impl Wanted {
    /// A profile of nothing else.
    fn whole(self) -> Profile {
        let mut profile = Profile::default();
        self.add_to(&mut profile);
        profile
    }

    fn add_to(self, profile: &mut Profile) {
        if let Some(description) = self.description {
            profile.description = description;
        }
        profile.setup.keys.extend(self.config.unwrap_or_default());
        profile.setup.keys.retain(|_, value| !value.is_empty());
        profile.setup.devices.extend(self.devices.unwrap_or_default());
    }
}

fn object(name: &str, profile: &Profile, users: &[Name]) -> Value {
    let users = users.iter().map(|user| format!("/1.0/instances/{user}"));
    json!({
        "name": name, "description": profile.description, "project": "default",
        "config": profile.setup.keys, "devices": profile.setup.devices, "used_by": users.collect::<Vec<_>>(),
    })
}

/// What a change replaces.
fn changeable(profile: &Profile) -> Value {
    json!([profile.description, profile.setup.keys, profile.setup.devices])
}

fn users(condo: &Condo, name: &str) -> condo::error::Result<Vec<Name>> {
    let records = condo.members()?.into_iter();
    let uses = records.filter(|record| {
        record
            .config
            .labels
            .profiles
            .iter()
            .any(|profile| profile == name)
    });
    Ok(uses.map(|record| record.name).collect())
}

/// `GET /1.0/profiles`.
pub(crate) async fn list(server: Server, params: Params) -> Answer {
    let all = server
        .read(|condo| {
            let profiles = Profiles::load(condo)?.0.into_iter();
            let with_users = profiles.map(|(name, profile)| {
                let users = users(condo, &name)?;
                Ok((name, profile, users))
            });
            with_users.collect::<condo::error::Result<Vec<_>>>()
        })
        .await?;
    let shown = all.iter().map(|(name, profile, users)| match params.recursion() {
        0 => json!(format!("/1.0/profiles/{name}")),
        _ => object(name, profile, users),
    });
    Ok(Reply::Sync(shown.collect()))
}

async fn one(server: &Server, name: &str) -> Result<(Profile, Vec<Name>), Problem> {
    let name = name.to_owned();
    let found =
        server.read(move |condo| Ok((Profiles::load(condo)?.one(&name).cloned(), users(condo, &name)?)));
    let (profile, users) = found.await?;
    Ok((profile?, users))
}

/// `GET /1.0/profiles/NAME`.
pub(crate) async fn get(server: Server, Path(name): Path<String>) -> Answer {
    let (profile, users) = one(&server, &name).await?;
    Ok(Reply::marked(
        &object(&name, &profile, &users),
        &changeable(&profile),
    ))
}

/// `POST /1.0/profiles`.
pub(crate) async fn create(
    State(server): State<Server>,
    params: Params,
    Body(wanted): Body<Wanted>,
) -> Answer {
    let name = wanted.name.clone();
    check_name(&name)?;
    let profile = wanted.whole();
    profile.check()?;
    let text = serde_json::to_string(&profile).map_err(condo::error::Error::from)?;
    let address = format!("/1.0/profiles/{name}");
    if name == DEFAULT {
        return Err(Problem::conflict("The profile `default` already exists"));
    }
    server
        .read(move |condo| condo.store.keep_new(KIND, &name, &text))
        .await?;
    server
        .events
        .lifecycle(params.project(), "profile-created", &address);
    Ok(Reply::Created(address))
}

fn check_name(name: &str) -> Result<(), Problem> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if !name.is_empty() && name.len() <= LONGEST && name.bytes().all(fine) && !name.starts_with('.') {
        return Ok(());
    }
    Err(Problem::value(
        "name",
        name,
        "is not a name: letters, digits, `-`, `_` and `.`, at most 63",
    ))
}

/// `PUT /1.0/profiles/NAME`.
pub(crate) async fn put(
    State(server): State<Server>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Body(wanted): Body<Wanted>,
) -> Answer {
    let (profile, users) = one(&server, &name).await?;
    unchanged(&headers, &changeable(&profile))?;
    store(&server, name, wanted.whole(), users).await
}

/// `PATCH /1.0/profiles/NAME`.
pub(crate) async fn patch(
    State(server): State<Server>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Body(wanted): Body<Wanted>,
) -> Answer {
    let (mut profile, users) = one(&server, &name).await?;
    unchanged(&headers, &changeable(&profile))?;
    wanted.add_to(&mut profile);
    store(&server, name, profile, users).await
}

/// Keeps a profile, and configures those made of it anew. None is, if that is impossible for one of them.
async fn store(server: &Server, name: String, profile: Profile, users: Vec<Name>) -> Answer {
    profile.check()?;
    let address = format!("/1.0/profiles/{name}");
    let tasks = server
        .read(move |condo| Ok(kept(condo, &name, profile, &users)))
        .await??;
    let mut failures = Vec::new();
    for (user, config) in tasks {
        if let Err(problem) = server.run(Task::Configure(user.clone(), Box::new(config))).await {
            failures.push(format!("{user}: {}", problem.text));
        }
    }
    server.events.lifecycle("default", "profile-updated", &address);
    match failures.as_slice() {
        [] => Ok(Reply::empty()),
        some => Err(Problem::bad(format!(
            "the profile is changed, but not for {}",
            some.join("; ")
        ))),
    }
}

fn kept(
    condo: &Condo,
    name: &str,
    profile: Profile,
    users: &[Name],
) -> Result<Vec<(Name, VpsConfig)>, Problem> {
    let text = serde_json::to_string(&profile).map_err(condo::error::Error::from)?;
    let before = Profiles::load(condo)?;
    let mut after = Profiles::load(condo)?;
    after.0.insert(name.to_owned(), profile);
    let mut tasks = Vec::new();
    for user in users {
        let record = condo.store.get_any(user)?;
        let labels = crate::instances::labels(&record, &before);
        tasks.push((user.clone(), configured(condo, &after, &record, labels)?));
    }
    condo.store.keep(KIND, name, &text)?;
    Ok(tasks)
}

/// `POST /1.0/profiles/NAME`: another name.
pub(crate) async fn rename(
    State(server): State<Server>,
    Path(name): Path<String>,
    Body(wanted): Body<Wanted>,
) -> Answer {
    check_name(&wanted.name)?;
    let (profile, users) = one(&server, &name).await?;
    in_nobodys_way(&name, &users)?;
    let address = format!("/1.0/profiles/{}", wanted.name);
    let text = serde_json::to_string(&profile).map_err(condo::error::Error::from)?;
    server
        .read(move |condo| {
            condo.store.keep_new(KIND, &wanted.name, &text)?;
            condo.store.let_go(KIND, &name)
        })
        .await?;
    Ok(Reply::Created(address))
}

/// `DELETE /1.0/profiles/NAME`.
pub(crate) async fn delete(State(server): State<Server>, Path(name): Path<String>, params: Params) -> Answer {
    let (_, users) = one(&server, &name).await?;
    in_nobodys_way(&name, &users)?;
    let address = format!("/1.0/profiles/{name}");
    server.read(move |condo| condo.store.let_go(KIND, &name)).await?;
    server
        .events
        .lifecycle(params.project(), "profile-deleted", &address);
    Ok(Reply::empty())
}

fn in_nobodys_way(name: &str, users: &[Name]) -> Result<(), Problem> {
    if name == DEFAULT {
        return Err(Problem::forbidden(
            "The profile `default` cannot be renamed or deleted",
        ));
    }
    match users.first() {
        Some(user) => Err(Problem::bad(format!("Profile is currently in use by `{user}`"))),
        None => Ok(()),
    }
}
