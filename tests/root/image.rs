//! Images: hostile archives stay in their root, and an image is there whole or not at all.

pub(crate) mod distribution;
pub(crate) mod faults;
pub(crate) mod layers;
pub(crate) mod registry;
pub(crate) mod saved;
pub(crate) mod server;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use condo::error::Error;
use condo::image::{Archive, Image, Images, ImportOptions, Limits, Progress, Recipe};

/// The tests of all subjects.
pub(crate) const ALL: &[&[crate::harness::Test]] = &[
    TESTS,
    distribution::TESTS,
    faults::TESTS,
    layers::TESTS,
    registry::TESTS,
];

tests![
    busybox_is_built_and_runs,
    every_compression_keeps_owners_modes_times_and_attributes,
    hostile_archives_write_nothing_outside,
    names_that_come_twice_are_replaced,
    sparse_files_of_every_format_stay_sparse,
    labels_missing_ends_and_standard_input,
    archives_that_are_no_system_are_refused,
    what_archives_leave_out_is_made,
    limits_hold_and_leave_nothing: 120,
    the_second_of_two_makers_is_told,
    what_a_killed_import_left_is_swept,
    recipes_can_be_folders,
];

/// The folder of this test, which goes away with it.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(crate::harness::tempdir())
    }

    pub(crate) fn images(&self) -> Images {
        Images::new(self.0.join("images"))
    }
}

/// An archive written header by header: `tar::Builder` would refuse much of what a hostile one holds.
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// A whole little system: `/sbin/init`.
    pub(crate) fn system() -> Self {
        Self::new()
            .dir("./", 0o755)
            .file("sbin/init", 0o755, b"#!/bin/sh\n")
    }

    pub(crate) fn entry(self, kind: u8, path: &str, link: &str, data: &[u8]) -> Self {
        self.owned(kind, (path, link), (0o644, 0), data)
    }

    pub(crate) fn owned(
        mut self,
        kind: u8,
        (path, link): (&str, &str),
        (mode, id): (u32, u64),
        data: &[u8],
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(data.len() as u64);
        header.set_mode(mode);
        header.set_uid(id);
        header.set_gid(id);
        header.set_mtime(1_000_000_000);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, path: &str, mode: u32, data: &[u8]) -> Self {
        self.owned(b'0', (path, ""), (mode, 0), data)
    }

    pub(crate) fn executables(self, files: &[(String, Vec<u8>)]) -> Self {
        let add = |tar: Self, (path, data): &(String, Vec<u8>)| tar.file(path, 0o755, data);
        files.iter().fold(self, add)
    }

    pub(crate) fn dir(self, path: &str, mode: u32) -> Self {
        self.owned(b'5', (path, ""), (mode, 0), b"")
    }

    pub(crate) fn symlink(self, path: &str, to: &str) -> Self {
        self.entry(b'2', path, to, b"")
    }

    pub(crate) fn hardlink(self, path: &str, to: &str) -> Self {
        self.entry(b'1', path, to, b"")
    }

    /// Attributes and fields of the entry that follows.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry(b'x', "pax", "", &data)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

pub(crate) fn import(images: &Images, name: &str, data: &[u8]) -> condo::error::Result<Image> {
    images.import(
        name,
        Archive::from_reader("test", data),
        &ImportOptions::default(),
        &mut |_| {},
    )
}

/// The names in the folder of images, hidden ones too.
pub(crate) fn names(scratch: &Scratch) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(scratch.0.join("images"))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn busybox_is_built_and_runs() -> Result<()> {
    needs!(root, busybox);
    let scratch = Scratch::new();
    let images = scratch.images();
    let image = images.build(&Recipe::named("busybox")?, &mut |_| {})?;
    let manifest = &image.manifest;
    ensure!(
        manifest.init == ["/sbin/init"] && manifest.stop_signal == "SIGUSR2",
        "{manifest:?}"
    );
    ensure!(
        manifest.architecture == std::env::consts::ARCH && manifest.size_bytes > 100_000,
        "{manifest:?}"
    );
    ensure!(images.list()?.len() == 1 && images.get("busybox")?.manifest == *manifest);
    ensure!(fs::metadata(scratch.0.join("images"))?.mode() & 0o7777 == 0o700);

    let script = "test $(id -u) = 0 && ls -l /sbin/init /usr/bin/env && . /etc/profile && cat /etc/inittab";
    let output = Command::new("chroot")
        .arg(&image.layers[0])
        .args(["/bin/sh", "-c", script])
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(fs::metadata(image.layers[0].join("etc/shadow"))?.mode() & 0o7777 == 0o640);
    ensure!(fs::metadata(image.layers[0].join("tmp"))?.mode() & 0o7777 == 0o1777);

    let again = images.build(&Recipe::named("busybox")?, &mut |_| {});
    ensure!(matches!(again, Err(Error::Exists { .. })), "{again:?}");
    images.remove("busybox")?;
    ensure!(
        !images.exists("busybox") && names(&scratch)?.is_empty(),
        "{:?}",
        names(&scratch)?
    );
    let gone = images.get("busybox").unwrap_err();
    ensure!(
        matches!(gone.root(), Error::NotFound { kind: "image", .. }),
        "{gone}"
    );
    ensure!(gone.to_string().contains("condo image build busybox"), "{gone}");
    ensure!(images.remove("busybox").is_err());
    Ok(())
}

