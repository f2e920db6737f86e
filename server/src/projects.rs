//! `/1.0/projects`: tenants, with limits on what their VPSs use together. Images, networks and profiles are the host's, for all
//! of them.

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use condo::vps::record::name::Name;
use condo::vps::record::project::{Allowance, ProjectView};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::keys::{Keys, values};
use crate::reply::{Answer, Problem, Reply};
use crate::request::{Body, DEFAULT, Params, must_be_empty, unchanged};
use crate::server::Server;
use crate::trust::Reach;

/// What other servers keep for each project apart.
const SHARED: [&str; 4] = [
    "features.images",
    "features.networks",
    "features.profiles",
    "features.storage.volumes",
];

/// The body of a new project, and of a change.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    name: String,
    description: String,
    config: Keys,
}

impl Wanted {
    /// The limits that these keys are.
    fn limits(&self) -> Result<Allowance, Problem> {
        let problem = "is not supported: projects have names only";
        must_be_empty("description", &self.description, problem)?;
        let mut limits = Allowance::default();
        for (key, value) in &self.config {
            match key.as_str() {
                _ if value.is_empty() => {}
                "limits.instances" | "limits.containers" => limits.vpss = Some(values::number(key, value)?),
                "limits.cpu" => limits.cpus = Some(processors(key, value)?),
                "limits.memory" => limits.memory = Some(values::size(key, value)?),
                "limits.disk" => limits.disk = Some(values::size(key, value)?),
                shared if SHARED.contains(&shared) => {
                    if values::truth(key, value)? {
                        let problem =
                            "is not supported: what there is of them is the host's, for all projects";
                        return Err(Problem::value(key, value, problem));
                    }
                }
                _ => return Err(Problem::value(key, value, "is not supported for projects")),
            }
        }
        Ok(limits)
    }
}

fn processors(key: &str, text: &str) -> Result<f64, Problem> {
    let number = text.parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0);
    number.ok_or_else(|| Problem::value(key, text, "is not a number of processors"))
}

/// The keys that a project has: its limits, and what is the host's. The default project has that as its own.
fn keys(project: &ProjectView) -> Keys {
    let limits = &project.limits;
    let said = [
        ("limits.instances", limits.vpss.map(|n| n.to_string())),
        ("limits.cpu", limits.cpus.map(|n| n.to_string())),
        ("limits.memory", limits.memory.map(values::bytes)),
        ("limits.disk", limits.disk.map(values::bytes)),
    ];
    let said = said
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)));
    let own = is_default(project).to_string();
    let shared = SHARED.map(|key| (key.to_owned(), own.clone()));
    said.chain(shared).collect()
}

fn is_default(project: &ProjectView) -> bool {
    project.name.as_str() == DEFAULT
}

fn object(project: &ProjectView) -> Value {
    let users = project.vpss.iter().map(|vps| match is_default(project) {
        true => format!("/1.0/instances/{vps}"),
        false => format!("/1.0/instances/{vps}?project={}", project.name),
    });
    json!({
        "name": project.name, "description": "", "config": keys(project), "used_by": users.collect::<Vec<_>>(),
    })
}

fn place(name: &str) -> String {
    format!("/1.0/projects/{name}")
}

fn name(text: &str) -> Result<Name, Problem> {
    text.parse().map_err(|_| Problem::missing("Project", text))
}

async fn one(server: &Server, text: &str) -> Result<ProjectView, Problem> {
    let name = name(text)?;
    server.read(move |condo| condo.store.project(&name)).await
}

/// `GET /1.0/projects`.
pub(crate) async fn list(
    State(server): State<Server>,
    Extension(reach): Extension<Reach>,
    params: Params,
) -> Answer {
    let all = server.read(|condo| condo.store.projects()).await?;
    let seen = all.iter().filter(|project| reach.has(project.name.as_str()));
    let shown = seen.map(|project| match params.recursion() {
        0 => json!(place(project.name.as_str())),
        _ => object(project),
    });
    Ok(Reply::Sync(shown.collect()))
}

/// `GET /1.0/projects/NAME`.
pub(crate) async fn get(State(server): State<Server>, Path(text): Path<String>) -> Answer {
    let object = object(&one(&server, &text).await?);
    Ok(Reply::marked(&object, &object["config"]))
}

/// `GET /1.0/projects/NAME/state`: what is used of what there is; -1 is no limit.
pub(crate) async fn state(State(server): State<Server>, Path(text): Path<String>) -> Answer {
    let project = one(&server, &text).await?;
    let whole = |all: &Allowance| [all.vpss, all.cpus.map(rounded_up), all.memory, all.disk];
    let figures = whole(&project.limits).into_iter().zip(whole(&project.used));
    let resources = ["instances", "cpu", "memory", "disk"].into_iter().zip(figures);
    let resources = resources.map(|(resource, (limit, used))| {
        let limit = limit.map_or(json!(-1), |limit| json!(limit));
        (
            resource.to_owned(),
            json!({ "Limit": limit, "Usage": used.unwrap_or(0) }),
        )
    });
    Ok(Reply::Sync(
        json!({ "resources": resources.collect::<Map<_, _>>() }),
    ))
}

