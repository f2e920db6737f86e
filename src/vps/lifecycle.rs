//! The life of a VPS: created, started, entered, stopped, deleted.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::facts::Facts;
use super::folders::Folders;
use super::name::Name;
use super::store::{NewVps, Record, Store};
use super::view::VpsView;
use crate::error::{Error, Result};
use crate::host::Host;

/// One instance of condo, opened once per process.
#[derive(Debug)]
pub struct Condo {
    /// Where its state is.
    pub folders: Folders,
    /// The machine.
    pub host: Host,
    /// Its records.
    pub store: Store,
}

/// A program to run in a VPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Environment besides the VPS's own.
    pub env: BTreeMap<String, String>,
    /// `NAME`, `UID` or `UID:GID`, looked up in the VPS; root when absent.
    pub user: Option<String>,
    /// Working directory; the user's home when absent.
    pub cwd: Option<PathBuf>,
    /// Whether to give it a terminal.
    pub tty: bool,
}

impl Condo {
    /// Opens the instance below `root`, or the host's own.
    pub fn open(root: Option<&Path>) -> Result<Self> {
        let host = Host::probe()?;
        if host.uid != 0 {
            return Err(Error::unsupported(
                "running condo as an ordinary user",
                "try again with sudo",
            ));
        }
        let folders = Folders::open(root)?;
        let store = Store::open(&folders)?;
        Ok(Self { folders, host, store })
    }

    /// Claims name, address and uids for a new VPS, once its configuration is complete and has passed the one check.
    /// No kernel object yet.
    pub fn create(&self, new: NewVps) -> Result<Record> {
        let facts = Facts::probe(&self.host)?;
        let config = new.config.with_defaults(&facts);
        config.validate(&facts)?;
        unfinished()
    }

    /// Starts a stopped VPS.
    pub fn start(&self, _name: &Name) -> Result<()> {
        unfinished()
    }

    /// Asks a VPS to shut down and ends it after `timeout`.
    pub fn stop(&self, _name: &Name, _timeout: Duration) -> Result<()> {
        unfinished()
    }

    /// Stops and starts a VPS.
    pub fn restart(&self, _name: &Name, _timeout: Duration) -> Result<()> {
        unfinished()
    }

    /// Sends a signal to a VPS's init.
    pub fn kill(&self, _name: &Name, _signal: i32) -> Result<()> {
        unfinished()
    }

    /// Removes a stopped VPS, or any with `force`, with everything it left.
    pub fn delete(&self, _name: &Name, _force: bool) -> Result<()> {
        unfinished()
    }

    /// Runs a program in a VPS and returns its exit status (128 and the signal's number, when one ended it).
    pub fn exec(&self, _name: &Name, _request: &ExecRequest) -> Result<i32> {
        unfinished()
    }

    /// All VPSs, by name.
    pub fn list(&self) -> Result<Vec<VpsView>> {
        unfinished()
    }

    /// One VPS.
    pub fn show(&self, _name: &Name) -> Result<VpsView> {
        unfinished()
    }

    /// Writes what a VPS's console said, and with `follow` what it says until it ends.
    pub fn logs(&self, _name: &Name, _follow: bool, _out: &mut dyn Write) -> Result<()> {
        unfinished()
    }

    /// Joins our terminal to a VPS's console until the user leaves it.
    pub fn console(&self, _name: &Name) -> Result<()> {
        unfinished()
    }
}

pub(super) fn unfinished<T>() -> Result<T> {
    Err(Error::unsupported("this command", "it is not finished yet"))
}
