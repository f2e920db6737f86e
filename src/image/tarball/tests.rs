use std::path::Path;

use super::*;

fn read_all(data: &[u8], limits: Limits) -> Result<Vec<(Entry, Vec<u8>)>> {
    let mut tarball = Tarball::new(data, limits);
    let mut all = Vec::new();
    while let Some(entry) = tarball.next()? {
        let mut content = Vec::new();
        if matches!(entry.kind, Kind::File(_)) {
            tarball.read_to_end(&mut content)?;
        }
        all.push((entry, content));
    }
    Ok(all)
}

fn archive(entries: &[(u8, &str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, path, data) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(*kind));
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_uid(7);
        header.set_gid(8);
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn pax_records_may_hold_newlines_and_override_the_header() {
    let value = b"\x01\n\x00\n";
    let mut record = b"SCHILY.xattr.security.capability=".to_vec();
    record.extend_from_slice(value);
    let mut pax = format!("{} ", record.len() + 4).into_bytes();
    pax.extend_from_slice(&record);
    pax.push(b'\n');
    pax.extend_from_slice(b"12 path=y/z\n12 uid=1000\n");
    let all = read_all(
        &archive(&[(b'x', "p", &pax), (b'0', "f", b"abc")]),
        Limits::default(),
    )
    .unwrap();
    assert_eq!(all[0].0.path, Path::new("y/z"));
    assert_eq!((all[0].0.uid, all[0].0.gid), (1000, 8));
    assert_eq!(
        all[0].0.xattrs,
        [("security.capability".to_owned(), value.to_vec())]
    );
    assert_eq!(all[0].1, b"abc");
}

#[test]
fn an_owner_that_no_vps_has_is_refused() {
    let read = |record: &str| {
        let data = archive(&[(b'x', "p", record.as_bytes()), (b'0', "home/ann", b"")]);
        read_all(&data, Limits::default()).map(|all| (all[0].0.uid, all[0].0.gid))
    };
    assert_eq!(read("15 uid=4194303\n").unwrap(), (4_194_303, 8));
    assert_eq!(
        read("17 uid=903700503\n").unwrap_err().to_string(),
        "owner of `home/ann`: `903700503` does not exist in any VPS, whose users and groups are at most 0 to 4194303; give the \
         file to another before packing it"
    );
    for refused in ["15 gid=4194304\n", "18 uid=4294967295\n", "18 gid=4294967296\n"] {
        assert!(read(refused).is_err(), "{refused}");
    }
}

#[test]
fn gnu_long_names_are_joined() {
    let long = format!("{}/file\0", "d".repeat(200));
    let all = read_all(
        &archive(&[(b'L', "x", long.as_bytes()), (b'0', "short", b"")]),
        Limits::default(),
    );
    assert_eq!(all.unwrap()[0].0.path.to_str(), Some(long.trim_end_matches('\0')));
}

#[test]
fn damage_and_excess_are_refused() {
    let whole = archive(&[(b'0', "a", &[1; 600]), (b'0', "b", b"x")]);
    let refused = |data: &[u8], limits: Limits| read_all(data, limits).unwrap_err().to_string();
    assert!(refused(&whole[..2048], Limits::default()).contains("too early"));
    assert!(refused(&whole[..700], Limits::default()).contains("early"));
    let mut damaged = whole.clone();
    damaged[0] ^= 1;
    assert!(refused(&damaged, Limits::default()).contains("not a tar"));
    assert!(
        refused(
            &whole,
            Limits {
                entries: 1,
                ..Limits::default()
            }
        )
        .contains("limit of 1")
    );
    assert!(refused(&archive(&[(b'x', "p", b"99 path=a\n")]), Limits::default()).contains("pax"));
    assert!(
        refused(
            &archive(&[(b'L', "p", &[b'a'; 2000])]),
            Limits {
                entry_metadata: 1024,
                ..Limits::default()
            }
        )
        .contains("metadata of one entry")
    );
    assert!(refused(&archive(&[(b'0', "../a", b"")]), Limits::default()).contains(".."));
}

proptest::proptest! {
    #[test]
    fn no_input_panics(data: Vec<u8>) {
        let _ = read_all(&data, Limits::default());
        let mut extensions = Extensions::default();
        let _ = extensions.add_pax(&data);
    }
}

/// What a sparse file is once its holes are there again.
fn whole(sparse: &Sparse, stored: &[u8]) -> Vec<u8> {
    let mut file = vec![0; usize::try_from(sparse.size).unwrap()];
    let mut stored = stored;
    for (offset, length) in &sparse.parts {
        let (at, length) = (
            usize::try_from(*offset).unwrap(),
            usize::try_from(*length).unwrap(),
        );
        file[at..at + length].copy_from_slice(&stored[..length]);
        stored = &stored[length..];
    }
    assert!(stored.is_empty());
    file
}

/// Blocks of a header of GNU's own format and what follows it.
fn old_gnu(size: u64, parts: &[(u64, u64)], data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::new(b'S'));
    header.set_path("hole").unwrap();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(size);
    gnu.set_is_extended(parts.len() > 4);
    for (field, (offset, length)) in gnu.sparse.iter_mut().zip(parts) {
        field.set_offset(*offset);
        field.set_length(*length);
    }
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    let more: Vec<_> = parts.iter().skip(4).collect();
    for (index, chunk) in more.chunks(21).enumerate() {
        let mut block = tar::GnuExtSparseHeader::new();
        block.set_is_extended((index + 1) * 21 < more.len());
        for (field, (offset, length)) in block.sparse_mut().iter_mut().zip(chunk) {
            field.set_offset(*offset);
            field.set_length(*length);
        }
        archive.extend_from_slice(block.as_bytes());
    }
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    archive
}

