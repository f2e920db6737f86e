//! The init conversation: one socket pair, one fixed chain of rendezvous.
//!
//! ```text
//!  step     init has done                       parent then does                       grant carries
//!  Born     nothing (it is in its cgroup)       id maps, v1 cgroups, processors        its host pid
//!  Mounted  namespaces, root filesystem (*)     prestart, createRuntime hooks          the seccomp filter
//!  Ready    createContainer, pivot, console     limits, state.json, pid file           nothing
//!  Done     start was given, about to exec      (only `run` still listens)             nothing
//! ```
//!
//! (*) On the way there it may have the parent translate owners of mounts ([`Init::map`]).
//!
//! A process for `exec` has a shorter chain: Entering (it exists; v1 cgroups, grant: the filter), Joined (it is inside and
//! could run; grant: its host pid), Done.
//!
//! Each side holds a value for the step it is at, and the only way to the next value is through the step: one out of order
//! does not compile. A failure is a message of its own; a closed socket names the step under way.

use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use super::patience::Patience;
use crate::error::{During, Error, Result};
use crate::runtime::console;

/// Largest message: a filter of 4,096 instructions of 8 bytes, and room to spare.
const MAX_MESSAGE: usize = 64 * 1024;

/// What a message starts with.
mod tag {
    pub(super) const STEP: u8 = b'S';
    pub(super) const GRANT: u8 = b'G';
    pub(super) const FAILED: u8 = b'F';
    pub(super) const PROXY: u8 = b'P';
    pub(super) const MAP: u8 = b'M';
}

/// One rendezvous.
pub trait Step {
    /// For errors: "init died before it was mounted".
    const NAME: &'static str;
    /// The step that follows.
    type Next: Step;
}

/// Init exists.
#[derive(Debug)]
pub struct Born;
/// The root filesystem is assembled.
#[derive(Debug)]
pub struct Mounted;
/// Init is inside and could run its program.
#[derive(Debug)]
pub struct Ready;
/// A process for `exec` exists.
#[derive(Debug)]
pub struct Entering;
/// A process for `exec` is in the container and could run its program.
#[derive(Debug)]
pub struct Joined;
/// The program replaces init.
#[derive(Debug)]
pub struct Done;

impl Step for Born {
    const NAME: &'static str = "born";
    type Next = Mounted;
}
impl Step for Mounted {
    const NAME: &'static str = "mounted";
    type Next = Ready;
}
impl Step for Ready {
    const NAME: &'static str = "ready";
    type Next = Done;
}
impl Step for Entering {
    const NAME: &'static str = "entering";
    type Next = Joined;
}
impl Step for Joined {
    const NAME: &'static str = "joined";
    type Next = Done;
}
impl Step for Done {
    const NAME: &'static str = "done";
    type Next = Self;
}

/// Init's end, at step `S`.
#[derive(Debug)]
pub struct Init<S> {
    socket: OwnedFd,
    step: PhantomData<S>,
}

/// The parent's end, waiting for step `S`.
#[derive(Debug)]
pub struct Parent<S> {
    socket: OwnedFd,
    patience: Patience,
    step: PhantomData<S>,
}

/// Init has arrived at step `S` and waits for what the parent grants it.
#[derive(Debug)]
pub struct Held<S> {
    socket: OwnedFd,
    patience: Patience,
    step: PhantomData<S>,
}

/// A new conversation, both ends before the first step of its chain: [`Born`] or [`Entering`].
pub fn pair<S: Step>() -> Result<(Parent<S>, Init<S>)> {
    let flags = SocketFlags::CLOEXEC;
    let (a, b) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .during(|| "make a socket pair")?;
    Ok((
        Parent {
            socket: a,
            patience: Patience::default(),
            step: PhantomData,
        },
        Init {
            socket: b,
            step: PhantomData,
        },
    ))
}

impl<S: Step> Init<S> {
    /// Reports the step and waits for the parent's part of it.
    pub fn arrive(self) -> Result<(Vec<u8>, Init<S::Next>)> {
        log::debug!("init: arrives at `{}`", S::NAME);
        send(&self.socket, &[tag::STEP], S::NAME.as_bytes())?;
        let message = receive(&self.socket)?;
        match message.split_first() {
            Some((&tag::GRANT, grant)) => Ok((
                grant.to_vec(),
                Init {
                    socket: self.socket,
                    step: PhantomData,
                },
            )),
            _ => Err(Error::Init(format!(
                "the runtime went away before init was {}",
                S::NAME
            ))),
        }
    }

