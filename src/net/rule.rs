//! One nftables rule, built expression by expression in the order in which the kernel runs them.
//!
//! An expression that finds no match ends the rule. Some also end it when the packet has no such header, so a rule must
//! never be the only thing that drops: each chain accepts what is known to be good and ends in a plain drop.

mod gate;
mod service;

use ipnetwork::Ipv4Network;
use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Lookup, Meta,
    MetaKey, Operator, Payload, Register, Verdict, VerdictAttribute,
};

pub(super) use service::{ICMP, ICMPV6};

use super::link::Group;
use super::set::Set;

/// `NFPROTO_IPV4` and `NFPROTO_IPV6`.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// `NFT_LOOKUP_F_INV`: the rule goes on when there is no such element.
const NONE: u32 = 1;
/// The type of Ethernet interfaces, in `linux/if_arp.h`.
const ARPHRD_ETHER: u16 = 1;
/// `NF_DROP` and `NF_ACCEPT`.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// `NFTA_CT_DREG` and `NFTA_CT_KEY` of the `ct` expression, which the packet library does not have.
const CT_REGISTER: u16 = 1;
const CT_KEY: u16 = 2;
/// `NFT_REG32_00`, the first 32-bit register: where concatenated keys begin.
const KEY: Register = Register::Reg32_00;

/// A part of a packet: header, offset and length in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field(u32, u32, u32);

/// Source address of the Ethernet frame.
pub(super) const ETHER_SOURCE: Field = Field(0, 6, 6);
/// IPv4 source address.
pub(super) const SOURCE: Field = Field(1, 12, 4);
/// IPv4 destination address.
pub(super) const DESTINATION: Field = Field(1, 16, 4);
/// IPv6 source address.
pub(super) const SOURCE6: Field = Field(1, 8, 16);
/// IPv6 destination address.
pub(super) const DESTINATION6: Field = Field(1, 24, 16);
/// IPv4 number of a packet, and flags and offset of a fragment.
const FRAGMENT: Field = Field(1, 4, 4);
/// IPv6 next header.
const NEXT_HEADER: Field = Field(1, 6, 1);
/// ICMP type, of either version.
const ICMP_TYPE: Field = Field(2, 0, 1);

/// Connection facts that a rule can ask for: the key and the bits, as `linux/netfilter/nf_conntrack_common.h` has them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Connection {
    /// The packet begins a connection.
    New,
    /// The packet belongs to a connection that has had an answer.
    Established,
    /// The packet belongs or relates to such a connection.
    Known,
    /// The connection's destination was translated by somebody's rule.
    Redirected,
}

/// A rule under construction.
#[derive(Debug, Default)]
pub(super) struct Rule {
    expressions: Vec<ListAttribute<ExpressionAttribute>>,
}

impl Rule {
    /// A rule that matches every packet.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// The expressions, for a netlink message.
    pub(super) fn expressions(&self) -> &[ListAttribute<ExpressionAttribute>] {
        &self.expressions
    }

    fn then(mut self, expression: Expressions) -> Self {
        self.expressions.push(expression.into());
        self
    }

    /// The packet came in by an interface whose name is in the set.
    pub(super) fn from(self, links: Set) -> Self {
        self.name_of(MetaKey::Iifname).look_up(links.name)
    }

    /// The packet came in by this interface, in the words of iptables(8).
    pub(super) fn coming_by(self, link: &str) -> Self {
        self.meta(MetaKey::Iifname)
            .compare(Operator::Equal, &[link.as_bytes(), &[0]].concat())
    }

    /// The packet leaves by this interface, likewise.
    pub(super) fn leaving_by(self, link: &str) -> Self {
        self.meta(MetaKey::Oifname)
            .compare(Operator::Equal, &[link.as_bytes(), &[0]].concat())
    }

    /// The packet came in by an interface of these groups.
    pub(super) fn in_group(self, group: Group) -> Self {
        self.meta(MetaKey::Iifgroup)
            .mask(&group.mask.to_ne_bytes())
            .compare(Operator::Equal, &group.value.to_ne_bytes())
    }

    /// The packet came in by another interface.
    pub(super) fn not_from(self, links: Set) -> Self {
        self.name_of(MetaKey::Iifname).look_up_none(links.name)
    }

    /// The packet leaves by an interface whose name is in the set.
    pub(super) fn to(self, links: Set) -> Self {
        self.name_of(MetaKey::Oifname).look_up(links.name)
    }

    /// The packet leaves by another interface.
    pub(super) fn not_to(self, links: Set) -> Self {
        self.name_of(MetaKey::Oifname).look_up_none(links.name)
    }

    /// The packet is IPv4; to be said before any of its fields is named.
    pub(super) fn ipv4(self) -> Self {
        self.meta(MetaKey::Nfproto).compare(Operator::Equal, &[IPV4])
    }

