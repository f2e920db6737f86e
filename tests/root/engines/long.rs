//! A container `long` that goes on, by Docker's command line, which is Podman's as well.

use anyhow::Result;

use super::client::Client;

/// What it runs. It ends as it wants when it is asked to.
pub const SCRIPT: &str = "trap 'echo asked; exit 5' TERM; echo up; while :; do sleep 0.1; done";

/// Waits until it runs.
pub fn comes_up(client: &Client) -> Result<()> {
    client.comes_to_say("up", "logs long", &[])
}

/// It is entered, paused and stopped.
pub fn lives_and_ends(client: &Client) -> Result<()> {
    client.ends(
        3,
        "exec --user guest long",
        &["sh", "-c", "test $(id -u) = 1000 && exit 3"],
    )?;
    client.says(
        "terminal",
        "exec --tty long",
        &["sh", "-c", "test -t 0 && echo terminal"],
    )?;
    client.ok("pause long", &[])?;
    client.says("paused", "inspect --format {{.State.Status}} long", &[])?;
    client.ok("unpause long", &[])?;
    client.ok("stop long", &[])?;
    client.says(
        "exited 5",
        "inspect --format",
        &["{{.State.Status}} {{.State.ExitCode}}", "long"],
    )?;
    client.says("up\nasked", "logs long", &[])
}
