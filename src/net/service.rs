//! What a VPS has of the host beside its addresses: ports that lead to it, and a firewall.

use std::net::IpAddr;

use super::filter::Filter;
use super::netlink::{Channel, Entry};
use super::publication::Publication;
use super::publish;
use super::screen::Screen;
use crate::error::{During, Result};

/// All of it, for one VPS that is attached.
#[derive(Debug, Clone, Copy)]
pub struct Services<'a> {
    /// The nftables table of the networks.
    pub table: &'a str,
    /// What distinguishes it from others in the table: an interface of its own.
    pub label: &'a str,
    /// What the kernel's log calls it.
    pub name: &'a str,
    /// Its addresses. Published ports lead to the first of each family.
    pub addresses: &'a [IpAddr],
    /// The ports.
    pub publications: &'a [Publication],
    /// The firewall.
    pub filter: &'a Filter,
}

impl Services<'_> {
    /// Puts all of it in force, in one transaction. What is in force already is fine, and of a firewall the new one holds.
    ///
    /// # Errors
    /// `ENOENT` when the table is not there, `EBUSY` when another VPS has one of the ports.
    pub fn provide(&self) -> Result<()> {
        self.apply(self.all())
            .during(|| "put ports and firewall in force")
    }

    /// Puts all of it in force in the place of what the VPS had with other addresses, in one transaction: at no moment is it without
    /// its firewall.
    ///
    /// # Errors
    /// As for [`Services::provide`].
    pub fn replace(&self, before: &Self) -> Result<()> {
        let batch = [before.none(), self.all()].concat();
        self.apply(batch).during(|| "put ports and firewall in force")
    }

    /// Takes all of it away; what is gone already is fine.
    ///
    /// # Errors
    /// Those of the netlink socket.
    pub fn withdraw(&self) -> Result<()> {
        match self.apply(self.none()) {
            // No such table.
            Err(e) if e.is_gone() => Ok(()),
            other => other.during(|| "withdraw ports and firewall"),
        }
    }

    /// Closes some of the ports.
    ///
    /// # Errors
    /// Those of the netlink socket.
    pub fn close(&self, publications: &[Publication]) -> Result<()> {
        let mut batch = publish::close(self.table, self.addresses, publications);
        // What all publications share stays as long as there is one.
        batch.extend(publish::open(self.table, self.addresses, self.publications));
        match self.apply(batch) {
            Err(e) if e.is_gone() => Ok(()),
            other => other.during(|| "close published ports"),
        }
    }

    /// The messages that put all of it in force.
    fn all(&self) -> Vec<Entry> {
        let mut batch = self.screen().put_up(self.table);
        batch.extend(publish::open(self.table, self.addresses, self.publications));
        batch
    }

    /// The messages that take all of it away.
    fn none(&self) -> Vec<Entry> {
        let mut batch = self.screen().take_down(self.table);
        batch.extend(publish::close(self.table, self.addresses, self.publications));
        batch
    }

    fn screen(&self) -> Screen<'_> {
        Screen {
            label: self.label,
            name: self.name,
            addresses: self.addresses,
            filter: self.filter,
        }
    }

    fn apply(&self, batch: Vec<Entry>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        Channel::netfilter()?.batch(batch)
    }
}
