//! One process for all VPSs of an instance that holds what nobody may lose: the listener of a system call filter is given out once, and
//! when nobody has it any more the kernel answers the calls with `ENOSYS`.
//!
//! ```text
//!  monitor ──"answer NAME"──> keeper      with a file of the call under way. What the keeper had for NAME comes back; each listener
//!                                         follows; the connection stays
//!  command ──"forget NAME"──> keeper      the VPS has ended
//! ```
//! It reads nothing of a listener while somebody answers: of two that wait for the same call one would wait for ever. When the connection
//! of who answers has ended, it leaves the call that was under way and all further ones to the kernel, until the next command puts others
//! in its place. It ends with the last VPS. When it is killed itself, those who answer start another.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SendFlags, SocketFlags, SocketType};

use super::kept::{self, ANSWER, DONE, FORGET, socket_in};
use super::underway;
use crate::error::{During, Result};
use crate::files::{self, socket};
use crate::runtime::console;
use crate::sys;

/// How many events are looked at at once.
const EVENTS: usize = 64;
/// How long it waits for the first that comes.
const FIRST: Duration = Duration::from_secs(10);
/// A pause after calls that were left to the kernel: it is the host's time, and whoever asks much waits.
const PAUSE: Duration = Duration::from_micros(500);
/// The longest first message: a word and a name.
const LONGEST: usize = 256;

/// What is held for one VPS.
#[derive(Debug)]
struct Household {
    name: String,
    /// The connection of who answers, if somebody does.
    link: Option<OwnedFd>,
    /// What that process answers.
    underway: Option<OwnedFd>,
    listeners: Vec<OwnedFd>,
}

/// All that is held.
#[derive(Debug)]
pub(in super::super) struct Keeper {
    path: PathBuf,
    poll: OwnedFd,
    socket: OwnedFd,
    /// Who has not yet said what for it comes.
    coming: Vec<OwnedFd>,
    households: Vec<Household>,
    /// Whether there has been one.
    used: bool,
}

impl Keeper {
    /// Listens for the instance whose VPSs have their run directories in this folder.
    pub(in super::super) fn listen(folder: &Path) -> Result<Self> {
        let path = socket_in(folder);
        let socket = socket::listen(&path, SocketType::SEQPACKET, SocketFlags::NONBLOCK, 4096)?;
        let keeper = Self {
            path,
            poll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            socket,
            coming: Vec::new(),
            households: Vec::new(),
            used: false,
        };
        keeper.watch(keeper.socket.as_fd(), EventFlags::IN)?;
        Ok(keeper)
    }

