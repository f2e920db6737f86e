//! VPSs as files: a tar archive, compressed by zstd, with a seal at its end.
//!
//! ```text
//! condo.json       first: what it is, the VPS's configuration, the image it stands on
//! image/…          that image's files, unless they were left out
//! layer/upper/…    the VPS's own layer as overlayfs keeps it, whiteouts as character devices 0:0
//! layer/plain/…
//! (seal)           a zstd frame that decompressors skip: SHA-256 of everything before it
//! ```
//! `tar --zstd -tf` lists it. What tar has no field for (nanoseconds, sockets, a file that is the same as in an earlier archive) is in
//! an extended attribute, `trusted.condo.entry`.
//!
//! An archive is hostile input. Only what a layer can have is taken, below a private directory, by descriptors that follow no link;
//! nothing of it is used before its seal was found to be right.

mod fill;
mod pack;
mod seal;
mod unpack;

pub use pack::{Packer, tree_digest};
pub use seal::{Sealed, Sealing};
pub use unpack::{Policy, Reader};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::vps::record::config::VpsConfig;
use crate::vps::record::name::Name;

/// The layout of archives described above.
pub(super) const VERSION: u32 = 1;
const HEADER: &str = "condo.json";
/// Longest description that is read.
const LONGEST_HEADER: u64 = 1 << 20;
/// Longest path: a tenant can nest directories deeper than `PATH_MAX`.
const LONGEST_PATH: usize = 1 << 16;
/// What tar has no field for.
const SPECIAL: &str = "trusted.condo.entry";

/// What an archive says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The layout.
    pub version: u32,
    /// What tells this state of this VPS from all others: the id of its snapshot.
    pub id: String,
    /// The state that must be there already: this archive has only what has changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The VPS.
    pub name: Name,
    /// Its address there.
    pub address: std::net::Ipv4Addr,
    /// When it was as it is here, in seconds since 1970.
    pub created: i64,
    /// Whether it had been started before.
    pub started: bool,
    /// Its configuration.
    pub config: VpsConfig,
    /// Its image.
    pub image: ImageHeader,
}

/// The image an archive stands on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageHeader {
    /// What its files are, by SHA-256: another image with the same is as good.
    pub digest: String,
    /// Whether it is in the archive.
    pub included: bool,
    /// What is known of it, as the image store writes it.
    pub manifest: serde_json::Value,
}

impl Header {
    /// Refuses what another condo wrote.
    fn check(&self) -> Result<()> {
        let is_id = |text: &str| text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        if self.version != VERSION {
            let problem = format!("is not {VERSION}, the only one that this condo knows");
            return Err(Error::invalid("version of the archive", self.version, problem));
        }
        for id in [Some(&self.id), self.since.as_ref()].into_iter().flatten() {
            if !is_id(id) {
                return Err(Error::invalid(
                    "id of the archive",
                    id.escape_debug(),
                    "is not a UUID",
                ));
            }
        }
        Ok(())
    }
}
