//! Two commands on one VPS at once.

use anyhow::{Result, ensure};

use super::house::{House, finish, said};

tests![
    two_starts,
    a_stop_during_a_start,
    a_delete_during_a_start,
    two_deletes,
    a_stop_during_a_reboot: 120,
];

/// Rounds, because a race is not lost every time.
fn rounds() -> usize {
    crate::harness::rounds(3)
}

fn two_starts() -> Result<()> {
    let house = House::new()?;
    house.ok("create web --image busybox")?;
    for _ in 0..rounds() {
        let both = [house.spawn("start web")?, house.spawn("start web")?];
        let [one, two] = both.map(finish);
        let ends = [one?, two?];
        let won = ends.iter().filter(|o| o.status.success()).count();
        ensure!(won == 1, "{ends:?}");
        ensure!(
            ends.iter().any(|o| said(o).contains("running already")),
            "{ends:?}"
        );
        house.up("web")?;
        house.ok("kill web")?;
        house.ok("stop web")?;
    }
    house.leave()
}

fn a_stop_during_a_start() -> Result<()> {
    let house = House::quick()?;
    house.ok("create web --image quick")?;
    for _ in 0..rounds() {
        let start = house.spawn("start web")?;
        let stop = house.spawn("stop web --timeout 3")?;
        let (start, stop) = (finish(start)?, finish(stop)?);
        ensure!(
            start.status.success() && stop.status.success(),
            "{start:?} {stop:?}"
        );
        // Whichever came first: the state is one or the other, and works.
        let status = house.status("web")?;
        ensure!(status == "running" || status == "stopped", "{status}");
        house.ok("stop web --timeout 3")?;
        ensure!(house.status("web")? == "stopped" && !house.run_of("web").exists());
    }
    house.leave()
}

fn a_delete_during_a_start() -> Result<()> {
    let house = House::new()?;
    for _ in 0..rounds() {
        house.ok("create web --image busybox")?;
        let start = house.spawn("start web")?;
        let delete = house.spawn("delete --force web")?;
        let (start, delete) = (finish(start)?, finish(delete)?);
        ensure!(delete.status.success(), "{delete:?}");
        ensure!(
            start.status.success() || said(&start).contains("web"),
            "{start:?}"
        );
        ensure!(
            start.status.success() || said(&start).lines().count() == 1,
            "{start:?}"
        );
        house.nothing_left()?;
    }
    house.leave()
}

fn two_deletes() -> Result<()> {
    let house = House::new()?;
    for _ in 0..rounds() {
        house.ok("create web --image busybox --start")?;
        let both = [
            house.spawn("delete --force web")?,
            house.spawn("delete --force web")?,
        ];
        let [one, two] = both.map(finish);
        let ends = [one?, two?];
        ensure!(ends.iter().any(|o| o.status.success()), "{ends:?}");
        house.nothing_left()?;
    }
    house.leave()
}

/// While nobody holds the lock: the monitor of a VPS that reboots by itself.
fn a_stop_during_a_reboot() -> Result<()> {
    let house = House::quick()?;
    house.ok("create web --image quick")?;
    // While it clears up, while it pauses (1 s after a run as short as these), and while it boots.
    for (round, pause) in [0, 200, 1020, 1050, 1080].into_iter().enumerate() {
        house.ok("start web")?;
        house.sh_last("web", "busybox reboot -f")?;
        std::thread::sleep(std::time::Duration::from_millis(pause));
        house.ok("stop web --timeout 3")?;
        ensure!(
            house.status("web")? == "stopped",
            "round {round}: a stopped VPS came back"
        );
    }
    house.leave()
}