    /// The packet is IPv6; as for [`Rule::ipv4`].
    pub(super) fn ipv6(self) -> Self {
        self.meta(MetaKey::Nfproto).compare(Operator::Equal, &[IPV6])
    }

    /// The packet leaves by an Ethernet interface, where neighbours have to be looked for.
    pub(super) fn leaving_ethernet(self) -> Self {
        self.meta(MetaKey::Oiftype)
            .compare(Operator::Equal, &ARPHRD_ETHER.to_ne_bytes())
    }

    /// The packet came in by an Ethernet interface; to be said before a field of the frame is named.
    pub(super) fn ethernet(self) -> Self {
        self.meta(MetaKey::Iftype)
            .compare(Operator::Equal, &ARPHRD_ETHER.to_ne_bytes())
    }

    /// The packet is ICMP of this type.
    pub(super) fn icmp(self, kind: u8) -> Self {
        const ICMP: u8 = 1;
        self.ipv4().of_type(ICMP, kind)
    }

    /// The packet is ICMPv6 of this type.
    pub(super) fn icmp6(self, kind: u8) -> Self {
        const ICMPV6: u8 = 58;
        self.ipv6().of_type(ICMPV6, kind)
    }

    fn of_type(self, protocol: u8, kind: u8) -> Self {
        self.meta(MetaKey::L4Proto)
            .compare(Operator::Equal, &[protocol])
            .load(ICMP_TYPE, Register::Reg1)
            .compare(Operator::Equal, &[kind])
    }

    /// The IPv4 field holds an address of this network.
    pub(super) fn within(self, field: Field, network: Ipv4Network) -> Self {
        self.load(field, Register::Reg1)
            .mask(&network.mask().octets())
            .compare(Operator::Equal, &network.network().octets())
    }

    /// An IPv4 packet that is a part of one: more follow it, or came before.
    pub(super) fn fragment(self) -> Self {
        self.ipv4()
            .load(FRAGMENT, Register::Reg1)
            .mask(&[0, 0, 0x3f, 0xff])
            .compare(Operator::NotEqual, &[0; 4])
    }

    /// An IPv6 packet that begins with this header.
    pub(super) fn header6(self, kind: u8) -> Self {
        self.ipv6().is(NEXT_HEADER, &[kind])
    }

    /// The field holds these bytes.
    pub(super) fn is(self, field: Field, bytes: &[u8]) -> Self {
        self.load(field, Register::Reg1).compare(Operator::Equal, bytes)
    }

    /// The fields, one after the other, are an element of the set.
    pub(super) fn in_set(self, fields: &[Field], set: Set) -> Self {
        let mut register = u32::from(KEY);
        let mut rule = self;
        for field in fields {
            rule = rule.load(*field, Register::Other(register));
            register += field.2.div_ceil(4);
        }
        rule.look_up(set.name)
    }

    fn look_up(self, set: &str) -> Self {
        self.then(Expressions::Lookup(vec![
            Lookup::Set(set.to_owned()),
            Lookup::SourceRegister(KEY),
        ]))
    }

    fn look_up_none(self, set: &str) -> Self {
        self.then(Expressions::Lookup(vec![
            Lookup::Set(set.to_owned()),
            Lookup::SourceRegister(KEY),
            Lookup::Flags(NONE),
        ]))
    }

    /// Puts an interface's name where keys are.
    fn name_of(self, which: MetaKey) -> Self {
        self.then(Expressions::Meta(vec![
            Meta::Key(which),
            Meta::DestinationRegister(KEY),
        ]))
    }

    /// The connection is of this sort.
    pub(super) fn connection(self, connection: Connection) -> Self {
        // NFT_CT_STATE with the bits of established, related and new; NFT_CT_STATUS with IPS_DST_NAT.
        let (key, bits): (u32, u32) = match connection {
            Connection::Established => (0, 2),
            Connection::Known => (0, 2 | 4),
            Connection::New => (0, 8),
            Connection::Redirected => (2, 1 << 5),
        };
        let attributes = vec![number(CT_REGISTER, Register::Reg1.into()), number(CT_KEY, key)];
        self.other("ct", attributes)
            .mask(&bits.to_ne_bytes())
            .compare(Operator::NotEqual, &[0; 4])
    }

    /// Enters the field into the set, where connections are counted, and goes on when it has more than this many of them.
    pub(super) fn beyond(self, connections: u32, field: Field, set: Set) -> Self {
        // NFTA_CONNLIMIT_COUNT, and NFTA_CONNLIMIT_FLAGS with NFT_CONNLIMIT_F_INV: more than.
        let limit = [number(1, connections), number(2, 1)];
        self.load(field, KEY).enter(set, Some(("connlimit", &limit)))
    }

