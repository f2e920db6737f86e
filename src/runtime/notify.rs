//! `sd_notify(3)` from inside: a service manager hears that the container is ready, and nothing else that the container says.
//!
//! The container has a socket of its own below `/run/notify`. Who starts it stands between that and the manager's, which `NOTIFY_SOCKET`
//! names: with the manager's own socket a container could name any process the service's main one, or give it files to keep.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use oci_spec::runtime::{Mount, MountBuilder, Spec};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::bundle::Bundle;
use super::container::Container;
use super::state::Folder;
use crate::error::{During, Error, Result};
use crate::files::{self, socket};

/// Where the container finds the socket's directory, as runc has it.
pub const INSIDE: &str = "/run/notify";
const NAME: &str = "notify.sock";

/// The variable of `sd_notify(3)`.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// How long the manager may take to take note before we go, and with us what it knows the messages by.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether a service manager waits for this process to be ready.
pub fn is_awaited() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|socket| !socket.is_empty())
}

/// The bundle with a socket for the container to be, whose state is in `folder`.
pub fn with_socket(bundle: &Bundle, folder: &Folder) -> Result<Bundle> {
    let mut bundle = bundle.clone();
    let mounts = bundle.spec.mounts().iter().flatten().cloned();
    let mounts: Vec<Mount> = mounts.chain([mount(&folder.notify())?]).collect();
    bundle.spec.set_mounts(Some(mounts));
    add_variable(&mut bundle.spec);
    Ok(bundle)
}

fn mount(source: &Path) -> Result<Mount> {
    MountBuilder::default()
        .destination(INSIDE)
        .typ("bind")
        .source(source)
        .options(["bind", "nosuid", "noexec", "nodev", "ro"].map(String::from))
        .build()
        .map_err(|e| Error::Corrupt(e.to_string()))
}

fn add_variable(spec: &mut Spec) {
    let Some(mut process) = spec.process().clone() else {
        return;
    };
    let own = [format!("{VARIABLE}={INSIDE}/{NAME}")];
    let env = process.env().iter().flatten().cloned().chain(own).collect();
    process.set_env(Some(env));
    spec.set_process(Some(process));
}

/// Makes the directory for the socket: open to the container's users, and to them alone.
pub fn make_place(folder: &Folder) -> Result<()> {
    let place = folder.notify();
    place
        .parent()
        .map_or(Ok(()), |outer| files::create_dir_all(outer, 0o700))?;
    files::create_dir_all(&place, 0o755)
}

/// Between a container and the service manager.
#[derive(Debug)]
pub struct Relay {
    socket: UnixDatagram,
    manager: SocketAddr,
    init: OwnedFd,
    pid: i32,
}

impl Relay {
    /// Opens the socket of a container that is about to start; nothing where nobody waits or it was created without one.
    pub fn open(container: &Container) -> Result<Option<Self>> {
        let place = container.folder().notify();
        let (Some(manager), true) = (manager()?, files::exists(&place)) else {
            return Ok(None);
        };
        let Some(init) = container.init() else {
            return Ok(None);
        };
        Ok(Some(Self {
            socket: listen(&place).during(|| format!("listen at `{}/{NAME}`", place.display()))?,
            manager,
            init,
            pid: container.state().init.map_or(0, |init| init.pid),
        }))
    }

    /// Waits until the container says that it is ready, or ends. A manager whose main process we are not (`detached`) hears which is.
    pub fn run(&self, detached: bool) -> Result<()> {
        if self.is_ready()? {
            self.tell(detached).during(|| format!("tell {VARIABLE}"))?;
        }
        Ok(())
    }

    fn is_ready(&self) -> Result<bool> {
        let mut message = [0; 4096];
        loop {
            let (socket, init) = (self.socket.as_fd(), self.init.as_fd());
            let mut fds = [
                PollFd::new(&socket, PollFlags::IN),
                PollFd::new(&init, PollFlags::IN),
            ];
            match rustix::event::poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.during(|| "wait for the container to be ready")?,
            };
            if fds[0].revents().is_empty() {
                return Ok(false);
            }
            let length = self.socket.recv(&mut message)?;
            if message[..length]
                .split(|b| *b == b'\n')
                .any(|line| line == b"READY=1")
            {
                return Ok(true);
            }
        }
    }

    fn tell(&self, detached: bool) -> Result<()> {
        let ours = UnixDatagram::unbound()?;
        ours.send_to_addr(b"READY=1\n", &self.manager)?;
        if detached {
            ours.send_to_addr(format!("MAINPID={}\n", self.pid).as_bytes(), &self.manager)?;
        }
        ours.connect_addr(&self.manager)?;
        barrier(&ours)
    }
}

/// `sd_notify_barrier(3)`: once our end of a pipe is the only one, all that was sent before has been read.
fn barrier(manager: &UnixDatagram) -> Result<()> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [write.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(
        manager,
        &[IoSlice::new(b"BARRIER=1")],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    drop(write);
    let patience = Timespec::try_from(PATIENCE).ok();
    let _ = rustix::event::poll(&mut [PollFd::new(&read, PollFlags::empty())], patience.as_ref());
    Ok(())
}

/// The caller's manager, by a path or an abstract name (`@…`).
fn manager() -> Result<Option<SocketAddr>> {
    let Some(name) = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    address
        .map(Some)
        .during(|| format!("{VARIABLE} `{}`", name.display()))
}

/// A socket that all users of the container may write to.
fn listen(place: &Path) -> Result<UnixDatagram> {
    use std::os::unix::fs::PermissionsExt;
    let (path, _dir) = socket::address_of(&place.join(NAME))?;
    let socket = UnixDatagram::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
    Ok(socket)
}
