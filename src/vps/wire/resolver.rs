//! The names that the name server of a network knows: a file for each VPS that runs, in a folder for each network.
//!
//! dnsmasq(8) reads a file when it comes and forgets it when it goes (`--hostsdir`): a start and a stop cost the same however many
//! VPSs there are. A file comes into the folder whole, from beside it.

use std::fmt::Write;
use std::path::PathBuf;

use crate::error::{During, Result};
use crate::files;
use crate::net::Port;
use crate::vps::record::instance::Condo;
use crate::vps::record::network::NetworkRecord;
use crate::vps::record::store::Record;

/// Where the files of a network are.
pub(in crate::vps) fn folder(condo: &Condo, network: &NetworkRecord) -> PathBuf {
    all(condo).join(network.name.as_str())
}

fn all(condo: &Condo) -> PathBuf {
    condo.folders.run().join("names")
}

/// Makes the folder of a network whose VPSs ask for names at the gateway. Its reader is nobody in particular.
pub(in crate::vps) fn open(condo: &Condo, network: &NetworkRecord) -> Result<()> {
    files::create_dir_all(&all(condo), 0o700)?;
    files::create_dir_all(&folder(condo, network), 0o755)
}

/// Makes a VPS's name on a network known, if the network has a name server.
pub(super) fn tell(condo: &Condo, record: &Record, network: &NetworkRecord, port: &Port) -> Result<()> {
    if !network.network.dns {
        return Ok(());
    }
    let mut lines = String::new();
    for address in port.addresses() {
        let _ = writeln!(lines, "{address}\t{}", network.names_of(&record.name));
    }
    open(condo, network)?;
    let beside = all(condo).join(format!(".{}", record.name));
    files::write_atomic(&beside, lines.as_bytes(), 0o644)?;
    let place = folder(condo, network).join(record.name.as_str());
    std::fs::rename(&beside, &place).during(|| format!("make the name `{}.condo` known", record.name))
}

/// Takes it back; what is gone already is fine.
pub(super) fn forget(condo: &Condo, record: &Record, network: &NetworkRecord) -> Result<()> {
    files::remove_file(&folder(condo, network).join(record.name.as_str()))
}

/// Forgets all names of a network. The folder stays: its reader, if one runs, would not find another.
pub(super) fn clear(condo: &Condo, network: &NetworkRecord) -> Result<()> {
    let entries = match std::fs::read_dir(folder(condo, network)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.during(|| "forget names")?,
    };
    for entry in entries.flatten() {
        files::remove_file(&entry.path())?;
    }
    Ok(())
}

/// Forgets a network.
pub(super) fn close(condo: &Condo, network: &NetworkRecord) -> Result<()> {
    files::remove_tree(&folder(condo, network))?;
    // With those of other networks it stays.
    let _ = std::fs::remove_dir(all(condo));
    Ok(())
}
