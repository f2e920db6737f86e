//! Network devices of the host that become a container's: moved, renamed, with their permanent addresses, and brought up.
//!
//! Where they go afterwards is the kernel's business: with the network namespace, virtual devices end and hardware returns to
//! the host.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use oci_spec::runtime::Linux;

use super::link;
use super::netlink::{Channel, forgive_exists};
use super::netns::inside;
use crate::error::{During, Error, Result};
use crate::undo::Undo;

/// `IFNAMSIZ` of `linux/if.h`, without the final NUL.
const NAME_LENGTH: usize = 15;
/// How many numbers are tried for the `%d` of a name.
const NUMBERS: u32 = 4096;

/// The devices of `linux.netDevices`, by their names on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Devices(Vec<Device>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Device {
    /// Its name on the host.
    here: String,
    /// Its name in the container, where `%d` stands for the first free number.
    there: String,
}

impl Devices {
    /// Reads `linux.netDevices`.
    ///
    /// # Errors
    /// Names the device whose name cannot be one, or is another's as well.
    pub fn from_spec(linux: &Linux) -> Result<Self> {
        let mut devices = Vec::new();
        for (here, device) in linux.net_devices().iter().flatten() {
            let there = device.name().as_ref().filter(|name| !name.is_empty());
            check_name("linux.netDevices", here, false)?;
            if let Some(there) = there {
                check_name(&format!("linux.netDevices.{here}.name"), there, true)?;
            }
            devices.push(Device {
                here: here.clone(),
                there: there.unwrap_or(here).clone(),
            });
        }
        devices.sort_unstable_by(|a, b| a.here.cmp(&b.here));
        for (index, device) in devices.iter().enumerate() {
            let twin = devices[..index].iter().find(|d| d.there == device.there);
            if let Some(twin) = twin.filter(|_| !device.there.contains("%d")) {
                return Err(Error::invalid(
                    format!("linux.netDevices.{}.name", device.here),
                    &device.there,
                    format!("is the name of `{}` as well", twin.here),
                ));
            }
        }
        Ok(Self(devices))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that are still to be moved into this namespace, which may have been a container's before: what it has by the name that is
    /// wanted there stays where it is. Of names with `%d`, those that are in the caller's namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn missing_in(&self, netns: BorrowedFd<'_>) -> Result<Self> {
        let mut missing = Vec::new();
        for device in &self.0 {
            let is_there = || link::find(&mut Channel::route()?, &device.there).map(|found| found.is_some());
            let moved = if device.there.contains("%d") {
                link::find(&mut Channel::route()?, &device.here)?.is_none()
            } else {
                inside(netns, is_there)?
            };
            if !moved {
                missing.push(device.clone());
            }
        }
        Ok(Self(missing))
    }

    /// Moves all of them from the caller's network namespace into this one, or none. What it returns takes them back, with the
    /// names, addresses and state they had; disarm it to leave them there.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a device that is not here, [`Error::Exists`] for a name that is taken there, the kernel's for
    /// devices that cannot be moved.
    pub fn move_into(&self, netns: BorrowedFd<'_>) -> Result<Undo<'static>> {
        let mut undo = Undo::new();
        for device in &self.0 {
            let here = &device.here;
            let work = |undo| device.move_into(netns, undo);
            work(&mut undo).during(|| format!("linux.netDevices: move `{here}` into the container"))?;
        }
        Ok(undo)
    }
}

impl Device {
    fn move_into(&self, netns: BorrowedFd<'_>, undo: &mut Undo<'static>) -> Result<()> {
        let mut channel = Channel::route()?;
        let link = link::get(&mut channel, &self.here)?;
        let away = Away {
            here: self.here.clone(),
            there: inside(netns, || self.free_name())?,
            addresses: addresses(&mut channel, link.index)?,
            up: link.up,
            home: File::open("/proc/thread-self/ns/net")?.into(),
            netns: netns.try_clone_to_owned()?,
        };
        send(&mut channel, link.index, netns, &away.there)?;
        let away = Rc::new(away);
        let back = Rc::clone(&away);
        undo.push(move || back.bring_back());
        let away: &Away = &away;
        inside(netns, || settle(&away.there, &away.addresses, true))
    }

    /// The name it will have, in the namespace it will be in.
    fn free_name(&self) -> Result<String> {
        let mut channel = Channel::route()?;
        let taken = || Error::Exists {
            kind: "network interface in the container",
            name: self.there.clone(),
        };
        let Some((before, after)) = self.there.split_once("%d") else {
            return match link::find(&mut channel, &self.there)? {
                None => Ok(self.there.clone()),
                Some(_) => Err(taken()),
            };
        };
        for number in 0..NUMBERS {
            let name = format!("{before}{number}{after}");
            if link::find(&mut channel, &name)?.is_none() {
                return Ok(name);
            }
        }
        Err(taken())
    }
}

/// A device that has been moved.
struct Away {
    here: String,
    there: String,
    addresses: Vec<AddressMessage>,
    up: bool,
    home: OwnedFd,
    netns: OwnedFd,
}

impl Away {
    fn bring_back(&self) -> Result<()> {
        let found = inside(self.netns.as_fd(), || {
            let mut channel = Channel::route()?;
            match link::find(&mut channel, &self.there)? {
                Some(link) => send(&mut channel, link.index, self.home.as_fd(), &self.here).map(|()| true),
                None => Ok(false),
            }
        });
        let work = || match found? {
            true => settle(&self.here, &self.addresses, self.up),
            false => Ok(()),
        };
        work().during(|| format!("bring network interface `{}` back", self.here))
    }
}

/// Moves and renames in one request.
fn send(channel: &mut Channel, index: u32, netns: BorrowedFd<'_>, name: &str) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![
        LinkAttribute::NetNsFd(netns.as_raw_fd()),
        LinkAttribute::IfName(name.to_owned()),
    ];
    channel.request(Message::SetLink(message), 0).map(drop)
}