/// VFS_CAP_REVISION_2 with the effective bit, cap_net_raw: what `setcap cap_net_raw+ep` writes.
pub(crate) const NET_RAW: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn every_compression_keeps_owners_modes_times_and_attributes() -> Result<()> {
    needs!(root);
    // What an operator keeps from others by default is no business of an image.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let plain = Tar::system()
        .owned(b'0', ("bin/su", ""), (0o4755, 0), b"suid")
        .owned(b'5', ("home/joe/", ""), (0o2750, 1000), b"")
        .owned(b'0', ("home/joe/note", ""), (0o600, 1000), b"hello")
        .hardlink("home/joe/again", "home/joe/note")
        .symlink("home/joe/link", "/etc/passwd")
        .owned(b'6', ("run/pipe", ""), (0o620, 5), b"")
        .owned(b'3', ("dev/mem", ""), (0o666, 0), b"")
        .pax(&[
            ("SCHILY.xattr.security.capability", &NET_RAW),
            ("SCHILY.xattr.user.note", b"a\nb"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ])
        .file("bin/ping", 0o755, b"x")
        .end();
    let scratch = Scratch::new();
    let images = scratch.images();
    for (name, data) in compressed(&plain)? {
        let path = scratch.0.join(name);
        fs::write(&path, &data)?;
        let mut last = (0, None);
        let mut note = |p: Progress<'_>| {
            if p.total.is_some() {
                last = (p.done, p.total);
            }
        };
        let image = images.import(name, Archive::open(&path)?, &ImportOptions::default(), &mut note)?;
        ensure!(
            last == (data.len() as u64, Some(data.len() as u64)),
            "{name}: {last:?}"
        );
        check_metadata(&image).with_context(|| name.to_owned())?;
    }
    ensure!(
        images
            .list()?
            .iter()
            .map(|i| i.name.as_str())
            .eq(["gzip", "plain", "xz", "zstd"])
    );
    Ok(())
}

fn compressed(plain: &[u8]) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(plain)?;
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(plain)?;
    Ok(vec![
        ("plain", plain.to_vec()),
        ("gzip", gzip.finish()?),
        ("xz", xz.finish()?),
        ("zstd", zstd::stream::encode_all(plain, 1)?),
    ])
}

fn check_metadata(image: &Image) -> Result<()> {
    let status =
        |path: &str| fs::symlink_metadata(image.layers[0].join(path)).with_context(|| path.to_owned());
    let su = status("bin/su")?;
    ensure!((su.mode() & 0o7777, su.uid(), su.mtime()) == (0o4755, 0, 1_000_000_000));
    let home = status("home/joe")?;
    ensure!((home.mode() & 0o7777, home.uid(), home.gid()) == (0o2750, 1000, 1000));
    ensure!(
        home.mtime() == 1_000_000_000,
        "a directory keeps its time when files are put into it"
    );
    let note = status("home/joe/note")?;
    ensure!(note.ino() == status("home/joe/again")?.ino() && note.nlink() == 2);
    ensure!(fs::read_link(image.layers[0].join("home/joe/link"))? == Path::new("/etc/passwd"));
    let pipe = status("run/pipe")?;
    ensure!(pipe.file_type().is_fifo() && (pipe.mode() & 0o7777, pipe.uid()) == (0o620, 5));
    ensure!(status("dev/mem").is_err() && image.manifest.devices_skipped == 1);
    ensure!(
        status("sbin")?.mode() & 0o7777 == 0o755,
        "a directory that no entry names"
    );
    ensure!(image.manifest.highest_id == 1000 && image.manifest.architecture == "unknown");

    let ping = image.layers[0].join("bin/ping");
    let attribute = |name: &str| {
        let mut buffer = [0; 64];
        rustix::fs::getxattr(&ping, name, &mut buffer).map(|n| buffer[..n].to_vec())
    };
    ensure!(attribute("security.capability")? == NET_RAW);
    ensure!(attribute("user.note")? == b"a\nb");
    ensure!(
        attribute("trusted.overlay.redirect").is_err(),
        "an image must not steer the overlay mount"
    );
    Ok(())
}

