//! `sysinfo(2)`, where the system call filter has it asked about: busybox, musl and `sysconf(_SC_PHYS_PAGES)`, by which the JVM sizes
//! itself, read no file.
//!
//! A filter's listener comes over a socket when a program begins: init's at the start of the VPS, and one for each program that enters it.
//! The answer is made of the texts of the files, so that both say the same. The caller's memory is written through a descriptor that was
//! opened while it waited, and so is nobody else's.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::net::{SocketAddrUnix, SocketFlags, SocketType};

use super::kept::{self, Kept};
use super::sysinfo::Sysinfo;
use super::underway::Underway;
use crate::error::{During, Error, Result};
use crate::files::socket;
use crate::runtime::console;
use crate::sys;

/// `AUDIT_ARCH_I386`, whose `struct sysinfo` has words of half the size.
const I386: u32 = 0x4000_0003;
/// How many events are looked at at once.
const EVENTS: usize = 16;
/// How long an answer is good for.
const FRESH: Duration = Duration::from_millis(20);

/// Who is asked, and by whom.
#[derive(Debug)]
pub(in super::super) struct Calls {
    poll: OwnedFd,
    socket: OwnedFd,
    /// Connections whose listener is still to come.
    coming: Vec<OwnedFd>,
    listeners: Vec<OwnedFd>,
    /// Where they are kept as well.
    kept: Option<Kept>,
    /// The call that is being answered, for the process that outlives this one.
    underway: Option<Underway>,
    known: Option<(Instant, Sysinfo)>,
}

impl Calls {
    /// Listens at `path` for listeners.
    pub(in super::super) fn listen(path: &Path) -> Result<Self> {
        let socket = socket::listen(path, SocketType::STREAM, SocketFlags::NONBLOCK, 64)?;
        Self::adopt(socket, Vec::new())
    }

