//! Disks on every back end, by the same steps: they hold, they grow, they are copied in all ways, and nothing of them is left.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::statvfs::statvfs;
use serde_json::Value;

use super::house::{House, eventually, said};
use crate::harness;
use crate::harness::trace::{self, Victim};

tests![
    a_disk_in_a_file_passes in guest: 120,
    a_subvolume_passes: 120,
    a_project_on_ext4_passes in guest: 120,
    a_project_on_xfs_passes in guest: 120,
    a_folder_passes: 60,
    a_copy_of_the_image_passes: 60,
    settings_choose_what_keeps_a_disk,
    nonsense_about_disks_is_refused,
    no_kill_leaves_half_a_disk: 120,
    a_full_host_costs_nobody_a_disk: 60,
];

const MIB: u64 = 1 << 20;

/// A file system of its own for an instance, in a file.
pub(crate) fn mounted(megabytes: u64, make: &[&str], options: &str) -> Result<PathBuf> {
    harness::private_mounts()?;
    harness::need(&format!("program:{}", make[0]));
    let (image, place) = (harness::tempdir().join("disk"), harness::tempdir());
    File::create(&image)?.set_len(megabytes * MIB)?;
    let program = harness::program(make[0]).context("the program was there")?;
    harness::run(Command::new(program).args(&make[1..]).arg(&image))?;
    let mount = |options: &str| {
        let mut command = Command::new("mount");
        command.args(["-o", options]).arg(&image).arg(&place);
        command
    };
    if options.is_empty() {
        harness::run(&mut mount("loop"))?;
    } else if !mount(&format!("loop,{options}")).output()?.status.success() {
        // A kernel without quotas of this file system.
        harness::need("project-quotas");
    }
    Ok(place)
}

/// What a back end is expected to do.
struct Kind {
    backend: &'static str,
    /// Whether it holds a disk to a size.
    holds: bool,
    /// Whether it counts inodes.
    inodes: bool,
    /// Whether it can become smaller.
    shrinks: bool,
    /// Whether `df` inside tells of the VPS alone.
    tells: bool,
    /// Whether there are archives of it.
    archives: bool,
}

fn a_disk_in_a_file_passes() -> Result<()> {
    needs!(root, busybox);
    harness::need("program:mkfs.ext4");
    let kind = Kind {
        backend: "file",
        holds: true,
        inodes: true,
        shrinks: false,
        tells: true,
        archives: true,
    };
    passes(House::new()?, &kind)
}

fn a_subvolume_passes() -> Result<()> {
    needs!(root, busybox);
    let place = mounted(512, &["mkfs.btrfs", "-q"], "")?;
    let kind = Kind {
        backend: "btrfs",
        holds: true,
        inodes: false,
        shrinks: true,
        tells: false,
        archives: true,
    };
    passes(House::at(place.join("condo"))?, &kind)
}

const PROJECT: Kind = Kind {
    backend: "project",
    holds: true,
    inodes: true,
    shrinks: true,
    tells: true,
    archives: true,
};

fn a_project_on_ext4_passes() -> Result<()> {
    needs!(root, busybox);
    let make = [
        "mkfs.ext4",
        "-q",
        "-F",
        "-O",
        "quota,project",
        "-E",
        "quotatype=prjquota",
    ];
    let place = mounted(512, &make, "prjquota")?;
    passes(House::at(place.join("condo"))?, &PROJECT)
}

fn a_project_on_xfs_passes() -> Result<()> {
    needs!(root, busybox);
    let place = mounted(512, &["mkfs.xfs", "-q"], "prjquota")?;
    passes(House::at(place.join("condo"))?, &PROJECT)
}

fn a_folder_passes() -> Result<()> {
    let kind = Kind {
        backend: "folder",
        holds: false,
        inodes: false,
        shrinks: false,
        tells: false,
        archives: true,
    };
    passes(House::new()?, &kind)
}

