//! The system's time zone.

use std::path::Path;

use super::put_link;
use crate::error::Result;
use crate::files::{self, Root};

/// Where both this host and a system have their zones.
pub(super) const ZONES: &str = "/usr/share/zoneinfo";

/// Names the zone as `localtime(5)` has it, and as Debian's tools read it. A system without zones of its own is given the host's.
pub(super) fn set_zone(root: &Root, zone: &str) -> Result<()> {
    let path = Path::new(ZONES).join(zone);
    if root.has(&path) {
        put_link(root, "/etc/localtime", &path.display().to_string())?;
    } else {
        root.write(Path::new("/etc/localtime"), &files::read(&path)?, 0o644)?;
    }
    root.write(Path::new("/etc/timezone"), format!("{zone}\n").as_bytes(), 0o644)
}
