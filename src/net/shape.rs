//! The way that a VPS's packets take behind the fence, and bandwidth: a token bucket for each direction (`tc-tbf(8)`).
//!
//! ```text
//! to the VPS    link ── host's end of the veth pair
//! from it       host's end ── fence ── link
//! ```
//! With a limit, both go through a pair of interfaces that all ports of a VPS share, the turn, whose ends have the buckets:
//!
//! ```text
//! to the VPS    link ── host's end, way out ── bucket, far ══ near ── host's end again
//! from it       host's end ── fence ── bucket, near ══ far ── link, or the host's end again on a bridge of the operator's
//! ```
//! What is in the turn has the number of the interface that it goes on to as its mark. Packets of a port are handed to the network's
//! link as though they had come in by it: the host is all that they may reach.
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
use crate::sys::bpf::op::{
    AND, CALL, EXIT, JUMP_IF_LESS_32, JUMP_UNLESS_EQUAL_32, LOAD_WORD, MOVE, MOVE_REGISTER, STORE_REGISTER,
};

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

/// Holds the ports of one VPS to these rates from now on, all together, whatever they were held to before. Packets that wait
/// meanwhile are kept or lost, as after any congestion.
///
/// # Errors
/// [`Error::NotFound`] when there is no such port, and the kernel's.
pub fn shape(ports: &[(&Network, &Port)], rates: &Rates) -> Result<()> {
    let Some((_, Port { line, .. })) = ports.first() else {
        return Ok(());
    };
    if !classifier::may_load() {
        return match *rates == Rates::default() {
            true => Ok(()),
            false => Err(Error::unsupported(
                "a bandwidth for a VPS inside another",
                "nobody may load the programs there that lead packets by its bucket; give that VPS a bandwidth",
            )),
        };
    }
    hold(line, ports, rates).during(|| format!("limit the bandwidth of `{line}`"))
}

fn hold(line: &str, ports: &[(&Network, &Port)], rates: &Rates) -> Result<()> {
    let mut channel = Channel::route()?;
    let turn = match (rates.incoming, rates.outgoing) {
        (None, None) => None,
        _ => Some(make_turn(&mut channel, line)?),
    };
    if let Some(turn) = turn {
        set_bucket(&mut channel, turn.near, rates.outgoing, rates.burst)?;
        set_bucket(&mut channel, turn.far, rates.incoming, rates.burst)?;
    }
    for (network, port) in ports {
        let link = link::get(&mut channel, &port.host_if)?;
        network.aim(&mut channel, &link, turn)?;
        // Where versions before had the bucket, and each port a turn.
        set_bucket(&mut channel, link.index, None, None)?;
        if port.host_if != line {
            remove_turn(&mut channel, &port.host_if)?;
        }
    }
    match turn {
        Some(_) => Ok(()),
        None => remove_turn(&mut channel, line),
    }
}

impl Network {
    /// Leads a port's packets the way that its network and the turn that it has, if any, ask for.
    pub(super) fn lead(&self, channel: &mut Channel, port: &Port) -> Result<()> {
        let link = link::get(channel, &port.host_if)?;
        let turn = find_turn(channel, &port.line)?;
        self.aim(channel, &link, turn)
    }

    /// The turn first: nothing is sent where nobody takes it on.
    fn aim(&self, channel: &mut Channel, port: &Link, turn: Option<Turn>) -> Result<()> {
        // Behind an operator's bridge are others than the host.
        let bridge = match self.kind.is_bridged() {
            true => None,
            false => Some(link::get(channel, &self.bridge)?.index),
        };
        if let Some(turn) = turn {
            for (end, code) in [(turn.far, onwards()), (turn.near, turned())] {
                redirect(channel, end, Place::Behind, &code)?;
            }
        }
        match (turn, bridge) {
            (None, Some(bridge)) => redirect(channel, port.index, Place::Behind, &to(bridge, Way::In))?,
            (None, None) => classifier::remove(channel, port.index, Place::Behind)?,
            (Some(turn), Some(bridge)) => {
                redirect(channel, port.index, Place::Behind, &marked_to(bridge, turn.near))?;
            }
            (Some(turn), None) => {
                let back = port.index.cast_signed() | BACK;
                redirect(
                    channel,
                    port.index,
                    Place::Behind,
                    &unless_turned_to(back, turn.near),
                )?;
            }
        }
        match turn {
            None => classifier::remove(channel, port.index, Place::Out),
            Some(turn) => {
                let own = port.index.cast_signed();
                redirect(channel, port.index, Place::Out, &unless_turned_to(own, turn.far))
            }
        }
    }
}

