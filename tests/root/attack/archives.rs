//! Small archives that would take much: memory by what describes their files, the disk by what they hold.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use condo::image::{Archive, Images, ImportOptions};
use nix::mount::{MsFlags, mount};
use nix::sys::resource::{UsageWho, getrusage};

use crate::harness;
use crate::image::{Scratch, Tar, import, names};

tests![
    metadata_takes_little_memory: 120,
    an_archive_does_not_fill_the_disk,
];

/// Memory an import may take, in KiB: its program, a decompressor, one entry. Without budgets it was more than a gibibyte.
const MODEST: i64 = 128 << 10;

/// A compressed archive of `count` times what `part` makes, and a system in front.
fn bomb(path: &Path, count: usize, part: impl Fn(usize) -> Tar) -> Result<()> {
    let mut encoder = zstd::stream::Encoder::new(fs::File::create(path)?, 1)?;
    encoder.write_all(&Tar::system().0)?;
    for n in 0..count {
        encoder.write_all(&part(n).0)?;
    }
    encoder.write_all(&Tar::new().end())?;
    encoder.finish()?;
    Ok(())
}

/// An attribute of nearly a MiB.
fn attribute(n: usize) -> Tar {
    let name = format!("SCHILY.xattr.user.{n}");
    Tar::new().pax(&[(&name, &vec![b'x'; (1 << 20) - 100])])
}