    /// Goes on with what another process had before.
    pub(super) fn adopt(socket: OwnedFd, listeners: Vec<OwnedFd>) -> Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut calls = Self {
            poll,
            socket,
            coming: Vec::new(),
            listeners: Vec::new(),
            kept: None,
            underway: None,
            known: None,
        };
        calls.watch(calls.socket.as_fd())?;
        listeners
            .into_iter()
            .try_for_each(|listener| calls.add(listener))?;
        Ok(calls)
    }

    /// Waits for a listener that comes over this connection.
    pub(in super::super) fn expect(&mut self, stream: OwnedFd) -> Result<()> {
        self.watch(stream.as_fd())?;
        self.coming.push(stream);
        Ok(())
    }

    /// Has what is under way outlive this process from now on.
    pub(super) fn note_calls(&mut self) -> Result<()> {
        let (underway, _) = Underway::new()?;
        self.underway = Some(underway);
        Ok(())
    }

    /// Goes on where another process with the same table of descriptors was killed. What it had opened since is known by its kind, and
    /// what this one remembers of that table may be other files by now, `known` ones excepted. What is nothing of all this is closed.
    pub(super) fn inherit(self, known: &[BorrowedFd<'_>]) -> Result<Self> {
        let gone = self.coming.into_iter().chain(self.listeners).chain([self.poll]);
        gone.map(IntoRawFd::into_raw_fd).for_each(drop);
        let found = Found::look(self.socket.as_fd())?;
        let known = known.iter().copied();
        let all = known.chain([self.socket.as_fd()]).chain(found.all());
        sys::fd::close_others(3, &all.collect::<Vec<_>>())?;
        let mut underway = self.underway;
        if let Some(underway) = &mut underway {
            underway.give_up(&found.listeners);
        }
        let mut calls = Self::adopt(self.socket, found.listeners)?;
        calls.underway = underway;
        let mut connections = found.connections.into_iter();
        connections.try_for_each(|stream| calls.expect(stream))?;
        Ok(calls)
    }

    /// Also becomes readable when this is.
    pub(super) fn watch(&self, fd: BorrowedFd<'_>) -> Result<()> {
        let data = EventData::new_u64(u64::from(fd.as_raw_fd().unsigned_abs()));
        Ok(epoll::add(&self.poll, fd, data, EventFlags::IN)?)
    }

    /// Answers the calls of another filter.
    fn add(&mut self, listener: OwnedFd) -> Result<()> {
        self.watch(listener.as_fd())?;
        if let Some(kept) = &self.kept {
            kept.keep(listener.as_fd());
        }
        self.listeners.push(listener);
        Ok(())
    }

    /// Leaves all listeners with the keeper of this instance, and takes those that it has of who answered before.
    pub(super) fn keep(&mut self) -> Result<()> {
        let mut kept = Kept::beside(&self.path()?)?;
        let before = self.leave_all(&mut kept)?;
        before.into_iter().try_for_each(|listener| self.add(listener))?;
        self.kept = Some(kept);
        Ok(())
    }

    /// Leaves all listeners by a new connection, which is watched for its end; what the keeper had before.
    fn leave_all(&mut self, kept: &mut Kept) -> Result<Vec<OwnedFd>> {
        let (underway, file) = Underway::new()?;
        let before = kept.begin(file.as_fd())?;
        self.underway = Some(underway);
        for listener in &self.listeners {
            kept.keep(listener.as_fd());
        }
        if let Some(link) = kept.link() {
            self.watch(link)?;
        }
        Ok(before)
    }

    /// Where it listens.
    fn path(&self) -> Result<PathBuf> {
        let address = SocketAddrUnix::try_from(rustix::net::getsockname(&self.socket)?)?;
        let nowhere = || Error::Corrupt("a socket for listeners without a name".into());
        let path = Path::new(OsStr::from_bytes(address.path_bytes().ok_or_else(nowhere)?));
        // It led through a descriptor of who made it.
        if path.starts_with("/proc/self/fd") {
            let why = "its path is longer than the address of a socket";
            return Err(Error::unsupported("a keeper of listeners for this root", why));
        }
        Ok(path.to_owned())
    }

    /// What is readable when there is something to do.
    pub(super) fn readable(&self) -> BorrowedFd<'_> {
        self.poll.as_fd()
    }

    /// Waits for the listener of the VPS's init, which has been started.
    pub(in super::super) fn meet(&mut self) -> Result<()> {
        let stream = rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC)
            .during(|| "hear from the system call filter")?;
        self.add(console::receive_fd(stream.as_fd())?)
    }

    /// What outlasts an `execve`, as one word.
    pub(super) fn hand_over(&self) -> Result<String> {
        let all = std::iter::once(&self.socket).chain(&self.listeners);
        let mut numbers = Vec::new();
        for fd in all {
            rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
            numbers.push(fd.as_raw_fd().to_string());
        }
        Ok(numbers.join(","))
    }

    /// Out of that word.
    pub(super) fn take_over(word: &str) -> Result<Self> {
        let bad = || Error::invalid("monitor", word, "are no handed over listeners");
        let mut fds = Vec::new();
        for number in word.split(',') {
            let fd = sys::fd::adopt(number.parse().map_err(|_| bad())?)?;
            rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
            fds.push(fd);
        }
        let mut fds = fds.into_iter();
        Self::adopt(fds.next().ok_or_else(bad)?, fds.collect())
    }

    /// Does what there is to do, without waiting; how many calls were answered.
    pub(super) fn go_on(&mut self, mut look: impl FnMut() -> Result<Sysinfo>) -> u32 {
        let mut events = [const { std::mem::MaybeUninit::uninit() }; EVENTS];
        let now = Timespec::default();
        let Ok((ready, _)) = epoll::wait(&self.poll, &mut events, Some(&now)) else {
            return 0;
        };
        let mut answered = 0;
        for event in ready {
            let (number, flags) = (event.data.u64(), event.flags);
            let is = |fd: &OwnedFd| u64::from(fd.as_raw_fd().unsigned_abs()) == number;
            if is(&self.socket) {
                self.accept();
            } else if self.is_link(number) {
                self.keep_again();
            } else if let Some(at) = self.coming.iter().position(is) {
                let stream = self.coming.swap_remove(at);
                let _ = console::receive_fd(stream.as_fd()).and_then(|listener| self.add(listener));
            } else if let Some(at) = self.listeners.iter().position(is) {
                if flags.contains(EventFlags::IN) {
                    self.answer(at, &mut look);
                    answered += 1;
                } else {
                    // Its last process has ended.
                    kept::leave(&self.poll, self.listeners.swap_remove(at));
                }
            }
        }
        answered
    }

    fn is_link(&self, number: u64) -> bool {
        let link = self.kept.as_ref().and_then(Kept::link);
        link.is_some_and(|link| u64::from(link.as_raw_fd().unsigned_abs()) == number)
    }

    /// The keeper says nothing by itself: it has died, and there is to be another.
    fn keep_again(&mut self) {
        let Some(mut kept) = self.kept.take() else { return };
        kept.lost();
        if let Err(e) = self.leave_all(&mut kept) {
            log::debug!("the listeners of its filters are in one process alone: {e}");
        }
        self.kept = Some(kept);
    }

    fn accept(&mut self) {
        let stream = rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC);
        let _ = stream.map(|stream| self.expect(stream));
    }

    /// What cannot be found out is left to the kernel.
    fn answer(&mut self, at: usize, look: &mut dyn FnMut() -> Result<Sysinfo>) {
        let listener = self.listeners[at].as_fd();
        let call = match &mut self.underway {
            Some(underway) => underway.receive(listener),
            None => sys::seccomp::receive(listener),
        };
        let Ok(call) = call else { return };
        let stale = self.known.is_none_or(|(made, _)| made.elapsed() > FRESH);
        if stale {
            self.known = look().ok().map(|info| (Instant::now(), info));
        }
        let errno = self.known.and_then(|(_, info)| tell(listener, &call, &info));
        let _ = sys::seccomp::answer(listener, call.id, errno);
    }
}

