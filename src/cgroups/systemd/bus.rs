//! A connection to a message bus: blocking, without threads, because the process that has it clones.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use serde::{Deserialize, Serialize};

use super::message::{FIXED, Message, Target, call};
use super::value::Value;
use crate::error::{During, Error, Result};
use crate::files;

/// How long an answer may take, and how long a job of systemd's.
const PATIENCE: Duration = Duration::from_secs(30);

/// The system's bus, where the specification puts it.
const SYSTEM: &str = "unix:path=/run/dbus/system_bus_socket";

const DRIVER: Target = Target {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

/// Which of the buses a manager of units listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bus {
    /// The system's, for PID 1.
    System,
    /// The user's own, for `systemd --user`.
    User,
}

impl Bus {
    /// The system's bus for the host's root; the user's own for everybody else, root of a user namespace included.
    pub(super) fn of(uid: u32) -> Self {
        let map = files::read_text(Path::new("/proc/self/uid_map")).unwrap_or_default();
        if uid == 0 && outer_uid(&map).is_none() {
            Self::System
        } else {
            Self::User
        }
    }

    fn addresses(self) -> String {
        let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        match self {
            Self::System => given("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(|| SYSTEM.into()),
            Self::User => given("DBUS_SESSION_BUS_ADDRESS").unwrap_or_else(|| {
                let dir = given("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{}", own_uid()));
                format!("unix:path={dir}/bus")
            }),
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::System => "is dbus running? `--cgroup-manager cgroupfs` goes without",
            Self::User => {
                "it needs a session of systemd's with a bus (package dbus-user-session, `loginctl enable-linger`); \
                 `--cgroup-manager cgroupfs` goes without"
            }
        }
    }
}

/// The caller's uid as the host knows it.
fn own_uid() -> u32 {
    let map = files::read_text(Path::new("/proc/self/uid_map")).unwrap_or_default();
    outer_uid(&map).unwrap_or_else(|| rustix::process::geteuid().as_raw())
}

/// The uid outside of root inside, from `user_namespaces(7)`'s `uid_map`; none where the two are the same everywhere.
fn outer_uid(map: &str) -> Option<u32> {
    let mut numbers = map.split_ascii_whitespace().filter_map(|n| n.parse::<u32>().ok());
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(0), Some(0), Some(u32::MAX)) => None,
        (Some(_), outer, _) => outer,
        _ => None,
    }
}

/// A call that did not succeed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The other side's own words, and the name of the error.
    Refused { name: String, text: String },
    /// The way there.
    Lost(Error),
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Self::Lost(e)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused { text, .. } => Self::Status(format!("systemd says: {text}")),
            Fault::Lost(e) => e,
        }
    }
}

/// How many signals are kept that come before an answer: systemd sends a handful for each unit on the machine that changes.
const MOST_SIGNALS: usize = 4096;

/// A connection.
pub(super) struct Connection {
    socket: UnixStream,
    patience: Duration,
    serial: u32,
    /// Signals that came between a call and its answer.
    signals: Vec<Message>,
}

impl Connection {
    /// Connects to a bus.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where there is none or it lets nobody in, with the remedy.
    pub(super) fn open(bus: Bus) -> Result<Self> {
        let addresses = bus.addresses();
        let mut problem = "no address of a kind that is known".to_owned();
        for address in addresses.split(';') {
            match connect(address) {
                Some(Ok(socket)) => return Self::introduce(socket, PATIENCE),
                Some(Err(e)) => problem = Error::from(e).to_string(),
                None => {}
            }
        }
        let why = format!(
            "cannot reach the bus at `{addresses}`: {problem}; {}",
            bus.remedy()
        );
        Err(Error::unsupported("the systemd cgroup manager", why))
    }

    fn introduce(mut socket: UnixStream, patience: Duration) -> Result<Self> {
        socket.set_write_timeout(Some(patience))?;
        // By what the kernel says of us, so that it is right in a user namespace as well; all in one go, as sd-bus does.
        socket.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let deadline = Instant::now() + patience;
        let mut said = Vec::new();
        while said.iter().filter(|b| **b == b'\n').count() < 2 && !said.starts_with(b"REJECTED") {
            let mut byte = [0; 1];
            read_exact(&mut socket, &mut byte, deadline).during(|| "introduce ourselves to the bus")?;
            said.push(byte[0]);
        }
        let said = String::from_utf8_lossy(&said).into_owned();
        if !said.lines().any(|line| line.starts_with("OK ")) {
            let why = format!("the bus does not let us in: it says `{}`", said.trim());
            return Err(Error::unsupported("the systemd cgroup manager", why));
        }
        let mut connection = Self {
            socket,
            patience,
            serial: 0,
            signals: Vec::new(),
        };
        connection.call(DRIVER, "Hello", &[])?;
        Ok(connection)
    }

    /// Asks for the signals that this rule lets through.
    pub(super) fn listen(&mut self, rule: &str) -> Result<()> {
        self.call(DRIVER, "AddMatch", &[Value::str(rule)])?;
        Ok(())
    }

