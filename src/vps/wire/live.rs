//! Interfaces that come and go after a VPS was created, while it runs or not.

use std::os::fd::BorrowedFd;

use crate::error::{Error, Result};
use crate::net::{self, Port};
use crate::vps::record::attachment::Interface;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::network::NetworkRecord;
use crate::vps::record::store::Record;
use crate::vps::wire::network::{allow_peers, lock, named, port, ports, runs, shape_new};
use crate::vps::wire::{resolver, services, traffic};

/// Connects a running VPS by one more interface.
pub(in crate::vps) fn attach_one(
    condo: &Condo,
    record: &Record,
    interface: &Interface,
    netns: BorrowedFd<'_>,
) -> Result<()> {
    let network = named(condo, &interface.network)?;
    let port = port(condo, record, interface, &network.network);
    let _lock = lock(condo)?;
    network.network.ensure()?;
    // Before anything comes in by it: whoever is killed in between leaves no VPS without its firewall.
    let mut before = record.clone();
    before.interfaces.retain(|kept| kept != interface);
    services::replace(condo, &before, record)?;
    network.network.attach(&port, netns)?;
    furnish(condo, record, (network, port))
}

/// What a port that is there gets besides.
fn furnish(condo: &Condo, record: &Record, (network, port): (NetworkRecord, Port)) -> Result<()> {
    let new = [(network, port)];
    shape_new(record, &new)?;
    let [(network, port)] = &new;
    resolver::tell(condo, record, network, port)?;
    allow_peers(condo, record, &new)
}

/// Whether the last thing was done that [`attach_one`] does to a port before packets flow. What comes after it is done once more.
pub(in crate::vps) fn is_attached_by(condo: &Condo, record: &Record, interface: &Interface) -> Result<bool> {
    let network = named(condo, &interface.network)?;
    let port = port(condo, record, interface, &network.network);
    if !net::link_is_up(&port.host_if)? {
        return Ok(false);
    }
    let _lock = lock(condo)?;
    furnish(condo, record, (network, port)).map(|()| true)
}

/// Takes a VPS off one network; what is gone already is fine.
pub(in crate::vps) fn detach_one(condo: &Condo, record: &Record, interface: &Interface) -> Result<()> {
    let network = named(condo, &interface.network)?;
    let port = port(condo, record, interface, &network.network);
    let _lock = lock(condo)?;
    traffic::keep(condo, record)?;
    resolver::forget(condo, record, &network)?;
    network.network.detach(&port)?;
    let mut rest = record.clone();
    rest.interfaces.retain(|kept| kept != interface);
    match runs(condo, record) {
        true => {
            // What all are held to is beside the first.
            shape_new(&rest, &ports(condo, &rest)?)?;
            services::replace(condo, record, &rest)?;
        }
        false => services::withdraw(condo, record)?,
    }
    net::forget(&port.addresses().collect::<Vec<_>>())
}

/// Says what is wrong where a network's name leads nowhere.
pub(in crate::vps) fn interface_on(record: &Record, network: &Name) -> Result<Interface> {
    let found = record
        .interfaces
        .iter()
        .find(|interface| interface.network == *network);
    found.cloned().ok_or_else(|| {
        let on: Vec<&str> = record
            .interfaces
            .iter()
            .map(|interface| interface.network.as_str())
            .collect();
        Error::Status(format!(
            "the VPS is not on the network `{network}`, but on {}",
            on.join(", ")
        ))
    })
}
