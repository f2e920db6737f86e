//! Mounts: binds, tmpfs, remounts, propagation, ids.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use serde_json::json;

use super::bench::{Bench, CORNER, outside, tmpfs};
use super::inside::{errno_of, is_readonly, mounted, read};

tests![
    binds_appear_and_recursive_readonly_is_recursive,
    a_missing_source_is_named,
    tmpfs_keeps_its_promises,
    tmpcopyup_copies,
    a_remount_changes_only_its_mount,
    propagation_is_as_asked_and_never_reaches_the_host,
    idmapped_binds_translate_owners in guest,
];

fn binds_appear_and_recursive_readonly_is_recursive() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    tmpfs(&outside("dir/sub"))?;
    fs::write(outside("dir/sub/file"), "below")?;
    fs::write(outside("file"), "one")?;
    bench
        .mount(
            "/new/ro",
            "bind",
            "outside/dir",
            &["rbind", "ro", "nosuid", "rnodev"],
        )
        .mount("/new/rro", "none", "/mnt/outside/dir", &["rbind", "rro"])
        .mount("/new/flat", "bind", "/mnt/outside/dir", &["bind"])
        .mount("/new/file", "bind", "/mnt/outside/file", &["bind", "ro"])
        .base();
    bench.run(|| {
        ensure!(is_readonly("/new/ro") && !is_readonly("/new/ro/sub"));
        ensure!(is_readonly("/new/rro") && is_readonly("/new/rro/sub"));
        ensure!(!is_readonly("/new/flat") && !Path::new("/new/flat/sub/file").exists());
        ensure!(read("/new/ro/sub/file")? == "below" && read("/new/file")? == "one");
        ensure!(errno_of(fs::write("/new/file", "")) == Some(Errno::EROFS));
        ensure!(mounted("/new/ro")?.contains("nosuid") && mounted("/new/ro/sub")?.contains("nodev"));
        ensure!(!mounted("/new/ro/sub")?.contains("nosuid"));
        Ok(())
    })?;
    ensure!(
        outside("dir/probe").exists(),
        "the writable bind wrote to the host's directory"
    );
    Ok(())
}

fn a_missing_source_is_named() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    bench.mount("/x", "bind", "/mnt/outside/nothing", &["bind"]);
    bench.refused("mounts[0].source: `/mnt/outside/nothing`", "does not exist")?;
    let mut bench = Bench::new()?;
    bench.mount("/x", "tmpfs", "tmpfs", &["size=much"]);
    bench.refused("mount `/x`: tmpfs: ", "size")
}

fn tmpfs_keeps_its_promises() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    fs::set_permissions(bench.rootfs.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    bench
        .base()
        .mount(
            "/small",
            "tmpfs",
            "shm",
            &["size=64k", "mode=1770", "nosuid", "noexec", "noatime"],
        )
        .mount("/tmp", "tmpfs", "tmpfs", &[])
        .mount("/sealed", "tmpfs", "tmpfs", &["ro"])
        .mount("/sealed/later", "tmpfs", "tmpfs", &["rw"]);
    bench.run(|| {
        let small = fs::metadata("/small")?;
        ensure!(small.mode() & 0o7777 == 0o1770, "mode {:o}", small.mode());
        ensure!(errno_of(fs::write("/small/big", [0; 100_000])) == Some(Errno::ENOSPC));
        let line = mounted("/small")?;
        for word in ["nosuid", "noexec", "noatime", "size=64k", " shm "] {
            ensure!(line.contains(word), "{word} is not in {line}");
        }
        ensure!(fs::metadata("/tmp")?.mode() & 0o7777 == 0o1777);
        ensure!(is_readonly("/sealed") && !is_readonly("/sealed/later"));
        Ok(())
    })
}

fn tmpcopyup_copies() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    let image = bench.rootfs.join("var/lib");
    fs::create_dir_all(image.join("deep/er"))?;
    fs::write(image.join("deep/er/file"), "content")?;
    fs::set_permissions(image.join("deep/er/file"), fs::Permissions::from_mode(0o4750))?;
    std::os::unix::fs::chown(image.join("deep"), Some(7), Some(8))?;
    symlink("/mnt/outside", image.join("link"))?;
    bench
        .base()
        .mount("/var/lib", "tmpfs", "tmpfs", &["tmpcopyup", "size=1m"]);
    bench.run(|| {
        let file = fs::metadata("/var/lib/deep/er/file")?;
        ensure!(file.mode() & 0o7777 == 0o4750 && read("/var/lib/deep/er/file")? == "content");
        let deep = fs::metadata("/var/lib/deep")?;
        ensure!((deep.uid(), deep.gid()) == (7, 8));
        ensure!(fs::read_link("/var/lib/link")? == Path::new("/mnt/outside"));
        fs::write("/var/lib/deep/er/new", "")?;
        Ok(())
    })?;
    ensure!(!image.join("deep/er/new").exists());
    Ok(())
}

