//! The console: its log, who follows it, and who joins it.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::house::{House, eventually, finish};
use super::terminal::Terminal;
use crate::harness;

tests![
    a_log_is_followed_to_the_end,
    the_log_is_bounded: 120,
    a_user_joins_and_leaves,
    a_user_joins_however_long_the_roots_path_is,
    the_later_user_takes_over,
    a_console_that_nobody_reads_can_be_left,
    keys_are_for_the_program_and_not_for_init,
    slow_viewers_see_all_and_none_holds_the_vps: 120,
    a_flood_is_slowed: 120,
];

fn a_log_is_followed_to_the_end() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let mut command = house.command();
    let mut child = command
        .args(["logs", "-f", "web"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    let mut until = |text: &str| {
        lines
            .by_ref()
            .find(|l| l.as_ref().is_ok_and(|l| l.contains(text)))
    };
    house.sh("web", "echo first word > /dev/console")?;
    ensure!(until("first word").is_some());
    house.sh("web", "echo last word > /dev/console")?;
    house.ok("stop web")?;
    ensure!(until("last word").is_some());
    ensure!(finish(child)?.status.success());
    let log = house.ok("logs web")?;
    ensure!(log.contains("first word") && log.contains("last word"), "{log}");
    house.ok("start web")?;
    ensure!(
        house.ok("logs web")?.contains("first word"),
        "a start does not empty the log"
    );
    house.leave()
}

fn the_log_is_bounded() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    house.sh(
        "web",
        "dd if=/dev/zero bs=64k count=28 2>/dev/null | tr '\\0' x > /dev/console; echo; echo the end > /dev/console",
    )?;
    eventually("all has been read", || {
        Ok(house.ok("logs web")?.contains("the end"))
    })?;
    let size = |name: &str| {
        house
            .root
            .join("lib/vps/web")
            .join(name)
            .metadata()
            .map(|m| m.len())
    };
    let sizes = [size("console.log")?, size("console.log.1")?];
    ensure!(sizes.iter().all(|s| *s <= (1 << 20) + 4096), "{sizes:?}");
    ensure!(sizes[1] >= 1 << 20, "{sizes:?}");
    house.leave()
}

/// Waits until a user has joined, who hears it: what is said before that is for the log alone.
fn joins(house: &House, mut hears: impl FnMut() -> Result<bool>) -> Result<()> {
    eventually("the user has joined", || {
        house.sh("web", "echo joined > /dev/console")?;
        hears()
    })
}

fn a_user_joins_and_leaves() -> Result<()> {
    joined_and_left(House::new()?)
}

/// The address of a socket has 107 bytes (`unix(7)`).
fn a_user_joins_however_long_the_roots_path_is() -> Result<()> {
    joined_and_left(House::at(harness::tempdir().join("d".repeat(120)))?)
}

fn joined_and_left(house: House) -> Result<()> {
    house.running("web", "")?;
    let mut terminal = Terminal::new()?;
    let child = terminal.spawn(house.command().args(["console", "web"]))?;
    // What is typed before the console is joined is not lost: it waits in the terminal.
    terminal.say("\n")?;
    terminal.hear("# ")?;
    terminal.say("echo $((6*7))-inside; stty size\n")?;
    terminal.hear("42-inside")?;
    terminal.hear("40 100")?;
    terminal.say("\x1d")?;
    ensure!(finish(child)?.status.success());
    ensure!(house.status("web")? == "running");
    ensure!(house.ok("logs web")?.contains("42-inside"));
    house.leave()
}

fn the_later_user_takes_over() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let (mut one, mut two) = (Terminal::new()?, Terminal::new()?);
    let first = one.spawn(house.command().args(["console", "web"]))?;
    one.say("\n")?;
    one.hear("# ")?;
    let second = two.spawn(house.command().args(["console", "web"]))?;
    ensure!(finish(first)?.status.success(), "the first one is let go");
    two.say("echo $((6*7))-inside\n")?;
    two.hear("42-inside")?;
    house.ok("delete --force web")?;
    ensure!(
        finish(second)?.status.success(),
        "the end of the VPS ends the console"
    );
    house.leave()
}

