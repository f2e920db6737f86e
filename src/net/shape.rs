//! The way that a VPS's packets take behind the fence, and bandwidth: a token bucket for each direction (`tc-tbf(8)`).
//!
//! ```text
//! to the VPS    link ── bucket ── host's end of the veth pair
//! from it       host's end ── fence ──────────────────────────── link
//!               host's end ── fence ── bucket ══ turn (veth) ══ ── link      with a limit
//!               host's end ── fence ── bucket ══ turn (veth) ══ ── host's end again, on a bridge of the operator's
//! ```
//! Packets of a port are handed to the network's link as though they had come in by it: the host is all that they may reach.
//!
//! What a VPS does to its own end changes none of it. Packets that wait are bounded by time, so that a full line is slow and not
//! late; where the kernel has `fq_codel`, it also keeps one connection from delaying the others.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::InfoKind;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use nix::errno::Errno;

use super::classifier::{self, Place};
use super::link::Link;
use super::netlink::{Channel, forgive_exists, forgive_gone, is, is_gone};
use super::rate::Rates;
use super::{Network, Port, link, sysctl};
use crate::error::{During, Error, Result};
use crate::sys::bpf::instruction;

/// How long a packet may wait, in thousandths of a second.
const PATIENCE: u64 = 50;
/// What may come at once unless told otherwise, in thousandths of a second.
const BURST: u64 = 10;
/// A smaller bucket would let the timer's grain show.
const LEAST_BURST: u64 = 16 * 1024;
/// At least so many bytes may wait, whatever the rate: some full packets.
const LEAST_QUEUE: u64 = 16 * 1024;
/// What `codel` calls its target, in thousandths of a second.
const TARGET: u64 = 5;
/// A rate is one of packets as their users count them. The bucket counts frames: 1514 bytes for 1500.
const FRAME: (u64, u64) = (1514, 1500);
/// The bucket's handle, and where what waits in it is queued.
const BUCKET: TcHandle = TcHandle { major: 1, minor: 0 };
const QUEUE: TcHandle = TcHandle { major: 1, minor: 1 };

impl Network {
    /// Holds a port to these rates from now on, whatever it was held to before. Packets that wait meanwhile are kept or lost, as
    /// after any congestion.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such port, and the kernel's.
    pub fn shape(&self, port: &Port, rates: &Rates) -> Result<()> {
        let port = port.host_if.as_str();
        let mut channel = Channel::route()?;
        let work = |channel: &mut Channel| {
            let link = link::get(channel, port)?;
            set_bucket(channel, link.index, rates.incoming, rates.burst)?;
            match rates.outgoing {
                None => {
                    self.aim(channel, &link, None)?;
                    remove_turn(channel, port)
                }
                Some(_) => {
                    let turn = make_turn(channel, port)?;
                    set_bucket(channel, turn.near, rates.outgoing, rates.burst)?;
                    self.aim(channel, &link, Some(turn))
                }
            }
        };
        work(&mut channel).during(|| format!("limit the bandwidth of `{port}`"))
    }

    /// Leads a port's packets the way that its network and the turn that it has, if any, ask for.
    pub(super) fn lead(&self, channel: &mut Channel, port: &str) -> Result<()> {
        let link = link::get(channel, port)?;
        let turn = find_turn(channel, port)?;
        self.aim(channel, &link, turn)
    }

    /// The far end first: nothing is sent where nobody takes it on.
    fn aim(&self, channel: &mut Channel, port: &Link, turn: Option<Turn>) -> Result<()> {
        // Behind an operator's bridge are others than the host.
        let bridge = match self.kind.is_bridged() {
            true => None,
            false => Some(link::get(channel, &self.bridge)?.index),
        };
        if let Some(turn) = turn {
            classifier::ensure_places(channel, turn.far)?;
        }
        match (turn, bridge) {
            (None, Some(bridge)) => redirect(channel, port.index, &to(bridge, Way::In)),
            (None, None) => classifier::remove(channel, port.index, Place::Behind),
            (Some(turn), Some(bridge)) => {
                redirect(channel, turn.far, &to(bridge, Way::In))?;
                redirect(channel, port.index, &to(turn.near, Way::Out))
            }
            (Some(turn), None) => {
                redirect(channel, turn.far, &marked_to(port.index))?;
                redirect(channel, port.index, &unless_marked_to(turn.near))
            }
        }
    }
}

