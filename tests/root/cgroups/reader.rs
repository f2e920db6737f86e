//! What condo writes, another implementation reads: limits as they are set, changed and taken away.

use anyhow::{Result, ensure};

use super::{MIB, Tree, scratch_on_disk};
use crate::harness::reader::{Found, Throttle, read};

tests![limits_are_what_another_implementation_reads in guest];

/// All that it reads, as one update of a running container might set it: with processor 0 and the first memory node, `mib` of
/// memory, half of that reserved and as much swap, and rates that are multiples of it.
fn limits(mib: i64, quota: i64, disk: &str) -> String {
    let (major, minor) = disk.split_once(':').unwrap_or_default();
    let device = |rate: i64| format!(r#"[{{"major":{major},"minor":{minor},"rate":{rate}}}]"#);
    format!(
        r#"{{"cpu":{{"shares":262144,"quota":{quota},"period":50000,"cpus":"0","mems":"0"}},
            "memory":{{"limit":{},"swap":{},"reservation":{}}},"pids":{{"limit":{mib}}},
            "blockIO":{{"throttleReadBpsDevice":{},"throttleWriteBpsDevice":{},
                        "throttleReadIOPSDevice":{},"throttleWriteIOPSDevice":{}}}}}"#,
        mib * MIB,
        2 * mib * MIB,
        mib * MIB / 2,
        device(mib * 1000),
        device(mib * 2000),
        device(mib * 30),
        device(mib * 40),
    )
}

/// What has to be read then.
fn expected(mib: i64, quota: i64, v2: bool) -> Found {
    let rates = |times: i64| vec![(mib * times) as u64];
    Found {
        v2,
        quota,
        period: 50_000,
        weight: if v2 { 10_000 } else { 262_144 },
        cpus: vec![(0, 0)],
        mems: vec![(0, 0)],
        memory: mib * MIB,
        reservation: mib * MIB / 2,
        swap: if v2 { mib * MIB } else { 2 * mib * MIB },
        pids: mib,
        io: (!v2).then(|| Throttle {
            read_bps: rates(1000),
            write_bps: rates(2000),
            read_iops: rates(30),
            write_iops: rates(40),
        }),
    }
}

fn limits_are_what_another_implementation_reads() -> Result<()> {
    needs!(root);
    let (_scratch, disk) = scratch_on_disk()?;
    let tree = Tree::new()?;
    let cgroup = tree.create()?;
    let v2 = cgroup.paths().contains_key("");
    for (mib, quota) in [(64, 20_000), (256, 80_000), (32, 10_000)] {
        cgroup.apply(&tree.limits(&limits(mib, quota, &disk))?)?;
        let found = read(&tree.path())?;
        ensure!(found == expected(mib, quota, v2), "{mib} MiB: {found:?}");
    }
    cgroup.apply(&tree.limits(r#"{"cpu":{"quota":-1},"memory":{"limit":-1},"pids":{"limit":-1}}"#)?)?;
    let found = read(&tree.path())?;
    ensure!(
        (found.quota, found.memory, found.pids) == (-1, -1, -1),
        "no limits: {found:?}"
    );
    ensure!(v2 || found.swap == -1, "no limits: {found:?}");
    cgroup.remove()?;
    ensure!(read(&tree.path()).is_err(), "values of a cgroup that is gone");
    Ok(())
}