fn a_console_that_nobody_reads_can_be_left() -> Result<()> {
    let mut house = House::new()?;
    house.import(
        "deaf",
        "trap 'exit 0' TERM; busybox stty raw -echo; echo deaf; while :; do busybox sleep 60 & wait $!; done",
    )?;
    house.ok("create web --image deaf --start")?;
    eventually("it is deaf", || Ok(house.ok("logs web")?.contains("deaf")))?;
    let mut terminal = Terminal::new()?;
    let child = terminal.spawn(house.command().args(["console", "web"]))?;
    // Raw mode must have begun, in which no byte is a line's end or a signal.
    joins(&house, || terminal.hears("joined", Duration::from_millis(200)))?;
    // In a thread, because nobody would take it all from a user whose console hangs.
    let typing = std::thread::spawn(move || {
        terminal
            .say(&format!("{}\x1d", "y".repeat(200_000)))
            .map(|()| terminal)
    });
    let left = finish(child)?;
    ensure!(left.status.success(), "{left:?}");
    drop(typing.join().expect("a thread")?);
    house.leave()
}

/// Ctrl-C, and another size of the window.
fn keys_are_for_the_program_and_not_for_init() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let before = house.init("web")?;
    let mut terminal = Terminal::new()?;
    let child = terminal.spawn(house.command().args(["console", "web"]))?;
    terminal.say("\n")?;
    terminal.hear("# ")?;
    terminal.say("trap 'echo caught-$((6*7))' INT; sleep 600\n")?;
    terminal.hear("sleep 600")?;
    eventually("the program runs", || {
        Ok(house.try_sh("web", "pidof sleep")?.status.success())
    })?;
    terminal.say("\x03")?;
    terminal.hear("caught-42")?;
    terminal.resize(50, 120, &child)?;
    let size = || Ok(house.sh("web", "stty size < /dev/console")? == "50 120");
    eventually("the size has come through", size)?;
    terminal.say("\x1d")?;
    ensure!(finish(child)?.status.success());
    ensure!(house.init("web")? == before && house.status("web")? == "running");
    house.leave()
}

/// A pipe that is read little by little and by which writing never waits, and one that nobody reads at all.
fn slow_viewers_see_all_and_none_holds_the_vps() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let look = || -> Result<_> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let flags = rustix::fs::fcntl_getfl(&write)?;
        rustix::fs::fcntl_setfl(&write, flags | rustix::fs::OFlags::NONBLOCK)?;
        let mut command = house.command();
        command
            .args(["console", "web"])
            .stdin(Stdio::piped())
            .stdout(write);
        Ok((command.spawn()?, std::fs::File::from(read)))
    };
    let is_shown = |shown: &std::fs::File| -> Result<bool> {
        let mut fds = [PollFd::new(shown.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut fds, PollTimeout::from(200_u8))? > 0)
    };
    let (mut viewer, mut shown) = look()?;
    joins(&house, || is_shown(&shown))?;
    house.sh("web", "(seq 100000; echo the end) > /dev/console & sleep 0.1")?;
    let (mut text, mut piece) = (Vec::new(), [0; 5000]);
    while !text.ends_with(b"the end\r\n") {
        let n = shown.read(&mut piece)?;
        ensure!(n > 0, "the console ended");
        text.extend_from_slice(&piece[..n]);
        std::thread::sleep(Duration::from_micros(500));
    }
    let lines = text
        .split(|b| *b == b'\n')
        .filter(|l| l.first().is_some_and(u8::is_ascii_digit))
        .count();
    ensure!(lines == 100_000, "{lines} lines");
    drop(viewer.stdin.take());
    ensure!(finish(viewer)?.status.success());
    let (viewer, shown) = look()?;
    joins(&house, || is_shown(&shown))?;
    house.sh("web", "seq 100000 > /dev/console")?;
    drop(shown);
    ensure!(house.ok("logs web")?.contains("\n100000\r\n"));
    drop(viewer.wait_with_output()?);
    house.leave()
}

/// The attack: a console that is written to without end costs the host's disk and processors, outside of the VPS's limits.
fn a_flood_is_slowed() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let written = || -> Result<u64> {
        let io = std::fs::read_to_string(format!("/proc/{}/io", house.monitor("web")?))?;
        let line = io
            .lines()
            .find_map(|l| l.strip_prefix("wchar: "))
            .context("no wchar")?;
        Ok(line.parse()?)
    };
    let (begin, before) = (Instant::now(), written()?);
    house.sh(
        "web",
        "timeout 3 sh -c 'yes 0123456789012345678901234567890123456789 > /dev/console'; true",
    )?;
    let said = written()? - before;
    let most = (1 << 20) + (256 << 10) * (begin.elapsed().as_secs() + 1);
    ensure!(said <= most && said > 1 << 19, "{said} bytes, and {most} at most");
    house.leave()
}
