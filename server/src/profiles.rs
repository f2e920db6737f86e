//! `/1.0/profiles`: configurations with names, which instances are made of.

use std::collections::BTreeMap;

use condo::error::Error;
use condo::vps::record::attachment::DEFAULT_NETWORK;
use condo::vps::record::config::VpsConfig;
use condo::vps::record::instance::Condo;

use crate::keys::{Devices, Keys, Setup};
use crate::reply::Problem;

mod routes;

pub(crate) use routes::{create, delete, get, list, patch, put, rename};

/// The profile there always is.
const DEFAULT: &str = "default";
/// What profiles are kept as.
const KIND: &str = "profile";

/// A profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Profile {
    pub(crate) description: String,
    #[serde(flatten)]
    pub(crate) setup: Setup,
}

impl Profile {
    /// Refuses what no VPS could be made of.
    fn check(&self) -> Result<(), Problem> {
        self.setup.apply(&mut VpsConfig::new("any"))
    }
}

/// All of them.
pub(crate) struct Profiles(BTreeMap<String, Profile>);

impl Profiles {
    /// Reads them from condo's records. The default one is there before anybody changes it.
    pub(crate) fn load(condo: &Condo) -> condo::error::Result<Self> {
        let mut all = BTreeMap::new();
        for (name, text) in condo.store.kept(KIND)? {
            let profile = serde_json::from_str(&text).map_err(|e| {
                Error::Corrupt(format!("the database holds an unusable profile `{name}`: {e}"))
            })?;
            all.insert(name, profile);
        }
        all.entry(DEFAULT.to_owned()).or_insert_with(default);
        Ok(Self(all))
    }

    /// An instance's own setup over those of its profiles, of which the last weighs most.
    pub(crate) fn expand(&self, names: &[String], own: &Setup) -> Setup {
        let mut all = Setup::default();
        for profile in names.iter().filter_map(|name| self.0.get(name)) {
            all.extend(&profile.setup);
        }
        all.extend(own);
        all
    }

    /// Refuses names of profiles that are not there.
    pub(crate) fn must_have(&self, names: &[String]) -> Result<(), Problem> {
        let missing = names.iter().find(|name| !self.0.contains_key(*name));
        missing.map_or(Ok(()), |name| Err(Problem::missing("Profile", name)))
    }

    /// One of them.
    fn one(&self, name: &str) -> Result<&Profile, Problem> {
        self.0.get(name).ok_or_else(|| Problem::missing("Profile", name))
    }
}

/// A root disk and a place on the network, which every VPS has.
fn default() -> Profile {
    let options = |pairs: &[(&str, &str)]| -> Keys {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    let devices = Devices::from([
        (
            "root".to_owned(),
            options(&[("type", "disk"), ("path", "/"), ("pool", "default")]),
        ),
        (
            "eth0".to_owned(),
            options(&[("type", "nic"), ("network", DEFAULT_NETWORK), ("name", "eth0")]),
        ),
    ]);
    Profile {
        description: "What every VPS has".into(),
        setup: Setup {
            keys: Keys::new(),
            devices,
        },
    }
}