/// Gives up what is beside a port that is given up.
pub(super) fn clear(channel: &mut Channel, port: &str) -> Result<()> {
    match find_turn(channel, port)? {
        Some(turn) => forgive_gone(link::doom(channel, turn.near)),
        None => Ok(()),
    }
}

/// A pair of interfaces between fence and link: packets wait at the near end.
#[derive(Debug, Clone, Copy)]
struct Turn {
    near: u32,
    far: u32,
}

/// The ends of a port's turn.
pub(super) fn turn_names(port: &str) -> [String; 2] {
    let (before, after) = port.rsplit_once('-').unwrap_or((port, ""));
    [format!("{before}_{after}"), format!("{before}={after}")]
}

fn find_turn(channel: &mut Channel, port: &str) -> Result<Option<Turn>> {
    let [near, far] = turn_names(port);
    let ends = (link::find(channel, &near)?, link::find(channel, &far)?);
    Ok(match ends {
        (Some(near), Some(far)) if near.kind == Some(InfoKind::Veth) => Some(Turn {
            near: near.index,
            far: far.index,
        }),
        _ => None,
    })
}

fn make_turn(channel: &mut Channel, port: &str) -> Result<Turn> {
    let [near, far] = turn_names(port);
    forgive_exists(link::create_turn(channel, &near, &far))?;
    let turn = find_turn(channel, port)?.ok_or_else(|| Error::Exists {
        kind: "network interface",
        name: near.clone(),
    })?;
    for (name, index) in [(&near, turn.near), (&far, turn.far)] {
        sysctl::without_ipv6(name)?;
        link::set_up(channel, index)?;
    }
    Ok(turn)
}

fn remove_turn(channel: &mut Channel, port: &str) -> Result<()> {
    match find_turn(channel, port)? {
        Some(turn) => forgive_gone(link::delete(channel, turn.near)),
        None => Ok(()),
    }
}

/// How a packet is handed to another interface: as one that came in by it, or to be sent by it.
#[derive(Debug, Clone, Copy)]
enum Way {
    Out = 0,
    /// `BPF_F_INGRESS`.
    In = 1,
}

/// Hands all to the interface: r1 = the interface; r2 = the way; call redirect; exit.
fn to(interface: u32, way: Way) -> Vec<u64> {
    vec![
        instruction(0xb7, 1, 0, 0, interface.cast_signed()),
        instruction(0xb7, 2, 0, 0, way as i32),
        instruction(0x85, 0, 0, 0, 23),
        instruction(0x95, 0, 0, 0, 0),
    ]
}

/// What a packet is marked with that has taken its turn and goes on as though it had just come in by its port: `TURN`.
const MARK: i32 = 0x5455_524e;
/// Where `struct __sk_buff` has the mark.
const MARK_FIELD: i16 = 8;

/// Marks all and hands it to the port again: r3 = the mark; store it; and as [`to`].
fn marked_to(port: u32) -> Vec<u64> {
    let mut code = vec![
        instruction(0xb7, 3, 0, 0, MARK),
        instruction(0x63, 1, 3, MARK_FIELD, 0),
    ];
    code.extend(to(port, Way::In));
    code
}

/// Lets what is marked go on without the mark, and hands the rest to the interface: r0 = the mark; if it is another, past the
/// next four; r3 = 0; store it; r0 = the next filter; exit; and as [`to`].
fn unless_marked_to(interface: u32) -> Vec<u64> {
    let mut code = vec![
        instruction(0x61, 0, 1, MARK_FIELD, 0),
        instruction(0x56, 0, 0, 4, MARK),
        instruction(0xb7, 3, 0, 0, 0),
        instruction(0x63, 1, 3, MARK_FIELD, 0),
        instruction(0xb7, 0, 0, 0, -1),
        instruction(0x95, 0, 0, 0, 0),
    ];
    code.extend(to(interface, Way::Out));
    code
}

/// Does this to what comes in by an interface, and passes its fence where it has one.
fn redirect(channel: &mut Channel, from: u32, code: &[u64]) -> Result<()> {
    let program = classifier::load(Place::Behind, code)?;
    classifier::put(channel, from, Place::Behind, &program)
}

