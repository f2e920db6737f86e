//! containerd: `ctr run --runc-binary`.

use std::io::Read;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};

use super::client::Client;
use super::room::{Daemon, Room};
use super::{example, image};
use crate::harness;
use crate::vps::house::eventually;
use crate::vps::terminal::Terminal;

tests![
    tasks_live_and_end: 240,
    limits_hold_and_are_told: 240,
    a_checkpoint_goes_on in guest: 400,
];

/// A daemon, and its client in a namespace that is named after the room: `ctr` makes cgroups of a namespace's name.
pub struct Containerd<'a> {
    pub daemon: Daemon,
    pub client: Client<'a>,
    /// How `ctr` is told of the runtime.
    run: String,
}

impl<'a> Containerd<'a> {
    /// Starts it with the example's configuration and `more` of it.
    pub fn start(room: &'a Room, more: &str) -> Result<Self> {
        let text = example(include_str!("../../../examples/engines/containerd-config.toml"));
        let config = room.write("containerd.toml", &(text + more))?;
        let [root, state, socket] = ["lib", "run", "containerd.sock"].map(|name| room.path(name));
        let (root, state) = (root.display().to_string(), state.display().to_string());
        let address = socket.display().to_string();
        let words = [
            "containerd",
            "--config",
            &config,
            "--root",
            &root,
            "--state",
            &state,
            "--address",
            &address,
        ];
        let daemon = room.daemon(&words, &socket)?;
        let client = room.client(&[
            "ctr",
            "--address",
            &address,
            "--namespace",
            room.cgroup.trim_start_matches('/'),
        ]);
        Ok(Self {
            daemon,
            client,
            run: format!("run --runc-binary {}", harness::condo_runtime().display()),
        })
    }

    fn import(&self, room: &Room) -> Result<()> {
        let archive = room.path("image.tar");
        image::busybox(&archive)?;
        self.client
            .ok("image import", &[&archive.display().to_string()])?;
        Ok(())
    }

    /// Runs a test in a room with a daemon that has the image.
    fn test(body: impl FnOnce(&Room, &Containerd) -> Result<()>) -> Result<()> {
        Room::test(|room| {
            let containerd = Containerd::start(room, "")?;
            containerd.import(room)?;
            body(room, &containerd)?;
            containerd.daemon.stop()
        })
    }

    /// Starts a task `long` of a shell script, and waits until that has made the file `made`.
    fn start_long(&self, script: &str, made: &str) -> Result<()> {
        let run = format!("{} --detach {} long sh -c", self.run, image::IMAGE);
        self.client.ok(&run, &[script])?;
        self.client.comes_to_say(
            "up",
            "task exec --exec-id up long sh -c",
            &[&format!("test -e {made} && echo up")],
        )
    }

    /// The task `long` must be in this state.
    fn long_is(&self, expected: &str) -> Result<()> {
        let found = self.state_of_long()?;
        ensure!(found == expected, "{found} and not {expected}");
        Ok(())
    }

    fn state_of_long(&self) -> Result<String> {
        let list = self.client.ok("task list", &[])?;
        let line = list.lines().find(|line| line.starts_with("long"));
        let word = line.and_then(|line| line.split_whitespace().nth(2));
        Ok(word
            .with_context(|| format!("no task `long`: {list}"))?
            .to_owned())
    }

    /// Ends the task `long` by a signal, which makes it end with `code`, and removes it.
    fn end_long(&self, signal: &str, code: i32) -> Result<()> {
        let client = &self.client;
        client.ok(&format!("task kill {signal} long"), &[])?;
        eventually("it stops", || Ok(self.state_of_long()? == "STOPPED"))?;
        let said = client.ends(0, "task delete long", &[])?;
        ensure!(said.contains(&format!("exit code {code}")), "{said}");
        client.ok("container delete long", &[])?;
        Ok(())
    }
}

fn tasks_live_and_end() -> Result<()> {
    needs!(root, ours, engine: containerd);
    Containerd::test(|_, containerd| {
        short_ones(containerd)?;
        on_a_terminal(containerd)?;
        a_long_one(containerd)
    })
}

fn short_ones(containerd: &Containerd) -> Result<()> {
    let run = format!("{} --rm {} short", containerd.run, image::IMAGE);
    containerd.client.says("hello", &run, &["echo", "hello"])?;
    containerd.client.ends(7, &run, &["sh", "-c", "exit 7"])?;
    let said = containerd.client.ends(1, &run, &["no-such-program"])?;
    ensure!(said.contains("executable file not found"), "{said}");
    // Nothing is in the way of the next of that name.
    containerd.client.says("again", &run, &["echo", "again"])
}

