//! `checkpoint` and `restore`, with CRIU.

pub mod choices;
pub mod life;
pub mod memory;
pub mod outside;
pub mod refusals;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Container, Ran, ensure_eq, until};
use crate::harness;

/// Writes the count in place. A checkpoint may find the file open, and CRIU restores only a file that has its name and its size
/// still: also when the container went on after the checkpoint, or was restored before.
macro_rules! write_count {
    () => {
        r#"printf "%09d\n" $i 1<>/count"#
    };
}
pub(crate) use write_count;

/// Counts in a file, from the moment it starts.
const COUNT: &str = concat!(
    "i=0; while :; do i=$((i+1)); ",
    write_count!(),
    "; sleep 0.05; done"
);

/// A container and the directory of its images.
struct Saved {
    c: Container,
    images: PathBuf,
}

impl Saved {
    fn new(script: &str) -> Result<Self> {
        Ok(Self {
            c: Container::sh(script)?,
            images: harness::tempdir().join("images"),
        })
    }

    fn try_save(&self, flags: &[&str]) -> Result<Ran> {
        let images = self.images.to_str().context("a path")?;
        let start = ["checkpoint", "--image-path", images];
        self.c.call(&[&start[..], flags, &["@"]].concat())
    }

    fn save(&self, flags: &[&str]) -> Result<()> {
        ensure_eq!(self.try_save(flags)?.ok()?, "");
        Ok(())
    }

    fn returning(&self, flags: &[&str]) -> Result<Command> {
        let images = self.images.to_str().context("a path")?;
        let start = ["restore", "--bundle", "%", "--image-path", images];
        Ok(self.c.command(&[&start[..], flags, &["@"]].concat()))
    }

    /// Restores in the background.
    fn bring_back(&self, flags: &[&str]) -> Result<()> {
        self.c
            .create_with(self.returning(&[&["--detach"], flags].concat())?)
    }

    /// Saves, sees that nothing is left, restores, and sees that it goes on from where it was.
    fn there_and_back(&self, save: &[&str], restore: &[&str]) -> Result<()> {
        self.save(save)?;
        self.c.nothing_left()?;
        let before = self.count()?;
        self.bring_back(restore)?;
        ensure_eq!(self.c.status()?, "running");
        self.counts()?;
        ensure!(self.count()? > before, "it began anew");
        Ok(())
    }

    /// Ends it, with no trace.
    fn end(&self) -> Result<()> {
        self.c.call(&["kill", "@", "KILL"])?.ok()?;
        self.c.stopped()?;
        self.c.delete()?;
        self.c.nothing_left()
    }

    fn file(&self, path: &str) -> PathBuf {
        self.c.bundle.rootfs().join(path)
    }

    fn count(&self) -> Result<u64> {
        Ok(fs::read_to_string(self.file("count"))?.trim().parse()?)
    }

    /// Waits until it counts on.
    fn counts(&self) -> Result<()> {
        until("it counts", || Ok(self.count().is_ok()))?;
        let now = self.count()?;
        until("it counts on", || Ok(self.count()? > now))
    }
}
