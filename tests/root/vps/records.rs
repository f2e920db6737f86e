//! Records: they outlive their database, and what they claim is a VPS's own on the whole machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use condo::namespaces::ranges::Ranges;
use condo::vps::record::folders::Folders;
use nix::mount::{MsFlags, mount};
use sha2::{Digest, Sha256};

use super::house::{House, alive, eventually};
use crate::harness;

tests![
    two_instances_share_no_user_ids,
    user_ids_of_others_are_left_out,
    user_ids_behind_those_that_are_taken,
    a_lost_database_loses_no_vps,
    a_vps_without_any_record_is_not_adopted,
];

/// Where a claim to user ids stands.
fn claim(base: u64) -> PathBuf {
    Path::new("/run/condo-ids").join(base.to_string())
}

/// First host id of a VPS, as the kernel has it, and how many there are.
fn ids(house: &House, name: &str) -> Result<(u64, u64)> {
    let map = std::fs::read_to_string(format!("/proc/{}/uid_map", house.init(name)?))?;
    let numbers: Vec<u64> = map.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(numbers.len() == 3 && numbers[0] == 0, "{map}");
    Ok((numbers[1], numbers[2]))
}

/// Two roots whose instances would both like the same ranges first.
fn alike() -> Result<[PathBuf; 2]> {
    let dir = harness::tempdir();
    let count = Ranges::open()?.usual();
    let range = |root: &Path| {
        let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
        u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % count
    };
    let first = dir.join("0");
    let other = (1..)
        .map(|n: u32| dir.join(n.to_string()))
        .find(|root| range(root) == range(&first));
    Ok([first, other.context("another root")?])
}

fn two_instances_share_no_user_ids() -> Result<()> {
    needs!(root);
    let [first, second] = alike()?;
    let house = House::at(first)?;
    house.running("web", "")?;
    let other = |line: &str| -> Result<String> {
        let mut command = Command::new(harness::condo());
        harness::run(command.arg("--root").arg(&second).args(line.split_whitespace()))
    };
    other("image build busybox")?;
    let work = || -> Result<()> {
        other("create web --image busybox")?;
        let (a, _) = ids(&house, "web")?;
        let record = std::fs::read_to_string(second.join("lib/vps/web/record.json"))?;
        let record: serde_json::Value = serde_json::from_str(&record)?;
        let b = record["uid_base"].as_u64().context("no ids")?;
        ensure!(a.abs_diff(b) >= 65_536, "both have {a}");
        ensure!(std::fs::read_link(claim(a))? == house.root.join("lib/vps/web"));
        ensure!(std::fs::read_link(claim(b))? == second.join("lib/vps/web"));
        Ok(())
    };
    let worked = work();
    other("delete --force --all")?;
    worked?;
    ensure!(!Folders::open(Some(&second))?.run().join("vps/web").exists());
    let (a, _) = ids(&house, "web")?;
    house.ok("delete --force web")?;
    ensure!(
        !claim(a).exists() && std::fs::symlink_metadata(claim(a)).is_err(),
        "the claim is left"
    );
    house.leave()
}

