//! What a VPS has sent and received since it was created.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Bytes, with the headers of Ethernet, and packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.packets = self.packets.saturating_add(other.packets);
    }
}

/// Both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// What it received.
    #[serde(rename = "in")]
    pub incoming: Amount,
    /// What it sent.
    #[serde(rename = "out")]
    pub outgoing: Amount,
}

impl Flow {
    /// Whether nothing went either way.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign for Flow {
    fn add_assign(&mut self, other: Self) {
        self.incoming += other.incoming;
        self.outgoing += other.outgoing;
    }
}

/// All of it, and by month.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Since it was created.
    #[serde(flatten)]
    pub total: Flow,
    /// In each month, as `2026-11` in UTC. What went through before midnight of its last day and was read later is the next one's.
    pub months: BTreeMap<String, Flow>,
}

impl Traffic {
    /// From what there is of each month.
    pub fn of(months: BTreeMap<String, Flow>) -> Self {
        let mut total = Flow::default();
        months.values().for_each(|flow| total += *flow);
        Self { total, months }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_add_up() {
        let flow = |bytes| Flow {
            incoming: Amount { bytes, packets: 1 },
            outgoing: Amount::default(),
        };
        let traffic = Traffic::of([("2026-10".into(), flow(5)), ("2026-11".into(), flow(7))].into());
        let json = serde_json::to_value(&traffic).unwrap();
        assert_eq!(json["in"], serde_json::json!({"bytes": 12, "packets": 2}));
        assert_eq!(json["out"]["bytes"], 0);
        assert_eq!(json["months"]["2026-11"]["in"]["bytes"], 7);
        assert_eq!(serde_json::from_value::<Traffic>(json).unwrap(), traffic);
    }
}