    /// Enters the field into the set, and goes on when that happens more often than so many times a second, after a burst.
    pub(super) fn oftener(self, (a_second, burst): (u64, u32), field: Field, set: Set) -> Self {
        // NFTA_LIMIT_RATE, _UNIT and _BURST, and _FLAGS with NFT_LIMIT_F_INV: more often than.
        let limit = [
            DefaultNla::new(1, a_second.to_be_bytes().to_vec()),
            DefaultNla::new(2, 1_u64.to_be_bytes().to_vec()),
            number(3, burst),
            number(5, 1),
        ];
        self.load(field, KEY).enter(set, Some(("limit", &limit)))
    }

    /// The field, and the neighbour of this host's that the packet goes to next, are an element of the set.
    pub(super) fn next_hop_in_set(self, field: Field, set: Set) -> Self {
        self.load(field, KEY).next_hop(field).look_up(set.name)
    }

    /// Enters them.
    pub(super) fn enter_next_hop(self, field: Field, set: Set) -> Self {
        self.load(field, KEY).next_hop(field).enter(set, None)
    }

    /// The next hop, behind the field.
    fn next_hop(self, field: Field) -> Self {
        let register = Register::Other(u32::from(KEY) + field.2.div_ceil(4));
        // NFTA_RT_DREG, and NFTA_RT_KEY with NFT_RT_NEXTHOP4 or _NEXTHOP6.
        let key = if field.2 == SOURCE.2 { 1 } else { 2 };
        self.other("rt", vec![number(1, register.into()), number(2, key)])
    }

    fn enter(self, set: Set, limit: Option<(&str, &[DefaultNla])>) -> Self {
        // NFTA_DYNSET_SET_NAME, _OP with NFT_DYNSET_OP_ADD, and _SREG_KEY.
        let mut attributes = vec![
            DefaultNla::new(1, [set.name.as_bytes(), &[0]].concat()),
            number(3, 0),
            number(4, KEY.into()),
        ];
        if let Some((name, data)) = limit {
            // NFTA_DYNSET_EXPR of NFTA_EXPR_NAME and _DATA.
            let expression = [
                DefaultNla::new(1, [name.as_bytes(), &[0]].concat()),
                DefaultNla::new(2 | NLA_F_NESTED, bytes_of(data)),
            ];
            attributes.push(DefaultNla::new(7 | NLA_F_NESTED, bytes_of(&expression)));
        }
        self.other("dynset", attributes)
    }

    /// The packet goes on.
    pub(super) fn accept(self) -> Self {
        self.verdict(ACCEPT)
    }

    /// The packet is counted.
    pub(super) fn counted(self) -> Self {
        self.other("counter", Vec::new())
    }

    /// The packet is counted and dropped.
    pub(super) fn drop(self) -> Self {
        self.counted().verdict(DROP)
    }

    /// The packet leaves under the host's address.
    pub(super) fn masquerade(self) -> Self {
        self.other("masq", Vec::new())
    }

    fn other(self, name: &str, attributes: Vec<DefaultNla>) -> Self {
        self.then(Expressions::Other {
            expression_type: name.to_owned(),
            attributes,
        })
    }

    fn verdict(self, code: u32) -> Self {
        let verdict = VerdictAttribute::Code(Verdict::Other(code));
        self.then(Expressions::Immediate(vec![
            Immediate::DestinationRegister(Register::Verdict),
            Immediate::Data(DataAttribute::Verdict(vec![verdict])),
        ]))
    }

    fn meta(self, key: MetaKey) -> Self {
        self.then(Expressions::Meta(vec![
            Meta::Key(key),
            Meta::DestinationRegister(Register::Reg1),
        ]))
    }

    fn load(self, field: Field, register: Register) -> Self {
        self.then(Expressions::Payload(vec![
            Payload::DestinationRegister(register),
            Payload::Base(field.0),
            Payload::Offset(field.1),
            Payload::Len(field.2),
        ]))
    }

    fn mask(self, mask: &[u8; 4]) -> Self {
        self.then(Expressions::Bitwise(vec![
            Bitwise::SourceRegister(Register::Reg1),
            Bitwise::DestinationRegister(Register::Reg1),
            Bitwise::Length(4),
            Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
            Bitwise::Xor(DataAttribute::Value(vec![0; 4])),
        ]))
    }

    fn compare(self, operator: Operator, value: &[u8]) -> Self {
        self.then(Expressions::Cmp(vec![
            Cmp::SourceRegister(Register::Reg1),
            Cmp::Op(operator),
            Cmp::Data(DataAttribute::Value(value.to_vec())),
        ]))
    }
}

fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

fn bytes_of(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}
