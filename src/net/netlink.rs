//! Netlink sockets: requests that wait for their answer, and nftables batches.

use std::cell::{Cell, RefCell};
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable, NlasIterator, parse_string,
};
use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use netlink_sys::{Socket, protocols};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::error::{During, Error, Result};

/// The kernel answers at once; an answer that does not come within this many seconds never will, and nobody may hang for it.
const ANSWER_SECONDS: i64 = 30;
/// `NFNL_SUBSYS_NFTABLES`, which a batch names as its resource.
const NFTABLES: u16 = 10;
/// `NLMSGERR_ATTR_MSG`: the kernel's own words about a refusal.
const ERROR_TEXT: u16 = 1;
/// Length of `struct nlmsghdr`, which precedes the attributes of a refusal.
const HEADER: usize = 16;

/// A message for nftables and its flags.
pub(super) type Entry = (NetfilterMessage, u16);

/// A netlink socket of the caller's network namespace, for as long as nobody else of its thread has it.
#[derive(Debug)]
pub(super) struct Channel {
    line: Rc<Line>,
    /// Number of the first message of the request under way; answers to earlier ones may still come after a refused batch.
    first: u32,
}

/// A socket that its thread keeps. One for nftables makes its closer wait until all that was deleted is freed, a grace period
/// of the whole machine.
#[derive(Debug)]
struct Line {
    protocol: isize,
    home: u64,
    socket: Socket,
    sequence: Cell<u32>,
    /// Whether an answer may be under way that nobody has read.
    is_waiting: Cell<bool>,
}

thread_local! {
    static LINES: RefCell<Vec<Rc<Line>>> = const { RefCell::new(Vec::new()) };
}

impl Channel {
    /// A socket for links, addresses, routes and neighbours.
    pub(super) fn route() -> Result<Self> {
        Self::open(protocols::NETLINK_ROUTE).during(|| "open a socket to the kernel's network configuration")
    }

    /// A socket for nftables.
    pub(super) fn netfilter() -> Result<Self> {
        Self::open(protocols::NETLINK_NETFILTER).during(|| "open a socket to the kernel's firewall")
    }

    fn open(protocol: isize) -> Result<Self> {
        // A thread may be in another namespace now.
        let home = home()?;
        let line = LINES.with_borrow_mut(|lines| {
            lines.retain(|line| line.home == home && !line.is_waiting.get());
            let mut fitting = lines.iter().filter(|line| line.protocol == protocol);
            if let Some(idle) = fitting.find(|line| Rc::strong_count(line) == 1) {
                return Ok(Rc::clone(idle));
            }
            let line = Rc::new(Line::new(protocol, home)?);
            lines.push(Rc::clone(&line));
            Ok::<_, Error>(line)
        })?;
        Ok(Self { line, first: 0 })
    }

