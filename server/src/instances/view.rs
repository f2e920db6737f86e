//! A VPS as an object of the API.

use condo::vps::record::attachment::Attachment;
use condo::vps::record::config::VpsConfig;
use condo::vps::record::instance::Condo;
use condo::vps::record::labels::Labels;
use condo::vps::record::network::NetworkRecord;
use condo::vps::record::snapshots::Snapshot;
use condo::vps::record::store::Record;
use condo::vps::record::view::{VpsStatus, VpsView};
use condo::vps::report::figures::{Counters, Figures, Wire};
use serde_json::{Map, Value, json};

use crate::events::{NEVER, seconds};
use crate::keys::{self, Setup};
use crate::profiles::Profiles;
use crate::request::DEFAULT;

/// What is known of a VPS.
pub(crate) struct Seen {
    pub(crate) record: Record,
    pub(crate) view: VpsView,
    pub(crate) wire: Wire,
    pub(crate) figures: Option<Figures>,
    /// Not looked for when figures are not.
    pub(crate) snapshots: Vec<Snapshot>,
}

impl Seen {
    /// Looks at a VPS; its figures only if wanted.
    pub(crate) fn look(
        condo: &Condo,
        record: Record,
        view: VpsView,
        wanted: bool,
    ) -> condo::error::Result<Self> {
        let figures = match wanted && view.status != VpsStatus::Stopped {
            true => condo.figures(&record.name)?,
            false => None,
        };
        let snapshots = if wanted {
            condo.snapshots(&record.name)?
        } else {
            Vec::new()
        };
        Ok(Self {
            snapshots,
            wire: condo.wire(&record)?,
            record,
            view,
            figures,
        })
    }
}

/// The API's word and number for what a VPS is doing.
pub(crate) fn status(view: &VpsView) -> (&'static str, u16) {
    match view.status {
        VpsStatus::Running => ("Running", 103),
        VpsStatus::Paused => ("Frozen", 110),
        VpsStatus::Created | VpsStatus::Stopped => ("Stopped", 102),
    }
}

/// The object of `GET /1.0/instances/NAME`.
pub(crate) fn instance(seen: &Seen, profiles: &Profiles) -> Value {
    let Seen { record, view, .. } = seen;
    let (status, code) = status(view);
    let labels = &record.config.labels;
    let (own, all) = setups(record, profiles);
    let volatile = volatile(seen);
    let with = |keys: &keys::Keys| -> Value {
        let keys = keys.iter().chain(&volatile);
        keys.map(|(key, value)| (key.clone(), json!(value)))
            .collect::<Map<_, _>>()
            .into()
    };
    json!({
        "name": record.name, "type": "container", "project": record.project(), "location": "none",
        "status": status, "status_code": code,
        "architecture": machine(), "description": labels.description,
        "config": with(&own.keys), "devices": own.devices,
        "expanded_config": with(&all.keys), "expanded_devices": all.devices,
        "profiles": labels.profiles, "ephemeral": false, "stateful": false,
        "created_at": seconds(Some(record.created)), "last_used_at": last_used(view),
    })
}

/// The address of an instance's object.
pub(crate) fn place(object: &Value) -> String {
    let part = |key: &str| object[key].as_str().unwrap_or_default();
    match part("project") {
        DEFAULT => format!("/1.0/instances/{}", part("name")),
        project => format!("/1.0/instances/{}?project={project}", part("name")),
    }
}

/// What a change of the instance replaces: its mark is that of a version.
pub(crate) fn changeable(instance: &Value) -> Value {
    json!([
        instance["architecture"],
        instance["config"],
        instance["devices"],
        instance["ephemeral"],
        instance["profiles"]
    ])
}

/// What clients look up and nobody sets.
fn volatile(seen: &Seen) -> keys::Keys {
    let power = if seen.view.status == VpsStatus::Stopped {
        "STOPPED"
    } else {
        "RUNNING"
    };
    let mut keys = keys::Keys::from([
        ("volatile.eth0.hwaddr".to_owned(), seen.wire.mac.clone()),
        ("volatile.last_state.power".to_owned(), power.to_owned()),
        ("volatile.uuid".to_owned(), seen.record.uuid.clone()),
    ]);
    if seen.view.status != VpsStatus::Stopped {
        keys.insert(
            "volatile.eth0.host_name".to_owned(),
            seen.wire.host_interface.clone(),
        );
    }
    keys
}

