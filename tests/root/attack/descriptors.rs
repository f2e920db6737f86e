//! What of the operator's a program that is run in a VPS can keep.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};

use crate::vps::house::{House, eventually, finish, said};
use crate::vps::terminal::Terminal;

tests![
    no_stream_of_the_host_is_handed_over,
    a_terminal_is_not_read_after_the_end,
    streams_carry_what_they_carried: 120,
    a_background_child_holds_nobody,
    callers_that_are_slow_or_non_blocking_lose_nothing,
    a_list_that_is_read_line_by_line,
    a_reader_that_sleeps_does_not_hold_the_vps,
];

/// Whether the descriptors of a VPS's program are files of the host's: by device and inode.
const IDENTITY: &str = "for n in 0 1 2; do stat -L -c %d:%i /proc/self/fd/$n >&2; done";

/// A log that output is appended to could be emptied and written over, whatever its mode of opening says: by
/// `/proc/self/fd/1`, and by a program that keeps it.
fn no_stream_of_the_host_is_handed_over() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let path = house.root.join("log");
    std::fs::write(&path, "earlier\n")?;
    let log = || File::options().read(true).append(true).open(&path);
    let script = format!(
        ": > /proc/self/fd/1; {IDENTITY}; (setsid sh -c 'sleep 0.2; : > /proc/self/fd/1; echo late >&1' &) ; echo now"
    );
    let child = house
        .command()
        .args(["exec", "web", "--", "sh", "-c", &script])
        .stdin(log()?)
        .stdout(log()?)
        .stderr(Stdio::piped())
        .spawn()?;
    let output = finish(child)?;
    let own = std::os::unix::fs::MetadataExt::ino(&log()?.metadata()?);
    let inside = said(&output);
    ensure!(inside.lines().count() == 3, "{output:?}");
    ensure!(!inside.contains(&format!(":{own}\n")), "{inside}");
    house.sh("web", "sleep 0.4")?;
    let text = std::fs::read_to_string(&path)?;
    ensure!(text == "earlier\nnow\n", "{text}");
    std::fs::remove_file(path)?;
    house.leave()
}

/// The attack: a program leaves a child in a session of its own, which goes on reading where the operator types.
fn a_terminal_is_not_read_after_the_end() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let mut terminal = Terminal::new()?;
    let thief = "setsid sh -c 'echo $$ > /tmp/thief; cat > /tmp/loot' <&0 & while ! [ -s /tmp/thief ]; do sleep 0.02; done; \
                 test -t 0 && echo typed-at-$(tty)";
    let child = terminal.spawn(house.command().args(["exec", "web", "--", "sh", "-c", thief]))?;
    terminal.hear("typed-at-/dev/pts/")?;
    ensure!(finish(child)?.status.success());
    terminal.say("secret\n")?;
    let mut byte = [0; 7];
    terminal.read_as_shell(&mut byte)?;
    ensure!(&byte == b"secret\n", "the shell reads {byte:?}");
    ensure!(house.sh("web", "cat /tmp/loot")?.is_empty());
    house.leave()
}

fn streams_carry_what_they_carried() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let run = |script: &str| {
        let mut command = house.command();
        command.args(["exec", "web", "--", "sh", "-c", script]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn()
    };
    // Much, both ways at once, and by both ways out.
    let mut child = run("tee /dev/stderr | cat; exit 3")?;
    let size = 100 << 20;
    let writer = feed(&mut child, size)?;
    let mut stderr = child.stderr.take().context("no stderr")?;
    let errors = std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    let output = finish(child)?;
    writer.join().expect("a thread")?;
    ensure!(errors.join().expect("a thread")? == size as u64);
    ensure!(output.stdout.len() == size && output.status.code() == Some(3));
    // An end that the program lets go of is let go of outside, while it runs.
    let mut child = run("exec >&-; read -r line; exit 5")?;
    let mut stdout = child.stdout.take().context("no stdout")?;
    ensure!(stdout.read(&mut [0])? == 0);
    child.stdin.take().context("no stdin")?.write_all(b"line\n")?;
    ensure!(finish(child)?.status.code() == Some(5));
    // An end that is let go of outside is let go of inside.
    let mut child = run("yes; echo $? >&2")?;
    drop(child.stdout.take());
    let output = finish(child)?;
    ensure!(
        output.status.success() && said(&output).contains("141"),
        "{output:?}"
    );
    // What is not taken any more does not hold who feeds it.
    let mut child = run("exec <&-; sleep 0.3; exit 6")?;
    let writer = feed(&mut child, 1 << 20)?;
    let _ = writer.join().expect("a thread");
    ensure!(finish(child)?.status.code() == Some(6));
    house.leave()
}

