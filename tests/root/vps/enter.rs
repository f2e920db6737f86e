//! Programs run in a VPS.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::house::{House, eventually, finish, said};
use super::terminal::Terminal;

tests![
    status_and_streams_pass_through,
    user_directory_and_environment,
    a_terminal_of_its_own,
    a_shell,
    signals_are_passed_on,
    a_tenant_locks_nobody_out,
    one_that_is_killed_leaves_nobody_to_wait_for,
];

/// Here whoever takes its children over waits for none of them, like PID 1 of many a CI job.
fn one_that_is_killed_leaves_nobody_to_wait_for() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut busy = house.sh_spawn("web", "touch /began; exec sleep 600")?;
    eventually("it began", || {
        Ok(house.try_sh("web", "test -e /began")?.status.success())
    })?;
    busy.kill()?;
    busy.wait()?;
    // At whatever step it is.
    for milliseconds in (0..24).step_by(2) {
        let mut early = house.sh_spawn("web", "sleep 600")?;
        std::thread::sleep(Duration::from_millis(milliseconds));
        early.kill()?;
        early.wait()?;
    }
    house.leave()
}

/// Home and user list belong to the tenant: neither a missing one nor a fifo in its place stops the operator.
fn a_tenant_locks_nobody_out() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    house.try_sh("web", "sed -i 's,:/root:,:/gone:,' /etc/passwd")?;
    let output = house.output("exec web -- pwd")?;
    ensure!(output.status.success() && output.stdout == b"/\n", "{output:?}");
    house.try_sh("web", "rm /etc/passwd /etc/group; mkfifo /etc/passwd /etc/group")?;
    // Nothing inside may read the list either: it would wait for ever.
    let output = house.output("exec web -- echo in")?;
    ensure!(output.status.success() && output.stdout == b"in\n", "{output:?}");
    house.leave()
}

fn status_and_streams_pass_through() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -9 $$", 137),
        ("kill -15 $$", 143),
    ] {
        let output = house.try_sh("web", script)?;
        ensure!(output.status.code() == Some(code), "{script}: {output:?}");
    }
    let output = house.try_sh("web", "echo out; echo err >&2")?;
    ensure!(
        output.stdout == b"out\n" && output.stderr == b"err\n",
        "{output:?}"
    );
    let mut command = house.command();
    command
        .args(["exec", "web", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let megabyte = vec![b'x'; 1 << 20];
    let mut stdin = child.stdin.take().context("no stdin")?;
    let writer = std::thread::spawn(move || stdin.write_all(&megabyte));
    let output = finish(child)?;
    writer.join().expect("a thread")?;
    ensure!(
        output.stdout.len() == 1 << 20,
        "{} bytes came through",
        output.stdout.len()
    );
    for (program, code) in [("/bin/nothing", 127), ("/etc/passwd", 126)] {
        let output = house.output(&format!("exec web -- {program}"))?;
        ensure!(output.status.code() == Some(code), "{program}: {output:?}");
        ensure!(said(&output).lines().count() == 1, "{output:?}");
    }
    house.leave()
}

fn user_directory_and_environment() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let run = |options: &str, program: &str| house.ok(&format!("exec web {options} -- {program}"));
    ensure!(run("", "id -u")? == "0\n" && run("", "pwd")? == "/root\n");
    ensure!(run("-u www-data", "id -u")? == "33\n" && run("-u www-data", "id -g")? == "33\n");
    ensure!(run("-u 1234", "id -u")? == "1234\n");
    ensure!(run("-u 33:5", "id -g")? == "5\n");
    ensure!(run("-w /etc", "pwd")? == "/etc\n");
    let env = run("-e COLOUR=blue -e A=b=c -u www-data", "env")?;
    for line in ["COLOUR=blue", "A=b=c", "HOME=/var/www", "USER=www-data"] {
        ensure!(env.lines().any(|l| l == line), "no {line} in {env}");
    }
    ensure!(!env.contains("container"), "{env}");
    // An ordinary user has none of root's powers.
    let refused = house.output("exec web -u www-data -- touch /etc/passwd")?;
    ensure!(!refused.status.success(), "{refused:?}");
    house.leave()
}

fn a_terminal_of_its_own() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let mut terminal = Terminal::new()?;
    let script = "tty; stty size; read -r line; echo got-$line; exit 5";
    let child = terminal.spawn(
        house
            .command()
            .args(["exec", "web", "-t", "--", "sh", "-c", script]),
    )?;
    terminal.hear("/dev/pts/")?;
    terminal.hear("40 100")?;
    terminal.say("word\n")?;
    terminal.hear("got-word")?;
    ensure!(finish(child)?.status.code() == Some(5));
    let without = house.try_sh("web", "tty")?;
    ensure!(without.stdout.starts_with(b"not a tty"), "{without:?}");
    house.leave()
}

fn a_shell() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let mut terminal = Terminal::new()?;
    let child = terminal.spawn(house.command().args(["shell", "web", "-u", "www-data"]))?;
    terminal.hear("$ ")?;
    terminal.say("echo $((6*7)) $(id -un); exit 4\n")?;
    terminal.hear("42 www-data")?;
    ensure!(finish(child)?.status.code() == Some(4));
    house.leave()
}

fn signals_are_passed_on() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let mut command = house.command();
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 1 & wait $!; done";
    command
        .args(["exec", "web", "--", "sh", "-c", script])
        .stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut line = String::new();
    let stdout = child.stdout.take().context("no stdout")?;
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id().try_into()?),
        nix::sys::signal::Signal::SIGTERM,
    )?;
    ensure!(
        finish(child)?.status.code() == Some(9),
        "the signal did not arrive"
    );
    house.leave()
}
