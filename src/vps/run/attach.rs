//! Networks that a VPS joins and leaves after it was created, running or not.

use std::os::fd::AsFd;

use crate::error::{Error, Result};
use crate::namespaces::Kind;
use crate::namespaces::user::namespace_of;
use crate::net::ipam::Taken;
use crate::vps::record::attachment::{Attachment, INTERFACES, Interface};
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::store::Record;
use crate::vps::record::view::VpsStatus;
use crate::vps::wire::{live, network};

impl Condo {
    /// Gives a VPS one more interface; a running one has it at once.
    ///
    /// # Errors
    /// [`Error::Status`] for a VPS that is on the network already, [`Error::Exists`] for an address that somebody has.
    pub fn attach_network(&self, name: &Name, attachment: &Attachment) -> Result<Interface> {
        let (record, _lock) = self.hold_settled(name)?;
        let there = record
            .interfaces
            .iter()
            .find(|interface| interface.network == attachment.network);
        if let Some(interface) = there {
            return self.finish_attaching(&record, interface);
        }
        if record.interfaces.len() >= INTERFACES {
            return Err(Error::Status(format!(
                "the VPS has {INTERFACES} interfaces, and no VPS has more"
            )));
        }
        network::check(self, attachment)?;
        let address = |wanted: &Attachment, taken: &Taken| network::pick(self, wanted, taken);
        let (record, interface) = self.store.add_interface(name, attachment, &address)?;
        if self.status(name)? == VpsStatus::Stopped {
            return Ok(interface);
        }
        if let Err(e) = self.plug(&record, &interface) {
            // The link goes before the claim.
            if let Err(left) = live::detach_one(self, &record, &interface) {
                log::warn!("not all of `{}` of `{name}` is undone: {left}", interface.name());
            }
            self.store.remove_interface(name, interface.number)?;
            return Err(e);
        }
        Ok(interface)
    }

    /// Does what a killed command has left undone, where the VPS has the interface by its record only.
    fn finish_attaching(&self, record: &Record, interface: &Interface) -> Result<Interface> {
        let is_whole = self.status(&record.name)? == VpsStatus::Stopped
            || live::is_attached_by(self, record, interface)?;
        if is_whole {
            let text = format!("the VPS is on the network `{}` already", interface.network);
            return Err(Error::Status(text));
        }
        self.plug(record, interface).map(|()| interface.clone())
    }

    fn plug(&self, record: &Record, interface: &Interface) -> Result<()> {
        let netns = self.netns(&record.name)?;
        live::attach_one(self, record, interface, netns.as_fd())
    }

    /// Takes a VPS off a network; its other interfaces keep their names.
    ///
    /// # Errors
    /// [`Error::Status`] for a VPS that is not on the network, or on no other.
    pub fn detach_network(&self, name: &Name, network: &Name) -> Result<()> {
        let (record, _lock) = self.hold_settled(name)?;
        let interface = live::interface_on(&record, network)?;
        // The link goes before the claim: what is claimed by nobody may be given to the next.
        if record.interfaces.len() > 1 {
            live::detach_one(self, &record, &interface)?;
        }
        self.store.remove_interface(name, interface.number).map(drop)
    }

    /// The network namespace of a running VPS.
    fn netns(&self, name: &Name) -> Result<std::os::fd::OwnedFd> {
        let stopped = || Error::Status("the VPS is not running".into());
        let container = self.container(name)?.ok_or_else(stopped)?;
        let init = container.state().init.ok_or_else(stopped)?;
        namespace_of(init.pid, Kind::Network)
    }
}