/// Everything below `dir` with its content, to see whether it changed.
fn snapshot(dir: &Path) -> Result<Vec<impl Ord + use<>>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let status = fs::symlink_metadata(&path)?;
        let content = if status.is_file() {
            fs::read(&path)?
        } else {
            Vec::new()
        };
        all.push((path, status.mode(), status.nlink(), content));
    }
    all.sort();
    Ok(all)
}

/// Archives that try to reach the folder `out`, which holds `secret`.
#[allow(clippy::too_many_lines, reason = "a table")]
fn hostile(out: &str) -> Vec<(&'static str, Tar)> {
    let up = format!("../../../../../../../../../../..{out}");
    let secret = format!("{out}/secret");
    let s = Tar::system;
    vec![
        ("dotdot", s().file(&format!("{up}/new"), 0o644, b"x")),
        ("absolute", s().file(&format!("{out}/new"), 0o644, b"x")),
        (
            "link",
            s().symlink("a", out)
                .file("a/new", 0o644, b"x")
                .file("a/secret", 0o4777, b"x"),
        ),
        (
            "link-up",
            s().symlink("a", &up)
                .file("a/new", 0o644, b"x")
                .dir("a/sub", 0o777),
        ),
        (
            "chain",
            s().symlink("a", "..")
                .symlink("b", "a/..")
                .symlink("c", &format!("b/{up}"))
                .file("c/new", 0o644, b"x"),
        ),
        (
            "dir-over-link",
            s().symlink("a", out).dir("a/", 0o777).file("a/new", 0o644, b"x"),
        ),
        ("file-over-link", s().symlink("a", &secret).file("a", 0o777, b"x")),
        ("hardlink", s().hardlink("a", &secret).file("a", 0o777, b"x")),
        ("hardlink-up", s().hardlink("a", &format!("{up}/secret"))),
        (
            "hardlink-through",
            s().symlink("d", out)
                .hardlink("a", "d/secret")
                .file("a", 0o777, b"x"),
        ),
        (
            "hardlink-of-link",
            s().symlink("l", &secret)
                .hardlink("a", "l")
                .file("a/../x", 0o777, b"x"),
        ),
        (
            "fifo-through",
            s().symlink("d", out).entry(b'6', "d/fifo", "", b""),
        ),
        (
            "root-link",
            Tar::new().symlink("./", out).file("new", 0o644, b"x"),
        ),
        ("root-file", Tar::new().file(".", 0o644, b"x")),
        ("root-swap", s().entry(b'1', ".", "sbin/init", b"")),
        (
            "pax-path",
            s().pax(&[("path", format!("{up}/new").as_bytes())])
                .file("ok", 0o644, b"x"),
        ),
        (
            "pax-link",
            s().pax(&[("linkpath", secret.as_bytes())])
                .hardlink("a", "sbin/init")
                .file("a", 0o777, b""),
        ),
        (
            "cached",
            s().file("d/x", 0o644, b"")
                .symlink("e", "d")
                .file("e/y", 0o644, b"")
                .symlink("e", out)
                .file("e/new", 0o644, b""),
        ),
        (
            "proc",
            s().symlink("p", "/proc/self/root")
                .file(&format!("p{out}/new"), 0o644, b"x"),
        ),
    ]
}

fn hostile_archives_write_nothing_outside() -> Result<()> {
    needs!(root);
    let scratch = Scratch::new();
    let outside = scratch.0.join("outside");
    fs::create_dir(&outside)?;
    fs::write(outside.join("secret"), "s")?;
    let before = snapshot(&outside)?;
    let out = outside.to_str().context("a plain path")?;
    let images = scratch.images();
    for (name, archive) in hostile(out) {
        let result = import(&images, name, &archive.end());
        ensure!(snapshot(&outside)? == before, "{name} reached out: {result:?}");
        ensure!(images.exists(name) == result.is_ok(), "{name}");
        ensure!(
            names(&scratch)?.iter().all(|n| !n.starts_with('.')),
            "{name}: {:?}",
            names(&scratch)?
        );
    }
    for refused in [
        "dotdot",
        "hardlink",
        "hardlink-up",
        "root-link",
        "root-file",
        "root-swap",
        "pax-path",
    ] {
        ensure!(!images.exists(refused), "{refused} was taken");
    }
    // What leads out by an absolute path leads to the image's own root instead.
    ensure!(
        images.get("absolute")?.layers[0]
            .join(out.trim_start_matches('/'))
            .join("new")
            .exists()
    );
    Ok(())
}