    /// Keeps until nothing is left to keep.
    pub(in super::super) fn run(mut self) -> Result<()> {
        let first = Timespec::try_from(FIRST).ok();
        loop {
            let mut events = [const { std::mem::MaybeUninit::uninit() }; EVENTS];
            let patience = if self.used { None } else { first.as_ref() };
            let ready = match epoll::wait(&self.poll, &mut events, patience) {
                Err(Errno::INTR) => continue,
                other => other.during(|| "wait for listeners")?.0,
            };
            let mut left = false;
            for event in ready.iter() {
                left |= self.look(event.data.u64(), event.flags);
            }
            self.households
                .retain(|household| household.link.is_some() || !household.listeners.is_empty());
            if self.households.is_empty() && self.coming.is_empty() && (self.used || ready.is_empty()) {
                // Whoever has come by now finds the connection ended, and starts another.
                return files::remove_file(&self.path);
            }
            if left {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Goes after one event; whether a call was left to the kernel.
    fn look(&mut self, number: u64, flags: EventFlags) -> bool {
        let is = |fd: &OwnedFd| number_of(fd.as_fd()) == number;
        if is(&self.socket) {
            self.accept();
        } else if let Some(at) = self.coming.iter().position(is) {
            let link = self.coming.swap_remove(at);
            self.meet(link);
        } else if let Some(at) = self
            .households
            .iter()
            .position(|household| household.link.as_ref().is_some_and(is))
        {
            self.receive(at);
        } else {
            let held = self.households.iter_mut().find_map(|household| {
                let at = household.listeners.iter().position(is)?;
                Some((household, at))
            });
            return held.is_some_and(|(household, at)| household.hear(&self.poll, at, flags));
        }
        false
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        if let Ok(link) = rustix::net::accept_with(&self.socket, flags)
            && self.watch(link.as_fd(), EventFlags::IN).is_ok()
        {
            self.coming.push(link);
        }
    }

    /// The first message of a connection.
    fn meet(&mut self, link: OwnedFd) {
        let mut message = [0; LONGEST];
        let (length, file) = console::receive_message(link.as_fd(), &mut message).unwrap_or_default();
        let text = std::str::from_utf8(&message[..length]).unwrap_or_default();
        let (what, name) = text.split_once(' ').unwrap_or_default();
        self.used = true;
        match what {
            ANSWER => self.serve(name, link, file),
            FORGET => {
                let gone = self.households.extract_if(.., |household| household.name == name);
                gone.flat_map(|household| household.listeners)
                    .for_each(|listener| kept::leave(&self.poll, listener));
                if !self.households.is_empty() || !self.coming.is_empty() {
                    let _ = rustix::net::send(&link, DONE, SendFlags::NOSIGNAL);
                }
            }
            _ => {}
        }
    }

    /// Gives what there is for a VPS to the process that answers from now on.
    fn serve(&mut self, name: &str, link: OwnedFd, underway: Option<OwnedFd>) {
        let at = self.household(name);
        // What the process before had sent may be still to be read.
        self.receive(at);
        let household = &mut self.households[at];
        for listener in &household.listeners {
            let _ = change(&self.poll, listener.as_fd(), EventFlags::empty());
            let _ = console::send_fd(link.as_fd(), DONE, listener.as_fd());
        }
        let _ = rustix::net::send(&link, DONE, SendFlags::NOSIGNAL);
        household.link = Some(link);
        household.underway = underway;
    }

    /// Where that of a VPS is, if only from now on.
    fn household(&mut self, name: &str) -> usize {
        let mut all = self.households.iter();
        all.position(|household| household.name == name)
            .unwrap_or_else(|| {
                self.households.push(Household {
                    name: name.to_owned(),
                    link: None,
                    underway: None,
                    listeners: Vec::new(),
                });
                self.households.len() - 1
            })
    }

    /// Further listeners, and the end of the process that answers.
    fn receive(&mut self, at: usize) {
        let Some(link) = self.households[at].link.take() else {
            return;
        };
        loop {
            match console::receive_message(link.as_fd(), &mut [0; 8]) {
                Ok((1.., listener)) => {
                    if let Some(listener) = listener
                        && self.watch(listener.as_fd(), EventFlags::empty()).is_ok()
                    {
                        self.households[at].listeners.push(listener);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.households[at].link = Some(link);
                    return;
                }
                _ => return self.households[at].leave_to_kernel(&self.poll),
            }
        }
    }

    fn watch(&self, fd: BorrowedFd<'_>, flags: EventFlags) -> Result<()> {
        Ok(epoll::add(
            &self.poll,
            fd,
            EventData::new_u64(number_of(fd)),
            flags,
        )?)
    }
}

impl Household {
    /// Nobody answers any more: not the call that was under way, and none that comes.
    fn leave_to_kernel(&mut self, poll: &OwnedFd) {
        if let Some(underway) = self.underway.take() {
            underway::give_up_noted(&underway, &self.listeners);
        }
        for listener in &self.listeners {
            let _ = change(poll, listener.as_fd(), EventFlags::IN);
        }
    }

    /// A listener whose last process has ended, or a call that nobody else answers; whether it was the latter.
    fn hear(&mut self, poll: &OwnedFd, at: usize, flags: EventFlags) -> bool {
        if !flags.contains(EventFlags::IN) {
            kept::leave(poll, self.listeners.swap_remove(at));
            return false;
        }
        if self.link.is_some() {
            return false;
        }
        let listener = self.listeners[at].as_fd();
        if let Ok(call) = sys::seccomp::receive(listener) {
            let _ = sys::seccomp::answer(listener, call.id, None);
        }
        true
    }
}

fn change(poll: &OwnedFd, fd: BorrowedFd<'_>, flags: EventFlags) -> rustix::io::Result<()> {
    epoll::modify(poll, fd, EventData::new_u64(number_of(fd)), flags)
}

fn number_of(fd: BorrowedFd<'_>) -> u64 {
    u64::from(fd.as_raw_fd().unsigned_abs())
}
