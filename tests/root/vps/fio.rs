//! Limits of reading and writing, as fio measures them inside.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::house::{House, said};
use crate::harness;

tests![what_fio_measures_is_the_limit in guest: 180];

const MIB: f64 = (1 << 20) as f64;

/// What fio found of a job: bytes and operations a second.
fn fio(house: &House, name: &str, how: &str, job: &str) -> Result<(f64, f64)> {
    // Threads, because processes would meet in shared memory, for which this image has no place.
    let common = "--name=a --filename=/root/file --size=24M --ioengine=psync --thread --output-format=json";
    let told = house.sh(name, &format!("fio {common} --rw={how} {job}"))?;
    let told: Value = serde_json::from_str(&told[told.find('{').context("no JSON")?..])?;
    let done = &told["jobs"][0][how.trim_start_matches("rand")];
    let number = |key: &str| done[key].as_f64().with_context(|| format!("no {key} in {done}"));
    Ok((number("bw_bytes")?, number("iops")?))
}

/// Asks for a limit with one name, and for what was measured below it.
fn holds(what: &str, measured: f64, limit: f64) -> Result<()> {
    // The kernel lets through what a slice of time allows at once. A busy machine does less.
    ensure!(
        (limit / 4.0..limit * 1.25).contains(&measured),
        "{what}: {measured:.0} a second where {limit:.0} are allowed"
    );
    Ok(())
}

fn what_fio_measures_is_the_limit() -> Result<()> {
    needs!(root, busybox, program:fio);
    harness::need("program:mkfs.ext4");
    let mut house = House::new()?;
    let mut files = harness::with_libraries(&["/usr/bin/fio"])?;
    let init = "#!/bin/sh\ntrap 'exit 0' TERM; while :; do busybox sleep 60 & wait $!; done\n";
    files.push(("sbin/init".into(), init.into()));
    house.import_files("fio", &files, "--stop-signal TERM")?;
    for (name, disk) in [("folder", ""), ("file", "--disk 64M")] {
        house.ok(&format!("create {name} --image fio --memory 256M --start {disk}"))?;
        let (free, _) = fio(&house, name, "write", "--bs=64k --direct=1")?;
        ensure!(free > 4.0 * MIB, "{name}: {free} bytes a second without a limit");
        let limited = house.output(&format!("resize {name} --io-write 2M --iops-read 100"))?;
        if said(&limited).contains("is in memory") {
            harness::need("temporary-files-on-a-disk");
        }
        ensure!(limited.status.success(), "{limited:?}");
        let two_seconds = "--direct=1 --time_based --runtime=2";
        let (bytes, _) = fio(&house, name, "write", &format!("--bs=64k {two_seconds}"))?;
        holds(&format!("{name}, bytes written"), bytes, 2.0 * MIB)?;
        let (_, reads) = fio(&house, name, "randread", &format!("--bs=4k {two_seconds}"))?;
        holds(&format!("{name}, reads"), reads, 100.0)?;
        // On cgroup v1 the kernel writes pages back in its own name.
        if house.limits(name)?.v2 {
            let (bytes, _) = fio(&house, name, "write", "--bs=64k --size=8M --end_fsync=1")?;
            holds(
                &format!("{name}, bytes written through the page cache"),
                bytes,
                2.0 * MIB,
            )?;
        }
    }
    house.leave()
}
