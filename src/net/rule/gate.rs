//! What the two halves of a gate are made of.

use netlink_packet_netfilter::nftables::{
    DataAttribute, Expressions, Immediate, Meta, MetaKey, Operator, Register,
};

use super::Rule;

/// `ETH_P_ARP`.
const ARP: u16 = 0x0806;

impl Rule {
    /// The packet is one of ARP.
    pub(in super::super) fn arp(self) -> Self {
        self.meta(MetaKey::EtherTypeProtocol)
            .compare(Operator::Equal, &ARP.to_be_bytes())
    }

    /// The packet has this mark.
    pub(in super::super) fn marked(self, mark: u32) -> Self {
        self.meta(MetaKey::Mark)
            .compare(Operator::Equal, &mark.to_ne_bytes())
    }

    /// The packet gets this mark.
    pub(in super::super) fn mark(self, mark: u32) -> Self {
        self.set_meta(MetaKey::Mark, &mark.to_ne_bytes())
    }

    /// The packet is for this host, whatever the interface made of it.
    pub(in super::super) fn for_us(self) -> Self {
        // PACKET_HOST.
        self.set_meta(MetaKey::PacketType, &[0])
    }

    fn set_meta(self, key: MetaKey, value: &[u8]) -> Self {
        self.then(Expressions::Immediate(vec![
            Immediate::DestinationRegister(Register::Reg1),
            Immediate::Data(DataAttribute::Value(value.to_vec())),
        ]))
        .then(Expressions::Meta(vec![
            Meta::Key(key),
            Meta::SourceRegister(Register::Reg1),
        ]))
    }
}