/// What a VPS in a VPS has by itself, and here by the settings.
fn a_copy_of_the_image_passes() -> Result<()> {
    let kind = Kind {
        backend: "copy",
        holds: false,
        inodes: false,
        shrinks: false,
        tells: false,
        archives: false,
    };
    let mut house = House::new()?;
    std::fs::create_dir_all(house.root.join("etc"))?;
    house.running("other", "")?;
    let archive = harness::tempdir().join("other.condo");
    house.ok(&format!("export other -o {}", archive.display()))?;
    std::fs::write(
        house.root.join("etc/condo.toml"),
        "[storage]\nbackend = \"copy\"\n",
    )?;
    house.refused("clone other clone", "has all of its image in it")?;
    let import = format!("import {} --name arrived", archive.display());
    house.refused(&import, "has all of its image in it")?;
    house.refused("create web --image busybox --disk 64M", "storage.backend")?;
    house.ok("delete --force other")?;
    house.settle_in();
    passes(house, &kind)
}

/// The life of a VPS on a back end.
fn passes(house: House, kind: &Kind) -> Result<()> {
    if kind.holds {
        is_held(&house, kind)?;
        grows(&house, kind)?;
        empty(&house)?;
    } else {
        house.running("web", "")?;
    }
    goes_back(&house)?;
    is_copied(&house, kind)?;
    is_made_anew(&house, kind)?;
    house.ok("delete --force --all")?;
    house.leave()
}

/// The size and use of `/` inside, in bytes.
fn df(house: &House, name: &str) -> Result<(u64, u64)> {
    let text = house.sh(name, "df -k / | tail -n 1")?;
    let numbers: Vec<u64> = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    ensure!(numbers.len() >= 3, "{text}");
    Ok((numbers[0] * 1024, numbers[1] * 1024))
}

fn disk(house: &House, name: &str) -> Result<Value> {
    Ok(house.show(name)?["disk"].clone())
}

fn is_held(house: &House, kind: &Kind) -> Result<()> {
    let inodes = if kind.inodes { "--inodes 600" } else { "" };
    house.running("web", &format!("--disk 64M {inodes}"))?;
    house.running("db", "--disk 64M")?;
    let shown = disk(house, "web")?;
    ensure!(
        shown["backend"] == kind.backend && shown["size"] == 64 * MIB,
        "{shown}"
    );

    // Full for the tenant; not for a neighbour.
    let full = house.try_sh("web", "dd if=/dev/urandom of=/big bs=64k count=2000 && sync")?;
    let said = said(&full);
    ensure!(
        said.contains("No space left") || said.contains("quota exceeded"),
        "{said}"
    );
    let size: u64 = house.sh("web", "sync; stat -c %s /big")?.parse()?;
    ensure!((40 * MIB..64 * MIB + 1).contains(&size), "{size}");
    house.sh(
        "db",
        "dd if=/dev/urandom of=/small bs=64k count=100 2>/dev/null; sync",
    )?;
    if kind.tells {
        let ((all, used), (_, others)) = (df(house, "web")?, df(house, "db")?);
        ensure!((45 * MIB..=64 * MIB).contains(&all), "{all}");
        ensure!(
            (size..=64 * MIB).contains(&used) && others < 20 * MIB,
            "{used} {others}"
        );
    }
    let used = disk(house, "web")?["used"].as_u64().context("it is counted")?;
    ensure!((40 * MIB..=64 * MIB).contains(&used), "{used}");

    // As full as it is, it starts again.
    house.ok("restart web --timeout 3")?;
    house.up("web")?;
    if kind.inodes {
        house.sh("web", "rm /big; sync")?;
        let many = house.try_sh(
            "web",
            "i=0; while [ $i -lt 700 ]; do : > /root/f$i || exit 1; i=$((i+1)); done",
        )?;
        ensure!(!many.status.success(), "700 files fit into 600 inodes");
        house.sh("web", "rm /root/f*")?;
    }
    house.ok("delete --force db").map(drop)
}

/// Removes what fills the disk of `web`. btrfs counts when a transaction is over.
fn empty(house: &House) -> Result<()> {
    house.sh("web", "rm -f /big; sync")?;
    eventually("the use is counted", || {
        Ok(disk(house, "web")?["used"].as_u64() < Some(16 * MIB))
    })
}