/// Gives a device that has arrived its addresses, which the kernel took when it left.
fn settle(name: &str, addresses: &[AddressMessage], up: bool) -> Result<()> {
    let mut channel = Channel::route()?;
    let link = link::get(&mut channel, name)?;
    for address in addresses {
        let mut message = address.clone();
        message.header.index = link.index;
        let added = channel.request(Message::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL);
        forgive_exists(added.map(drop)).during(|| format!("give `{name}` its addresses"))?;
    }
    if up {
        link::set_up(&mut channel, link.index).during(|| format!("bring up `{name}`"))?;
    }
    Ok(())
}

/// The addresses that the spec wants kept: permanent ones of global scope, as requests that add them again.
fn addresses(channel: &mut Channel, link: u32) -> Result<Vec<AddressMessage>> {
    let answers = channel
        .request(Message::GetAddress(AddressMessage::default()), NLM_F_DUMP)
        .during(|| "list addresses")?;
    let found = answers.into_iter().filter_map(|answer| match answer {
        Message::NewAddress(address) if address.header.index == link => lasting(address),
        _ => None,
    });
    Ok(found.collect())
}

fn lasting(mut address: AddressMessage) -> Option<AddressMessage> {
    let permanent = address.header.flags.contains(AddressHeaderFlags::Permanent);
    if !permanent || address.header.scope != AddressScope::Universe {
        return None;
    }
    // What somebody chose and not what came of it; a label would have to begin with the interface's old name.
    let chosen = AddressFlags::Noprefixroute
        | AddressFlags::Nodad
        | AddressFlags::Homeaddress
        | AddressFlags::Managetempaddr
        | AddressFlags::Mcautojoin;
    address.header.flags = AddressHeaderFlags::empty();
    address.attributes = address
        .attributes
        .into_iter()
        .filter_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(AddressAttribute::Flags(flags & chosen)),
            AddressAttribute::Address(_)
            | AddressAttribute::Local(_)
            | AddressAttribute::Broadcast(_)
            | AddressAttribute::RoutePriority(_) => Some(attribute),
            _ => None,
        })
        .collect();
    Some(address)
}

/// What the kernel takes for a name (`dev_valid_name`), and one `%d` where a number may be left to it.
fn check_name(field: &str, name: &str, template: bool) -> Result<()> {
    let plain = if template {
        name.replacen("%d", "", 1)
    } else {
        name.to_owned()
    };
    let fits = (1..=NAME_LENGTH).contains(&name.len()) && !matches!(name, "." | "..");
    let odd = |b: u8| !b.is_ascii_graphic() || matches!(b, b'/' | b':' | b'%');
    if fits && !plain.bytes().any(odd) {
        return Ok(());
    }
    Err(Error::invalid(
        field,
        name.escape_debug(),
        "is not a name for a network interface: 1 to 15 characters without space, `/`, `:` and `%`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Devices> {
        Devices::from_spec(&serde_json::from_str(&format!(r#"{{"netDevices":{json}}}"#)).unwrap())
    }

    #[test]
    fn a_device_keeps_its_name_unless_given_another() {
        let devices = read(r#"{"b":{"name":"eth%d"},"a":{},"c.7":{"name":""}}"#).unwrap();
        let names: Vec<_> = devices
            .0
            .iter()
            .map(|d| (d.here.as_str(), d.there.as_str()))
            .collect();
        assert_eq!(names, [("a", "a"), ("b", "eth%d"), ("c.7", "c.7")]);
        assert!(read("{}").unwrap().is_empty());
    }

    #[test]
    fn bad_names_are_named() {
        for (json, text) in [
            (r#"{"":{}}"#, "linux.netDevices: `` is not a name"),
            (r#"{"eth%d":{}}"#, "linux.netDevices: `eth%d`"),
            (
                r#"{"a":{"name":"0123456789abcdef"}}"#,
                "linux.netDevices.a.name: `0123",
            ),
            (r#"{"a":{"name":".."}}"#, "linux.netDevices.a.name: `..`"),
            (r#"{"a":{"name":"x/y"}}"#, "linux.netDevices.a.name: `x/y`"),
            (r#"{"a":{"name":"x y"}}"#, "linux.netDevices.a.name: `x y`"),
            (r#"{"a":{"name":"%d%d"}}"#, "linux.netDevices.a.name: `%d%d`"),
            (
                r#"{"a":{"name":"b"},"b":{}}"#,
                "linux.netDevices.b.name: `b` is the name of `a` as well",
            ),
        ] {
            let e = read(json).unwrap_err().to_string();
            assert!(e.starts_with(text), "{json}: {e}");
        }
        read(r#"{"a":{"name":"e%d"},"b":{"name":"e%d"}}"#).unwrap();
    }
}
