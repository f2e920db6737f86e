//! Many lives, many of them cut short. `CONDO_TEST_ROUNDS=N` makes it N rounds of each kind, `N,M` N and M.

use std::process::Child;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::house::{House, said};

tests![
    rounds_leave_nothing: 1200,
    killed_commands_leave_nothing: 1200,
];

fn rounds() -> [u64; 2] {
    let text = std::env::var("CONDO_TEST_ROUNDS").unwrap_or_default();
    let mut numbers = text.split(',').filter_map(|n| n.trim().parse().ok());
    let first = numbers.next().unwrap_or(crate::harness::rounds(10) as u64);
    [first, numbers.next().unwrap_or(first)]
}

fn rounds_leave_nothing() -> Result<()> {
    let house = House::quick()?;
    for round in 0..rounds()[0] {
        house.ok("create web --image quick --memory 64M")?;
        house.ok("start web")?;
        if round % 2 == 0 {
            house.ok("stop web --timeout 5")?;
            house.ok("delete web")?;
        } else {
            house.ok("delete --force web")?;
        }
        house.nothing_left()?;
    }
    house.leave()
}

/// A small generator: what is killed when is printed, to be repeated with `CONDO_TEST_SEED`.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let seed = std::env::var("CONDO_TEST_SEED").ok().and_then(|s| s.parse().ok());
        let now = || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(1, |d| d.as_micros() as u64)
        };
        let seed = seed.unwrap_or_else(now);
        println!("CONDO_TEST_SEED={seed}");
        Self(seed | 1)
    }

    /// From 0 to `below`, by xorshift.
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

fn killed_commands_leave_nothing() -> Result<()> {
    let house = House::quick()?;
    let mut dice = Dice::new();
    // One that goes on all the time, and that nothing may touch.
    house.ok("create bystander --image quick --start")?;
    for round in 0..rounds()[1] {
        // A name for each, so that what one leaves is not cleared away by the next.
        let name = format!("web-{round}");
        let what = cut_short(&house, &name, &mut dice)?;
        let output = house.output(&format!("delete --force {name}"))?;
        let gone = said(&output).contains("does not exist");
        ensure!(
            output.status.success() || gone,
            "round {round}, {what}: {output:?}"
        );
        ensure!(
            house.sh("bystander", "echo alive")? == "alive",
            "round {round}, {what}"
        );
        if dice.roll(2) == 0 {
            // Whatever was left, the next VPS of this name has no trouble with it.
            house.ok(&format!("create {name} --image quick --start"))?;
            house.ok(&format!("delete --force {name}"))?;
        }
    }
    house.ok("delete --force bystander")?;
    house.nothing_left()?;
    house.leave()
}

/// Lets a command or a monitor die in the middle of something.
fn cut_short(house: &House, name: &str, dice: &mut Dice) -> Result<String> {
    let create = format!("create {name} --image quick");
    let verb = [
        "create",
        "start",
        "stop --timeout 3",
        "restart --timeout 3",
        "delete --force",
    ][dice.roll(5) as usize];
    let command = match verb {
        "create" => format!("{create} --start"),
        _ => {
            house.ok(&create)?;
            format!("{verb} {name}")
        }
    };
    if !["create", "start"].contains(&verb) {
        house.ok(&format!("start {name}"))?;
    }
    let child = house.spawn(&command)?;
    let patience = Duration::from_millis(dice.roll(120 * crate::harness::timeout_factor()));
    std::thread::sleep(patience);
    let whom = dice.roll(3);
    strike(house, name, child, whom)?;
    let whom = ["command", "monitor", "both"][whom as usize];
    Ok(format!("`{command}` after {patience:?}, {whom}"))
}

fn strike(house: &House, name: &str, mut child: Child, whom: u64) -> Result<()> {
    if whom != 1 {
        child.kill()?;
    }
    // There may be none yet, or none any more.
    if whom != 0
        && let Ok(monitor) = house.monitor(name)
        && std::fs::read(format!("/proc/{monitor}/cmdline")).is_ok_and(|c| c.starts_with(b"condo-monitor"))
    {
        let _ = kill(Pid::from_raw(monitor), Signal::SIGKILL);
    }
    child.wait()?;
    Ok(())
}