fn a_remount_changes_only_its_mount() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    bench
        .base()
        .mount("/data", "bind", "/mnt/outside", &["bind"])
        .mount("/data", "none", "", &["bind", "remount", "ro", "nosuid"])
        .mount("/more", "tmpfs", "tmpfs", &["size=64k"])
        .mount("/more", "tmpfs", "tmpfs", &["remount", "size=128k", "noexec"]);
    bench.run(|| {
        ensure!(is_readonly("/data") && mounted("/data")?.contains("nosuid"));
        let more = mounted("/more")?;
        ensure!(more.contains("size=128k") && more.contains("noexec"), "{more}");
        Ok(())
    })?;
    fs::write(outside("still"), "writable")?;
    Ok(())
}

fn propagation_is_as_asked_and_never_reaches_the_host() -> Result<()> {
    needs!(root);
    let expected = [
        (None, &["bind"][..], "master:", false),
        (Some("rprivate"), &["bind"][..], "", false),
        (Some("rslave"), &["bind", "private"][..], "", false),
        (Some("rshared"), &["rbind", "rshared"][..], "shared:", false),
        (None, &["rbind", "rshared"][..], "shared:", true),
        (Some("rshared"), &["rbind", "rshared"][..], "shared:", true),
    ];
    for (root, options, word, userns) in expected {
        let mut bench = Bench::with_userns(userns)?;
        fs::create_dir(outside("inner"))?;
        mount(
            None::<&str>,
            CORNER,
            None::<&str>,
            MsFlags::MS_SHARED,
            None::<&str>,
        )?;
        bench.base().mount("/data", "bind", "/mnt/outside", options);
        if let Some(root) = root {
            bench.spec["linux"]["rootfsPropagation"] = json!(root);
        }
        let peers = root == Some("rshared") && !userns;
        bench.run(move || {
            let line = mounted("/data")?;
            let tags = line.split(" - ").next().unwrap_or_default();
            let has = |tag: &str| tags.contains(tag);
            ensure!(
                has(word) && (!word.is_empty() || !has("master:") && !has("shared:")),
                "{root:?} {line}"
            );
            ensure!(
                !userns || has("master:"),
                "a user namespace is never a peer of the host: {line}"
            );
            let own = mounted("/")?;
            ensure!((root == Some("rshared")) == own.contains("shared:"), "{own}");
            ensure!(
                !peers || !own.contains("master:"),
                "a shared root is in a peer group of its own: {own}"
            );
            if !peers {
                tmpfs(Path::new("/data/inner")).context("a mount of the container's own")?;
            }
            tmpfs(Path::new("/tmp/inner"))
        })?;
    }
    Ok(())
}

/// A directory on the machine's own disk: tmpfs can be id-mapped only since Linux 6.3.
struct OnDisk(PathBuf);

impl Drop for OnDisk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn idmapped_binds_translate_owners() -> Result<()> {
    needs!(root);
    let disk = OnDisk(PathBuf::from(format!(
        "/var/tmp/condo-rootfs-{}",
        std::process::id()
    )));
    fs::create_dir_all(&disk.0)?;
    fs::write(disk.0.join("file"), "")?;
    let source = disk.0.to_str().context("a path")?.to_owned();
    let mut bench = Bench::new()?;
    bench.base();
    let map = json!([{ "containerID": 0, "hostID": 4000, "size": 1000 }]);
    bench.push(json!({
        "destination": "/data", "type": "bind", "source": source, "options": ["rbind", "ridmap"],
        "uidMappings": map, "gidMappings": map,
    }));
    bench.run(|| {
        ensure!(fs::metadata("/data/file")?.uid() == 4000);
        Ok(())
    })?;
    let mut bench = Bench::in_userns()?;
    bench.base().mount("/data", "bind", &source, &["bind", "idmap"]);
    bench.run(|| {
        let file = fs::metadata("/data/file")?;
        ensure!(
            (file.uid(), file.gid()) == (0, 0),
            "{} {}",
            file.uid(),
            file.gid()
        );
        fs::write("/data/mine", "")?;
        Ok(())
    })?;
    ensure!(fs::metadata(disk.0.join("mine"))?.uid() == 0);
    Ok(())
}