/// Clients read whole numbers.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "processors of a host"
)]
fn rounded_up(processors: f64) -> u64 {
    processors.ceil() as u64
}

/// `POST /1.0/projects`.
pub(crate) async fn create(State(server): State<Server>, Body(wanted): Body<Wanted>) -> Answer {
    let (name, limits) = (wanted.name.parse::<Name>()?, wanted.limits()?);
    let address = place(name.as_str());
    let tell = (name.to_string(), address.clone());
    server
        .read(move |condo| condo.store.add_project(&name, limits))
        .await?;
    server.events.lifecycle(&tell.0, "project-created", &tell.1);
    Ok(Reply::Created(address))
}

/// `PUT /1.0/projects/NAME`: these limits, and none else of those that have keys.
pub(crate) async fn put(
    State(server): State<Server>,
    Path(text): Path<String>,
    headers: HeaderMap,
    Body(wanted): Body<Wanted>,
) -> Answer {
    change(&server, &text, &headers, wanted, false).await
}

/// `PATCH /1.0/projects/NAME`: other limits where some are given.
pub(crate) async fn patch(
    State(server): State<Server>,
    Path(text): Path<String>,
    headers: HeaderMap,
    Body(wanted): Body<Wanted>,
) -> Answer {
    change(&server, &text, &headers, wanted, true).await
}

/// Limits that have no key stay as they are.
async fn change(server: &Server, text: &str, headers: &HeaderMap, mut wanted: Wanted, adds: bool) -> Answer {
    let before = one(server, text).await?;
    unchanged(headers, &object(&before)["config"])?;
    if adds {
        let mut config = keys(&before);
        config.extend(wanted.config);
        wanted.config = config;
    }
    if is_default(&before) {
        return match wanted.config == keys(&before) {
            true => Ok(Reply::empty()),
            false => Err(Problem::bad("The project `default` has no limits")),
        };
    }
    let wanted = wanted.limits()?;
    let name = before.name;
    let tell = (name.to_string(), place(name.as_str()));
    server
        .read(move |condo| {
            condo.change_project(&name, &|now| {
                Ok(Allowance {
                    addresses: now.addresses,
                    bandwidth: now.bandwidth,
                    shared: now.shared,
                    ..wanted
                })
            })
        })
        .await?;
    server.events.lifecycle(&tell.0, "project-updated", &tell.1);
    Ok(Reply::empty())
}

/// `POST /1.0/projects/NAME`: a VPS stays in its project, and so the project keeps its name.
pub(crate) async fn rename(State(server): State<Server>, Path(text): Path<String>) -> Answer {
    one(&server, &text).await?;
    Err(Problem::bad("projects keep their names"))
}

/// `DELETE /1.0/projects/NAME`.
pub(crate) async fn delete(State(server): State<Server>, Path(text): Path<String>) -> Answer {
    let name = name(&text)?;
    if name.as_str() == DEFAULT {
        return Err(Problem::forbidden("The project `default` cannot be deleted"));
    }
    server
        .read(move |condo| condo.store.remove_project(&name))
        .await?;
    server.events.lifecycle(&text, "project-deleted", &place(&text));
    Ok(Reply::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(pairs: &[(&str, &str)]) -> Wanted {
        let config = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Wanted {
            config: config.collect(),
            ..Wanted::default()
        }
    }

    #[test]
    fn keys_are_limits_and_back() {
        let pairs = [
            ("limits.cpu", "2.5"),
            ("limits.instances", "3"),
            ("limits.memory", "2GiB"),
            ("features.images", "false"),
        ];
        let limits = wanted(&pairs).limits().unwrap();
        assert_eq!(
            (limits.cpus, limits.vpss, limits.memory, limits.disk),
            (Some(2.5), Some(3), Some(2 << 30), None)
        );
        let project = ProjectView {
            name: "shop".parse().unwrap(),
            limits,
            used: Allowance::default(),
            vpss: Vec::new(),
        };
        let back = keys(&project);
        assert!(pairs.iter().all(|(key, value)| back[*key] == *value), "{back:?}");
    }

    #[test]
    fn what_is_no_limit_is_refused_by_its_key() {
        for (key, value) in [
            ("limits.cpu", "-1"),
            ("limits.memory", "2G"),
            ("limits.processes", "5"),
            ("features.images", "true"),
            ("restricted", "true"),
        ] {
            let refused = wanted(&[(key, value)]).limits().unwrap_err();
            assert!(refused.text.contains(key), "{}", refused.text);
        }
    }
}
