//! What other tools keep with a VPS. condo makes nothing of it: it is there for those who come through the API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Bytes that all of it may take: it is part of a record that every command reads.
const MOST: usize = 256 << 10;

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Labels {
    /// Words about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Profiles it was made of, the last one weighing most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// Keys with their values, as they were given.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<String, String>,
    /// Devices with their options, as they were given.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<String, BTreeMap<String, String>>,
}

impl Labels {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses what is too much.
    pub(super) fn validate(&self) -> Result<()> {
        let options = self.devices.values().flatten().chain(&self.keys);
        let bytes: usize = options.map(|(key, value)| key.len() + value.len()).sum();
        if bytes + self.description.len() <= MOST {
            return Ok(());
        }
        let problem =
            format!("is above the {MOST} bytes that all keys, devices and the description may take");
        Err(Error::invalid("config", format!("{bytes} bytes"), problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_stays_small() {
        let mut labels = Labels::default();
        assert!(labels.is_empty() && labels.validate().is_ok());
        labels.keys.insert("user.note".into(), "x".repeat(MOST));
        assert!(labels.validate().is_err());
    }
}
