//! Links of a hostile image.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Result, ensure};
use condo::rootfs::open_peer;

use super::bench::{Bench, outside};
use super::devices::check_default_devices;
use super::inside::{mounted, read};

tests![
    links_in_the_image_do_not_lead_to_the_host,
    a_link_to_the_root_is_no_place,
    a_symlinked_dev_does_not_matter,
    a_symlinked_rootfs_is_refused,
];

fn links_in_the_image_do_not_lead_to_the_host() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    bench.base();
    symlink("/mnt/outside", bench.rootfs.join("absolute"))?;
    symlink("../../../../../mnt/outside", bench.rootfs.join("etc/relative"))?;
    symlink("../run/systemd/stub.conf", bench.rootfs.join("etc/resolv.conf"))?;
    symlink("/mnt/outside/created", bench.rootfs.join("etc/hosts"))?;
    fs::write(outside("payload"), "from the host")?;
    bench
        .mount("/absolute/dir", "tmpfs", "tmpfs", &[])
        .mount("/etc/relative/file", "bind", "/mnt/outside/payload", &["bind"])
        .mount("/etc/resolv.conf", "bind", "/mnt/outside/payload", &["bind"])
        .mount("/etc/hosts", "bind", "/mnt/outside/payload", &["bind"]);
    bench.run(|| {
        mounted("/mnt/outside/dir")?;
        for path in [
            "/mnt/outside/file",
            "/run/systemd/stub.conf",
            "/mnt/outside/created",
            "/etc/resolv.conf",
        ] {
            ensure!(read(path)? == "from the host", "{path}");
        }
        Ok(())
    })?;
    let names: Vec<_> = fs::read_dir(outside(""))?
        .filter_map(|e| Some(e.ok()?.file_name()))
        .collect();
    ensure!(names == ["payload"], "created on the host: {names:?}");
    ensure!(!Path::new("/run/systemd/stub.conf").exists());
    // A circle ends.
    let mut bench = Bench::new()?;
    symlink("b", bench.rootfs.join("a"))?;
    symlink("a", bench.rootfs.join("b"))?;
    bench.mount("/a/c", "tmpfs", "tmpfs", &[]);
    bench.refused("mount `/a/c`: ", "too many symbolic links")
}

fn a_link_to_the_root_is_no_place() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    symlink("/", bench.rootfs.join("alias"))?;
    bench.mount("/alias", "tmpfs", "tmpfs", &[]);
    bench.refused("mount `/alias`: ", "leads to the root itself")
}

fn a_symlinked_dev_does_not_matter() -> Result<()> {
    needs!(root);
    for userns in [false, true] {
        let mut bench = Bench::with_userns(userns)?;
        fs::remove_dir(bench.rootfs.join("dev"))?;
        symlink("/mnt/outside", bench.rootfs.join("dev"))?;
        bench.base();
        bench.run_with(
            |assembled| {
                let master = assembled.open_ptmx()?;
                assembled.attach_console(open_peer(master.as_fd())?.as_fd())?;
                Ok(())
            },
            check_default_devices,
        )?;
        ensure!(fs::read_dir(outside(""))?.count() == 0, "made on the host");
    }
    Ok(())
}

fn a_symlinked_rootfs_is_refused() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    symlink("/", outside("link"))?;
    for path in [outside("link"), outside("link/mnt/rootfs")] {
        let subject = format!("open rootfs `{}`: root.path: ", path.display());
        bench.rootfs = path;
        bench.refused(&subject, "symbolic link")?;
    }
    Ok(())
}
