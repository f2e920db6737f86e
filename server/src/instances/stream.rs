//! Pipes and terminals, read and written without a thread each.

use std::os::fd::OwnedFd;
use std::process::Stdio;

use condo::error::{During, Result};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::net::unix::pipe::{Receiver, Sender};

/// Our end of one of a program's streams.
pub(super) enum Stream {
    /// It is read by the program.
    In(Sender),
    /// It is written by the program.
    Out(Receiver),
    /// A terminal.
    Both(Receiver, Sender),
}

/// Read without waiting. Not only for pipes: what tokio asks of a descriptor is that `epoll(7)` knows it.
pub(super) fn reader(fd: OwnedFd) -> std::io::Result<Receiver> {
    Receiver::from_owned_fd_unchecked(nonblocking(fd)?)
}

fn writer(fd: OwnedFd) -> std::io::Result<Sender> {
    Sender::from_owned_fd_unchecked(nonblocking(fd)?)
}

fn nonblocking(fd: OwnedFd) -> std::io::Result<OwnedFd> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(fd)
}

/// The streams of a program and our ends of them.
pub(super) struct Streams {
    /// The program's.
    pub(super) theirs: [Stdio; 3],
    /// Ours.
    pub(super) ours: Vec<Stream>,
    /// Another handle of its terminal, if that is what it has.
    pub(super) master: Option<OwnedFd>,
}

/// A size in characters.
pub(super) fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// A terminal.
pub(super) fn terminal(size: Winsize) -> Result<Streams> {
    let work = || -> std::io::Result<_> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags)?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        tcsetwinsize(&master, size)?;
        let name = rustix::pty::ptsname(&master, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(name, flags, Mode::empty())?;
        let ours = Stream::Both(reader(master.try_clone()?)?, writer(master.try_clone()?)?);
        Ok(Streams {
            theirs: [slave.try_clone()?.into(), slave.try_clone()?.into(), slave.into()],
            ours: vec![ours],
            master: Some(master),
        })
    };
    work().during(|| "make a terminal")
}

/// Three pipes.
pub(super) fn pipes() -> Result<Streams> {
    let work = || -> std::io::Result<_> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC);
        let ((input, fed), (shown, output), (told, errors)) = (pipe()?, pipe()?, pipe()?);
        let ours = vec![
            Stream::In(writer(fed)?),
            Stream::Out(reader(shown)?),
            Stream::Out(reader(told)?),
        ];
        Ok(Streams {
            theirs: [input.into(), output.into(), errors.into()],
            ours,
            master: None,
        })
    };
    work().during(|| "make pipes")
}
