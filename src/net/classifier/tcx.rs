//! Programs in the interface's own lists (`tcx`, Linux 6.6), which take less for each packet than filters do, and for each change a wait
//! of the kernel's: at links, which stay.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::Place;
use crate::error::{During, Result};
use crate::sys::bpf::interface::{Programs, Seat, Side, attach, detach, programs};
use crate::sys::bpf::{open_program, program_name};

impl Place {
    fn side(self) -> Side {
        match self {
            Self::In | Self::Behind => Side::In,
            Self::Out => Side::Out,
        }
    }

    fn seat(self) -> Seat<'static> {
        match self {
            Self::In => Seat::First,
            Self::Behind | Self::Out => Seat::Last,
        }
    }
}

/// What is at one side of an interface of condo's programs.
#[derive(Debug)]
pub(super) struct List {
    revision: u64,
    ours: Vec<(Place, u32, OwnedFd)>,
}

impl List {
    /// The side that the place is at; none where the kernel has no such lists.
    pub(super) fn read(link: u32, place: Place) -> Result<Option<Self>> {
        let found = match programs(link, place.side()) {
            Err(e) if e.raw_os_error() == Some(Errno::EINVAL as i32) => return Ok(None),
            other => other.during(|| "list the programs of an interface")?,
        };
        let Programs { ids, revision } = found;
        let mut ours = Vec::new();
        for id in ids {
            let program = match open_program(id) {
                // Replaced meanwhile.
                Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => continue,
                other => other.during(|| "open a program of an interface")?,
            };
            let name = program_name(program.as_fd())?;
            let of_name = |place: &Place| place.name() == name;
            ours.extend(
                Place::ALL
                    .into_iter()
                    .find(of_name)
                    .map(|place| (place, id, program)),
            );
        }
        Ok(Some(Self { revision, ours }))
    }

    /// Whether condo has none there.
    pub(super) fn is_empty(&self) -> bool {
        self.ours.is_empty()
    }

    /// The number of the program at the place.
    pub(super) fn id_at(&self, place: Place) -> Option<u32> {
        let at = self.ours.iter().find(|(other, ..)| *other == place);
        at.map(|(_, id, _)| *id)
    }

    fn at(&self, place: Place) -> Option<&OwnedFd> {
        let at = self.ours.iter().find(|(other, ..)| *other == place);
        at.map(|(.., program)| program)
    }

    /// Puts a program at the place, in place of what is there; not when somebody has changed the list since it was read.
    pub(super) fn put(&self, link: u32, place: Place, program: &OwnedFd) -> Result<bool> {
        let before = self.at(place);
        let seat = before.map_or(place.seat(), |before| Seat::Of(before.as_fd()));
        match attach(link, place.side(), program.as_fd(), seat, self.revision) {
            Err(e) if e.raw_os_error() == Some(Errno::ESTALE as i32) => Ok(false),
            other => other
                .map(|()| true)
                .during(|| format!("attach the program `{}`", place.name())),
        }
    }

    /// Takes the program at the place away; none is fine.
    pub(super) fn remove(&self, link: u32, place: Place) -> Result<()> {
        let Some(program) = self.at(place) else {
            return Ok(());
        };
        match detach(link, place.side(), program.as_fd()) {
            Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(()),
            other => other.during(|| format!("remove the program `{}`", place.name())),
        }
    }
}