/// Puts the bucket at the interface's way out, or takes it away.
fn set_bucket(channel: &mut Channel, link: u32, rate: Option<u64>, burst: Option<u64>) -> Result<()> {
    let mut bucket = about(link);
    bucket.header.parent = TcHandle::ROOT;
    bucket.header.handle = BUCKET;
    let Some(bits) = rate else {
        let removed = channel.request(Message::DelQueueDiscipline(bucket), 0).map(drop);
        return match removed {
            // None but the kernel's own.
            Err(e) if is_gone(&e) || is(&e, Errno::EINVAL) => Ok(()),
            other => other,
        };
    };
    let (options, target) = bucket_for(bits, burst);
    bucket.attributes = vec![TcAttribute::Kind("tbf".into()), TcAttribute::Options(options)];
    channel
        .request(Message::NewQueueDiscipline(bucket), NLM_F_CREATE | NLM_F_REPLACE)
        .map(drop)
        .during(|| "add the `tbf` queueing discipline")?;
    share_fairly(channel, link, target)
}

/// Where there is no `fq_codel`, packets wait in one queue, as long as the bucket says.
fn share_fairly(channel: &mut Channel, link: u32, target: u32) -> Result<()> {
    let mut queue = about(link);
    queue.header.parent = QUEUE;
    // TCA_FQ_CODEL_TARGET, in microseconds.
    let target = TcOption::Other(DefaultNla::new(1, target.to_ne_bytes().to_vec()));
    queue.attributes = vec![
        TcAttribute::Kind("fq_codel".into()),
        TcAttribute::Options(vec![target]),
    ];
    match channel.request(Message::NewQueueDiscipline(queue), NLM_F_CREATE | NLM_F_EXCL) {
        Err(e) if is_gone(&e) || is(&e, Errno::EEXIST) => Ok(()),
        other => other
            .map(drop)
            .during(|| "add the `fq_codel` queueing discipline"),
    }
}

/// The options of a bucket for so many bits a second, and the target of a queue in it in microseconds.
fn bucket_for(bits: u64, burst: Option<u64>) -> (Vec<TcOption>, u32) {
    let bytes = (bits / 8).max(1);
    let burst = burst.unwrap_or((bytes * BURST / 1000).max(LEAST_BURST));
    let queue = burst + (bytes * PATIENCE / 1000).max(LEAST_QUEUE);
    let frames =
        u64::try_from(u128::from(bytes) * u128::from(FRAME.0) / u128::from(FRAME.1)).unwrap_or(bytes);
    let short = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    // struct tc_tbf_qopt: two of struct tc_ratespec, limit, buffer, mtu. TC_LINKLAYER_ETHERNET spares tables of times.
    let mut parameters = vec![0, 1, 0, 0, 0, 0, 0, 0];
    parameters.extend(short(frames).to_ne_bytes());
    parameters.extend([0; 12]);
    for value in [short(queue), 0, 0] {
        parameters.extend(value.to_ne_bytes());
    }
    // TCA_TBF_PARMS, _RATE64 and _BURST.
    let options = [
        DefaultNla::new(1, parameters),
        DefaultNla::new(4, frames.to_ne_bytes().to_vec()),
        DefaultNla::new(6, short(burst).to_ne_bytes().to_vec()),
    ];
    // Time enough for one and a half frames.
    let target = (TARGET * 1000).max(FRAME.0 * 1_500_000 / bytes);
    (options.into_iter().map(TcOption::Other).collect(), short(target))
}

fn about(link: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = link.cast_signed();
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::Nla;

    fn value(option: &TcOption) -> Vec<u8> {
        let mut bytes = vec![0; option.value_len()];
        option.emit_value(&mut bytes);
        bytes
    }

    #[test]
    fn the_bucket_is_what_the_kernel_reads() {
        let (options, target) = bucket_for(10_000_000, None);
        let parameters = value(&options[0]);
        assert_eq!(parameters.len(), 36);
        let number = |at: usize| u32::from_ne_bytes(parameters[at..at + 4].try_into().unwrap());
        assert_eq!(number(8), 1_250_000 * 1514 / 1500);
        assert_eq!(u64::from(number(24)), LEAST_BURST + 62_500);
        assert_eq!(target, 5000);
        let (_, target) = bucket_for(64_000, None);
        assert!(target > 250_000, "{target}");
    }

    #[test]
    fn the_turn_has_a_name_of_its_own() {
        assert_eq!(turn_names("condo-99999"), ["condo_99999", "condo=99999"]);
        assert_eq!(turn_names("c12345678-99999")[0].len(), 15);
        assert_eq!(turn_names("vc7"), ["vc7_", "vc7="]);
    }
}
