//! VPSs as files: archives, chains of them, backups.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use super::copies::{FURNISH, INVENTORY};
use super::house::House;
use crate::harness;

tests![
    a_vps_goes_into_a_file_and_comes_back: 120,
    changes_come_after_what_they_changed: 120,
    damaged_archives_are_refused,
    forged_files_are_refused,
    forged_descriptions_are_refused,
    backups_bring_vpss_back: 120,
];

/// A path in the one folder that this test has for files.
fn file(name: &str) -> String {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(harness::tempdir).join(name).display().to_string()
}

fn a_vps_goes_into_a_file_and_comes_back() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--memory 64M")?;
    house.sh("web", FURNISH)?;
    house.sh("web", "setfattr -n user.a -v b /srv/file 2>/dev/null; echo 0123456789abcdef0123456789abcdef > /etc/machine-id; sync")?;
    let (inventory, address) = (house.sh("web", INVENTORY)?, house.address("web")?);
    let all = file("web.condo");
    let said = house.ok(&format!("export web -o {all}"))?;
    ensure!(said.contains("exported to"), "{said}");
    // Any tar reads it.
    let listed = harness::run(Command::new("sh").args(["-c", &format!("zstd -dc {all} | tar -tf -")]))?;
    ensure!(
        listed.starts_with("condo.json\n") && listed.contains("layer/upper/srv/pipe\n"),
        "{listed}"
    );
    house.ok(&format!("import {all} --name other"))?;
    house.ok("start other")?;
    house.up("other")?;
    ensure!(
        house.sh("other", INVENTORY)? == inventory,
        "{}",
        house.sh("other", INVENTORY)?
    );
    ensure!(house.sh("other", "cat /etc/hostname")? == "other" && house.address("other")? != address);
    ensure!(
        !house
            .sh("other", "cat /etc/machine-id")?
            .starts_with("0123456789abcdef")
    );
    house.ok("delete --force web other")?;
    house.ok("image remove busybox")?;
    // Without its image, under its old name: with its identity and address.
    house.ok(&format!("import {all} --name web"))?;
    ensure!(house.address("web")? == address && house.show("web")?["limits"]["memory"] == 64 << 20);
    house.ok("start web")?;
    house.up("web")?;
    ensure!(house.sh("web", INVENTORY)? == inventory);
    ensure!(
        house
            .sh("web", "cat /etc/machine-id")?
            .starts_with("0123456789abcdef")
    );
    house.refused(&format!("import {all} --name web"), "already exists")?;
    house.leave()
}

fn changes_come_after_what_they_changed() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    house.sh("web", FURNISH)?;
    house.sh(
        "web",
        "dd if=/dev/urandom of=/root/big bs=1M count=4 2>/dev/null; sync; sleep 0.3",
    )?;
    house.ok("snapshot create web one")?;
    house.sh("web", "rm /srv/link; echo two > /srv/two; sync")?;
    house.ok("snapshot create web two")?;
    let (a, b) = (file("a.condo"), file("b.condo"));
    house.ok(&format!("export web --snapshot one -o {a}"))?;
    house.ok(&format!("export web --snapshot two --since one -o {b}"))?;
    ensure!(
        Path::new(&b).metadata()?.len() < 200_000,
        "{}",
        Path::new(&b).metadata()?.len()
    );
    for (name, line) in [("both", format!("{a} {b}")), ("beside", b.clone())] {
        house.ok(&format!("import {line} --name {name}"))?;
        let upper = |vps: &str| house.root.join("lib/vps").join(vps).join("disk/upper");
        ensure!(
            std::fs::read(upper(name).join("root/big"))? == std::fs::read(upper("web").join("root/big"))?
        );
        ensure!(
            upper(name).join("srv/two").exists() && upper(name).join("srv/link").symlink_metadata().is_err()
        );
    }
    // A chain that is broken or in disorder.
    house.refused(&format!("import {b} {a} --name x"), "does not come before it")?;
    house.refused(&format!("import {a} {a} --name x"), "comes after another")?;
    std::fs::rename(&a, file("gone"))?;
    std::fs::create_dir(file("elsewhere"))?;
    std::fs::rename(file("gone"), file("elsewhere/a.condo"))?;
    house.refused(&format!("import {b} --name x"), "no archive in")?;
    ensure!(house.list()?.len() == 3);
    house.leave()
}

