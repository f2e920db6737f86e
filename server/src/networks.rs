//! `/1.0/networks`: networks that VPSs are on.

use std::collections::BTreeSet;
use std::path::Path as FilePath;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use condo::vps::record::attachment::network_name;
use condo::vps::record::instance::Condo;
use condo::vps::record::name::Name;
use condo::vps::record::network::NetworkRecord;
use condo::vps::wire::networks::NetworkChange;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::errand::{NetworkTask, Task};
use crate::keys::Keys;
use crate::reply::{Answer, Problem, Reply};
use crate::request::{Body, Params, must_be_empty, unchanged};
use crate::server::Server;

pub(crate) mod acls;
pub(crate) mod forwards;
mod setup;

/// The body of a new network, and of a change.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    description: String,
    config: Keys,
}

/// A network with the VPSs that are on it, of those that are there for the request's project.
type Known = (NetworkRecord, Vec<Name>);

fn object((record, users): &Known) -> Value {
    let users = users.iter().map(|user| json!(format!("/1.0/instances/{user}")));
    json!({
        "name": record.name, "type": "bridge", "managed": true, "status": "Created", "description": "",
        "config": setup::keys(record), "used_by": users.collect::<Vec<_>>(), "locations": ["none"],
    })
}

/// A network's name out of an address.
pub(crate) fn name(text: &str) -> Result<Name, Problem> {
    network_name("network", text).map_err(|_| Problem::missing("Network", text))
}

async fn one(server: &Server, text: &str) -> Result<Known, Problem> {
    let name = name(text)?;
    server.read(move |condo| known(condo, &name)).await
}

fn known(condo: &Condo, name: &Name) -> condo::error::Result<Known> {
    let (record, mut users) = condo.network(name)?;
    let members: BTreeSet<Name> = condo.members()?.into_iter().map(|member| member.name).collect();
    users.retain(|user| members.contains(user));
    Ok((record, users))
}

fn all(condo: &Condo) -> condo::error::Result<Vec<Known>> {
    condo
        .networks()?
        .iter()
        .map(|record| known(condo, &record.name))
        .collect()
}

/// `GET /1.0/networks`.
pub(crate) async fn list(server: Server, params: Params) -> Answer {
    let all = server.read(all).await?;
    let shown = all.iter().map(|known| match params.recursion() {
        0 => json!(format!("/1.0/networks/{}", known.0.name)),
        _ => object(known),
    });
    Ok(Reply::Sync(shown.collect()))
}

/// `GET /1.0/networks/NAME`.
pub(crate) async fn get(server: Server, Path(text): Path<String>) -> Answer {
    let object = object(&one(&server, &text).await?);
    Ok(Reply::marked(&object, &object["config"]))
}

/// `POST /1.0/networks`.
pub(crate) async fn create(
    State(server): State<Server>,
    params: Params,
    Body(wanted): Body<Wanted>,
) -> Answer {
    wanted.refuse_others()?;
    let name: Name = network_name("name", &wanted.name)?;
    let new = setup::new(name.clone(), &wanted.config)?;
    server.run(Task::Network(NetworkTask::Create(new))).await?;
    let address = format!("/1.0/networks/{name}");
    server
        .events
        .lifecycle(params.project(), "network-created", &address);
    Ok(Reply::Created(address))
}

impl Wanted {
    fn refuse_others(&self) -> Result<(), Problem> {
        if !["", "bridge"].contains(&self.kind.as_str()) {
            return Err(Problem::value("type", &self.kind, "is not supported: bridge is"));
        }
        must_be_empty(
            "description",
            &self.description,
            "is not supported: networks have none",
        )
    }
}

/// `PUT /1.0/networks/NAME`.
pub(crate) async fn put(
    State(server): State<Server>,
    Path(text): Path<String>,
    headers: HeaderMap,
    Body(wanted): Body<Wanted>,
) -> Answer {
    change(&server, &text, &headers, wanted, false).await
}

/// `PATCH /1.0/networks/NAME`.
pub(crate) async fn patch(
    State(server): State<Server>,
    Path(text): Path<String>,
    headers: HeaderMap,
    Body(wanted): Body<Wanted>,
) -> Answer {
    change(&server, &text, &headers, wanted, true).await
}

