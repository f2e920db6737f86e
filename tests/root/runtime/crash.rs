//! A runtime that is killed at any moment leaves what the next `delete --force` clears; many at once do not meet.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use super::Container;
use crate::harness;

tests![
    killed_in_the_middle_of_create in guest: 300,
    a_vps_of_an_engine_is_killed: 120,
    killed_in_the_middle_of_start_and_delete in guest: 120,
    fifty_at_once: 300,
    one_id_for_many: 120,
];

fn random(below: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos())
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(31)
        % below
}

fn killed_in_the_middle_of_create() -> Result<()> {
    known_difference!("runc", "keeps no state before it makes cgroups");
    let c = Container::littering()?;
    let mut killed = 0;
    // From the time of one that is left alone, so that the blows fall all over it on any machine.
    let begin = std::time::Instant::now();
    c.create()?;
    let whole = u64::try_from(begin.elapsed().as_micros())?;
    c.delete()?;
    for round in 0..harness::rounds(30) {
        let mut child = c.command(&["create", "--bundle", "%", "@"]).spawn()?;
        std::thread::sleep(Duration::from_micros(random(whole * 5 / 4)));
        let _ = child.kill();
        killed += u32::from(!child.wait()?.success());
        c.cleared().with_context(|| format!("round {round}"))?;
        // The id is free again.
        if round % 10 == 0 {
            c.create()?;
            c.delete()?;
        }
    }
    ensure!(killed > 0, "no round was cut short");
    Ok(())
}

/// What a killed `create` of a VPS has claimed goes with it, or with the next one of its name: the range of user ids too.
fn a_vps_of_an_engine_is_killed() -> Result<()> {
    needs!(root, ours, userns, linux_6_3);
    let mut c = Container::littering()?;
    c.set("/annotations", serde_json::json!({ "io.condo.vps": "true" }))?;
    let begin = std::time::Instant::now();
    c.create()?;
    let whole = u64::try_from(begin.elapsed().as_micros())?;
    let map = std::fs::read_to_string(format!("/proc/{}/uid_map", c.pid()?))?;
    ensure!(map.trim().ends_with("262144") && claims(&c) == 4, "{map}");
    c.delete()?;
    ensure!(claims(&c) == 0, "a delete leaves claims");
    let mut killed = 0;
    for round in 0..harness::rounds(15) {
        let mut child = c.command(&["create", "--bundle", "%", "@"]).spawn()?;
        std::thread::sleep(Duration::from_micros(random(whole * 5 / 4)));
        let _ = child.kill();
        killed += u32::from(!child.wait()?.success());
        c.cleared().with_context(|| format!("round {round}"))?;
    }
    ensure!(killed > 0, "no round was cut short");
    c.create()?;
    c.delete()?;
    ensure!(claims(&c) == 0, "{} claims are left", claims(&c));
    Ok(())
}

/// How many ranges of user ids are claimed for what is below its runtime's root.
fn claims(c: &Container) -> usize {
    let links = std::fs::read_dir("/run/condo-ids")
        .into_iter()
        .flatten()
        .flatten();
    let owners = links.filter_map(|link| std::fs::read_link(link.path()).ok());
    owners.filter(|owner| owner.starts_with(&c.root)).count()
}

fn killed_in_the_middle_of_start_and_delete() -> Result<()> {
    let c = Container::idle()?;
    for round in 0..harness::rounds(10) {
        c.create()?;
        let command = if round % 2 == 0 {
            &["start", "@"][..]
        } else {
            &["delete", "@"]
        };
        let mut child = c.command(command).spawn()?;
        std::thread::sleep(Duration::from_micros(random(6000)));
        let _ = child.kill();
        child.wait()?;
        // Whatever it is now, it is something the runtime can name and clear.
        let state = c.call(&["state", "@"])?;
        ensure!(
            state.status.success() || state.err.contains("does not exist"),
            "{state:?}"
        );
        c.delete()?;
        c.nothing_left()?;
    }
    Ok(())
}

fn fifty_at_once() -> Result<()> {
    let many = harness::rounds(50);
    let mut all: Vec<Container> = (0..many).map(|_| Container::idle()).collect::<Result<_>>()?;
    let root = all[0].root.clone();
    for c in &mut all {
        c.root.clone_from(&root);
    }
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = all.iter().map(|c| scope.spawn(|| c.up())).collect();
        threads.into_iter().try_for_each(|t| t.join().expect("a thread"))
    })?;
    let listed = all[0].call(&["list", "--quiet"])?.ok()?;
    ensure!(listed.lines().count() == many, "{listed}");
    for c in &all {
        ensure!(c.status()? == "running");
    }
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = all.iter().map(|c| scope.spawn(|| c.delete())).collect();
        threads.into_iter().try_for_each(|t| t.join().expect("a thread"))
    })?;
    all.iter().try_for_each(Container::nothing_left)
}

fn one_id_for_many() -> Result<()> {
    known_difference!("runc", "before 1.2 can mix up two creates of one id");
    let first = Container::idle()?;
    let mut others: Vec<Container> = (0..5).map(|_| Container::idle()).collect::<Result<_>>()?;
    for c in &mut others {
        c.root.clone_from(&first.root);
        c.id.clone_from(&first.id);
    }
    let made: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = others.iter().map(|c| scope.spawn(|| c.create())).collect();
        threads
            .into_iter()
            .map(|t| t.join().expect("a thread"))
            .filter(Result::is_ok)
            .count()
    });
    ensure!(made == 1, "{made} were made");
    ensure!(first.status()? == "created");
    first.delete()?;
    others.iter().try_for_each(Container::nothing_left)
}