pub(super) fn machine() -> String {
    rustix::system::uname().machine().to_string_lossy().into_owned()
}

fn last_used(view: &VpsView) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let running = view.uptime.map(|uptime| now.as_secs().saturating_sub(uptime));
    match running.and_then(|at| i64::try_from(at).ok()) {
        Some(started) => seconds(Some(started)),
        None => view
            .last_exit
            .as_ref()
            .map_or(NEVER.to_owned(), |exit| seconds(Some(exit.at))),
    }
}

/// The object of `GET /1.0/instances/NAME/state`.
pub(crate) fn state(seen: &Seen) -> Value {
    let (status, code) = status(&seen.view);
    let Some(figures) = &seen.figures else {
        return json!({
            "status": status, "status_code": code, "pid": 0, "processes": -1, "network": null, "disk": {},
            "cpu": { "usage": 0 },
            "memory": { "usage": 0, "usage_peak": 0, "swap_usage": 0, "swap_usage_peak": 0 },
        });
    };
    json!({
        "status": status, "status_code": code, "pid": figures.pid, "processes": figures.processes, "disk": {},
        "cpu": { "usage": figures.cpu.saturating_mul(1000) },
        "memory": {
            "usage": figures.memory, "usage_peak": figures.memory_peak.unwrap_or(0),
            "swap_usage": figures.swap, "swap_usage_peak": 0,
        },
        "network": network(seen, figures),
    })
}

fn network(seen: &Seen, figures: &Figures) -> Value {
    let interfaces = figures.interfaces.iter().map(|interface| {
        let (kind, mac, host, addresses) = match interface.name.as_str() {
            "lo" => ("loopback", "", "", vec![address("127.0.0.1", "8", "local")]),
            "eth0" => {
                let own = address(
                    &seen.wire.address.to_string(),
                    &seen.wire.prefix.to_string(),
                    "global",
                );
                (
                    "broadcast",
                    seen.wire.mac.as_str(),
                    seen.wire.host_interface.as_str(),
                    vec![own],
                )
            }
            // Made by the tenant: nothing is known of it but its counters.
            _ => ("unknown", "", "", Vec::new()),
        };
        let value = json!({
            "addresses": addresses, "counters": counters(interface.received, interface.sent),
            "hwaddr": mac, "host_name": host, "mtu": if kind == "loopback" { 65536 } else { 1500 },
            "state": "up", "type": kind,
        });
        (interface.name.clone(), value)
    });
    Value::Object(interfaces.collect())
}

fn address(address: &str, prefix: &str, scope: &str) -> Value {
    json!({ "family": "inet", "address": address, "netmask": prefix, "scope": scope })
}

fn counters(received: Counters, sent: Counters) -> Value {
    json!({
        "bytes_received": received.bytes, "bytes_sent": sent.bytes,
        "packets_received": received.packets, "packets_sent": sent.packets,
        "errors_received": received.errors, "errors_sent": sent.errors,
        "packets_dropped_inbound": received.dropped, "packets_dropped_outbound": sent.dropped,
    })
}

/// What a VPS is configured with, itself and with its profiles.
fn setups(record: &Record, profiles: &Profiles) -> (Setup, Setup) {
    let labels = &record.config.labels;
    let mut own = Setup {
        keys: labels.keys.clone(),
        devices: labels.devices.clone(),
    };
    let mut all = profiles.expand(&labels.profiles, &own);
    own.correct(&mut all, &connected(record));
    (own, all)
}

/// A VPS's configuration, with the networks that it is on now.
pub(super) fn connected(record: &Record) -> VpsConfig {
    let mut networks: Vec<Attachment> = record
        .interfaces
        .iter()
        .map(|interface| Attachment::to(interface.network.clone()))
        .collect();
    if let [one] = networks.as_slice()
        && one.network == NetworkRecord::default_name()
    {
        networks.clear();
    }
    VpsConfig {
        networks,
        ..record.config.clone()
    }
}

/// A VPS's labels, with what the command line has changed since as keys of its own.
pub(crate) fn labels(record: &Record, profiles: &Profiles) -> Labels {
    let (own, _) = setups(record, profiles);
    Labels {
        keys: own.keys,
        devices: own.devices,
        ..record.config.labels.clone()
    }
}