    /// Calls a method and waits for the answer.
    pub(super) fn call(
        &mut self,
        target: Target,
        member: &str,
        arguments: &[Value],
    ) -> std::result::Result<Message, Fault> {
        self.serial += 1;
        let bytes = call(self.serial, target, member, arguments)?;
        let deadline = Instant::now() + self.patience;
        let sent = self.socket.write_all(&bytes);
        sent.during(|| format!("call `{member}` of systemd"))?;
        loop {
            let message = self
                .receive(deadline)
                .during(|| format!("wait for the answer to `{member}` of systemd"))?;
            let Some(message) = message else { continue };
            if !message.answers(self.serial) {
                if self.signals.len() < MOST_SIGNALS {
                    self.signals.push(message);
                }
                continue;
            }
            return match message.fault() {
                Some((name, text)) => Err(Fault::Refused {
                    name: name.to_owned(),
                    text,
                }),
                None => Ok(message),
            };
        }
    }

    /// Waits for a signal that `wanted` makes something of, from whoever gave that answer: everybody on a bus can send
    /// signals to everybody.
    ///
    /// # Errors
    /// `ETIMEDOUT` when it does not come.
    pub(super) fn wait<T>(
        &mut self,
        answer: &Message,
        member: &str,
        wanted: impl Fn(&[String]) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + self.patience;
        let mut came = std::mem::take(&mut self.signals);
        loop {
            let from_there = |signal: &&Message| signal.is_signal(member) && signal.is_from_sender_of(answer);
            let mut said = came.iter().filter(from_there).filter_map(|s| s.strings().ok());
            if let Some(found) = said.find_map(|strings| wanted(&strings)) {
                return Ok(found);
            }
            came = self.receive(deadline)?.into_iter().collect();
        }
    }

    /// The next message; `None` for one that makes no sense, which anybody may have sent.
    fn receive(&mut self, deadline: Instant) -> Result<Option<Message>> {
        let mut bytes = vec![0; FIXED];
        read_exact(&mut self.socket, &mut bytes, deadline)?;
        bytes.resize(Message::length(&bytes)?, 0);
        read_exact(&mut self.socket, &mut bytes[FIXED..], deadline)?;
        Ok(Message::read(&bytes).ok())
    }
}

/// Connects to one address, `None` if it is of a kind that is not known.
fn connect(address: &str) -> Option<std::io::Result<UnixStream>> {
    let pairs = address.strip_prefix("unix:")?;
    let value = |key: &str| {
        let found = pairs.split(',').find_map(|pair| pair.strip_prefix(key));
        found.map(unescape)
    };
    if let Some(path) = value("path=") {
        return Some(
            SocketAddrUnix::new(path)
                .map_err(Into::into)
                .and_then(|to| dial(&to)),
        );
    }
    let name = value("abstract=")?;
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes());
    Some(address.map_err(Into::into).and_then(|to| dial(&to)))
}

/// A bus that takes nobody in, because as many wait as may, is waited for as long as for an answer (`SO_SNDTIMEO`, `unix(7)`).
fn dial(address: &SocketAddrUnix) -> std::io::Result<UnixStream> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    rustix::net::connect(&socket, address)?;
    Ok(socket.into())
}

/// `%2f` and the like, as the specification's "Server Addresses" have it.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = || u8::from_str_radix(std::str::from_utf8(after.get(..2)?).ok()?, 16).ok();
        match (first, hex()) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn read_exact(socket: &mut UnixStream, mut buffer: &mut [u8], deadline: Instant) -> Result<()> {
    use std::io::{Error as Io, ErrorKind};
    while !buffer.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Io::from_raw_os_error(nix::errno::Errno::ETIMEDOUT as i32).into());
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(buffer) {
            Ok(0) => return Err(Error::Corrupt("the bus has closed the connection".into())),
            Ok(count) => buffer = &mut buffer[count..],
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_we_are_outside_of_a_user_namespace() {
        assert_eq!(outer_uid("         0          0 4294967295\n"), None);
        assert_eq!(outer_uid("0 1000 1\n1 100000 65536\n"), Some(1000));
        assert_eq!(outer_uid(""), None);
    }

    #[test]
    fn addresses_are_unescaped_and_unknown_kinds_passed_over() {
        assert_eq!(unescape("/run/a%2fb%zz%2"), "/run/a/b%zz%2");
        assert!(connect("tcp:host=localhost").is_none());
        assert!(connect("unix:guid=1").is_none());
        assert!(connect("unix:path=/no/such/bus,guid=1").unwrap().is_err());
    }

    #[test]
    fn a_silent_bus_is_not_waited_for_forever() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"DATA\r\nOK 0123\r\n").unwrap();
        let patience = Duration::from_millis(20);
        let e = Connection::introduce(ours, patience).err().unwrap();
        assert_eq!(e.errno(), Some(nix::errno::Errno::ETIMEDOUT as i32));
        assert!(e.to_string().contains("`Hello`"), "{e}");
    }

    #[test]
    fn a_bus_that_refuses_or_hangs_up_is_reported() {
        for (said, words) in [("REJECTED EXTERNAL\r\n", "not let us in"), ("", "closed")] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(said.as_bytes()).unwrap();
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
            let e = Connection::introduce(ours, PATIENCE).err().unwrap().to_string();
            assert!(e.contains(words), "{e}");
        }
    }
}