/// Gives up what the ports of a VPS share, by the name of the first, whether that is there or not. It goes with the next
/// [`sweep`](super::sweep).
///
/// # Errors
/// Those of the netlink socket.
pub fn give_up(line: &str) -> Result<()> {
    clear(&mut Channel::route()?, line)
}

/// Gives up what is beside a port that is given up.
pub(super) fn clear(channel: &mut Channel, port: &str) -> Result<()> {
    match find_turn(channel, port)? {
        Some(turn) => forgive_gone(link::doom(channel, turn.near)),
        None => Ok(()),
    }
}

/// A pair of interfaces that a VPS's packets go through: those that it sends wait at the near end, those that it receives at the far one.
#[derive(Debug, Clone, Copy)]
struct Turn {
    near: u32,
    far: u32,
}

/// The ends of the turn that belongs to a VPS's first port.
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
    link::await_carrier(channel, &near)?;
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

/// Where `struct __sk_buff` has the mark.
const MARK: i16 = 8;
/// What a packet is marked with that has taken its turn and goes on by its port: `TURN`.
const TURNED: i32 = 0x5455_524e;
/// Beside the number of a port: the packet goes on as though it had just come in by that.
const BACK: i32 = i32::MIN;

/// Hands all to the interface: r1 = the interface; r2 = the way; call redirect; exit.
fn to(interface: u32, way: Way) -> Vec<u64> {
    let mut code = vec![instruction(MOVE, 1, 0, 0, interface.cast_signed())];
    code.extend(redirected(way));
    code
}

/// r2 = the way; call redirect; exit.
fn redirected(way: Way) -> [u64; 3] {
    [
        instruction(MOVE, 2, 0, 0, way as i32),
        instruction(CALL, 0, 0, 0, 23),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

/// r3 = the mark; store it.
fn mark(number: i32) -> [u64; 2] {
    [
        instruction(MOVE, 3, 0, 0, number),
        instruction(STORE_REGISTER, 1, 3, MARK, 0),
    ]
}

/// Marks all with where it goes on to, and hands it to the interface.
fn marked_to(onwards: u32, interface: u32) -> Vec<u64> {
    let mut code = mark(onwards.cast_signed()).to_vec();
    code.extend(to(interface, Way::Out));
    code
}

/// Lets what has taken its turn go on without the mark, and the rest take it: r0 = the mark; if it is another, past the next four;
/// no mark; r0 = the next filter; exit.
fn unless_turned_to(onwards: i32, interface: u32) -> Vec<u64> {
    let mut code = vec![
        instruction(LOAD_WORD, 0, 1, MARK, 0),
        instruction(JUMP_UNLESS_EQUAL_32, 0, 0, 4, TURNED),
    ];
    code.extend(mark(0));
    code.extend([
        instruction(MOVE, 0, 0, 0, classifier::NEXT),
        instruction(EXIT, 0, 0, 0, 0),
    ]);
    code.extend(mark(onwards));
    code.extend(to(interface, Way::Out));
    code
}

/// At the far end, what the VPS sends: r4 = the mark; if that is negative, on to the second half; no mark; r1 = r4; into it. Second half:
/// the same with [`TURNED`] as the mark, and r4 without [`BACK`].
fn onwards() -> Vec<u64> {
    let handed = |code: &mut Vec<u64>| {
        code.push(instruction(MOVE_REGISTER, 1, 4, 0, 0));
        code.extend(redirected(Way::In));
    };
    let mut code = vec![
        instruction(LOAD_WORD, 4, 1, MARK, 0),
        instruction(JUMP_IF_LESS_32, 4, 0, 6, 0),
    ];
    code.extend(mark(0));
    handed(&mut code);
    code.extend(mark(TURNED));
    code.push(instruction(AND, 4, 0, 0, !BACK));
    handed(&mut code);
    code
}

/// At the near end, what the VPS receives: r4 = the mark; marked as turned; r1 = r4; out by it.
fn turned() -> Vec<u64> {
    let mut code = vec![instruction(LOAD_WORD, 4, 1, MARK, 0)];
    code.extend(mark(TURNED));
    code.push(instruction(MOVE_REGISTER, 1, 4, 0, 0));
    code.extend(redirected(Way::Out));
    code
}

/// Does this to what goes by an interface.
fn redirect(channel: &mut Channel, at: u32, place: Place, code: &[u64]) -> Result<()> {
    let program = classifier::load(place, code)?;
    classifier::put_at_port(channel, at, (place, &program))
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