/// What a process has open of system call filters, known by its kind (`proc_pid_fd(5)`).
#[derive(Debug, Default)]
struct Found {
    listeners: Vec<OwnedFd>,
    /// Those by which further ones may come.
    connections: Vec<OwnedFd>,
}

impl Found {
    /// Takes all that this process has, but the socket to which others connect.
    fn look(socket: BorrowedFd<'_>) -> Result<Self> {
        let mut found = Self::default();
        for entry in std::fs::read_dir("/proc/self/fd").during(|| "look for open files")? {
            let entry = entry?;
            let number: Option<RawFd> = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let (Some(number), Ok(kind)) = (number, std::fs::read_link(entry.path())) else {
                continue;
            };
            if kind == Path::new("anon_inode:seccomp notify") {
                found.listeners.push(sys::fd::adopt(number)?);
            } else if kind.as_os_str().as_bytes().starts_with(b"socket:") && number != socket.as_raw_fd() {
                found.connections.push(sys::fd::adopt(number)?);
            }
        }
        Ok(found)
    }

    /// All of it.
    fn all(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listeners.iter().chain(&self.connections).map(AsFd::as_fd)
    }
}

/// Writes the answer into the caller's memory: 0, or what was wrong with the place; nothing where it cannot be reached.
fn tell(listener: BorrowedFd<'_>, call: &sys::seccomp::Waiting, info: &Sysinfo) -> Option<i32> {
    let path = format!("/proc/{}/mem", call.pid);
    let memory = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    if !sys::seccomp::still_waits(listener, call.id) {
        return None;
    }
    let bytes = info.bytes(call.arch == I386);
    match rustix::io::pwrite(&memory, &bytes, call.first) {
        Ok(written) if written == bytes.len() => Some(0),
        _ => Some(Errno::FAULT.raw_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use rustix::event::{PollFd, PollFlags};
    use seccompiler::sock_filter;

    use super::*;

    #[test]
    fn of_a_filter_that_has_ended_nothing_is_heard_though_others_keep_it() {
        // `BPF_RET | BPF_K` with `SECCOMP_RET_ALLOW`.
        let all = sock_filter {
            code: 0x06,
            jt: 0,
            jf: 0,
            k: 0x7fff_0000,
        };
        let (end, ended) = mpsc::channel::<()>();
        let (give, given) = mpsc::channel();
        // What a thread installs is its own, and ends with it.
        let thread = std::thread::spawn(move || {
            give.send(sys::seccomp::set_filter(&[all], sys::seccomp::NEW_LISTENER))
                .unwrap();
            let _ = ended.recv();
        });
        // Who runs the tests under a filter that asks somebody has taken the one place for that.
        let Ok(Some(listener)) = given.recv().unwrap() else {
            return;
        };
        let kept = listener.try_clone().unwrap();
        let (socket, _other) = console::pair().unwrap();
        let mut calls = Calls::adopt(socket, vec![listener]).unwrap();
        end.send(()).unwrap();
        thread.join().unwrap();
        // A listener's last process is gone a moment after its thread was joined.
        let at_most = Timespec::try_from(Duration::from_secs(5)).unwrap();
        let readable = |patience: &Timespec| {
            let fd = calls.readable();
            rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(patience)).unwrap()
        };
        assert_eq!(readable(&at_most), 1);
        assert_eq!(calls.go_on(|| Ok(Sysinfo::default())), 0);
        assert!(calls.listeners.is_empty());
        let fd = calls.readable();
        let left = rustix::event::poll(
            &mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)],
            Some(&Timespec::default()),
        );
        assert_eq!(left.unwrap(), 0);
        drop(kept);
    }
}