    /// A second handle to the same socket, to report a failure at whatever step.
    pub fn reporter(&self) -> Result<Reporter> {
        Ok(Reporter {
            socket: rustix::io::fcntl_dupfd_cloexec(&self.socket, 3)?,
        })
    }
}

impl Init<Mounted> {
    /// Has the parent translate the owners of a detached mount of the plan's, by its number: of a source that is there only now, and
    /// on a filesystem that root of the user namespace has no say over.
    pub fn map(&self, index: usize, tree: BorrowedFd<'_>) -> Result<()> {
        let message = [&[tag::MAP][..], &index.to_ne_bytes()].concat();
        console::send_fd(self.socket.as_fd(), &message, tree)?;
        match receive(&self.socket)?.as_slice() {
            [tag::GRANT] => Ok(()),
            _ => Err(Error::Init("the runtime went away while init mounted".into())),
        }
    }
}

impl<S> AsFd for Init<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Tells the parent of a failure.
#[derive(Debug)]
pub struct Reporter {
    socket: OwnedFd,
}

impl From<OwnedFd> for Reporter {
    fn from(socket: OwnedFd) -> Self {
        Self { socket }
    }
}

impl Reporter {
    /// Sends the failure; says whether anybody was there to hear it.
    pub fn fail(&self, error: &Error) -> bool {
        let kind = [tag::FAILED, u8::from(matches!(error.root(), Error::Exec { .. }))];
        send(&self.socket, &kind, error.to_string().as_bytes()).is_ok()
    }

    /// Hands over the process that goes on in this one's place (see [`Parent::proxied`]).
    pub fn hand_over(&self, pidfd: BorrowedFd<'_>) -> Result<()> {
        console::send_fd(self.socket.as_fd(), &[tag::PROXY], pidfd)
    }

    /// The socket itself.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<S: Step> Parent<S> {
    /// From here on waits no longer than this, at all steps together.
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// How long it waits.
    pub fn patience(&self) -> &Patience {
        &self.patience
    }

    /// Waits until init arrives at the step.
    pub fn wait(self) -> Result<Held<S>> {
        let message = self.hear()?.0;
        self.arrived(&message)
    }

    fn arrived(self, message: &[u8]) -> Result<Held<S>> {
        match message.split_first() {
            Some((&tag::STEP, name)) if name == S::NAME.as_bytes() => Ok(Held {
                socket: self.socket,
                patience: self.patience,
                step: PhantomData,
            }),
            _ => Err(unexpected(message, S::NAME)),
        }
    }

    /// Waits for a stand-in to hand over the process it made: joining a user namespace takes a process that cannot come back. By
    /// descriptor, because the stand-in may be in another pid namespace, where the process has another number.
    pub fn proxied(&self) -> Result<OwnedFd> {
        match self.hear()? {
            (message, Some(pidfd)) if message == [tag::PROXY] => Ok(pidfd),
            (message, _) => Err(unexpected(&message, S::NAME)),
        }
    }

    /// The next message, with a descriptor if it has one.
    fn hear(&self) -> Result<(Vec<u8>, Option<OwnedFd>)> {
        self.patience
            .wait(self.socket.as_fd())
            .and_then(|()| receive_with_fd(&self.socket))
            .during(|| format!("wait for init to be {}", S::NAME))
    }
}

impl Parent<Mounted> {
    /// Waits like [`Parent::wait`], and translates owners with `map` meanwhile (see [`Init::map`]).
    pub fn wait_and_map(self, map: &mut dyn FnMut(usize, OwnedFd) -> Result<()>) -> Result<Held<Mounted>> {
        loop {
            match self.hear()? {
                (message, Some(tree)) if message.first() == Some(&tag::MAP) => {
                    let index = message[1..].try_into();
                    let index = index.map_err(|_| Error::Corrupt("a malformed number from init".into()))?;
                    map(usize::from_ne_bytes(index), tree)?;
                    send(&self.socket, &[tag::GRANT], &[]).during(|| "let init go on mounting")?;
                }
                (message, _) => return self.arrived(&message),
            }
        }
    }
}