    /// Sends one request and returns what the kernel sends back, once it has said that it is done.
    pub(super) fn request<M>(&mut self, message: M, flags: u16) -> Result<Vec<M>>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        self.ask(message, flags)
    }

    /// As [`Channel::request`], where not all of an answer is to be read.
    pub(super) fn ask<M, A>(&mut self, message: M, flags: u16) -> Result<Vec<A>>
    where
        M: NetlinkSerializable,
        A: NetlinkDeserializable,
    {
        let mut answers = Vec::new();
        self.request_each(message, flags, |answer| answers.push(answer))?;
        Ok(answers)
    }

    /// As [`Channel::request`], for answers that may be too long to be kept.
    pub(super) fn request_each<M, A>(&mut self, message: M, flags: u16, take: impl FnMut(A)) -> Result<()>
    where
        M: NetlinkSerializable,
        A: NetlinkDeserializable,
    {
        let acknowledge = if flags & NLM_F_DUMP == NLM_F_DUMP {
            0
        } else {
            NLM_F_ACK
        };
        self.first = self.line.sequence.get() + 1;
        let mut bytes = Vec::new();
        self.append(&mut bytes, message, flags | acknowledge);
        self.send(&bytes)?;
        self.receive_all(take)
    }

    /// Sends messages that the kernel applies all or not at all.
    pub(super) fn batch(&mut self, messages: Vec<Entry>) -> Result<()> {
        self.first = self.line.sequence.get() + 1;
        let mut bytes = Vec::new();
        self.append(&mut bytes, control(ControlMessage::BatchBegin), 0);
        let last = messages.len().saturating_sub(1);
        for (n, (message, flags)) in messages.into_iter().enumerate() {
            // Failures are reported for every message, in order; success only where asked for.
            let acknowledge = if n == last { NLM_F_ACK } else { 0 };
            self.append(&mut bytes, message, flags | acknowledge);
        }
        self.append(&mut bytes, control(ControlMessage::BatchEnd), 0);
        self.send(&bytes)?;
        self.receive_all::<NetfilterMessage>(|_| {})?;
        BATCHES.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn append<M: NetlinkSerializable>(&self, bytes: &mut Vec<u8>, message: M, flags: u16) {
        let sequence = self.line.sequence.get() + 1;
        self.line.sequence.set(sequence);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[start..]);
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        self.line.is_waiting.set(true);
        let sent = self.line.socket.send(bytes, 0)?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(Error::Io(Errno::EMSGSIZE.into()))
        }
    }

    /// Reads datagrams up to the end of the answer, which a refusal is as well.
    fn receive_all<M: NetlinkDeserializable>(&self, mut take: impl FnMut(M)) -> Result<()> {
        loop {
            let (datagram, _) = self.line.socket.recv_from_full()?;
            if let Some(end) = self.read(&datagram, &mut take)? {
                self.line.is_waiting.set(false);
                return end;
            }
        }
    }

    /// Reads one datagram; how the answer ends, when it held the end.
    fn read<M: NetlinkDeserializable>(
        &self,
        datagram: &[u8],
        take: &mut impl FnMut(M),
    ) -> Result<Option<Result<()>>> {
        let mut rest = datagram;
        while rest.len() >= HEADER {
            let message = NetlinkMessage::<M>::deserialize(rest)
                .map_err(|e| Error::Corrupt(format!("the kernel's netlink answer is not understood: {e}")))?;
            let length = (message.header.length as usize).next_multiple_of(4).max(HEADER);
            rest = rest.get(length..).unwrap_or_default();
            if message.header.sequence_number < self.first {
                continue;
            }
            match message.payload {
                NetlinkPayload::Error(e) if e.code.is_none() => return Ok(Some(Ok(()))),
                NetlinkPayload::Error(e) => return Ok(Some(Err(refusal(&e)))),
                NetlinkPayload::Done(done) if done.code != 0 => {
                    let refused = std::io::Error::from_raw_os_error(done.code.abs());
                    return Ok(Some(Err(Error::Io(refused))));
                }
                NetlinkPayload::Done(_) => return Ok(Some(Ok(()))),
                NetlinkPayload::InnerMessage(answer) => take(answer),
                _ => {}
            }
        }
        Ok(None)
    }
}

impl Line {
    fn new(protocol: isize, home: u64) -> Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        setsockopt(
            &socket,
            sockopt::ReceiveTimeout,
            &TimeVal::seconds(ANSWER_SECONDS),
        )?;
        // Refusals with a reason in words, and without a copy of the request. Both are newer than the protocol: best effort.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        Ok(Self {
            protocol,
            home,
            socket,
            sequence: Cell::new(0),
            is_waiting: Cell::new(false),
        })
    }
}

/// Batches that the kernel has applied.
static BATCHES: AtomicU32 = AtomicU32::new(0);

/// How many changes of rules this process has made.
pub fn changes() -> u32 {
    BATCHES.load(Ordering::Relaxed)
}

/// The calling thread's network namespace.
pub(super) fn home() -> Result<u64> {
    Ok(std::fs::metadata("/proc/thread-self/ns/net")?.ino())
}

/// A message of nftables about what is of this family.
pub(super) fn about(family: NetfilterProtoFamily, inner: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), inner)
}

fn control(message: ControlMessage) -> NetfilterMessage {
    NetfilterMessage::new(
        NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES),
        message,
    )
}

/// The kernel's refusal, with its own words where it has some.
fn refusal(message: &ErrorMessage) -> Error {
    let attributes = message.header.get(HEADER..).unwrap_or_default();
    let words = NlasIterator::new(attributes)
        .flatten()
        .find(|a| a.kind() == ERROR_TEXT)
        .and_then(|a| parse_string(a.value()).ok());
    let error = Error::Io(message.to_io());
    match words {
        Some(words) => Error::During {
            what: format!("the kernel says `{words}`"),
            source: Box::new(error),
        },
        None => error,
    }
}

/// Whether the kernel refused because the thing (link, route, neighbour, table, …) is not there.
pub(super) fn is_gone(error: &Error) -> bool {
    let gone = [
        Errno::ENOENT,
        Errno::ENODEV,
        Errno::ESRCH,
        Errno::ENXIO,
        Errno::EADDRNOTAVAIL,
    ];
    gone.iter().any(|e| is(error, *e))
}

/// Whether this is the errno at the root of the error.
pub(super) fn is(error: &Error, errno: Errno) -> bool {
    error.errno() == Some(errno as i32)
}

/// Makes "already gone" a success.
pub(super) fn forgive_gone(result: Result<()>) -> Result<()> {
    match result {
        Err(e) if is_gone(&e) => Ok(()),
        other => other,
    }
}

/// Makes "already there" a success.
pub(super) fn forgive_exists(result: Result<()>) -> Result<()> {
    match result {
        Err(e) if is(&e, Errno::EEXIST) => Ok(()),
        other => other,
    }
}