fn names_that_come_twice_are_replaced() -> Result<()> {
    needs!(root);
    let scratch = Scratch::new();
    let archive = Tar::system()
        .file("a", 0o600, b"first")
        .hardlink("kept", "a")
        .file("a", 0o644, b"second")
        .dir("d", 0o700)
        .file("d/x", 0o644, b"")
        .dir("d", 0o711)
        .symlink("l", "d")
        .file("l/y", 0o644, b"through the link")
        .dir("l", 0o755)
        .file("l/y", 0o644, b"in the directory");
    let root = import(&scratch.images(), "twice", &archive.end())?.layers[0].clone();
    ensure!(fs::read(root.join("a"))? == b"second" && fs::read(root.join("kept"))? == b"first");
    ensure!(fs::metadata(root.join("d"))?.mode() & 0o7777 == 0o711 && root.join("d/x").exists());
    ensure!(fs::read(root.join("d/y"))? == b"through the link");
    ensure!(fs::read(root.join("l/y"))? == b"in the directory");
    Ok(())
}

/// The system's own tar packs, in all its formats; the same file comes out, holes and all.
fn sparse_files_of_every_format_stay_sparse() -> Result<()> {
    needs!(root, tar);
    let scratch = Scratch::new();
    let tree = scratch.0.join("tree");
    fs::create_dir_all(tree.join("sbin"))?;
    fs::write(tree.join("sbin/init"), "#!/bin/sh\n")?;
    fs::set_permissions(tree.join("sbin/init"), fs::Permissions::from_mode(0o755))?;
    // More parts than a header has room for, a hole at the end, and one file that is nothing but a hole.
    let file = fs::File::create(tree.join("data"))?;
    for n in 0..40_u64 {
        file.write_all_at(format!("part {n}").as_bytes(), n << 20)?;
    }
    file.set_len(100 << 20)?;
    fs::File::create(tree.join("hole"))?.set_len(1 << 32)?;
    let expected = fs::read(tree.join("data"))?;
    let formats: [&[&str]; 4] = [
        &["--format=gnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ];
    for (n, format) in formats.iter().enumerate() {
        let archive = scratch.0.join("archive.tar");
        let mut tar = Command::new("tar");
        tar.args(["--create", "--sparse", "--directory"])
            .arg(&tree)
            .arg("--file")
            .arg(&archive);
        crate::harness::run(tar.args(*format).arg("."))?;
        ensure!(
            fs::metadata(&archive)?.len() < 4 << 20,
            "{format:?}: tar found no holes"
        );
        let images = scratch.images();
        let image = images.import(
            &format!("i{n}"),
            Archive::open(&archive)?,
            &ImportOptions::default(),
            &mut |_| {},
        )?;
        let (data, hole) = (
            image.layers[0].join("data"),
            fs::metadata(image.layers[0].join("hole"))?,
        );
        ensure!(fs::read(&data)? == expected, "{format:?}: another content");
        ensure!(
            fs::metadata(&data)?.blocks() * 512 < 2 << 20,
            "{format:?}: the holes take up room"
        );
        ensure!(
            (hole.len(), hole.blocks()) == (1 << 32, 0),
            "{format:?}: {hole:?}"
        );
        ensure!(
            image.manifest.size_bytes < 2 << 20,
            "{format:?}: {:?}",
            image.manifest
        );
    }
    Ok(())
}

/// An archive without blocks of zeroes, of one that a label begins, through a pipe.
fn labels_missing_ends_and_standard_input() -> Result<()> {
    needs!(root);
    let scratch = Scratch::new();
    let mut archive = Tar::new().entry(b'V', "backup of May", "", b"").0;
    archive.extend(Tar::system().file("etc/motd", 0o644, b"hello").0);
    let import = |name: &str, data: &[u8]| -> Result<std::process::Output> {
        let mut child = Command::new(crate::harness::condo())
            .args(["--root", scratch.0.to_str().context("a plain path")?])
            .args(["image", "import", "-", "--name", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("a pipe")?.write_all(data)?;
        Ok(child.wait_with_output()?)
    };
    let output = import("piped", &archive)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.success() && said.contains("may have been cut off"),
        "{said}"
    );
    let rootfs = scratch.0.join("lib/images/piped/rootfs");
    ensure!(fs::read(rootfs.join("etc/motd"))? == b"hello" && !rootfs.join("backup of May").exists());
    // In the middle of an entry there is no doubt.
    archive.truncate(archive.len() - 100);
    let cut = import("cut", &archive)?;
    let said = String::from_utf8_lossy(&cut.stderr).into_owned();
    ensure!(!cut.status.success() && said.contains("ends too early"), "{said}");
    ensure!(!scratch.0.join("lib/images/cut").exists());
    Ok(())
}

fn what_archives_leave_out_is_made() -> Result<()> {
    needs!(root);
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let scratch = Scratch::new();
    let archive = Tar::new()
        .file("sbin/init", 0o755, b"#!/bin/sh\n")
        .dir("var/run/", 0o700)
        .symlink("run", "var/run")
        .symlink("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");
    let root = import(&scratch.images(), "least", &archive.end())?.layers[0].clone();
    for (name, mode) in [
        ("dev", 0o755),
        ("proc", 0o555),
        ("sys", 0o555),
        ("tmp", 0o1777),
        ("root", 0o700),
    ] {
        ensure!(
            fs::symlink_metadata(root.join(name))?.mode() & 0o7777 == mode,
            "{name}"
        );
    }
    ensure!(
        fs::read_link(root.join("run"))? == Path::new("var/run"),
        "what is there stays"
    );
    ensure!(fs::metadata(root.join("var/run"))?.mode() & 0o7777 == 0o700);
    Ok(())
}

fn archives_that_are_no_system_are_refused() -> Result<()> {
    needs!(root);
    let scratch = Scratch::new();
    let images = scratch.images();
    let archives: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Tar::new().end()),
        ("wrapped", Tar::new().file("rootfs/sbin/init", 0o755, b"").end()),
        ("not-executable", Tar::new().file("sbin/init", 0o644, b"").end()),
        ("directory", Tar::new().dir("sbin/init", 0o755).end()),
        (
            "out",
            Tar::new()
                .symlink("sbin/init", "../../../../../../../../bin/true")
                .end(),
        ),
        ("text", b"this is not an archive".to_vec()),
        ("nothing", Vec::new()),
        ("bzip2", b"BZh91AY&SY".to_vec()),
    ];
    for (name, data) in archives {
        ensure!(import(&images, name, &data).is_err(), "{name}");
        ensure!(names(&scratch)?.is_empty(), "{name}");
    }
    let options = ImportOptions {
        init: Some(vec!["/opt/run".into()]),
        ..ImportOptions::default()
    };
    let data = Tar::new().file("opt/run", 0o755, b"").end();
    let image = images.import(
        "explicit",
        Archive::from_reader("", &data[..]),
        &options,
        &mut |_| {},
    )?;
    ensure!(image.manifest.init == ["/opt/run"] && image.manifest.stop_signal == "SIGTERM");
    ensure!(
        images
            .import(
                "Bad/name",
                Archive::from_reader("", &data[..]),
                &options,
                &mut |_| {}
            )
            .is_err()
    );
    Ok(())
}

fn limits_hold_and_leave_nothing() -> Result<()> {
    needs!(root);
    let scratch = Scratch::new();
    let images = scratch.images();
    let big = Tar::system()
        .file("big", 0o644, &vec![0; 4 << 20])
        .file("b", 0o644, b"")
        .end();
    let bomb = zstd::stream::encode_all(&big[..], 1)?;
    let deep = Tar::system()
        .pax(&[("path", "d/".repeat(1500).as_bytes())])
        .dir("x", 0o755)
        .end();
    let limits = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        ImportOptions {
            limits,
            ..ImportOptions::default()
        }
    };
    let cases: [(&[u8], ImportOptions); 3] = [
        (&bomb, limits(|l| l.bytes = 1 << 20)),
        (&big, limits(|l| l.entries = 3)),
        (&deep, limits(|l| l.path = 100)),
    ];
    for (data, options) in cases {
        let error = images
            .import("x", Archive::from_reader("", data), &options, &mut |_| {})
            .unwrap_err();
        ensure!(error.to_string().contains("limit of"), "{error}");
        ensure!(names(&scratch)?.is_empty());
    }
    // Deeper than this process may have descriptors: it can be made, so it must be removable.
    let two = Tar::system()
        .pax(&[("path", "d/".repeat(1500).as_bytes())])
        .dir("x", 0o755)
        .end();
    import(&images, "deep", &two)?;
    images.remove("deep")?;
    ensure!(names(&scratch)?.is_empty());
    Ok(())
}

