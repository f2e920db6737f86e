//! What is hidden or read-only.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use anyhow::{Result, ensure};
use nix::errno::Errno;
use serde_json::{Value, json};

use super::bench::Bench;
use super::inside::{errno_of, is_readonly, mounted, read, says_readonly};

tests![masks_and_readonly_paths_hold in guest, a_readonly_root_is_readonly];

fn masks_and_readonly_paths_hold() -> Result<()> {
    needs!(root);
    for userns in [false, true] {
        let mut bench = Bench::with_userns(userns)?;
        bench.base();
        fs::create_dir(bench.rootfs.join("secret"))?;
        fs::write(bench.rootfs.join("secret/key"), "k")?;
        fs::create_dir(bench.rootfs.join("kept"))?;
        fs::write(bench.rootfs.join("etc/shadow"), "s")?;
        symlink("/etc/shadow", bench.rootfs.join("etc/alias"))?;
        bench.spec["linux"]["maskedPaths"] = json!([
            "/secret",
            "/etc/alias",
            "/proc/timer_list",
            "/proc/scsi",
            "/not/there",
            "/bin/busybox/x",
            "/host"
        ]);
        bench.spec["linux"]["readonlyPaths"] = json!(["/proc/sys", "/kept", "/also/missing"]);
        bench.run(|| {
            ensure!(fs::read_dir("/secret")?.count() == 0 && is_readonly("/secret") && is_readonly("/host"));
            ensure!(
                read("/etc/shadow")?.is_empty(),
                "the link's target is what is masked"
            );
            ensure!(is_readonly("/kept") && !is_readonly("/tmp"));
            let sysctls = mounted("/proc/sys")?;
            ensure!(says_readonly(&sysctls), "{sysctls}");
            let write = fs::OpenOptions::new()
                .write(true)
                .open("/proc/sys/kernel/domainname");
            ensure!(userns || errno_of(write) == Some(Errno::EROFS));
            Ok(())
        })?;
    }
    Ok(())
}

fn a_readonly_root_is_readonly() -> Result<()> {
    needs!(root);
    // By either of its names.
    let ways: [fn(&mut Value); 2] = [
        |spec| spec["root"]["readonly"] = json!(true),
        |spec| spec["linux"]["readonlyPaths"] = json!(["/../."]),
    ];
    for say in ways {
        let mut bench = Bench::new()?;
        bench
            .base()
            .mount("/tmp", "tmpfs", "tmpfs", &["size=1m,mode=1700"]);
        say(&mut bench.spec);
        bench.run(|| {
            ensure!(is_readonly("/") && is_readonly("/etc") && !is_readonly("/tmp") && !is_readonly("/dev"));
            ensure!(fs::metadata("/tmp")?.permissions().mode() & 0o7777 == 0o1700);
            Ok(())
        })?;
        ensure!(
            fs::write(bench.rootfs.join("probe"), "").is_ok(),
            "the host's directory stays writable"
        );
    }
    Ok(())
}
