//! Device nodes: made, or bound where that may not be.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::bench::{Bench, outside};
use super::inside::read;

tests![
    devices_are_made_as_root,
    devices_are_bound_in_a_userns,
    files_outside_of_dev_are_not_replaced_by_devices,
];

const DEFAULT: &[(&str, u64, u64)] = &[
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

pub fn check_default_devices() -> Result<()> {
    for &(name, major, minor) in DEFAULT {
        let node = fs::symlink_metadata(format!("/dev/{name}"))?;
        ensure!(node.file_type().is_char_device(), "{name}");
        ensure!(node.rdev() == nix::sys::stat::makedev(major, minor), "{name}");
    }
    for (name, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        ensure!(fs::read_link(format!("/dev/{name}"))? == Path::new(to));
    }
    fs::write("/dev/null", "x").context("write to /dev/null")?;
    Ok(())
}

fn devices_are_made_as_root() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    bench.base();
    bench.spec["linux"]["devices"] = json!([
        { "path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o620, "uid": 5, "gid": 6 },
        { "path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o444 },
        { "path": "/dev/pipe", "type": "p" },
        { "path": "/dev/disk", "type": "b", "major": 7, "minor": 77 },
    ]);
    bench.run(|| {
        check_default_devices()?;
        let tun = fs::metadata("/dev/net/tun")?;
        ensure!((tun.mode() & 0o7777, tun.uid(), tun.gid()) == (0o620, 5, 6));
        ensure!(fs::metadata("/dev/zero")?.mode() & 0o7777 == 0o444);
        ensure!(fs::metadata("/dev/pipe")?.file_type().is_fifo());
        ensure!(fs::metadata("/dev/disk")?.file_type().is_block_device());
        Ok(())
    })?;
    // Without a tmpfs the image's own files are in the way, among them links to elsewhere.
    for userns in [false, true] {
        let bench = Bench::with_userns(userns)?;
        fs::write(bench.rootfs.join("etc/passwd"), "p")?;
        symlink("/etc/passwd", bench.rootfs.join("dev/null"))?;
        fs::write(bench.rootfs.join("dev/full"), "not full")?;
        bench.run(|| {
            check_default_devices()?;
            ensure!(read("/etc/passwd")? == "p");
            Ok(())
        })?;
    }
    Ok(())
}

fn devices_are_bound_in_a_userns() -> Result<()> {
    needs!(root);
    let mut bench = Bench::in_userns()?;
    bench.base();
    bench.spec["linux"]["devices"] = json!([{ "path": "/dev/ptmx2", "type": "p" }, { "path": "/dev/random", "type": "c", "major": 1, "minor": 8 }]);
    bench.run(check_default_devices)?;
    let mut bench = Bench::in_userns()?;
    bench.spec["linux"]["devices"] = json!([{ "path": "/dev/null", "type": "c", "major": 1, "minor": 9 }]);
    bench.refused(
        "linux.devices[0]: open the host's `/dev/null`: ",
        "linux.devices[0]: `/dev/null` is not character device 1:9",
    )
}

fn files_outside_of_dev_are_not_replaced_by_devices() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    fs::write(outside("data"), "precious")?;
    bench.base().mount("/vol", "bind", "/mnt/outside", &["bind"]);
    bench.spec["linux"]["devices"] = json!([{ "path": "/vol/data", "type": "c", "major": 1, "minor": 3 }]);
    bench.refused("linux.devices[0]: make `/vol/data`: ", "`/vol/data` is taken")?;
    ensure!(fs::read_to_string(outside("data"))? == "precious");
    Ok(())
}
