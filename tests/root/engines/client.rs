//! An engine's command line.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::room::Room;
use crate::runtime::Ran;
use crate::vps::house::eventually;

/// A command line.
pub struct Client<'a> {
    room: &'a Room,
    words: Vec<String>,
    variables: Vec<(String, String)>,
}

impl<'a> Client<'a> {
    /// See [`Room::client`].
    pub fn new(room: &'a Room, words: &[impl AsRef<str>]) -> Self {
        Self {
            room,
            words: words.iter().map(|w| w.as_ref().to_owned()).collect(),
            variables: Vec::new(),
        }
    }

    /// With a variable in its environment.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// The command of `line`, words with blanks between, and `more`, words that may hold blanks.
    pub fn command(&self, line: &str, more: &[&str]) -> Command {
        let mut command = self.room.command(&self.words[0]);
        command
            .args(&self.words[1..])
            .args(line.split_whitespace())
            .args(more);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, whatever that is.
    pub fn run(&self, line: &str, more: &[&str]) -> Result<Ran> {
        let output = self.command(line, more).output()?;
        Ok(Ran {
            status: output.status,
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command that has to succeed; what it printed, without blanks around.
    pub fn ok(&self, line: &str, more: &[&str]) -> Result<String> {
        let ran = self.run(line, more)?;
        ensure!(ran.status.success(), "{} {line} {more:?}: {ran:?}", self.words[0]);
        Ok(ran.out.trim().to_owned())
    }

    /// Runs a command that has to print this.
    pub fn says(&self, expected: &str, line: &str, more: &[&str]) -> Result<()> {
        let said = self.ok(line, more)?.replace('\r', "");
        ensure!(
            said == expected,
            "{} {line} {more:?} says `{said}` and not `{expected}`",
            self.words[0]
        );
        Ok(())
    }

    /// Runs a command that has to end with this status; all it wrote.
    pub fn ends(&self, code: i32, line: &str, more: &[&str]) -> Result<String> {
        let ran = self.run(line, more)?;
        ensure!(
            ran.code() == code,
            "{} {line} {more:?} did not end with {code}: {ran:?}",
            self.words[0]
        );
        Ok(ran.out + &ran.err)
    }

    /// Waits until a command succeeds and prints this.
    pub fn comes_to_say(&self, expected: &str, line: &str, more: &[&str]) -> Result<()> {
        let mut last = None;
        eventually(expected, || {
            let ran = last.insert(self.run(line, more)?);
            Ok(ran.status.success() && ran.out.trim() == expected)
        })
        .with_context(|| format!("{} {line} {more:?}: {last:?}", self.words[0]))
    }
}
