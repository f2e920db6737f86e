//! A rescue system that boots in a VPS's place.

use serde::{Deserialize, Serialize};

/// The rescue of a VPS, from its beginning until it is ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rescue {
    /// The image that boots.
    pub image: String,
    /// Whether the VPS ran before, and so runs again afterwards.
    #[serde(default)]
    pub resume: bool,
}
