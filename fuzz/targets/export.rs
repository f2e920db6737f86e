//! Archives of VPSs, up to what they say of themselves: as they are, and with a seal that is right, which chance never finds.
#![no_main]

use std::io::Write;

use condo::vps::copy::archive::{Reader, Sealing};
use libfuzzer_sys::fuzz_target;

fn check(bytes: &[u8]) {
    let Ok(reader) = Reader::open(bytes) else { return };
    let header = reader.header();
    assert_eq!(header.version, 1);
    for id in [Some(&header.id), header.since.as_ref()].into_iter().flatten() {
        assert!(id.len() == 36 && !id.contains('/'), "{id:?}");
    }
    assert!(!header.name.as_str().contains(['/', '.']));
}

/// A tar archive as an archive of a VPS is wrapped.
fn wrapped(data: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut sealing = Sealing::new(Vec::new());
    sealing.write_all(&zstd::encode_all(data, 1)?)?;
    Ok(sealing.seal()?.0)
}

/// The same, its first entry `condo.json` with this content.
fn described(json: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut head = tar::Header::new_ustar();
    head.set_size(json.len() as u64);
    head.set_mode(0o600);
    head.set_uid(0);
    head.set_gid(0);
    head.set_mtime(0);
    head.set_cksum();
    tar.append_data(&mut head, "condo.json", json)?;
    wrapped(&tar.into_inner()?)
}

fuzz_target!(|data: &[u8]| {
    check(data);
    for bytes in [wrapped(data), described(data)].into_iter().flatten() {
        check(&bytes);
    }
});