/// A file of a stranger's archive: its type as tar has it, its path, where a link leads, its pax records.
type Forged<'f> = (u8, &'f str, &'f str, &'f [(&'f str, &'f str)]);

/// An archive that a stranger made: a list of files.
fn forged(entries: &[Forged<'_>], header: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write;
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |kind: u8, path: &str, target: &str, records: &[(&str, &str)], data: &[u8]| -> Result<()> {
        if !records.is_empty() {
            tar.append_pax_extensions(records.iter().map(|(k, v)| (*k, v.as_bytes())))?;
        }
        let mut head = tar::Header::new_ustar();
        head.set_entry_type(tar::EntryType::new(kind));
        head.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        head.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        head.set_size(data.len() as u64);
        head.set_mode(0o755);
        head.set_uid(0);
        head.set_gid(0);
        head.set_mtime(0);
        head.set_cksum();
        Ok(tar.append(&head, data)?)
    };
    add(b'0', "condo.json", "", &[], header)?;
    for (kind, path, target, records) in entries {
        add(*kind, path, target, records, b"")?;
    }
    let bytes = tar.into_inner()?;
    let mut sealed = condo::vps::copy::archive::Sealing::new(Vec::new());
    sealed.write_all(&zstd::encode_all(bytes.as_slice(), 1)?)?;
    Ok(sealed.seal()?.0)
}

/// An instance with an archive of an own VPS, and what that says of itself.
struct Strangers {
    house: House,
    whole: Vec<u8>,
    header: String,
}

impl Strangers {
    fn new() -> Result<Self> {
        let house = House::new()?;
        house.ok("create web --image busybox")?;
        let good = file("good.condo");
        house.ok(&format!("export web --without-image -o {good}"))?;
        let script = format!("zstd -dc {good} | tar -xOf - condo.json");
        let header = harness::run(Command::new("sh").args(["-c", &script]))?;
        Ok(Self {
            house,
            whole: std::fs::read(&good)?,
            header,
        })
    }

    fn refuse(&self, bytes: &[u8], needle: &str) -> Result<()> {
        let bad = file("bad.condo");
        std::fs::write(&bad, bytes)?;
        let refused = self.house.refused(&format!("import {bad} --name x"), needle);
        refused.map(drop)
    }

    fn leave(self) -> Result<()> {
        ensure!(self.house.list()?.len() == 1, "something came of it");
        ensure!(!self.house.root.join("lib/arriving").exists());
        self.house.leave()
    }
}

fn damaged_archives_are_refused() -> Result<()> {
    let strangers = Strangers::new()?;
    let whole = &strangers.whole;
    strangers.refuse(b"", "not an archive")?;
    strangers.refuse(&whole[..whole.len() - 1], "read `")?;
    strangers.refuse(&whole[..whole.len() / 2], "read `")?;
    for at in [whole.len() / 3, whole.len() / 2, whole.len() - 10] {
        let mut flipped = whole.to_vec();
        flipped[at] ^= 1;
        strangers.refuse(&flipped, "read `")?;
    }
    strangers.leave()
}

fn forged_files_are_refused() -> Result<()> {
    let strangers = Strangers::new()?;
    let outside = harness::tempdir().join("outside").display().to_string();
    let special = |word: &'static str| [("SCHILY.xattr.trusted.condo.entry", word)];
    let (plain, same) = (special("0 plain"), special("0 same"));
    let top: Forged<'_> = (b'5', "layer", "", &[]);
    let cases: [(Vec<Forged<'_>>, &str); 13] = [
        (vec![(b'0', "layer/../../outside", "", &[])], "`..`"),
        (
            vec![
                top,
                (b'2', "layer/upper", &outside, &[]),
                (b'0', "layer/upper/x", "", &[]),
            ],
            "unpack",
        ),
        (vec![top, (b'4', "layer/disk", "", &[])], "kind that cannot"),
        (vec![top, (b'3', "layer/null", "", &plain)], "does not know"),
        (vec![top, (b'0', "layer/same", "", &same)], "nothing before"),
        (
            vec![top, (b'0', "layer/a", "", &[]), (b'0', "layer/a", "", &[])],
            "comes twice",
        ),
        (vec![top, (b'1', "layer/l", "condo.json", &[])], "another part"),
        (
            vec![(
                b'5',
                "layer",
                "",
                &[("SCHILY.xattr.trusted.overlay.redirect", "/../../etc")],
            )],
            "attribute",
        ),
        (
            vec![(
                b'5',
                "layer",
                "",
                &[("SCHILY.xattr.trusted.overlay.metacopy", "")],
            )],
            "attribute",
        ),
        (
            vec![(b'5', "layer", "", &[("SCHILY.xattr.security.selinux", "x")])],
            "attribute",
        ),
        (vec![top, (b'0', "elsewhere", "", &[])], "belongs to no part"),
        (vec![top, (b'0', "layer/a", "", &[("uid", "4194304")])], "owner"),
        (
            vec![top, (b'0', "layer/a", "", &[("uid", "65536")])],
            "has 65536 user ids",
        ),
    ];
    for (entries, needle) in cases {
        let archive = forged(&entries, strangers.header.as_bytes())?;
        strangers
            .refuse(&archive, needle)
            .with_context(|| format!("{entries:?}"))?;
    }
    ensure!(!Path::new(&outside).exists());
    strangers.leave()
}

fn forged_descriptions_are_refused() -> Result<()> {
    let strangers = Strangers::new()?;
    for (from, to, needle) in [
        (
            "\"version\": 1",
            "\"version\": 2",
            "only one that this condo knows",
        ),
        ("\"image\": \"busybox\"", "\"image\": \"../x\"", "image"),
        ("\"name\": \"web\"", "\"name\": \"../web\"", "NAME"),
        ("\"config\": {", "\"config\": { \"surprise\": 1,", "surprise"),
        ("\"digest\": \"", "\"digest\": \"00", "did not come along"),
    ] {
        let changed = strangers.header.replacen(from, to, 1);
        ensure!(changed != strangers.header, "no {from} in {}", strangers.header);
        let archive = forged(&[(b'5', "layer", "", &[])], changed.as_bytes())?;
        strangers
            .refuse(&archive, needle)
            .with_context(|| to.to_owned())?;
    }
    strangers.leave()
}

fn backups_bring_vpss_back() -> Result<()> {
    let house = House::new()?;
    let dir = file("backups");
    for name in ["web", "db"] {
        house.running(name, "")?;
        house.sh(name, &format!("echo {name} > /root/who; sync"))?;
    }
    house.ok(&format!("backup {dir} --all --keep-last 2"))?;
    house.sh("web", "echo more > /root/more; sync; sleep 1")?;
    let said = house.ok(&format!("backup {dir} web --keep-last 2"))?;
    ensure!(said.contains("of changes"), "{said}");
    house.sh("web", "sleep 1")?;
    let said = house.ok(&format!("backup {dir} web --keep-last 1 --changes 1"))?;
    ensure!(
        !said.contains("of changes") && said.contains("2 old ones removed"),
        "{said}"
    );
    house.sh("web", "echo last > /root/last; sync; sleep 1")?;
    house.ok(&format!("backup {dir} web --keep-last 1"))?;
    house.ok("delete --force --all")?;
    for name in ["web", "db"] {
        let mut files: Vec<_> = std::fs::read_dir(Path::new(&dir).join(name))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        files.retain(|path| path.extension().is_some_and(|end| end == "condo"));
        files.sort();
        ensure!(files.len() == if name == "web" { 2 } else { 1 }, "{files:?}");
        let newest = files.last().context("no backup")?;
        house.ok(&format!("import {} --name {name}", newest.display()))?;
        house.ok(&format!("start {name}"))?;
        house.up(name)?;
        ensure!(house.sh(name, "cat /root/who")? == name);
    }
    ensure!(house.sh("web", "cat /root/more /root/last")? == "more\nlast");
    house.leave()
}