/// Hands over an archive and waits in the middle of it.
struct Slow<'a> {
    data: &'a [u8],
    reached: std::sync::mpsc::Sender<()>,
    go_on: std::sync::mpsc::Receiver<()>,
}

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.data.len() <= 1024 && self.reached.send(()).is_ok() {
            let _ = self.go_on.recv();
        }
        let most = buffer.len().min(512);
        self.data.read(&mut buffer[..most])
    }
}

fn the_second_of_two_makers_is_told() -> Result<()> {
    needs!(root);
    let scratch = Scratch::new();
    let images = scratch.images();
    let data = Tar::system().end();
    std::thread::scope(|scope| -> Result<()> {
        let (reached, at_middle) = std::sync::mpsc::channel();
        let (release, go_on) = std::sync::mpsc::channel::<()>();
        let (images, data) = (&images, &data);
        let first = scope.spawn(move || {
            let slow = Slow { data, reached, go_on };
            images.import(
                "one",
                Archive::from_reader("", slow),
                &ImportOptions::default(),
                &mut |_| {},
            )
        });
        at_middle.recv()?;
        let second = import(images, "one", data);
        ensure!(matches!(second, Err(Error::Busy(_))), "{second:?}");
        ensure!(
            !images.exists("one") && images.list()?.is_empty(),
            "half an image shows"
        );
        ensure!(images.sweep()? == 0, "an import under way was swept");
        import(images, "other", data)?;
        drop(release);
        ensure!(first.join().expect("the first maker")?.name == "one");
        let third = import(images, "one", data);
        ensure!(matches!(third, Err(Error::Exists { .. })), "{third:?}");
        Ok(())
    })?;
    ensure!(names(&scratch)? == ["one", "other"], "{:?}", names(&scratch)?);
    Ok(())
}