/// A disk grows while its VPS runs; a disk in a file does with CAP_SYS_RESOURCE alone, and else while that is stopped.
fn grows(house: &House, kind: &Kind) -> Result<()> {
    empty(house)?;
    house.sh("web", "echo kept > /root/kept; sync")?;
    let file = kind.backend == "file";
    if file && !may_resize()? {
        house.refused("resize web --disk 96M", "stop the VPS first")?;
        house.ok("stop web --timeout 3")?;
        house.ok("resize web --disk 96M")?;
        house.ok("start web")?;
        house.up("web")?;
    } else {
        house.ok("resize web --disk 96M")?;
    }
    ensure!(disk(house, "web")?["size"] == 96 * MIB);
    house.sh(
        "web",
        "dd if=/dev/urandom of=/big bs=64k count=1100 2>/dev/null; sync",
    )?;
    ensure!(house.sh("web", "stat -c %s /big; cat /root/kept")? == format!("{}\nkept", 1100 * 65536));
    if kind.tells {
        ensure!((75 * MIB..=96 * MIB).contains(&df(house, "web")?.0));
    }
    if kind.shrinks {
        house.refused("resize web --disk 32M", "in use: delete files inside first")?;
        empty(house)?;
        house.ok("resize web --disk 32M")?;
        ensure!(
            !house
                .try_sh("web", "dd if=/dev/urandom of=/big bs=64k count=600")?
                .status
                .success()
        );
    } else {
        house.refused("resize web --disk 32M", "only grows")?;
    }
    Ok(())
}

/// What a VPS has, in one line.
const STATE: &str = "cat /root/state; md5sum < /root/data";

/// A snapshot of a VPS that runs, what has changed since, and back.
fn goes_back(house: &House) -> Result<()> {
    let write = "echo one > /root/state; dd if=/dev/urandom of=/root/data bs=64k count=64 2>/dev/null; sync";
    house.sh("web", write)?;
    let state = house.sh("web", STATE)?;
    house.ok("snapshot create web s")?;
    house.sh(
        "web",
        "echo two > /root/state; rm /root/data; mkdir /root/new; sync",
    )?;
    let diff = house.ok("snapshot diff web s")?;
    for line in ["C /root/state", "R /root/data", "A /root/new"] {
        ensure!(diff.lines().any(|l| l == line), "no `{line}`: {diff}");
    }
    house.ok("snapshot restore web s --force")?;
    house.up("web")?;
    ensure!(house.sh("web", STATE)? == state);
    house.sh("web", "test ! -e /root/new").map(drop)
}

/// Clones, of now and of the snapshot, and an archive with one that builds on it: each has the same files on a disk of the same size
/// and kind, or of the kind that the host is set to.
fn is_copied(house: &House, kind: &Kind) -> Result<()> {
    let (state, size) = (house.sh("web", STATE)?, disk(house, "web")?["size"].clone());
    let dir = harness::tempdir();
    let (whole, since) = (dir.join("whole.condo"), dir.join("since.condo"));
    house.ok("clone web then --snapshot s")?;
    house.ok("snapshot create web t")?;
    house.sh("web", "echo later > /root/later; sync")?;
    house.ok("clone web now")?;
    let export = format!("export web --snapshot t -o {}", whole.display());
    let mut copies = vec![("then", false), ("now", true)];
    if kind.archives {
        house.ok(&export)?;
        house.ok(&format!("export web --since t -o {}", since.display()))?;
        ensure!(since.metadata()?.len() < whole.metadata()?.len() / 4, "all of it");
        house.ok(&format!("import {} --name in", since.display()))?;
        copies.push(("in", true));
    } else {
        house.refused(&export, "a copy of its image")?;
    }
    let names: Vec<&str> = copies.iter().map(|(name, _)| *name).collect();
    house.ok(&format!("start {}", names.join(" ")))?;
    for (name, later) in copies {
        house.up(name)?;
        let shown = disk(house, name)?;
        ensure!(
            shown["backend"] == kind.backend && shown["size"] == size,
            "{name}: {shown}"
        );
        ensure!(house.sh(name, STATE)? == state, "{name}");
        let has = house.try_sh(name, "test -e /root/later")?.status.success();
        ensure!(has == later, "{name}");
        if kind.holds {
            let full = house.try_sh(name, "dd if=/dev/urandom of=/big bs=64k count=2000 conv=fsync")?;
            ensure!(!full.status.success(), "{name} has no limit");
        }
        house.ok(&format!("delete --force {name}"))?;
    }
    if kind.holds && kind.backend != "file" {
        let settings = house.root.join("etc");
        std::fs::create_dir_all(&settings)?;
        std::fs::write(settings.join("condo.toml"), "[storage]\nbackend = \"file\"\n")?;
        house.ok(&format!("import {} --name other", whole.display()))?;
        std::fs::remove_dir_all(settings)?;
        let shown = disk(house, "other")?;
        ensure!(shown["backend"] == "file" && shown["size"] == size, "{shown}");
        house.ok("start other")?;
        house.up("other")?;
        ensure!(house.sh("other", STATE)? == state);
        house.ok("delete --force other")?;
    }
    Ok(())
}

