//! How inits are asked to power off, each in its own way. Where `CONDO_TEST_INITS` names what `scripts/inits` made.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::house::{House, eventually};
use crate::harness;

tests![
    sysvinit_is_asked_by_telinit,
    openrc_is_asked_by_its_shutdown: 120,
    runit_is_asked_by_runit_init,
    a_chosen_signal_is_sent,
    busybox_is_asked_whatever_the_image_says,
];

/// A program with the libraries it needs, or without where it is a script.
struct Packages(PathBuf);

impl Packages {
    fn unpacked() -> Result<Self> {
        let Some(dir) = std::env::var_os("CONDO_TEST_INITS").filter(|dir| Path::new(dir).is_dir()) else {
            harness::need("inits");
            anyhow::bail!("unreachable");
        };
        Ok(Self(dir.into()))
    }

    /// Files of an image: the program at its place, and its libraries at theirs.
    fn program(&self, from: &str, to: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let program = self.0.join(from);
        let libraries = [
            "lib/x86_64-linux-gnu",
            "usr/lib/x86_64-linux-gnu",
            "lib/aarch64-linux-gnu",
        ];
        let libraries = libraries
            .map(|dir| self.0.join(dir).display().to_string())
            .join(":");
        let needed = harness::run(
            Command::new("ldd")
                .arg(&program)
                .env("LD_LIBRARY_PATH", libraries),
        )?;
        let mut files = vec![(to.to_owned(), std::fs::read(&program)?)];
        for path in needed.split_whitespace().filter(|word| word.starts_with('/')) {
            let name = Path::new(path)
                .file_name()
                .context("a library's name")?
                .to_string_lossy();
            // The interpreter has its place, the others are found in the usual one.
            let to = if name.starts_with("ld-") {
                path[1..].to_owned()
            } else {
                format!("lib/{name}")
            };
            files.push((to, std::fs::read(path)?));
        }
        Ok(files)
    }
}

fn script(path: &str, text: &str) -> (String, Vec<u8>) {
    (path.to_owned(), format!("#!/bin/sh\n{text}\n").into_bytes())
}

/// Boots it, and stops it with more time than anybody waits. It has to shut its system down, and end by itself.
fn boots_and_stops(house: &House, words: &str) -> Result<()> {
    house.ok("create web --image other --start")?;
    eventually("it is up", || {
        Ok(house.ok("logs web")?.contains("up and running"))
    })?;
    house.ok("stop web --timeout 50")?;
    let log = house.ok("logs web")?;
    ensure!(log.contains(words), "{log}");
    let exit = house.show("web")?["last_exit"].clone();
    ensure!(exit["reason"] == "exited", "{exit}: {log}");
    Ok(())
}

fn sysvinit_is_asked_by_telinit() -> Result<()> {
    let packages = Packages::unpacked()?;
    let mut house = House::new()?;
    let mut files = packages.program("sbin/init", "sbin/init")?;
    files.extend(packages.program("sbin/init", "sbin/telinit")?);
    let table = "id:2:initdefault:\nsi::sysinit:/etc/up\nl0:0:wait:/etc/down\n";
    files.push(("etc/inittab".into(), table.into()));
    files.push(script("etc/up", "echo up and running > /dev/console"));
    files.push(script(
        "etc/down",
        "echo goodbye > /dev/console; busybox poweroff -f",
    ));
    house.import_files("other", &files, "")?;
    boots_and_stops(&house, "goodbye")?;
    house.leave()
}

fn openrc_is_asked_by_its_shutdown() -> Result<()> {
    let packages = Packages::unpacked()?;
    let mut house = House::new()?;
    let mut files = packages.program("sbin/openrc-init", "sbin/openrc-init")?;
    files.extend(packages.program("sbin/openrc-shutdown", "sbin/openrc-shutdown")?);
    let runlevels = "busybox mkdir -p /run/openrc; echo \"up and running in $1\" > /dev/console";
    files.push(script("sbin/openrc", runlevels));
    files.push(script("sbin/init", "exec /sbin/openrc-init"));
    house.import_files("other", &files, "")?;
    boots_and_stops(&house, "up and running in shutdown")?;
    house.leave()
}

fn runit_is_asked_by_runit_init() -> Result<()> {
    let packages = Packages::unpacked()?;
    let mut house = House::new()?;
    let mut files = packages.program("lib/runit/runit-init", "sbin/init")?;
    files.extend(packages.program("sbin/runit", "sbin/runit")?);
    files.push(script("etc/runit/1", "echo up and running > /dev/console"));
    files.push(script("etc/runit/2", "exec busybox sleep 1000000"));
    files.push(script("etc/runit/3", "echo goodbye > /dev/console"));
    house.import_files("other", &files, "")?;
    boots_and_stops(&house, "goodbye")?;
    house.leave()
}

fn a_chosen_signal_is_sent() -> Result<()> {
    let mut house = House::new()?;
    let up = script(
        "sbin/init",
        "trap 'echo goodbye; exit 0' PWR; echo up and running; while :; do busybox sleep 60 & wait $!; done",
    );
    house.import_files("other", &[up], "--stop-signal PWR")?;
    boots_and_stops(&house, "goodbye")?;
    house.leave()
}

/// An init that came with a later reboot than the image's: the image's signal would make busybox reboot.
fn busybox_is_asked_whatever_the_image_says() -> Result<()> {
    let mut house = House::new()?;
    let files = [
        script("sbin/init", "exec busybox init"),
        (
            "etc/inittab".into(),
            b"::sysinit:/etc/up\n::shutdown:/etc/down\n".to_vec(),
        ),
        script("etc/up", "echo up and running"),
        script("etc/down", "echo goodbye"),
    ];
    house.import_files("other", &files, "--stop-signal TERM")?;
    boots_and_stops(&house, "goodbye")?;
    house.leave()
}
