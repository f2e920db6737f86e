//! What happens to a running VPS when those who started or watch it go away; what it costs to watch it.

use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use condo::cgroups::Cgroup;
use condo::host::CgroupLayout;

use super::house::{House, alive, eventually};
use super::terminal::Terminal;
use crate::harness;

tests![
    the_terminal_is_closed,
    the_commands_cgroup_is_killed in guest,
    what_was_inherited_is_let_go,
    the_monitor_is_killed: 120,
    a_watched_vps_costs_little in guest,
];

fn the_terminal_is_closed() -> Result<()> {
    let house = House::new()?;
    needs!(program:setsid);
    house.ok("create web --image busybox")?;
    let mut terminal = Terminal::new()?;
    let condo = harness::condo();
    let script = format!("{} start web; echo started; sleep 600", condo.display());
    // Whoever runs the tests may have been told to ignore a hang-up (`nohup`), which processes inherit.
    let mut command = Command::new("env");
    command.env("CONDO_ROOT", &house.root).args([
        "--default-signal=HUP",
        "setsid",
        "--ctty",
        "--wait",
        "sh",
        "-c",
        &script,
    ]);
    let mut session = terminal.spawn(&mut command)?;
    terminal.hear("started")?;
    drop(terminal);
    eventually("the session ends", || Ok(session.try_wait()?.is_some()))?;
    house.up("web")?;
    ensure!(alive(house.monitor("web")?));
    ensure!(house.sh("web", "echo alive")? == "alive");
    house.leave()
}

/// As a service manager does with what is left of a unit, a job or a login.
fn the_commands_cgroup_is_killed() -> Result<()> {
    let house = House::new()?;
    house.ok("create web --image busybox")?;
    house.ok("create other --image busybox --start")?;
    let layout = CgroupLayout::probe()?;
    let path = format!("/condo-test-{}", std::process::id());
    let job = Cgroup::create(&layout, &path)?;
    let script = format!("read go && {} start web; sleep 600", harness::condo().display());
    let mut shell = Command::new("sh")
        .args(["-c", &script])
        .env("CONDO_ROOT", &house.root)
        .stdin(Stdio::piped())
        .spawn()?;
    let mut begin = || -> Result<()> {
        job.adopt(i32::try_from(shell.id())?)?;
        shell.stdin.take().context("no stdin")?.write_all(b"go\n")?;
        eventually("it runs", || Ok(house.status("web")? == "running"))?;
        house.up("web")
    };
    let begun = begin();
    job.kill()?;
    shell.wait()?;
    ensure!(job.wait_empty(super::house::patience())?);
    job.remove()?;
    begun?;

    let monitor = house.monitor("web")?;
    ensure!(alive(monitor), "the monitor was in the command's cgroup");
    let cgroups = std::fs::read_to_string(format!("/proc/{monitor}/cgroup"))?;
    ensure!(cgroups == std::fs::read_to_string(format!("/proc/{}/cgroup", house.monitor("other")?))?);
    let init = house.init("web")?;
    house.sh_last("web", "reboot -f")?;
    eventually("it boots again", || {
        Ok(house.show("web")?["pid"]
            .as_i64()
            .is_some_and(|pid| pid != i64::from(init)))
    })?;
    house.ok("delete --force web")?;
    ensure!(alive(house.monitor("other")?));
    house.leave()
}

/// A script's pipe or lock does not stay open for as long as the VPS runs.
fn what_was_inherited_is_let_go() -> Result<()> {
    let house = House::new()?;
    house.ok("create web --image busybox")?;
    // Not close-on-exec: every command of this test inherits both ends.
    let (read, write) = nix::unistd::pipe()?;
    house.ok("start web")?;
    drop(write);
    let mut fds = [nix::poll::PollFd::new(read.as_fd(), nix::poll::PollFlags::POLLIN)];
    let ended = nix::poll::poll(&mut fds, nix::poll::PollTimeout::from(20_000_u16))?;
    ensure!(
        ended == 1 && nix::unistd::read(&read, &mut [0; 1])? == 0,
        "somebody holds the pipe"
    );
    ensure!(house.status("web")? == "running");
    house.leave()
}

fn the_monitor_is_killed() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let init = house.init("web")?;
    house.kill_monitor("web")?;
    ensure!(house.status("web")? == "running" && house.init("web")? == init);
    ensure!(house.sh("web", "echo alive")? == "alive");
    house.refused("console web", "monitor")?;
    house.refused("start web", "running already")?;
    house.ok("stop web --timeout 20")?;
    ensure!(house.status("web")? == "stopped" && !alive(init));
    house.ok("start web")?;
    house.up("web")?;
    house.kill_monitor("web")?;
    house.ok("delete --force web")?;
    house.nothing_left()?;
    house.leave()
}

/// What a process has changed of its memory, in KiB: of the program's own file, whose relocations depend on how it was built, and of
/// all else (`proc_pid_smaps(5)`).
fn dirty(pid: i32) -> Result<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let (mut file, mut other, mut is_file) = (0, 0, false);
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            ["Private_Dirty:", size, "kB"] => {
                *(if is_file { &mut file } else { &mut other }) += size.parse::<u64>()?;
            }
            // Addresses, permissions, offset, device, inode.
            [range, _, _, _, inode, ..] if range.contains('-') => is_file = inode != "0",
            _ => {}
        }
    }
    Ok((file, other))
}

fn a_watched_vps_costs_little() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let pid = house.monitor("web")?;
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))?.count();
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    let (relocated, dirty) = dirty(pid)?;
    println!(
        "monitor: {threads} threads, {fds} descriptors, {relocated} KiB changed of its program, {dirty} KiB of all else"
    );
    // Four of them for `sysinfo(2)`: who asks, who is still to come, both at once, and who keeps them besides.
    ensure!(threads == 1 && fds <= 15, "{threads} threads, {fds} descriptors");
    // Of a build for tests, which has more to relocate, and by one compiler not as much as by another.
    ensure!(
        relocated < 160 && dirty < 80,
        "{relocated} KiB of its program and {dirty} KiB of its own"
    );
    house.leave()
}