/// A new system on the same disk, under another name.
fn is_made_anew(house: &House, kind: &Kind) -> Result<()> {
    let size = disk(house, "web")?["size"].clone();
    house.ok("snapshot delete web s t")?;
    ensure!(!house.root.join("lib/vps/web/snapshots").exists());
    house.ok("rebuild web --image busybox --force")?;
    house.ok("stop web --timeout 3")?;
    house.ok("rename web site")?;
    house.ok("start site")?;
    house.up("site")?;
    ensure!(house.sh("site", "ls -A /root")?.is_empty());
    let shown = disk(house, "site")?;
    ensure!(
        shown["backend"] == kind.backend && shown["size"] == size,
        "{shown}"
    );
    Ok(())
}

/// CAP_SYS_RESOURCE, bit 24 of `CapEff`.
fn may_resize() -> Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let set = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .context("capabilities")?;
    Ok(u64::from_str_radix(set.trim(), 16)? >> 24 & 1 == 1)
}

fn settings_choose_what_keeps_a_disk() -> Result<()> {
    needs!(root, busybox);
    harness::need("program:mkfs.ext4");
    let house = House::new()?;
    let settings = house.root.join("etc/condo.toml");
    std::fs::create_dir_all(house.root.join("etc"))?;
    let set = |text: &str| std::fs::write(&settings, text);
    set("[storage]\nbackend = \"file\"\nsize = \"32M\"\n")?;
    house.ok("create web --image busybox")?;
    let shown = disk(&house, "web")?;
    ensure!(shown["backend"] == "file" && shown["size"] == 32 * MIB, "{shown}");
    ensure!(house.ok("show web")?.contains("/ 32M, "), "{shown}");
    set("[storage]\nbackend = \"folder\"\n")?;
    house.refused("create db --image busybox --disk 64M", "storage.backend")?;
    set("[storage]\nbackend = \"btrfs\"\n")?;
    house.refused("create db --image busybox --disk 64M", "is no btrfs")?;
    set("[storage]\nbackend = \"project\"\n")?;
    house.refused("create db --image busybox", "prjquota")?;
    set("[storage]\nbakend = \"file\"\n")?;
    house.refused("create db --image busybox", "unknown field `bakend`")?;
    // What is there is not touched by settings.
    ensure!(disk(&house, "web")?["backend"] == "file" && house.list()?.len() == 1);
    house.ok("delete web")?;
    std::fs::remove_dir_all(house.root.join("etc"))?;
    house.leave()
}

fn nonsense_about_disks_is_refused() -> Result<()> {
    needs!(root, busybox);
    let house = House::new()?;
    for (options, needle) in [
        ("--disk 0", "--disk: `0B` is below 16M"),
        ("--disk 1M", "--disk: `1M` is below 16M"),
        ("--disk much", "--disk: `much` is not a size"),
        ("--disk -5G", "--disk: `-5G` is not a size"),
        ("--disk 8000000T", "of the host's file system"),
        ("--disk 64M --inodes 3", "--inodes: `3` is below 64"),
        ("--disk 64M --inodes x", "--inodes: `x` is not a whole number"),
    ] {
        house.refused(&format!("create web --image busybox {options}"), needle)?;
    }
    house.ok("create web --image busybox")?;
    house.refused("resize web --disk 64M", "this disk is a folder")?;
    house.ok("delete web")?;
    house.leave()
}

