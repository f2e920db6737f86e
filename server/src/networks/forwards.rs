//! `/1.0/networks/NAME/forwards`: addresses of the host of which ports lead to VPSs on the network.

use std::collections::BTreeSet;
use std::net::IpAddr;

use axum::extract::{Path, State};
use condo::net::publication::{Door, Publication, Transport};
use condo::vps::record::instance::Condo;
use condo::vps::record::name::Name;
use condo::vps::record::store::Record;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{name, one};
use crate::errand::{NetworkTask, Task};
use crate::keys::Keys;
use crate::reply::{Answer, Problem, Reply};
use crate::request::{Body, Params, must_be_empty};
use crate::server::Server;

/// What forwards without any port are kept as: `NETWORK/ADDRESS`.
const KIND: &str = "forward";

/// The body.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    listen_address: String,
    description: String,
    config: Keys,
    ports: Vec<Port>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Port {
    protocol: String,
    listen_port: String,
    target_port: String,
    target_address: String,
}

/// What of the host leads to whom.
type Lead = (Name, IpAddr, Publication);

/// The VPSs on a network.
fn users(condo: &Condo, network: &Name) -> condo::error::Result<Vec<Record>> {
    let (_, users) = condo.network(network)?;
    users.iter().map(|user| condo.store.get_any(user)).collect()
}

/// All that leads to these VPSs from an address of the host.
fn leads(users: &[Record], network: &Name) -> Vec<Lead> {
    let mut leads = Vec::new();
    for record in users {
        let address = record
            .interfaces
            .iter()
            .find(|interface| interface.network == *network);
        let Some(address) = address.map(|interface| IpAddr::from(interface.address)) else {
            continue;
        };
        let ports = record
            .config
            .publish
            .iter()
            .filter(|port| port.door.host.is_some());
        leads.extend(ports.map(|port| (record.name.clone(), address, *port)));
    }
    leads
}

fn key(network: &Name, address: IpAddr) -> String {
    format!("{network}/{address}")
}

/// Addresses that have been made, with ports or without.
fn addresses(condo: &Condo, network: &Name, leads: &[Lead]) -> condo::error::Result<BTreeSet<IpAddr>> {
    let kept = condo.store.kept(KIND)?;
    let prefix = format!("{network}/");
    let empty = kept
        .keys()
        .filter_map(|key| key.strip_prefix(&prefix)?.parse().ok());
    Ok(empty
        .chain(leads.iter().filter_map(|(_, _, port)| port.door.host))
        .collect())
}

fn object(address: IpAddr, leads: &[Lead]) -> Value {
    let range = |first: u16, last: u16| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    };
    let ports = leads
        .iter()
        .filter(|(_, _, port)| port.door.host == Some(address));
    let ports = ports.map(|(_, target, port)| {
        json!({
            "description": "", "protocol": port.door.transport.as_str(), "target_address": target.to_string(),
            "listen_port": range(port.door.first, port.door.last), "target_port": range(port.to, port.to_last()),
        })
    });
    json!({
        "listen_address": address.to_string(), "description": "", "config": {}, "location": "",
        "ports": ports.collect::<Vec<_>>(),
    })
}

async fn known(server: &Server, text: &str) -> Result<(Name, BTreeSet<IpAddr>, Vec<Lead>), Problem> {
    one(server, text).await?;
    let network = name(text)?;
    server
        .read(move |condo| {
            let leads = leads(&users(condo, &network)?, &network);
            Ok((network.clone(), addresses(condo, &network, &leads)?, leads))
        })
        .await
}

/// `GET /1.0/networks/NAME/forwards`.
pub(crate) async fn list(State(server): State<Server>, Path(text): Path<String>, params: Params) -> Answer {
    let (network, addresses, leads) = known(&server, &text).await?;
    let shown = addresses.into_iter().map(|address| match params.recursion() {
        0 => json!(format!("/1.0/networks/{network}/forwards/{address}")),
        _ => object(address, &leads),
    });
    Ok(Reply::Sync(shown.collect()))
}

fn parse(text: &str) -> Result<IpAddr, Problem> {
    text.parse()
        .map_err(|_| Problem::value("listen_address", text, "is not an address"))
}

/// The network, and all that leads to VPSs on it, if there is a forward of this address.
async fn made(server: &Server, text: &str, address: IpAddr) -> Result<(Name, Vec<Lead>), Problem> {
    let (network, addresses, leads) = known(server, text).await?;
    if addresses.contains(&address) {
        return Ok((network, leads));
    }
    Err(Problem::missing("Network forward", &address.to_string()))
}

/// `GET /1.0/networks/NAME/forwards/ADDRESS`.
pub(crate) async fn get(
    State(server): State<Server>,
    Path((text, address)): Path<(String, String)>,
) -> Answer {
    let address = parse(&address)?;
    let (_, leads) = made(&server, &text, address).await?;
    let object = object(address, &leads);
    Ok(Reply::marked(&object, &object["ports"]))
}

/// `POST /1.0/networks/NAME/forwards`.
pub(crate) async fn create(
    State(server): State<Server>,
    Path(text): Path<String>,
    params: Params,
    Body(wanted): Body<Wanted>,
) -> Answer {
    let address = parse(&wanted.listen_address)?;
    let (network, addresses, _) = known(&server, &text).await?;
    if addresses.contains(&address) {
        return Err(Problem::conflict(format!(
            "Network forward `{address}` already exists"
        )));
    }
    set(&server, &network, address, wanted).await?;
    let source = format!("/1.0/networks/{network}/forwards/{address}");
    server
        .events
        .lifecycle(params.project(), "network-forward-created", &source);
    Ok(Reply::Created(source))
}