impl Parent<Done> {
    /// Waits until the program runs (the socket closes at exec) or init says why it does not.
    pub fn wait_for_exec(self) -> Result<()> {
        let (message, _) = self.hear()?;
        if message.is_empty() {
            Ok(())
        } else {
            Err(unexpected(&message, Done::NAME))
        }
    }
}

impl<S: Step> Held<S> {
    /// Lets init go on.
    pub fn grant(self, grant: &[u8]) -> Result<Parent<S::Next>> {
        log::debug!("init may go on after `{}`", S::NAME);
        send(&self.socket, &[tag::GRANT], grant).during(|| format!("let init go on after {}", S::NAME))?;
        Ok(Parent {
            socket: self.socket,
            patience: self.patience,
            step: PhantomData,
        })
    }
}

/// What a message that is not the awaited step means: a failure, an end, or nonsense.
fn unexpected(message: &[u8], step: &str) -> Error {
    match message {
        [] => Error::Init(format!("init died before it was {step}")),
        [tag::FAILED, kind, text @ ..] => {
            let text = String::from_utf8_lossy(text).into_owned();
            if *kind == 1 {
                exec_failure(text)
            } else {
                Error::Init(text)
            }
        }
        _ => Error::Corrupt(format!(
            "an unexpected message from init while waiting for {step}"
        )),
    }
}

/// Gives a failure to execute its kind back, which decides between exit status 126 and 127.
fn exec_failure(text: String) -> Error {
    let missing = [
        "not found in $PATH",
        "no such file or directory",
        "not a directory",
    ];
    let kind = if missing.iter().any(|words| text.ends_with(words)) {
        std::io::ErrorKind::NotFound
    } else {
        std::io::ErrorKind::PermissionDenied
    };
    let (program, reason) = match text.strip_prefix("exec ").and_then(|t| t.rsplit_once(": ")) {
        Some((program, reason)) => (program.to_string(), reason.to_string()),
        None => (String::new(), text),
    };
    Error::Exec {
        program,
        source: std::io::Error::new(kind, reason),
    }
}

fn send(socket: &OwnedFd, tag: &[u8], body: &[u8]) -> Result<()> {
    rustix::net::send(socket, &[tag, body].concat(), SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next message; empty at the end of the conversation.
fn receive(socket: &OwnedFd) -> Result<Vec<u8>> {
    Ok(receive_with_fd(socket)?.0)
}

fn receive_with_fd(socket: &OwnedFd) -> Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        match console::receive_message(socket.as_fd(), &mut buffer) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok((Vec::new(), None)),
            Ok((n, fd)) => {
                buffer.truncate(n);
                return Ok((buffer, fd));
            }
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_follow_one_another_and_carry_grants() {
        let (parent, init) = pair::<Born>().unwrap();
        let other = std::thread::spawn(move || {
            let (grant, init) = init.arrive().unwrap();
            let (filter, _init) = init.arrive().unwrap();
            (grant, filter)
        });
        let mounted = parent.wait().unwrap().grant(&7i32.to_ne_bytes()).unwrap();
        let _ready = mounted.wait().unwrap().grant(b"filter").unwrap();
        assert_eq!(
            other.join().unwrap(),
            (7i32.to_ne_bytes().to_vec(), b"filter".to_vec())
        );
    }

    #[test]
    fn a_failure_and_an_end_name_what_was_under_way() {
        let (parent, init) = pair::<Born>().unwrap();
        init.reporter()
            .unwrap()
            .fail(&Error::Status("mount `/x`: no".into()));
        assert_eq!(parent.wait().unwrap_err().to_string(), "mount `/x`: no");

        let (parent, init) = pair::<Born>().unwrap();
        drop(init);
        assert_eq!(
            parent.wait().unwrap_err().to_string(),
            "init died before it was born"
        );
    }

    #[test]
    fn a_failed_exec_keeps_its_kind() {
        let (parent, init) = pair::<Born>().unwrap();
        let source = std::io::Error::from(rustix::io::Errno::ACCESS);
        init.reporter().unwrap().fail(&Error::Exec {
            program: "x".into(),
            source,
        });
        let e = parent.wait().unwrap_err();
        assert_eq!(e.to_string(), "exec x: permission denied");
        assert!(
            matches!(e, Error::Exec { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied)
        );
    }
}