type Writer = std::thread::JoinHandle<std::io::Result<()>>;

fn feed(child: &mut Child, size: usize) -> Result<Writer> {
    let mut stdin = child.stdin.take().context("no stdin")?;
    Ok(std::thread::spawn(move || {
        let piece = vec![b'x'; 1 << 20];
        (0..size >> 20).try_for_each(|_| stdin.write_all(&piece))
    }))
}

/// Like `docker exec` and unlike `ssh`: the end of the program is the end, whoever else keeps its streams open.
fn a_background_child_holds_nobody() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let mut command = house.command();
    command.args(["exec", "web", "--", "sh", "-c", "yes >&2 & seq 5000; exit 4"]);
    let output = finish(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?)?;
    ensure!(output.status.code() == Some(4), "{:?}", output.status);
    let lines = output.stdout.iter().filter(|b| **b == b'\n').count();
    ensure!(lines == 5000, "{lines} lines");
    house.leave()
}

/// A reader that reads little by little, at an end that others have made non-blocking.
fn callers_that_are_slow_or_non_blocking_lose_nothing() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    for options in [&["exec", "web", "--"][..], &["exec", "-t", "web", "--"][..]] {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let flags = rustix::fs::fcntl_getfl(&write)?;
        rustix::fs::fcntl_setfl(&write, flags | rustix::fs::OFlags::NONBLOCK)?;
        let (input, _open) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)?;
        let child = house
            .command()
            .args(options)
            .args(["seq", "200000"])
            .stdin(input)
            .stdout(write)
            .spawn()?;
        let mut reader = File::from(read);
        let mut text = Vec::new();
        let mut piece = [0; 40_000];
        loop {
            match reader.read(&mut piece)? {
                0 => break,
                n => text.extend_from_slice(&piece[..n]),
            }
            std::thread::yield_now();
        }
        ensure!(finish(child)?.status.success());
        let lines = text.split(|b| *b == b'\n').count() - 1;
        ensure!(lines == 200_000, "{options:?}: {lines} lines");
    }
    house.leave()
}

/// `while read line; do condo exec …; done < list`: what is read ahead is given back.
fn a_list_that_is_read_line_by_line() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let mut list = tempfile()?;
    list.write_all(b"one\ntwo\nthree\n")?;
    list.seek(SeekFrom::Start(0))?;
    let condo = crate::harness::condo();
    let script = format!(
        "while read -r line; do {} exec web -- true; echo $line; done",
        condo.display()
    );
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .env("CONDO_ROOT", &house.root)
        .stdin(list)
        .output()?;
    ensure!(output.stdout == b"one\ntwo\nthree\n", "{output:?}");
    house.leave()
}

fn tempfile() -> Result<File> {
    let path = crate::harness::tempdir().join("list");
    Ok(File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?)
}

/// What has ended inside is waited for at once: a system ends only when all of it has been.
fn a_reader_that_sleeps_does_not_hold_the_vps() -> Result<()> {
    let house = House::quick()?;
    house.ok("create web --image quick --start")?;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let mut command = house.command();
    command.args(["exec", "web", "--", "busybox", "seq", "20000"]);
    let child = command.stdout(write).spawn()?;
    drop(command);
    let mut reader = File::from(read);
    reader.read_exact(&mut [0; 2])?;
    eventually("it has ended inside", || {
        Ok(house.sh("web", "busybox pidof seq || echo none")? == "none")
    })?;
    house.ok("stop web --timeout 20")?;
    ensure!(house.show("web")?["last_exit"]["reason"] == "exited");
    let mut text = String::new();
    reader.read_to_string(&mut text)?;
    ensure!(text.lines().count() == 19_999, "{} lines", text.lines().count());
    ensure!(finish(child)?.status.success());
    house.leave()
}