fn records(records: &[&str]) -> Vec<u8> {
    let line = |record: &&str| {
        let digits = if record.len() + 3 < 10 { 1 } else { 2 };
        format!("{} {record}\n", record.len() + 2 + digits)
    };
    records.iter().map(line).collect::<String>().into_bytes()
}

#[test]
fn sparse_files_are_told_in_four_ways() {
    let mut expected = vec![0; 100_000];
    expected[..3].copy_from_slice(b"one");
    expected[50_000..50_003].copy_from_slice(b"two");
    let map = "2\n0\n3\n50000\n3\n";
    let mut leading = map.as_bytes().to_vec();
    leading.resize(BLOCK, 0);
    leading.extend_from_slice(b"onetwo");
    let pax_0_0 = records(&[
        "GNU.sparse.size=100000",
        "GNU.sparse.numblocks=2",
        "GNU.sparse.offset=0",
        "GNU.sparse.numbytes=3",
        "GNU.sparse.offset=50000",
        "GNU.sparse.numbytes=3",
    ]);
    let pax_0_1 = records(&[
        "GNU.sparse.name=hole",
        "GNU.sparse.size=100000",
        "GNU.sparse.map=0,3,50000,3",
    ]);
    let pax_1_0 = records(&[
        "GNU.sparse.major=1",
        "GNU.sparse.minor=0",
        "GNU.sparse.name=hole",
        "GNU.sparse.realsize=100000",
    ]);
    let archives = [
        old_gnu(100_000, &[(0, 3), (50_000, 3), (100_000, 0)], b"onetwo"),
        archive(&[(b'x', "p", &pax_0_0), (b'0', "hole", b"onetwo")]),
        archive(&[(b'x', "p", &pax_0_1), (b'0', "GNUSparseFile.0/hole", b"onetwo")]),
        archive(&[(b'x', "p", &pax_1_0), (b'0', "GNUSparseFile.0/hole", &leading)]),
    ];
    for (index, data) in archives.iter().enumerate() {
        let all = read_all(data, Limits::default()).unwrap();
        let (entry, stored) = &all[0];
        let Kind::File(Some(sparse)) = &entry.kind else {
            panic!("{index}: {entry:?}");
        };
        assert_eq!((entry.path.to_str(), entry.stored), (Some("hole"), 6), "{index}");
        assert_eq!(whole(sparse, stored), expected, "{index}");
    }
}

#[test]
fn a_sparse_file_may_have_more_parts_than_its_header_has_room_for() {
    let parts: Vec<(u64, u64)> = (0..60).map(|n| (n * 1000, 2)).collect();
    let data: Vec<u8> = (0..120).collect();
    let mut two = old_gnu(60_000, &parts, &data);
    two.extend(old_gnu(8, &[(0, 8)], b"the next"));
    let all = read_all(&two, Limits::default()).unwrap();
    let Kind::File(Some(sparse)) = &all[0].0.kind else {
        panic!()
    };
    assert_eq!((&sparse.parts, &all[0].1), (&parts, &data));
    assert_eq!(all[1].1, b"the next");
}