/// Killed after any of its system calls, each command leaves what the next completes or removes.
fn no_kill_leaves_half_a_disk() -> Result<()> {
    needs!(root, busybox);
    harness::need("program:mkfs.ext4");
    let house = House::new()?;
    // The tracer hands on no environment.
    let words = |line: &str| {
        let mut command = Command::new(harness::condo());
        command
            .arg("--root")
            .arg(&house.root)
            .args(line.split_whitespace());
        command
    };
    let create = "create web --image busybox --disk 32M";
    let calls = |line: &str| -> Result<usize> { Ok(trace::count(&words(line))?.calls) };
    let (creates, grows, deletes) = (
        calls(create)?,
        calls("resize web --disk 48M")?,
        calls("delete web")?,
    );
    let steps = harness::rounds(10);
    let at = |step: usize, all: usize| 1 + all * step / steps;
    for step in 0..steps {
        let cut = trace::kill_after(&words(create), Victim::Program, at(step, creates))?.cut;
        if house.show("web").is_err() {
            ensure!(cut);
            // Nothing is in the way, or it is said how to clear it away.
            let made = house.output(create)?;
            if !made.status.success() {
                ensure!(said(&made).contains("condo delete --force web"), "{made:?}");
                house.ok("delete --force web")?;
                house.ok(create)?;
            }
        }
        house.ok("start web")?;
        house.sh("web", "echo kept > /root/kept; sync")?;
        house.ok("kill web")?;
        eventually("it has ended", || Ok(house.status("web")? == "stopped"))?;
        trace::kill_after(&words("resize web --disk 48M"), Victim::Program, at(step, grows))?;
        house.ok("resize web --disk 48M")?;
        house.ok("start web")?;
        ensure!(house.sh("web", "cat /root/kept")? == "kept");
        ensure!(df(&house, "web")?.0 > 36 * MIB);
        house.ok("kill web")?;
        eventually("it has ended", || Ok(house.status("web")? == "stopped"))?;
        trace::kill_after(&words("delete web"), Victim::Program, at(step, deletes))?;
        if house.show("web").is_ok() {
            house.ok("delete --force web")?;
        }
        house.ok("delete --force --all")?;
    }
    house.leave()
}

/// Disks in files promise more than there is. A host that is full is told in one line, and what was written down is there afterwards.
fn a_full_host_costs_nobody_a_disk() -> Result<()> {
    needs!(root, busybox);
    let place = mounted(96, &["mkfs.ext4", "-q", "-F", "-m", "0"], "")?;
    let house = House::at(place.join("condo"))?;
    house.running("web", "--disk 64M")?;
    house.sh("web", "echo kept > /root/kept; sync")?;
    let ballast = place.join("ballast");
    let filler = "dd if=/dev/zero bs=64k of=";
    let _ = Command::new("sh")
        .args(["-c", &format!("{filler}{}", ballast.display())])
        .output()?;
    // Some blocks are promised to somebody, or come free again.
    ensure!(statvfs(&place)?.blocks_available() < 64);
    let failed = house.refused("create db --image busybox --disk 64M", "no space left on device")?;
    ensure!(house.show("db").is_err(), "{failed}");
    // The tenant's own disk has room, the host's has none: an error inside, never a silent loss.
    let write = house.try_sh(
        "web",
        "dd if=/dev/urandom of=/root/big bs=64k count=200 conv=fsync",
    )?;
    ensure!(!write.status.success(), "12 MiB were written to a full host");
    ensure!(house.sh("web", "cat /root/kept")? == "kept");
    house.ok("stop web --timeout 3")?;
    std::fs::remove_file(&ballast)?;
    house.ok("start web")?;
    house.up("web")?;
    ensure!(house.sh("web", "cat /root/kept")? == "kept");
    house.sh(
        "web",
        "dd if=/dev/urandom of=/root/big bs=64k count=200 conv=fsync 2>/dev/null",
    )?;
    house.ok("delete --force web")?;
    ensure!(backing(&place)?.is_empty());
    house.leave()
}

/// Loop devices of files below a place.
fn backing(place: &Path) -> Result<Vec<String>> {
    let devices = std::fs::read_dir("/sys/block")?.flatten();
    let files =
        devices.filter_map(|device| std::fs::read_to_string(device.path().join("loop/backing_file")).ok());
    Ok(files
        .filter(|file| Path::new(file.trim()).starts_with(place))
        .collect())
}
