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
    /// Whether its end has begun: its disk may be half removed, and is no system any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ending: bool,
}