async fn change(server: &Server, text: &str, headers: &HeaderMap, wanted: Wanted, adds: bool) -> Answer {
    wanted.refuse_others()?;
    let known = one(server, text).await?;
    unchanged(headers, &object(&known)["config"])?;
    let before = setup::keys(&known.0);
    let mut config = if adds { before.clone() } else { Keys::new() };
    config.extend(wanted.config);
    let change: NetworkChange = setup::change(&before, &config)?;
    if change != NetworkChange::default() {
        server
            .run(Task::Network(NetworkTask::Change(known.0.name.clone(), change)))
            .await?;
        let address = format!("/1.0/networks/{}", known.0.name);
        server.events.lifecycle("default", "network-updated", &address);
    }
    Ok(Reply::empty())
}

/// `POST /1.0/networks/NAME`: another name, which no network can get.
pub(crate) async fn rename(State(server): State<Server>, Path(text): Path<String>) -> Answer {
    one(&server, &text).await?;
    Err(Problem::value(
        "name",
        &text,
        "cannot be changed: make another network, and attach VPSs to it",
    ))
}

/// `DELETE /1.0/networks/NAME`.
pub(crate) async fn delete(State(server): State<Server>, Path(text): Path<String>, params: Params) -> Answer {
    let (record, _) = one(&server, &text).await?;
    server
        .run(Task::Network(NetworkTask::Delete(record.name.clone())))
        .await?;
    let address = format!("/1.0/networks/{}", record.name);
    server
        .events
        .lifecycle(params.project(), "network-deleted", &address);
    Ok(Reply::empty())
}

/// `GET /1.0/networks/NAME/state`: its link on the host, which is there while VPSs run on it.
pub(crate) async fn state(State(server): State<Server>, Path(text): Path<String>) -> Answer {
    let (record, _) = one(&server, &text).await?;
    let network = &record.network;
    let link = FilePath::new("/sys/class/net").join(&network.bridge);
    let read = |file: &str| {
        std::fs::read_to_string(link.join(file))
            .map(|text| text.trim().to_owned())
            .ok()
    };
    let number = |file: &str| read(file).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let counter = |file: &str| number(&format!("statistics/{file}"));
    let mut addresses = Vec::new();
    if !network.kind.is_bridged() {
        addresses.push(json!({
            "family": "inet", "address": network.gateway().to_string(),
            "netmask": network.subnet.prefix().to_string(), "scope": "global",
        }));
    }
    Ok(Reply::Sync(json!({
        "addresses": addresses,
        "counters": {
            "bytes_received": counter("rx_bytes"), "bytes_sent": counter("tx_bytes"),
            "packets_received": counter("rx_packets"), "packets_sent": counter("tx_packets"),
            "errors_received": counter("rx_errors"), "errors_sent": counter("tx_errors"),
            "packets_dropped_inbound": counter("rx_dropped"), "packets_dropped_outbound": counter("tx_dropped"),
        },
        "hwaddr": read("address").unwrap_or_default(), "mtu": network.mtu.unwrap_or(1500),
        "state": if link.exists() { "up" } else { "down" }, "type": "broadcast",
        "bond": null, "bridge": null, "vlan": null, "ovn": null,
    })))
}

/// `GET /1.0/networks/NAME/leases`: the addresses of VPSs, which they have for as long as they are there.
pub(crate) async fn leases(server: Server, Path(text): Path<String>) -> Answer {
    let (record, users) = one(&server, &text).await?;
    let leases = server.read(move |condo| {
        let mut leases = Vec::new();
        for user in users {
            let view = condo.show(&user)?;
            for address in view
                .addresses
                .iter()
                .filter(|address| address.network == record.name)
            {
                let both = [
                    Some(address.ipv4.to_string()),
                    address.ipv6.map(|ip| ip.to_string()),
                ];
                for ip in both.into_iter().flatten() {
                    leases.push(json!({
                        "hostname": view.name, "hwaddr": address.mac.to_string(), "address": ip,
                        "type": "static", "location": "none",
                    }));
                }
            }
        }
        Ok(leases)
    });
    Ok(Reply::Sync(json!(leases.await?)))
}
