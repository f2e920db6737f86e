//! Terminals: handing the master of a container's pseudo-terminal over, and making its slave the process's own.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::termios::{OptionalActions, OutputModes, Winsize};

use crate::error::{During, Error, Result};
use crate::files::socket;

/// Connects to the caller's `AF_UNIX` stream socket (`--console-socket`, `--pidfd-socket`, seccomp's `listenerPath`).
pub fn connect(path: &Path) -> Result<OwnedFd> {
    socket::connect(path, SocketType::STREAM, None)
}

/// Sends one descriptor with a message (`SCM_RIGHTS`).
pub fn send_fd(socket: BorrowedFd<'_>, message: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(
        socket,
        &[IoSlice::new(message)],
        &mut control,
        SendFlags::NOSIGNAL,
    )
    .during(|| "send a file descriptor")?;
    Ok(())
}

/// Receives one descriptor.
pub fn receive_fd(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    let (_, fd) = receive_message(socket, &mut [0; 4096]).during(|| "receive a file descriptor")?;
    fd.ok_or_else(|| Error::Corrupt("a message without the expected file descriptor".into()))
}

/// Receives a message: its length, and the descriptor that it brings.
pub fn receive_message(
    socket: BorrowedFd<'_>,
    message: &mut [u8],
) -> rustix::io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let slices = &mut [IoSliceMut::new(message)];
    let got = rustix::net::recvmsg(socket, slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let fd = control.drain().find_map(|entry| match entry {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok((got.bytes, fd))
}

/// A connected pair of stream sockets, for the caller that keeps the master itself.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Lets newlines through as the program writes them. Whoever copies them to a terminal has them translated there.
///
/// `terminal` is the master or the slave: they share their settings.
pub fn keep_newlines(terminal: BorrowedFd<'_>) -> Result<()> {
    let work = || -> Result<()> {
        let mut settings = rustix::termios::tcgetattr(terminal)?;
        settings.output_modes.remove(OutputModes::ONLCR);
        Ok(rustix::termios::tcsetattr(
            terminal,
            OptionalActions::Now,
            &settings,
        )?)
    };
    work().during(|| "set up the terminal")
}

/// Makes the slave standard input, output and error of this process, and its controlling terminal if wanted.
pub fn adopt(slave: BorrowedFd<'_>, size: Option<(u16, u16)>, controlling: bool) -> Result<()> {
    if let Some((rows, columns)) = size {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(slave, size).during(|| "set the console's size")?;
    }
    if controlling {
        rustix::process::ioctl_tiocsctty(slave).during(|| "take the console as controlling terminal")?;
    }
    rustix::stdio::dup2_stdin(slave)?;
    rustix::stdio::dup2_stdout(slave)?;
    rustix::stdio::dup2_stderr(slave)?;
    Ok(())
}

/// Puts descriptors in the places of standard input, output and error.
pub fn replace_streams([input, output, error]: [Option<BorrowedFd<'_>>; 3]) -> Result<()> {
    if let Some(input) = input {
        rustix::stdio::dup2_stdin(input)?;
    }
    if let Some(output) = output {
        rustix::stdio::dup2_stdout(output)?;
    }
    if let Some(error) = error {
        rustix::stdio::dup2_stderr(error)?;
    }
    Ok(())
}

/// Gives the process's user its standard streams, as a login does, so that it may reopen them through `/dev/stdout`.
///
/// What cannot be given (a read-only filesystem, a file of another owner's namespace) and character devices of
/// the host such as `/dev/null` stay as they are.
pub fn own_streams(uid: u32) {
    for stream in [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ] {
        let Ok(stat) = rustix::fs::fstat(stream) else {
            continue;
        };
        let is_null = stat.st_rdev == rustix::fs::makedev(1, 3);
        if stat.st_uid != uid && !is_null {
            let _ = rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None);
        }
    }
}

/// Gives the user those standard streams that are pipes. This is for host root, who could give away any file of the host's, logs
/// that others write as well among them.
pub fn own_pipes(uid: u32) {
    let streams = [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ];
    streams.into_iter().for_each(|stream| own_pipe(stream, uid));
}

fn own_pipe(stream: BorrowedFd<'_>, uid: u32) {
    let is_pipe = |stat: rustix::fs::Stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_fifo();
    if rustix::fs::fstat(stream).is_ok_and(is_pipe) {
        let _ = rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None);
    }
}

/// Sends the terminal's master to whoever waits for it.
pub fn send_master(socket: BorrowedFd<'_>, master: &OwnedFd) -> Result<()> {
    // The name is what runc sends; receivers use it for messages only.
    send_fd(socket, b"/dev/ptmx", master.as_fd()).during(|| "hand over the console")
}