fn metadata_takes_little_memory() -> Result<()> {
    needs!(root);
    let scratch = Scratch::new();
    let archive = scratch.0.join("bomb.tar.zst");
    let attempt = |name: &str| -> Result<String> {
        let output = Command::new(harness::condo())
            .args(["image", "import", "--name", name])
            .arg(&archive)
            .env("CONDO_ROOT", &scratch.0)
            .output()?;
        let size = fs::metadata(&archive)?.len();
        ensure!(size < 2 << 20, "{name}: {size} bytes are no small archive");
        let memory = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss();
        ensure!(memory < MODEST, "{name}: the import took {memory} KiB");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // Attributes that gather in front of one file.
    bomb(&archive, 400, attribute)?;
    let said = attempt("gathered")?;
    ensure!(said.contains("metadata of one entry"), "{said}");
    // A few for each of many files: what no disk would want to keep.
    bomb(&archive, 600, |n| {
        let value = vec![b'x'; 500 << 10];
        Tar::new()
            .pax(&[("SCHILY.xattr.trusted.a", &value)])
            .file(&format!("f{n}"), 0o644, b"")
    })?;
    let said = attempt("spread")?;
    ensure!(said.contains("`bytes of metadata` are more"), "{said}");
    // Directories with long names, each with a time of its own to be remembered until the end.
    let long = format!("{}/", "d".repeat(250)).repeat(15);
    bomb(&archive, 60_000, |_| {
        Tar::new().pax(&[("path", long.as_bytes())]).dir("d", 0o755)
    })?;
    let said = attempt("times")?;
    ensure!(said.is_empty(), "{said}");
    // Parts of a sparse file that never end, in both places where there may be any number.
    bomb(&archive, 1, |_| endless_header())?;
    let said = attempt("header")?;
    ensure!(said.contains("metadata of one entry"), "{said}");
    bomb(&archive, 1, |_| {
        let fields: [(&str, &[u8]); 2] = [("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"9")];
        let mut map = b"18446744073709551615\n".to_vec();
        map.extend(b"0\n".repeat(20 << 20));
        Tar::new().pax(&fields).file("f", 0o644, &map)
    })?;
    let said = attempt("map")?;
    ensure!(said.contains("metadata of one entry"), "{said}");
    ensure!(
        names_below(&scratch)? == ["times"],
        "{:?}",
        names_below(&scratch)?
    );
    Ok(())
}

/// A sparse file of GNU's format: a header, and 64 MiB of blocks each of which says that another follows.
fn endless_header() -> Tar {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::new(b'S'));
    header.as_mut_bytes()[..4].copy_from_slice(b"hole");
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    if let Some(gnu) = header.as_gnu_mut() {
        gnu.set_is_extended(true);
    }
    header.set_cksum();
    let mut block = tar::GnuExtSparseHeader::new();
    block.set_is_extended(true);
    for (n, part) in (0..).zip(block.sparse_mut()) {
        part.set_offset(n);
    }
    let mut archive = Tar::new();
    archive.0.extend_from_slice(header.as_bytes());
    for _ in 0..(64 << 20) / 512 {
        archive.0.extend_from_slice(block.as_bytes());
    }
    archive
}

/// The images of an instance below the scratch folder, and what is left of others.
fn names_below(scratch: &Scratch) -> Result<Vec<String>> {
    let mut found: Vec<String> = fs::read_dir(scratch.0.join("lib/images"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    found.sort();
    Ok(found)
}

/// On a small disk of its own, which has room left after every attempt.
fn an_archive_does_not_fill_the_disk() -> Result<()> {
    needs!(root);
    harness::private_mounts()?;
    let scratch = Scratch::new();
    let images = scratch.0.join("images");
    fs::create_dir(&images)?;
    mount(
        Some("none"),
        &images,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=64m,nr_inodes=2000"),
    )?;
    let images = scratch.images();
    let free = || -> Result<(u64, u64)> {
        let disk = nix::sys::statvfs::statvfs(&scratch.0.join("images"))?;
        Ok((
            disk.blocks_available() * disk.fragment_size(),
            disk.files_available(),
        ))
    };
    let before = free()?;
    // Its size is known: nothing is unpacked.
    let large = scratch.0.join("large.tar");
    fs::File::create(&large)?.set_len(100 << 20)?;
    let refused = images.import(
        "large",
        Archive::open(&large)?,
        &ImportOptions::default(),
        &mut |_| panic!("it began to unpack"),
    );
    let said = refused.expect_err("100 MiB on 64").to_string();
    ensure!(said.contains("room for"), "{said}");
    for (name, part) in [
        ("one", one_large as fn() -> Tar),
        ("many", many_small),
        ("deep", deep),
    ] {
        let (least, said) = watched(&images, name, &part().end(), &free)?;
        ensure!(said.contains("disk of the images"), "{name}: {said}");
        ensure!(
            least.0 >= 3 << 20 && least.1 >= 90,
            "{name}: only {least:?} were left"
        );
        ensure!(
            free()? == before && names(&scratch)?.is_empty(),
            "{name}: {:?}",
            names(&scratch)?
        );
    }
    Ok(())
}

fn one_large() -> Tar {
    Tar::system().file("large", 0o644, &vec![0; 80 << 20])
}

fn many_small() -> Tar {
    (0..3000).fold(Tar::system(), |tar, n| tar.file(&format!("f{n}"), 0o644, b"x"))
}

/// One entry, and thousands of directories on the way to it.
fn deep() -> Tar {
    let path = |n: usize| format!("{n}/{}", "d/".repeat(1500));
    (0..2).fold(Tar::system(), |tar, n| {
        tar.pax(&[("path", path(n).as_bytes())]).dir("x", 0o755)
    })
}

/// Tries an import; the least that was free while it ran, and why it failed.
fn watched(
    images: &Images,
    name: &str,
    data: &[u8],
    free: &(dyn Fn() -> Result<(u64, u64)> + Sync),
) -> Result<((u64, u64), String)> {
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let least = scope.spawn(|| {
            let mut least = (u64::MAX, u64::MAX);
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let now = free().unwrap_or(least);
                least = (least.0.min(now.0), least.1.min(now.1));
                std::thread::yield_now();
            }
            least
        });
        let failed = import(images, name, data).err().map(|e| e.to_string());
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        let least = least.join().ok().context("the watcher ended")?;
        Ok((least, failed.context("it was taken")?))
    })
}
