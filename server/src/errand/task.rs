//! What an errand may be: each is one call of the library.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use condo::error::Result;
use condo::vps::copy::snapshot::SnapshotOptions;
use condo::vps::record::change::Change;
use condo::vps::record::config::VpsConfig;
use condo::vps::record::instance::Condo;
use condo::vps::record::limits::Limits;
use condo::vps::record::name::Name;
use condo::vps::record::snapshots::SnapshotName;
use condo::vps::record::store::NewVps;
use condo::vps::run::enter::ExecRequest;
use condo::vps::run::transfer::single::Given;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Seconds that a VPS may take to shut down when a client sets no limit.
pub(crate) const PATIENCE: u64 = 30;

/// A program to be run in a VPS, with the streams of the errand as its own.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) user: Option<String>,
    pub(crate) cwd: Option<PathBuf>,
    pub(crate) tty: bool,
}

/// What is to be done.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// A new VPS.
    Create {
        name: Name,
        config: Box<VpsConfig>,
        ip: Option<Ipv4Addr>,
    },
    /// Other limits, environment and labels, where these are others.
    Configure(Name, Box<VpsConfig>),
    Start(Name),
    /// Asked to stop, and ended after so many seconds.
    Stop(Name, u64),
    /// Stopped in the same way, and started again.
    Restart(Name, u64),
    Freeze(Name),
    Thaw(Name),
    /// Called otherwise.
    Rename(Name, Name),
    /// Deleted, also while it runs if so said.
    Delete(Name, bool),
    /// The VPS's console, joined to the terminal that the errand has.
    Console(Name),
    Snapshot(Name, SnapshotName),
    DeleteSnapshot(Name, SnapshotName),
    /// Stopped for it if it runs, and started again.
    Restore(Name, SnapshotName),
    /// A new VPS out of another, as it is or was.
    Clone {
        from: Name,
        new: Name,
        snapshot: Option<SnapshotName>,
    },
    /// What is at a path inside; the content of a file goes to the errand's output.
    FileRead(Name, PathBuf),
    /// A file of what is the errand's input, a folder or a link.
    FileWrite(Name, PathBuf, Given),
    /// A file, a link or an empty folder, gone.
    FileRemove(Name, PathBuf),
    /// A program, whose exit status is the outcome.
    Exec(Name, Program),
}

impl Task {
    /// Whether the errand's streams are those of a program in a VPS.
    pub(super) fn has_streams(&self) -> bool {
        matches!(self, Self::Exec(..) | Self::Console(_))
    }

    /// Does it.
    pub(super) fn run(self, root: Option<&Path>) -> Result<Value> {
        let condo = Condo::open(root)?;
        match self {
            Self::Create { name, config, ip } => {
                let record = condo.create(NewVps {
                    name,
                    config: *config,
                    wanted_ip: ip,
                    first_boot: Default::default(),
                })?;
                Ok(json!(record.name))
            }
            Self::Configure(name, config) => configure(&condo, &name, &config).map(nothing),
            Self::Start(name) => condo.start(&name).map(nothing),
            Self::Stop(name, seconds) => stop(&condo, &name, seconds).map(nothing),
            Self::Restart(name, seconds) => {
                stop(&condo, &name, seconds)?;
                condo.start(&name).map(nothing)
            }
            Self::Freeze(name) => condo.freeze(&name).map(nothing),
            Self::Thaw(name) => condo.thaw(&name).map(nothing),
            Self::Rename(name, new) => condo.rename(&name, &new).map(done),
            Self::Delete(name, force) => condo.delete(&name, force).map(nothing),
            Self::Console(name) => condo.console(&name).map(nothing),
            Self::Snapshot(name, snapshot) => {
                let options = SnapshotOptions::default();
                condo.snapshot_create(&name, &snapshot, options).map(done)
            }
            Self::DeleteSnapshot(name, snapshot) => condo.snapshot_delete(&name, &snapshot).map(nothing),
            Self::Restore(name, snapshot) => condo
                .snapshot_restore(&name, &snapshot, Some(Duration::from_secs(PATIENCE)))
                .map(done),
            Self::Clone { from, new, snapshot } => condo.clone_vps(&from, &new, snapshot.as_ref()).map(done),
            Self::FileRead(name, path) => {
                let mut output = own(std::io::stdout().as_fd())?;
                Ok(serde_json::to_value(condo.file_read(
                    &name,
                    &path,
                    &mut output,
                )?)?)
            }
            Self::FileWrite(name, path, given) => {
                let mut input = own(std::io::stdin().as_fd())?;
                condo.file_write(&name, &path, &given, &mut input).map(nothing)
            }
            Self::FileRemove(name, path) => condo.file_remove(&name, &path).map(nothing),
            Self::Exec(name, program) => {
                let request = ExecRequest {
                    args: program.args,
                    env: program.env,
                    user: program.user,
                    cwd: program.cwd,
                    tty: program.tty,
                };
                condo.exec(&name, &request).map(|status| json!(status))
            }
        }
    }
}

/// One of the errand's streams as the file that it is.
fn own(stream: BorrowedFd<'_>) -> Result<File> {
    Ok(File::from(stream.try_clone_to_owned()?))
}

fn done<T>(_: T) -> Value {
    Value::Null
}

fn nothing((): ()) -> Value {
    Value::Null
}

fn stop(condo: &Condo, name: &Name, seconds: u64) -> Result<()> {
    let results = condo.stop(std::slice::from_ref(name), Duration::from_secs(seconds));
    results.into_iter().try_for_each(|(_, result)| result)
}

fn configure(condo: &Condo, name: &Name, wanted: &VpsConfig) -> Result<()> {
    let before = condo.store.get(name)?.config.limits;
    let change = change(&before, &wanted.limits)?;
    if !change.is_empty() {
        condo.resize(name, &change)?;
    }
    let stored = condo.store.reconfigure(name, &|config| {
        config.env.clone_from(&wanted.env);
        config.labels.clone_from(&wanted.labels);
        Ok(())
    });
    stored.map(drop)
}

/// What leads from the ones to the others. The bound on tasks and swap, which a VPS has by default, are not lifted by being left
/// out.
fn change(before: &Limits, after: &Limits) -> Result<Change> {
    let mut set = after.clone();
    set.pids = set.pids.or(before.pids);
    let (was, is) = (serde_json::to_value(before)?, serde_json::to_value(&set)?);
    let fields = was.as_object().into_iter().flatten();
    let lift = fields
        .map(|(field, _)| field)
        .filter(|field| is.get(field.as_str()).is_none() && *field != "swap")
        .map(|field| field.replace('_', "-"))
        .collect();
    // What stays needs no mention.
    if was == is {
        set = Limits::default();
    }
    Ok(Change {
        set,
        lift,
        ..Change::default()
    })
}
