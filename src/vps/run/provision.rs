//! What a VPS's root disk is given before its first start: its name, its neighbours' names, its resolvers, its identity.
//!
//! Only once: from then on the files are the tenant's.

use std::path::Path;

use super::identity::{self, Key};
use crate::error::{During, Result};
use crate::files::{self, Root};
use crate::net;
use crate::sys::cred::FsIdentity;
use crate::vps::record::instance::Condo;
use crate::vps::record::store::Record;

/// Writes the files into the mounted disk, unless it was done at an earlier start. Returns the host keys that the system has to
/// make before it begins.
pub(super) fn first_start(condo: &Condo, record: &Record, mounted: &Path) -> Result<Vec<Key>> {
    let done = condo.folders.provisioned(&record.name);
    let root = Root::open(mounted)?;
    if files::exists(&done) {
        return left_to_make(&root, &done);
    }
    let hostname = record.config.hostname.as_deref().unwrap_or(record.name.as_str());
    let keys = {
        // The disk's owners are shifted: real root has no number there.
        let _identity = FsIdentity::assume(record.uid_base, record.uid_base)
            .during(|| "become the VPS's root for files")?;
        root.write(
            Path::new("/etc/hostname"),
            format!("{hostname}\n").as_bytes(),
            0o644,
        )?;
        root.write(Path::new("/etc/hosts"), hosts(hostname, record).as_bytes(), 0o644)?;
        root.write(Path::new("/etc/resolv.conf"), resolv_conf().as_bytes(), 0o644)?;
        identity::renew(&root, &record.uuid)?
    };
    let text: String = keys.iter().map(|key| key.path() + "\n").collect();
    files::write_atomic(&done, text.as_bytes(), 0o600)?;
    Ok(keys)
}

/// The keys of which the first start was to make new ones and that are not there yet: it may have been killed before. Once all are
/// there, they are the tenant's.
fn left_to_make(root: &Root, done: &Path) -> Result<Vec<Key>> {
    let listed = files::read_text(done)?;
    let mut keys = Key::listed(&listed);
    keys.retain(|key| !key.is_in(root));
    if keys.is_empty() && !listed.is_empty() {
        files::write_atomic(done, b"", 0o600)?;
    }
    Ok(keys)
}

/// The own name leads to the own address, as mail and database servers expect it, and not to the loopback.
fn hosts(hostname: &str, record: &Record) -> String {
    let short = hostname.split('.').next().unwrap_or(hostname);
    let names = if short == hostname {
        hostname.to_owned()
    } else {
        format!("{hostname} {short}")
    };
    format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{}\t{names}\n",
        record.address
    )
}

fn resolv_conf() -> String {
    net::resolvers()
        .iter()
        .map(|address| format!("nameserver {address}\n"))
        .collect()
}