fn on_a_terminal(containerd: &Containerd) -> Result<()> {
    let mut terminal = Terminal::new()?;
    let run = format!("{} --rm --tty {} shell", containerd.run, image::IMAGE);
    let mut child = terminal.spawn(&mut containerd.client.command(&run, &[]))?;
    // `ctr` tells of its size when the shell runs already.
    let script = "until test \"$(stty size)\" = '40 100'; do sleep 0.1; done 2>&-; test -t 0 && echo on a $((1))-terminal\n";
    terminal.say(script)?;
    terminal.hear("on a 1-terminal")?;
    terminal.say("exit 9\n")?;
    let code = child.wait()?.code();
    ensure!(code == Some(9), "the shell ended with {code:?}");
    Ok(())
}

fn a_long_one(containerd: &Containerd) -> Result<()> {
    let client = &containerd.client;
    let script = "trap 'exit 5' TERM; touch /up; while :; do sleep 0.1; done";
    containerd.start_long(script, "/up")?;
    client.ends(
        3,
        "task exec --exec-id three --user 1000 long sh -c",
        &["test $(id -u) = 1000 && exit 3"],
    )?;
    let said = client.ends(1, "task exec --exec-id none long no-such-program", &[])?;
    ensure!(said.contains("executable file not found"), "{said}");
    client.ok("task pause long", &[])?;
    containerd.long_is("PAUSED")?;
    client.ok("task resume long", &[])?;
    containerd.long_is("RUNNING")?;
    let processes = client.ok("task ps long", &[])?;
    ensure!(processes.lines().count() > 1, "{processes}");
    let metrics = client.ok("task metrics long", &[])?;
    ensure!(metrics.contains("memory.usage"), "{metrics}");
    containerd.end_long("", 5)?;
    client.says("", "container list --quiet", &[])
}

/// Reads what `ctr events` prints until it names `topic`.
fn hear_of(topic: &str, mut events: Child) -> Result<()> {
    let mut heard = String::new();
    let mut pipe = events.stdout.take().context("no pipe")?;
    while !heard.contains(topic) {
        let mut some = [0; 4096];
        let n = pipe.read(&mut some)?;
        ensure!(n > 0, "no event `{topic}`: {heard}");
        heard += &String::from_utf8_lossy(&some[..n]);
    }
    events.kill()?;
    events.wait()?;
    Ok(())
}

fn limits_hold_and_are_told() -> Result<()> {
    needs!(root, ours, engine: containerd);
    Containerd::test(|room, containerd| {
        let client = &containerd.client;
        let events = client.command("events", &[]).stdout(Stdio::piped()).spawn()?;
        let run = format!(
            "{} --rm --memory-limit 33554432 {} greedy",
            containerd.run,
            image::IMAGE
        );
        client.ends(
            137,
            &run,
            &["dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"],
        )?;
        hear_of("/tasks/oom", events)?;
        let run = format!(
            "{} --detach --cpus 0.5 {} steady sleep 1000",
            containerd.run,
            image::IMAGE
        );
        client.ok(&run, &[])?;
        room.has_quota("steady", "50000")?;
        client.ok("task kill --signal KILL steady", &[])?;
        Ok(())
    })
}

fn a_checkpoint_goes_on() -> Result<()> {
    needs!(root, ours, criu, engine: containerd);
    Containerd::test(|_, containerd| {
        let client = &containerd.client;
        let script = "read -r own < /proc/sys/kernel/random/uuid; while :; do echo $own > /new; mv /new /own; sleep 0.1; done";
        containerd.start_long(script, "/own")?;
        let own = client.ok("task exec --exec-id own long cat /own", &[])?;
        client.ok("container checkpoint --image --rw --task long saved", &[])?;
        containerd.long_is("RUNNING")?;
        containerd.end_long("--signal KILL", 137)?;
        client.ok("container restore --rw --live long saved", &[])?;
        // What it knows is in its memory, and not in the file only.
        client.ok("task exec --exec-id away long rm -f /own", &[])?;
        client.comes_to_say(&own, "task exec --exec-id again long cat", &["/own"])?;
        client.ok("task kill --signal KILL long", &[])?;
        Ok(())
    })
}
