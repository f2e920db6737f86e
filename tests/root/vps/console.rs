//! The console: its log, who follows it, and who joins it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::house::{House, eventually, finish};
use super::terminal::Terminal;

tests![
    a_log_is_followed_to_the_end,
    the_log_is_bounded,
    a_user_joins_and_leaves,
    the_later_user_takes_over,
    a_console_that_nobody_reads_can_be_left,
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
        "dd if=/dev/zero bs=64k count=60 2>/dev/null | tr '\\0' x > /dev/console; echo; echo the end > /dev/console",
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

fn a_user_joins_and_leaves() -> Result<()> {
    let house = House::new()?;
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
    house.sh("web", "echo joined > /dev/console")?;
    terminal.hear("joined")?;
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