/// `PUT /1.0/networks/NAME/forwards/ADDRESS`: all its ports.
pub(crate) async fn put(
    State(server): State<Server>,
    Path((text, address)): Path<(String, String)>,
    Body(wanted): Body<Wanted>,
) -> Answer {
    let address = parse(&address)?;
    let (network, _) = made(&server, &text, address).await?;
    set(&server, &network, address, wanted).await?;
    Ok(Reply::empty())
}

/// `DELETE /1.0/networks/NAME/forwards/ADDRESS`.
pub(crate) async fn delete(
    State(server): State<Server>,
    Path((text, address)): Path<(String, String)>,
    params: Params,
) -> Answer {
    let address = parse(&address)?;
    let (network, _) = made(&server, &text, address).await?;
    set(&server, &network, address, Wanted::default()).await?;
    let source = format!("/1.0/networks/{network}/forwards/{address}");
    let forgotten = key(&network, address);
    server
        .read(move |condo| condo.store.let_go(KIND, &forgotten))
        .await?;
    server
        .events
        .lifecycle(params.project(), "network-forward-deleted", &source);
    Ok(Reply::empty())
}

/// Makes an address have these ports and no others. Those that go, go first: they may come back for another.
async fn set(server: &Server, network: &Name, address: IpAddr, wanted: Wanted) -> Result<(), Problem> {
    for (key, value) in &wanted.config {
        must_be_empty(
            &format!("config.{key}"),
            value,
            "is not supported: name ports one by one",
        )?;
    }
    must_be_empty(
        "description",
        &wanted.description,
        "is not supported: forwards have none",
    )?;
    let (of, network) = (address, network.clone());
    let tasks = server
        .read(move |condo| Ok(tasks(condo, &network, of, &wanted.ports)))
        .await??;
    for task in tasks {
        server.run(task).await?;
    }
    Ok(())
}

fn tasks(condo: &Condo, network: &Name, address: IpAddr, wanted: &[Port]) -> Result<Vec<Task>, Problem> {
    let users = users(condo, network)?;
    let mut ports = BTreeSet::new();
    for port in wanted {
        let target = &port.target_address;
        let has = |record: &&Record| {
            let mut interfaces = record.interfaces.iter();
            interfaces.any(|interface| interface.address.to_string() == *target)
        };
        let vps = users.iter().find(has).ok_or_else(|| {
            Problem::value(
                "target_address",
                target,
                &format!("is no VPS's on the network `{network}`"),
            )
        })?;
        ports.extend(
            port.publications(address)?
                .map(|publication| (vps.name.clone(), publication)),
        );
    }
    condo.store.keep(KIND, &key(network, address), "")?;
    let is: BTreeSet<_> = leads(&users, network)
        .into_iter()
        .filter(|(_, _, port)| port.door.host == Some(address))
        .map(|(vps, _, port)| (vps, port))
        .collect();
    let gone = is
        .difference(&ports)
        .map(|(vps, port)| Task::Network(NetworkTask::Unpublish(vps.clone(), vec![*port])));
    let new = ports
        .difference(&is)
        .map(|(vps, port)| Task::Network(NetworkTask::Publish(vps.clone(), vec![*port])));
    Ok(gone.chain(new).collect())
}

impl Port {
    /// What it is for condo: `80,90-91` are several.
    fn publications(&self, host: IpAddr) -> Result<impl Iterator<Item = Publication>, Problem> {
        let transport = match self.protocol.as_str() {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            other => return Err(Problem::value("protocol", other, "is neither tcp nor udp")),
        };
        let listen = ranges("listen_port", &self.listen_port)?;
        let target = match self.target_port.as_str() {
            "" => listen.clone(),
            text => ranges("target_port", text)?,
        };
        let fits =
            listen.len() == target.len() && listen.iter().zip(&target).all(|(a, b)| a.1 - a.0 == b.1 - b.0);
        if !fits {
            return Err(Problem::value(
                "target_port",
                &self.target_port,
                "has not as many ports as listen_port",
            ));
        }
        Ok(listen
            .into_iter()
            .zip(target)
            .map(move |((first, last), (to, _))| Publication {
                door: Door {
                    transport,
                    host: Some(host),
                    first,
                    last,
                },
                to,
            }))
    }
}

fn ranges(key: &str, text: &str) -> Result<Vec<(u16, u16)>, Problem> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first > 0 && first <= last).then_some((first, last))
    };
    let all: Option<Vec<_>> = text.split(',').map(range).collect();
    all.ok_or_else(|| Problem::value(key, text, "is not a list of ports such as 80,90-99"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_in_lists_of_ranges() {
        let port = |listen: &str, target: &str| Port {
            protocol: "tcp".into(),
            listen_port: listen.into(),
            target_port: target.into(),
            target_address: String::new(),
        };
        let host = IpAddr::from([192, 0, 2, 1]);
        let all: Vec<_> = port("80,90-91", "8080,9090-9091")
            .publications(host)
            .unwrap()
            .collect();
        assert_eq!(all.len(), 2);
        assert_eq!((all[1].door.first, all[1].door.last, all[1].to), (90, 91, 9090));
        assert_eq!(port("22", "").publications(host).unwrap().next().unwrap().to, 22);
        for (listen, target) in [("", ""), ("0", ""), ("9-8", ""), ("80", "80-81"), ("70000", "")] {
            assert!(
                port(listen, target).publications(host).is_err(),
                "{listen} {target}"
            );
        }
    }
}
