//! Whom a VPS asks for names: in `resolv.conf(5)`, and for systemd-resolved, which puts a link of its own in that file's place when its
//! package is installed, and would know nobody then.

use std::net::Ipv4Addr;
use std::path::Path;

use super::LARGEST;
use crate::error::Result;
use crate::files::{self, Root};
use crate::vps::record::folders::Seat;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where systems with systemd have their settings, and condo's part of those of resolved (`resolved.conf.d(5)`).
const SYSTEMD: &str = "/etc/systemd";
const RESOLVED_DIR: &str = "/etc/systemd/resolved.conf.d";
const RESOLVED: &str = "/etc/systemd/resolved.conf.d/condo.conf";

/// Writes it for the first time, and returns what is to be kept for [`follow`].
pub(super) fn give(root: &Root, resolvers: &[Ipv4Addr]) -> Result<String> {
    let text = resolv_conf(resolvers);
    root.write(Path::new(RESOLV_CONF), text.as_bytes(), 0o644)?;
    if root.has(Path::new(SYSTEMD)) && !resolvers.is_empty() {
        root.create_dir_all(Path::new(RESOLVED_DIR), 0o755)?;
        root.write(Path::new(RESOLVED), resolved(&text).as_bytes(), 0o644)?;
    }
    Ok(text)
}

/// A VPS that is to ask elsewhere since its last start does, unless its tenant has said where.
pub(super) fn follow(resolvers: &[Ipv4Addr], seat: &Seat, root: &Root) -> Result<()> {
    let wanted = resolv_conf(resolvers);
    let written = match files::read_text(&seat.resolvers()) {
        // An earlier condo did not note it.
        Err(e) if e.is_gone() => return Ok(()),
        other => other?,
    };
    if written == wanted {
        return Ok(());
    }
    for (path, before, after) in [
        (RESOLV_CONF, written.clone(), wanted.clone()),
        (RESOLVED, resolved(&written), resolved(&wanted)),
    ] {
        let path = Path::new(path);
        if root
            .read(path, LARGEST)
            .is_ok_and(|there| there == before.as_bytes())
        {
            root.write(path, after.as_bytes(), 0o644)?;
        }
    }
    files::write_atomic(&seat.resolvers(), wanted.as_bytes(), 0o600)
}

fn resolv_conf(resolvers: &[Ipv4Addr]) -> String {
    resolvers
        .iter()
        .map(|address| format!("nameserver {address}\n"))
        .collect()
}

/// The same in resolved's words.
fn resolved(resolv_conf: &str) -> String {
    let servers = resolv_conf
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver "));
    let lines: String = servers.map(|server| format!("DNS={server}\n")).collect();
    format!("[Resolve]\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_name_the_same_servers() {
        let text = resolv_conf(&[Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)]);
        assert_eq!(text, "nameserver 192.0.2.1\nnameserver 192.0.2.2\n");
        assert_eq!(resolved(&text), "[Resolve]\nDNS=192.0.2.1\nDNS=192.0.2.2\n");
    }
}
