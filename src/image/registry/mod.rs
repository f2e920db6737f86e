//! Images from registries: the pulling half of the OCI distribution specification.
//!
//! ```text
//! pull          an image, end to end
//! blobs         what is downloaded: resumed, checked, once at a time
//! client        requests to one registry
//! credentials   who we are there
//! challenge     how a registry asks for that
//! reference     the name of an image
//! ```
//! The caller has threads of its own while it pulls: nothing here may run in a process that clones an init.

mod blobs;
mod challenge;
mod client;
mod credentials;
mod pull;
mod reference;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

pub(super) use blobs::Blobs;
pub use challenge::Challenge;
pub use credentials::Credentials;
pub use pull::{OnPull, PullOptions};
pub use reference::Reference;

/// What is set for a registry, by its name in references.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Tried before the registry itself, in this order: `[http[s]://]HOST[:PORT][/PATH]`.
    pub mirrors: Vec<String>,
    /// Also without TLS, and with a certificate that nobody vouches for.
    pub insecure: bool,
    /// Certificates of authorities that are trusted beside the system's, in PEM.
    pub ca: Option<PathBuf>,
}

/// Settings of registries by name.
pub type Registries = BTreeMap<String, Settings>;
