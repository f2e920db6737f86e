//! Programs as filters of a queueing discipline (`clsact`, `tc-bpf(8)`): at ports, which they are put at without a wait, and at links of
//! kernels before Linux 6.6 or of an older version of condo's.

use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};
use nix::errno::Errno;

use super::super::netlink::{Channel, forgive_exists, is, is_gone};
use super::{Manner, Place};
use crate::error::{During, Result};

/// `ETH_P_ALL` as the lower half of a filter's information.
const ALL: u32 = 3_u16.to_be() as u32;

impl Place {
    /// The one filter at it.
    fn of(self, link: u32) -> TcMessage {
        let (minor, priority) = match self {
            Self::In => (TcHandle::MIN_INGRESS, 1),
            Self::Behind => (TcHandle::MIN_INGRESS, 2),
            Self::Out => (TcHandle::MIN_EGRESS, 1),
        };
        let major = u16::MAX;
        let mut filter = about(link, TcHandle { major, minor });
        filter.header.handle = 1.into();
        filter.header.info = priority << 16 | ALL;
        filter
    }

    /// For asking about it.
    fn named(self, link: u32) -> TcMessage {
        let mut filter = self.of(link);
        filter.attributes = vec![TcAttribute::Kind(TcFilterBpf::KIND.into())];
        filter
    }
}

/// Puts a program at the place: in place of what is there, or unless there is one.
pub(super) fn put(
    channel: &mut Channel,
    link: u32,
    (place, program): (Place, &OwnedFd),
    manner: Manner,
) -> Result<()> {
    ensure_places(channel, link)?;
    let flags = match manner {
        Manner::Replace => NLM_F_REPLACE,
        Manner::Leave => NLM_F_EXCL,
    };
    let name = place.name();
    let options = [
        TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned()),
        TcFilterBpfOption::ProgName(name.into()),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    let mut filter = place.named(link);
    let options = options.into_iter().map(TcOption::Bpf).collect();
    filter.attributes.push(TcAttribute::Options(options));
    let put = channel.request(Message::NewTrafficFilter(filter), NLM_F_CREATE | flags);
    match manner {
        Manner::Leave => forgive_exists(put.map(drop)),
        Manner::Replace => put.map(drop),
    }
    .during(|| format!("attach the program `{name}`"))
}

/// The number of the program that is there; nothing is where there is none.
pub(super) fn find(channel: &mut Channel, link: u32, place: Place) -> Result<Option<u32>> {
    let name = place.name();
    let answers = match channel.request(Message::GetTrafficFilter(place.named(link)), 0) {
        // No such filter, and no such queueing discipline.
        Err(e) if is_gone(&e) || is(&e, Errno::EINVAL) => return Ok(None),
        other => other.during(|| format!("look up the program `{name}`"))?,
    };
    let options = answers.into_iter().flat_map(|answer| match answer {
        Message::NewTrafficFilter(filter) => filter.attributes,
        _ => Vec::new(),
    });
    Ok(options.into_iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.into_iter().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(id),
            _ => None,
        }),
        _ => None,
    }))
}

/// Removes the program that is there; none is fine.
pub(super) fn remove(channel: &mut Channel, link: u32, place: Place) -> Result<()> {
    match channel.request(Message::DelTrafficFilter(place.named(link)), 0) {
        Err(e) if is_gone(&e) || is(&e, Errno::EINVAL) => Ok(()),
        other => other
            .map(drop)
            .during(|| format!("remove the program `{}`", place.name())),
    }
}

/// Makes the places of an interface, unless they are there.
fn ensure_places(channel: &mut Channel, link: u32) -> Result<()> {
    let mut qdisc = about(link, TcHandle::CLSACT);
    qdisc.header.handle = TcHandle {
        major: u16::MAX,
        minor: 0,
    };
    qdisc.attributes = vec![TcAttribute::Kind("clsact".into())];
    let made = channel.request(Message::NewQueueDiscipline(qdisc), NLM_F_CREATE | NLM_F_EXCL);
    forgive_exists(made.map(drop)).during(|| "add the `clsact` queueing discipline")
}

fn about(link: u32, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = link.cast_signed();
    message.header.parent = parent;
    message
}