/// Gives these ids to users, as this test sees the machine.
fn give(line: &str) -> Result<()> {
    for (file, line) in [("/etc/subuid", line), ("/etc/subgid", "")] {
        let text = harness::tempdir().join("given");
        std::fs::write(&text, format!("{line}\n"))?;
        if !Path::new(file).exists() {
            std::fs::write(file, "")?;
        }
        mount(Some(&text), file, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    }
    Ok(())
}

/// Ids that are negative numbers for who does not look closely.
fn user_ids_behind_those_that_are_taken() -> Result<()> {
    needs!(root);
    harness::private_mounts()?;
    give(&format!("joe:1879048192:{}", 4094 * 65_536))?;
    let house = House::new()?;
    house.ok("create web --image busybox --nesting --start")?;
    let (first, count) = ids(&house, "web")?;
    let end = first + count;
    ensure!(
        first >= 1 << 31 && count == 4 * 65_536 && end <= 0xFFFE_0000 && first % 65_536 == 0,
        "{first}, {count}"
    );
    let owners = "touch /a && chown 1000:70000 /a && stat -c '%u %g' /a /etc/hostname && id -u";
    let expected = "1000 70000\n0 0\n0";
    ensure!(house.sh("web", owners)? == expected);
    house.ok("snapshot create web before")?;
    house.ok("restart web --timeout 1")?;
    house.up("web")?;
    ensure!(house.sh("web", owners)? == expected);
    let process = std::fs::read_to_string(format!("/proc/{}/status", house.init("web")?))?;
    ensure!(process.contains(&format!("Uid:\t{first}\t")), "{process}");
    house.ok("delete --force web")?;
    ensure!(
        std::fs::symlink_metadata(claim(first)).is_err(),
        "the claim is left"
    );
    house.leave()
}

/// What users of the host were given, and what somebody claimed while the VPS was stopped.
fn user_ids_of_others_are_left_out() -> Result<()> {
    needs!(root);
    harness::private_mounts()?;
    let house = House::new()?;
    house.ok("create web --image busybox --start")?;
    let (first, count) = ids(&house, "web")?;
    // Behind systemd's ranges for containers, whole, and below 2^31.
    ensure!(
        first > 1_879_048_191 && first + count <= 2_147_352_576 && first % 65_536 == 0,
        "{first}"
    );
    house.ok("stop web --timeout 1")?;
    give(&format!("joe:{}:10", first + 5))?;
    house.ok("start web")?;
    let (second, _) = ids(&house, "web")?;
    ensure!(second.abs_diff(first) >= 65_536, "{second} is what joe was given");
    // The boot ended, and somebody else was faster.
    house.ok("stop web --timeout 1")?;
    std::fs::remove_file(claim(second))?;
    std::os::unix::fs::symlink("/somebody/else", claim(second))?;
    let started = house.ok("start web");
    let third = ids(&house, "web");
    let taken = std::fs::read_link(claim(second))?;
    std::fs::remove_file(claim(second))?;
    started?;
    ensure!(
        std::fs::symlink_metadata(claim(first)).is_err(),
        "what it moved from is still claimed"
    );
    ensure!(taken == Path::new("/somebody/else") && third?.0.abs_diff(second) >= 65_536);
    house.up("web")?;
    ensure!(house.sh("web", "stat -c %u /etc/hostname; echo x > /new; stat -c %u /new")? == "0\n0");
    house.leave()
}

type Loss = fn(&Path) -> std::io::Result<()>;

fn a_lost_database_loses_no_vps() -> Result<()> {
    let house = House::quick()?;
    let database = house.root.join("lib/condo.db");
    let losses: [(&str, Loss); 3] = [
        ("emptied", |db| std::fs::write(db, "")),
        ("removed", |db| std::fs::remove_file(db)),
        ("damaged", |db| std::fs::write(db, "no database ".repeat(10_000))),
    ];
    for (what, lose) in losses {
        house.ok("create web --image quick --start")?;
        let (before, init) = (house.show("web")?, house.init("web")?);
        lose(&database)?;
        let output = house.output("create web --image quick")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            !output.status.success() && said.contains("already exists"),
            "{what}: {said}"
        );
        ensure!(
            said.contains("made anew"),
            "{what}: nothing is said of it: {said}"
        );
        let after = house.show("web")?;
        ensure!(
            after["address"] == before["address"] && after["status"] == "running",
            "{what}: {after}"
        );
        ensure!(house.init("web")? == init, "{what}");
        lose(&database)?;
        house.ok("delete --force web")?;
        ensure!(!alive(init), "{what}: it still runs");
        house.nothing_left().with_context(|| what.to_owned())?;
    }
    house.leave()
}

/// No copy either: nothing but the running processes and a disk.
fn a_vps_without_any_record_is_not_adopted() -> Result<()> {
    let house = House::quick()?;
    let forget = || -> Result<i32> {
        house.ok("create web --image quick --start")?;
        let init = house.init("web")?;
        std::fs::remove_file(house.root.join("lib/vps/web/record.json"))?;
        std::fs::write(house.root.join("lib/condo.db"), "")?;
        Ok(init)
    };
    let init = forget()?;
    ensure!(house.list()?.is_empty());
    house.refused("create web --image quick", "condo delete --force web")?;
    ensure!(alive(init));
    house.refused("delete web", "does not exist")?;
    house.ok("delete --force web")?;
    eventually("its init ends", || Ok(!alive(init)))?;
    house.nothing_left()?;
    let init = forget()?;
    house.ok("delete --force --all")?;
    eventually("its init ends", || Ok(!alive(init)))?;
    house.leave()
}
