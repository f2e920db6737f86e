//! The terminal of the container.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use condo::rootfs::{open_container_ptmx, open_peer};
use nix::sys::stat::major;

use super::bench::Bench;

tests![
    the_console_is_the_containers_own_pty,
    a_link_where_the_console_belongs_is_not_followed_into_procfs,
];

fn the_console_is_the_containers_own_pty() -> Result<()> {
    needs!(root);
    for userns in [false, true] {
        let mut bench = Bench::with_userns(userns)?;
        bench.base();
        bench.run_with(
            |assembled| {
                let master = assembled.open_ptmx()?;
                let peer = open_peer(master.as_fd())?;
                assembled.attach_console(peer.as_fd())?;
                fs::File::from(peer).write_all(b"hello")?;
                let mut text = [0; 5];
                fs::File::from(master).read_exact(&mut text)?;
                ensure!(&text == b"hello");
                Ok(())
            },
            || {
                let console = fs::metadata("/dev/console")?;
                ensure!(console.file_type().is_char_device());
                ensure!(major(console.rdev()) == 136);
                ensure!(fs::read_link("/dev/ptmx")? == Path::new("pts/ptmx"));
                fs::File::open("/dev/ptmx").context("open a pty from inside")?;
                let another = open_peer(open_container_ptmx()?.as_fd())?;
                ensure!(major(fs::File::from(another).metadata()?.rdev()) == 136);
                Ok(())
            },
        )?;
    }
    Bench::new()?.run_with(
        |assembled| {
            let words = assembled.open_ptmx().expect_err("there is no devpts").to_string();
            ensure!(words.contains("needs a `devpts`"), "{words}");
            Ok(())
        },
        || Ok(()),
    )
}

fn a_link_where_the_console_belongs_is_not_followed_into_procfs() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    bench.usual("/proc").usual("/dev/pts");
    symlink("/proc/version", bench.rootfs.join("dev/console"))?;
    bench.run_with(
        |assembled| {
            let peer = open_peer(assembled.open_ptmx()?.as_fd())?;
            let words = assembled.attach_console(peer.as_fd()).unwrap_err().to_string();
            ensure!(words.contains("leads into procfs"), "{words}");
            Ok(())
        },
        || Ok(()),
    )
}
