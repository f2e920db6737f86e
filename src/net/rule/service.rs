//! Expressions that published ports and the firewalls of VPSs need: maps, translation of destinations, ports, logs.

use ipnetwork::IpNetwork;
use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, DataAttribute, Expressions, Lookup, Meta, MetaKey, Operator, Payload, Register,
};

use super::super::map::{Family, Map};
use super::{CT_KEY, CT_REGISTER, Field, KEY, Rule, number};

/// The destination's port of TCP and UDP.
const PORT: Field = Field(2, 2, 2);
/// ICMP and ICMPv6 have their type in the first byte.
const ICMP_TYPE: Field = Field(2, 0, 1);
/// `ICMP`, `ICMPv6`.
pub(in super::super) const ICMP: u8 = 1;
pub(in super::super) const ICMPV6: u8 = 58;

impl Family {
    /// Where its packets have their source.
    pub(in super::super) fn source(self) -> Field {
        match self {
            Self::V4 => Field(1, 12, 4),
            Self::V6 => Field(1, 8, 16),
        }
    }

    /// Where its packets have their destination.
    pub(in super::super) fn destination(self) -> Field {
        match self {
            Self::V4 => Field(1, 16, 4),
            Self::V6 => Field(1, 24, 16),
        }
    }

    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
    fn protocol(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

impl Rule {
    /// The packet is of this family; to be said before any of its fields is named.
    pub(in super::super) fn of(self, family: Family) -> Self {
        self.meta(MetaKey::Nfproto)
            .compare(Operator::Equal, &[family.protocol()])
    }

    /// The packet is for an address of this host.
    pub(in super::super) fn for_this_host(self) -> Self {
        const LOCAL: u32 = 2;
        // NFTA_FIB_DREG, _RESULT with NFT_FIB_RESULT_ADDRTYPE, _FLAGS with NFTA_FIB_F_DADDR; RTN_LOCAL.
        let attributes = vec![number(1, Register::Reg1.into()), number(2, 3), number(3, 2)];
        self.other("fib", attributes)
            .compare(Operator::Equal, &LOCAL.to_ne_bytes())
    }

    /// The packet answers what another began.
    pub(in super::super) fn answering(self) -> Self {
        // NFT_CT_DIRECTION, IP_CT_DIR_REPLY.
        let attributes = vec![number(CT_REGISTER, Register::Reg1.into()), number(CT_KEY, 1)];
        self.other("ct", attributes).compare(Operator::Equal, &[1])
    }

    /// The packet relates to a connection: an error about it, for one.
    pub(in super::super) fn relating(self) -> Self {
        // NFT_CT_STATE with the bit of IP_CT_RELATED.
        let attributes = vec![number(CT_REGISTER, Register::Reg1.into()), number(CT_KEY, 0)];
        self.other("ct", attributes)
            .mask(&4_u32.to_ne_bytes())
            .compare(Operator::NotEqual, &[0; 4])
    }

    /// The connection's destination was not translated.
    pub(in super::super) fn not_redirected(self) -> Self {
        // NFT_CT_STATUS with IPS_DST_NAT.
        let attributes = vec![number(CT_REGISTER, Register::Reg1.into()), number(CT_KEY, 2)];
        self.other("ct", attributes)
            .mask(&(1_u32 << 5).to_ne_bytes())
            .compare(Operator::Equal, &[0; 4])
    }

    /// Neither end of the connection was translated, nor a port of theirs.
    pub(in super::super) fn untranslated(self) -> Self {
        // NFT_CT_STATUS with IPS_SRC_NAT and IPS_DST_NAT.
        let attributes = vec![number(CT_REGISTER, Register::Reg1.into()), number(CT_KEY, 2)];
        self.other("ct", attributes)
            .mask(&(3_u32 << 4).to_ne_bytes())
            .compare(Operator::Equal, &[0; 4])
    }

    /// The packet has this protocol above IP.
    pub(in super::super) fn carrying(self, protocol: u8) -> Self {
        self.meta(MetaKey::L4Proto).compare(Operator::Equal, &[protocol])
    }

    /// The destination's port is one of these; to be said after the protocol.
    pub(in super::super) fn at_ports(self, first: u16, last: u16) -> Self {
        let rule = self.load(PORT, Register::Reg1);
        if first == last {
            return rule.compare(Operator::Equal, &first.to_be_bytes());
        }
        rule.compare(Operator::GreatherThanEqual, &first.to_be_bytes())
            .compare(Operator::LessThanEqual, &last.to_be_bytes())
    }

    /// The type of ICMP is one of these; to be said after the protocol.
    pub(in super::super) fn of_types(self, first: u8, last: u8) -> Self {
        self.load(ICMP_TYPE, Register::Reg1)
            .compare(Operator::GreatherThanEqual, &[first])
            .compare(Operator::LessThanEqual, &[last])
    }

    /// The field holds an address of this network; to be said after the family.
    pub(in super::super) fn in_network(self, field: Field, network: IpNetwork) -> Self {
        let (mask, address) = match network {
            IpNetwork::V4(v4) => (v4.mask().octets().to_vec(), v4.network().octets().to_vec()),
            IpNetwork::V6(v6) => (v6.mask().octets().to_vec(), v6.network().octets().to_vec()),
        };
        self.load(field, Register::Reg1)
            .then(Expressions::Bitwise(vec![
                Bitwise::SourceRegister(Register::Reg1),
                Bitwise::DestinationRegister(Register::Reg1),
                Bitwise::Length(u32::try_from(mask.len()).unwrap_or_default()),
                Bitwise::Xor(DataAttribute::Value(vec![0; mask.len()])),
                Bitwise::Mask(DataAttribute::Value(mask)),
            ]))
            .compare(Operator::Equal, &address)
    }

    /// The packet is for an address of somebody's loopback.
    pub(in super::super) fn loopback(self) -> Self {
        self.of(Family::V4)
            .load(Field(1, 16, 1), Register::Reg1)
            .compare(Operator::Equal, &[127])
    }

    /// Goes where the map says for what the field holds, and on when it says nothing.
    pub(in super::super) fn go_by(self, field: Field, map: &Map) -> Self {
        self.load(field, KEY).then(Expressions::Lookup(vec![
            Lookup::Set(map.name.to_owned()),
            Lookup::SourceRegister(KEY),
            Lookup::DestinationRegister(Register::Verdict),
        ]))
    }

    /// The fields, one after the other, are in the map.
    pub(in super::super) fn among(self, fields: &[Field], map: &Map) -> Self {
        let (rule, _) = self.load_all(fields);
        rule.then(Expressions::Lookup(vec![
            Lookup::Set(map.name.to_owned()),
            Lookup::SourceRegister(KEY),
        ]))
    }

    /// Loads fields one after the other, and the register behind them.
    fn load_all(self, fields: &[Field]) -> (Self, u32) {
        fields
            .iter()
            .fold((self, u32::from(KEY)), |(rule, register), field| {
                let loaded = rule.load(*field, Register::Other(register));
                (loaded, register + field.2.div_ceil(4))
            })
    }

    /// The packet and those after it go where the map says, which is asked for the fields, the protocol and the destination's port.
    /// With `port` the map has one as well; else the destination's stays.
    pub(in super::super) fn redirect(self, family: Family, fields: &[Field], map: &Map, port: bool) -> Self {
        let (rule, register) = self.load_all(fields);
        let rule = rule
            .then(Expressions::Meta(vec![
                Meta::Key(MetaKey::L4Proto),
                Meta::DestinationRegister(Register::Other(register)),
            ]))
            .then(Expressions::Payload(vec![
                Payload::DestinationRegister(Register::Other(register + 1)),
                Payload::Base(PORT.0),
                Payload::Offset(PORT.1),
                Payload::Len(PORT.2),
            ]))
            .then(Expressions::Lookup(vec![
                Lookup::Set(map.name.to_owned()),
                Lookup::SourceRegister(KEY),
                Lookup::DestinationRegister(KEY),
            ]));
        // NFTA_NAT_TYPE with NFT_NAT_DNAT, _FAMILY, _REG_ADDR_MIN and _MAX, _REG_PROTO_MIN and _MAX.
        let mut attributes = vec![
            number(1, 1),
            number(2, family.protocol().into()),
            number(3, KEY.into()),
            number(4, KEY.into()),
        ];
        if port {
            let behind = u32::from(KEY) + family.length() / 4;
            attributes.extend([number(5, behind), number(6, behind)]);
        }
        rule.other("nat", attributes)
    }

    /// What fits is written to the kernel's log with these words before it, at most ten times a second.
    pub(in super::super) fn log(self, words: &str) -> Self {
        // NFTA_LIMIT_RATE, _UNIT and _BURST.
        let limit = vec![
            DefaultNla::new(1, 10_u64.to_be_bytes().to_vec()),
            DefaultNla::new(2, 1_u64.to_be_bytes().to_vec()),
            number(3, 20),
        ];
        // NFTA_LOG_PREFIX, and _LEVEL with LOG_INFO.
        let log = vec![
            DefaultNla::new(2, [words.as_bytes(), &[0]].concat()),
            number(5, 6),
        ];
        self.other("limit", limit).other("log", log)
    }
}
