//! Archives of root filesystems: every entry stays in the root and within its budget, and a sparse file's parts are its own.
#![no_main]

use std::io::Read;
use std::path::Component;

use condo::error::Error;
use condo::image::{Entry, Kind, Limits, Sparse, Tarball};
use libfuzzer_sys::fuzz_target;

fn limits() -> Limits {
    Limits {
        entries: 100,
        path: 256,
        entry_metadata: 2048,
        metadata: 8192,
        ..Limits::default()
    }
}

fn check(entry: &Entry) {
    let plain = |c: Component<'_>| matches!(c, Component::Normal(_));
    assert!(entry.path.components().all(plain), "{entry:?}");
    assert!(entry.path.as_os_str().len() <= limits().path);
    assert!(entry.mode <= 0o7777 && entry.uid != u32::MAX && entry.gid != u32::MAX);
    let attributes: usize = entry
        .xattrs
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    assert!(attributes as u64 <= limits().entry_metadata);
    match &entry.kind {
        Kind::Hardlink(target) => assert!(target.components().all(plain), "{entry:?}"),
        Kind::File(Some(sparse)) => check_sparse(sparse, entry.stored),
        _ => {}
    }
}

fn check_sparse(sparse: &Sparse, stored: u64) {
    let mut end = 0;
    for (offset, length) in &sparse.parts {
        assert!(*offset >= end, "{sparse:?}");
        end = offset + length;
    }
    assert!(end <= sparse.size && i64::try_from(sparse.size).is_ok());
    assert_eq!(sparse.parts.iter().map(|(_, length)| length).sum::<u64>(), stored);
}

fn walk(data: &[u8]) -> Result<(), Error> {
    let mut tarball = Tarball::new(data, limits());
    let mut seen = 0;
    while let Some(entry) = tarball.next()? {
        check(&entry);
        let mut content = Vec::new();
        tarball.read_to_end(&mut content)?;
        assert_eq!(content.len() as u64, entry.stored);
        seen += content.len();
        assert!(seen <= data.len());
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    // As it is; and with the sums of headers put right, which chance hardly ever finds.
    let _ = walk(data);
    let mut mended = data.to_vec();
    for block in mended.chunks_exact_mut(512) {
        if block[257..262] == *b"ustar" {
            let mut header = tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(block);
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
    let _ = walk(&mended);
});
