//! `sysinfo(2)`, where the system call filter has it asked about: busybox, musl and `sysconf(_SC_PHYS_PAGES)`, by which the JVM sizes
//! itself, read no file.
//!
//! A filter's listener comes over a socket when a program begins: init's at the start of the VPS, and one for each program that enters it.
//! The answer is made of the texts of the files, so that both say the same. The caller's memory is written through a descriptor that was
//! opened while it waited, and so is nobody else's.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::kept::Kept;
use super::memory::field;
use crate::error::{During, Error, Result};
use crate::files;
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
    known: Option<(Instant, Sysinfo)>,
}

impl Calls {
    /// Listens at `path` for listeners.
    pub(super) fn listen(path: &Path) -> Result<Self> {
        let work = || -> Result<OwnedFd> {
            files::remove_file(path)?;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
            rustix::net::listen(&socket, 64)?;
            Ok(socket)
        };
        Self::adopt(
            work().during(|| format!("listen at `{}`", path.display()))?,
            Vec::new(),
        )
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
            known: None,
        };
        calls.watch(calls.socket.as_fd())?;
        listeners
            .into_iter()
            .try_for_each(|listener| calls.add(listener))?;
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
    fn leave_all(&self, kept: &mut Kept) -> Result<Vec<OwnedFd>> {
        let before = kept.begin()?;
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
        let path = address.path_bytes().ok_or_else(nowhere)?;
        Ok(Path::new(OsStr::from_bytes(path)).to_owned())
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
                    self.listeners.swap_remove(at);
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
        if let Ok(stream) = stream
            && self.watch(stream.as_fd()).is_ok()
        {
            self.coming.push(stream);
        }
    }

    /// What cannot be found out is left to the kernel.
    fn answer(&mut self, at: usize, look: &mut dyn FnMut() -> Result<Sysinfo>) {
        let listener = self.listeners[at].as_fd();
        let Ok(call) = sys::seccomp::receive(listener) else {
            return;
        };
        let stale = self.known.is_none_or(|(made, _)| made.elapsed() > FRESH);
        if stale {
            self.known = look().ok().map(|info| (Instant::now(), info));
        }
        let errno = self.known.and_then(|(_, info)| tell(listener, &call, &info));
        let _ = sys::seccomp::answer(listener, call.id, errno);
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

/// `struct sysinfo`, with memory in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sysinfo {
    uptime: u64,
    /// In 65536ths.
    loads: [u64; 3],
    /// `totalram`, `freeram`, `sharedram`, `bufferram`, `totalswap`, `freeswap`.
    sizes: [u64; 6],
    procs: u16,
}

impl Sysinfo {
    /// Out of the texts of `meminfo`, `loadavg` and `uptime`.
    pub(super) fn of(meminfo: &str, loadavg: &str, uptime: &str) -> Self {
        let number = |word: Option<&str>| word.and_then(|w| w.parse::<f64>().ok()).unwrap_or(0.0);
        let mut words = loadavg.split_whitespace();
        // Never below 0, and the load of a machine fits in.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let mut load = || (number(words.next()) * 65536.0) as u64;
        let loads = [load(), load(), load()];
        let procs = words.next().and_then(|word| word.split_once('/')?.1.parse().ok());
        let up = uptime.split('.').next().and_then(|word| word.parse().ok());
        Self {
            uptime: up.unwrap_or(0),
            loads,
            sizes: ["MemTotal", "MemFree", "Shmem", "Buffers", "SwapTotal", "SwapFree"]
                .map(|name| field(meminfo, name)),
            procs: procs.unwrap_or(u16::MAX),
        }
    }

    /// As the kernel lays it out (`sysinfo(2)`), for a program with words of 32 bits in units of a page.
    fn bytes(&self, narrow: bool) -> Vec<u8> {
        let unit: u32 = if narrow { 4096 } else { 1 };
        let mut bytes = Vec::with_capacity(112);
        let word = |bytes: &mut Vec<u8>, value: u64| {
            if narrow {
                let value = u32::try_from(value).unwrap_or(u32::MAX);
                bytes.extend(value.to_ne_bytes());
            } else {
                bytes.extend(value.to_ne_bytes());
            }
        };
        word(&mut bytes, self.uptime);
        self.loads.iter().for_each(|load| word(&mut bytes, *load));
        let sizes = self.sizes.iter().map(|size| size / u64::from(unit));
        sizes.for_each(|size| word(&mut bytes, size));
        bytes.extend(self.procs.to_ne_bytes());
        // Padding: to a word of 32 bits, and on a machine of 64 to one of those.
        bytes.resize(bytes.len() + if narrow { 2 } else { 6 }, 0);
        // `totalhigh`, `freehigh`.
        word(&mut bytes, 0);
        word(&mut bytes, 0);
        bytes.extend(unit.to_ne_bytes());
        bytes.resize(if narrow { 64 } else { 112 }, 0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str =
        "MemTotal: 65536 kB\nMemFree: 4096 kB\nShmem: 8 kB\nBuffers: 0 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n";

    #[test]
    fn the_files_say_the_same() {
        let info = Sysinfo::of(MEMINFO, "0.50 1.00 0.00 2/17 17\n", "12.34 20.00\n");
        assert_eq!((info.uptime, info.loads, info.procs), (12, [32768, 65536, 0], 17));
        assert_eq!(info.sizes, [64 << 20, 4 << 20, 8 << 10, 0, 0, 0]);
    }

    #[test]
    fn it_is_laid_out_for_either_kind_of_program() {
        let info = Sysinfo::of(MEMINFO, "0 0 0 1/3 3", "1.0 1.0");
        let wide = info.bytes(false);
        assert_eq!(wide.len(), 112);
        assert_eq!(wide[32..40], (64_u64 << 20).to_ne_bytes());
        assert_eq!(
            (&wide[80..82], &wide[104..108]),
            (&[3_u8, 0][..], &[1_u8, 0, 0, 0][..])
        );
        let narrow = info.bytes(true);
        assert_eq!(narrow.len(), 64);
        assert_eq!(narrow[16..20], 16384_u32.to_ne_bytes());
        assert_eq!(
            (narrow[40], narrow[52..56].to_vec()),
            (3, 4096_u32.to_ne_bytes().to_vec())
        );
    }
}
