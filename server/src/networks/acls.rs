//! `/1.0/network-acls`: the firewalls of instances. Each instance has one ACL, which has its name and is in force for all its nics.

use axum::extract::Path;
use axum::http::HeaderMap;
use condo::net::filter::{Direction, Filter, FilterRule};
use condo::vps::record::instance::Condo;
use condo::vps::record::name::Name;
use condo::vps::record::store::Record;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::errand::{NetworkTask, Task};
use crate::keys::Keys;
use crate::reply::{Answer, Problem, Reply};
use crate::request::{Body, Params, must_be_empty, unchanged};
use crate::server::Server;

mod rules;

use rules::AclRule;

/// The body of all that changes one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    name: String,
    description: String,
    config: Keys,
    ingress: Vec<AclRule>,
    egress: Vec<AclRule>,
}

impl Wanted {
    /// Its rules in the order that they have for LXD's users, whichever way they are written down: what drops comes first.
    fn rules(&self) -> Result<Vec<FilterRule>, Problem> {
        for (key, value) in &self.config {
            must_be_empty(&format!("config.{key}"), value, "is not supported")?;
        }
        must_be_empty(
            "description",
            &self.description,
            "is not supported: ACLs have none",
        )?;
        let of = |direction, all: &[AclRule]| {
            let rules = all.iter().map(|rule| rule.rules(direction));
            rules.collect::<Result<Vec<_>, _>>()
        };
        let mut all = [
            of(Direction::In, &self.ingress)?,
            of(Direction::Out, &self.egress)?,
        ]
        .concat()
        .concat();
        rules::order(&mut all);
        Ok(all)
    }
}

fn object(record: &Record) -> Value {
    let filter = &record.config.firewall;
    let of = |direction| {
        filter
            .rules_of(direction)
            .flat_map(rules::shown)
            .collect::<Vec<_>>()
    };
    json!({
        "name": record.name, "description": "", "config": {}, "ingress": of(Direction::In), "egress": of(Direction::Out),
        "used_by": [format!("/1.0/instances/{}", record.name)],
    })
}

async fn one(server: &Server, text: &str) -> Result<Record, Problem> {
    let missing = || Problem::missing("Network ACL", text);
    let name: Name = text.parse().map_err(|_| missing())?;
    server.read(move |condo| condo.store.get(&name)).await
}

/// `GET /1.0/network-acls`.
pub(crate) async fn list(server: Server, params: Params) -> Answer {
    let all = server.read(Condo::members).await?;
    let shown = all.iter().map(|record| match params.recursion() {
        0 => json!(format!("/1.0/network-acls/{}", record.name)),
        _ => object(record),
    });
    Ok(Reply::Sync(shown.collect()))
}

/// `GET /1.0/network-acls/NAME`.
pub(crate) async fn get(server: Server, Path(text): Path<String>) -> Answer {
    let object = object(&one(&server, &text).await?);
    Ok(Reply::marked(&object, &object))
}

/// `POST /1.0/network-acls`: that of an instance without rules so far.
pub(crate) async fn create(server: Server, params: Params, Body(wanted): Body<Wanted>) -> Answer {
    let record = one(&server, &wanted.name).await.map_err(|_| {
        let problem = "is no instance: the ACL of an instance has its name, and there are no others";
        Problem::value("name", &wanted.name, problem)
    })?;
    if !record.config.firewall.rules.is_empty() {
        let why = format!("Network ACL `{}` already exists", record.name);
        return Err(Problem::conflict(why));
    }
    set(&server, &params, &record, wanted.rules()?, "created").await?;
    Ok(Reply::Created(format!("/1.0/network-acls/{}", record.name)))
}

/// `PUT /1.0/network-acls/NAME`: all its rules.
pub(crate) async fn put(
    server: Server,
    Path(text): Path<String>,
    params: Params,
    headers: HeaderMap,
    Body(wanted): Body<Wanted>,
) -> Answer {
    let record = one(&server, &text).await?;
    unchanged(&headers, &object(&record))?;
    set(&server, &params, &record, wanted.rules()?, "updated").await?;
    Ok(Reply::empty())
}

/// `DELETE /1.0/network-acls/NAME`: its rules.
pub(crate) async fn delete(server: Server, Path(text): Path<String>, params: Params) -> Answer {
    let record = one(&server, &text).await?;
    set(&server, &params, &record, Vec::new(), "deleted").await?;
    Ok(Reply::empty())
}

/// `POST /1.0/network-acls/NAME`: they keep their names.
pub(crate) async fn rename(server: Server, Path(text): Path<String>) -> Answer {
    let record = one(&server, &text).await?;
    let problem = "cannot be renamed: the ACL of an instance has its name";
    Err(Problem::value("Network ACL", record.name.as_str(), problem))
}

async fn set(
    server: &Server,
    params: &Params,
    record: &Record,
    rules: Vec<FilterRule>,
    what: &str,
) -> Result<(), Problem> {
    let before = &record.config.firewall;
    if !rules.is_empty() && !rules::is_ordered(&before.rules) {
        return Err(Problem::conflict(format!(
            "the rules of `{name}` have an order that an ACL has not (one that allows before one that denies): change them with \
             condo firewall {name}, or delete the ACL",
            name = record.name
        )));
    }
    let filter = Filter {
        rules,
        ..before.clone()
    };
    filter.check()?;
    let name = record.name.clone();
    server
        .run(Task::Network(NetworkTask::Screen(name, filter)))
        .await?;
    let source = format!("/1.0/network-acls/{}", record.name);
    server
        .events
        .lifecycle(params.project(), &format!("network-acl-{what}"), &source);
    Ok(())
}