fn what_a_killed_import_left_is_swept() -> Result<()> {
    needs!(root);
    const DIR: &str = "CONDO_TEST_IMAGES";
    if let Some(dir) = std::env::var_os(DIR) {
        // The process that will be killed.
        let archive = Archive::from_reader("", std::io::stdin());
        Images::new(dir).import("half", archive, &ImportOptions::default(), &mut |_| {})?;
        return Ok(());
    }
    let scratch = Scratch::new();
    let images = scratch.images();
    let mut child = Command::new("/proc/self/exe")
        .args(["--child", "image::what_a_killed_import_left_is_swept"])
        .env(DIR, scratch.0.join("images"))
        .stdin(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    // More than a pipe and the reader's buffers hold: when it has been written, some of it has been unpacked.
    stdin.write_all(&Tar::system().file("big", 0o644, &vec![1; 1 << 20]).0)?;
    child.kill()?;
    child.wait()?;
    ensure!(
        names(&scratch)? == [".lock-half", ".tmp-half"],
        "{:?}",
        names(&scratch)?
    );
    ensure!(images.list()?.is_empty() && !images.exists("half"));
    ensure!(
        images.sweep()? == 1 && names(&scratch)?.is_empty(),
        "{:?}",
        names(&scratch)?
    );
    import(&images, "half", &Tar::system().end())?;
    Ok(())
}

fn recipes_can_be_folders() -> Result<()> {
    needs!(root, busybox);
    let scratch = Scratch::new();
    let dir = scratch.0.join("recipe");
    fs::create_dir(&dir)?;
    fs::write(
        dir.join("recipe.json"),
        r#"{"name": "mine", "description": "d", "base": "busybox", "remove": ["usr/sbin/*", "nothing/*"],
            "files": [{"path": "/etc/motd", "from": "motd", "mode": "0640", "gid": 5}], "links": {"linuxrc": "etc/motd"}}"#,
    )?;
    fs::write(dir.join("motd"), "welcome\n")?;
    let image = scratch.images().build(&Recipe::from_dir(&dir)?, &mut |_| {})?;
    ensure!(image.name == "mine" && image.manifest.stop_signal == "SIGUSR2");
    let motd = fs::metadata(image.layers[0].join("linuxrc"))?;
    ensure!((motd.mode() & 0o7777, motd.gid()) == (0o640, 5));
    ensure!(fs::read_dir(image.layers[0].join("usr/sbin"))?.next().is_none());
    Ok(())
}