#[test]
fn sparse_files_that_contradict_themselves_are_refused() {
    let refused = |data: &[u8]| read_all(data, Limits::default()).unwrap_err().to_string();
    assert!(refused(&old_gnu(10, &[(0, 3), (2, 3)], b"onetwo")).contains("overlap"));
    assert!(refused(&old_gnu(10, &[(5, 3), (0, 3)], b"onetwo")).contains("overlap"));
    assert!(refused(&old_gnu(5, &[(0, 3), (3, 3)], b"onetwo")).contains("beyond its end"));
    assert!(refused(&old_gnu(u64::MAX, &[(u64::MAX, 3)], b"one")).contains("beyond its end"));
    assert!(refused(&old_gnu(1 << 63, &[(0, 3)], b"one")).contains("impossible"));
    assert!(refused(&old_gnu(10, &[(0, 3)], b"more")).contains("holds of it"));
    assert!(refused(&old_gnu(10, &[(0, 3)], b"on")).contains("holds of it"));
    let sparse = |records_: &[&str], data: &[u8]| {
        refused(&archive(&[(b'x', "p", &records(records_)), (b'0', "f", data)]))
    };
    assert!(sparse(&["GNU.sparse.size=9", "GNU.sparse.map=1"], b"").contains("pax"));
    assert!(sparse(&["GNU.sparse.size=9", "GNU.sparse.numbytes=1"], b"").contains("pax"));
    let new = ["GNU.sparse.major=1", "GNU.sparse.realsize=9"];
    assert!(sparse(&new, b"").contains("early"));
    for bad in ["1\n0\n", "x\n", "\n", "99999999999999999999999\n", "-1\n"] {
        let mut data = bad.as_bytes().to_vec();
        data.resize(BLOCK, 0);
        assert!(sparse(&new, &data).contains("sparse"), "{bad:?}");
    }
}

/// Takes mode, owner and size out of a header, as GNU tar's labels have none.
fn forget_numbers(header: &mut [u8]) {
    header[100..136].fill(0);
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn labels_and_a_missing_end_are_no_fault() {
    let mut data = archive(&[
        (b'V', "a label", b""),
        (b'0', "a", b"x"),
        (b'D', "d/", b"Yfile\0\0"),
    ]);
    data.truncate(data.len() - 1024);
    let mut by_gnu_tar = data.clone();
    forget_numbers(&mut by_gnu_tar[..BLOCK]);
    for data in [&data, &by_gnu_tar] {
        let all = read_all(data, Limits::default()).unwrap();
        assert_eq!((all.len(), all[0].1.as_slice()), (2, &b"x"[..]));
        assert_eq!(all[1].0.kind, Kind::Dir);
    }
    data.extend_from_slice(&[0; 100]);
    assert!(
        read_all(&data, Limits::default())
            .unwrap_err()
            .to_string()
            .contains("early")
    );
    let other_volume = archive(&[(b'M', "a", b"x")]);
    assert!(
        read_all(&other_volume, Limits::default())
            .unwrap_err()
            .to_string()
            .contains("volume")
    );
}

/// However the metadata of an entry, or of all, is spread.
#[test]
fn metadata_has_one_budget() {
    let limits = || Limits {
        entry_metadata: 2048,
        metadata: 4096,
        ..Limits::default()
    };
    let record = format!("210 SCHILY.xattr.user.a={}\n", "x".repeat(185));
    let x = |times| (b'x', "p", record.repeat(times));
    let build = |entries: &[(u8, &str, String)]| {
        let entries: Vec<_> = entries
            .iter()
            .map(|(kind, name, data)| (*kind, *name, data.as_bytes()))
            .collect();
        archive(&entries)
    };
    let file = || (b'0', "f", String::new());
    let fine = build(&[x(4), x(4), file(), x(4), x(4), file()]);
    assert_eq!(read_all(&fine, limits()).unwrap()[1].0.xattrs.len(), 1);
    let one = build(&[
        x(5),
        (b'L', "l", "n".repeat(600)),
        (b'K', "k", "n".repeat(600)),
        file(),
    ]);
    assert!(
        read_all(&one, limits())
            .unwrap_err()
            .to_string()
            .contains("one entry")
    );
    let all = build(&[x(8), file(), x(8), file(), x(8), file()]);
    let text = read_all(&all, limits()).unwrap_err().to_string();
    assert!(
        text.contains("bytes of metadata") && !text.contains("one entry"),
        "{text}"
    );
    let parts: Vec<_> = (0..200).map(|n| (n * 10, 1)).collect();
    let map = old_gnu(5000, &parts, &[1; 200]);
    assert!(
        read_all(&map, limits())
            .unwrap_err()
            .to_string()
            .contains("one entry")
    );
}
