//! What an errand may be: each is one call of the library.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use condo::error::Result;
use condo::net::filter::{Direction, Filter};
use condo::vps::copy::export::ExportOptions;
use condo::vps::copy::snapshot::SnapshotOptions;
use condo::vps::record::attachment::Attachment;
use condo::vps::record::change::Change;
use condo::vps::record::config::VpsConfig;
use condo::vps::record::first_boot::FirstBoot;
use condo::vps::record::instance::Condo;
use condo::vps::record::limits::Limits;
use condo::vps::record::name::Name;
use condo::vps::record::network::NetworkRecord;
use condo::vps::record::snapshots::SnapshotName;
use condo::vps::record::store::{NewVps, Record};
use condo::vps::run::enter::ExecRequest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::beside::{FileTask, ImageTask, NetworkTask, texts};

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
        first_boot: FirstBoot,
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
    /// A file inside of it.
    File(Name, PathBuf, FileTask),
    /// An archive of it, beside it.
    Backup(Name, String),
    /// A VPS of the archive that is the errand's input.
    Import(Name),
    Image(String, ImageTask),
    Network(NetworkTask),
    /// A program, whose exit status is the outcome.
    Exec(Name, Program),
}

impl Task {
    /// Whether the errand's streams are those of a program in a VPS.
    pub(super) fn has_streams(&self) -> bool {
        matches!(self, Self::Exec(..) | Self::Console(_))
    }

    /// The image that it makes, by a name that was made up until the server has given it another.
    pub(super) fn nameless_image(&self) -> Option<&str> {
        match self {
            Self::Image(name, ImageTask::Import(_) | ImageTask::Publish(..)) => Some(name),
            _ => None,
        }
    }

    /// Does it.
    pub(super) fn run(self, condo: &Condo) -> Result<Value> {
        match self {
            Self::Create {
                name,
                config,
                ip,
                first_boot,
            } => {
                let record = condo.create(NewVps {
                    name,
                    config: *config,
                    wanted_ip: ip,
                    first_boot,
                })?;
                Ok(json!(record.name))
            }
            Self::Configure(name, config) => configure(condo, &name, &config).map(nothing),
            Self::Start(name) => condo.start(&name).map(nothing),
            Self::Stop(name, seconds) => stop(condo, &name, seconds).map(nothing),
            Self::Restart(name, seconds) => {
                stop(condo, &name, seconds)?;
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
            Self::File(name, path, task) => task.run(condo, &name, &path),
            Self::Backup(name, backup) => backup_of(condo, &name, &backup),
            Self::Import(name) => condo.import(&[PathBuf::from("-")], &name).map(done),
            Self::Image(image, task) => task.run(condo, image),
            Self::Network(task) => task.run(condo),
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

fn backup_of(condo: &Condo, name: &Name, backup: &str) -> Result<Value> {
    let place = crate::instances::backups::place(condo, name, backup);
    if let Some(dir) = place.parent() {
        condo::files::create_dir_all(dir, 0o700)?;
    }
    condo.export(name, &ExportOptions::default(), &place).map(done)
}

/// A task that tells nothing but that it worked.
pub(super) fn done<T>(_: T) -> Value {
    Value::Null
}

pub(super) fn nothing((): ()) -> Value {
    Value::Null
}

fn stop(condo: &Condo, name: &Name, seconds: u64) -> Result<()> {
    if seconds == 0 {
        // Somebody may be waiting for its end, with its lock. That it has ended already is fine.
        let _ = condo.kill(name, rustix::process::Signal::KILL);
    }
    let results = condo.stop(std::slice::from_ref(name), Duration::from_secs(seconds));
    results.into_iter().try_for_each(|(_, result)| result)
}

/// Ports go before others come, interfaces come before others go: a VPS has one at least.
fn configure(condo: &Condo, name: &Name, wanted: &VpsConfig) -> Result<()> {
    let record = condo.store.get(name)?;
    let before = &record.config;
    let mut change = change(&before.limits, &wanted.limits)?;
    change.disk.size = wanted.disk.size.filter(|size| is_other(before.disk.size, *size));
    if !change.is_empty() {
        condo.resize(name, &change)?;
    }
    let difference =
        |a: &VpsConfig, b: &VpsConfig| a.publish.difference(&b.publish).copied().collect::<Vec<_>>();
    let (gone, new) = (difference(before, wanted), difference(wanted, before));
    if !gone.is_empty() {
        condo.unpublish(name, &texts(&gone))?;
    }
    if !new.is_empty() {
        condo.publish(name, &new)?;
    }
    connect(condo, &record, wanted)?;
    let policies = [Direction::In, Direction::Out].map(|way| (way, wanted.firewall.policy(way)));
    if policies
        .iter()
        .any(|(way, action)| before.firewall.policy(*way) != *action)
    {
        let change = |filter: &mut Filter| {
            policies
                .iter()
                .for_each(|(way, action)| filter.set_policy(*way, *action));
            Ok(())
        };
        condo.change_firewall(name, &change)?;
    }
    let stored = condo.store.reconfigure(name, &|config| {
        config.env.clone_from(&wanted.env);
        config.boot = wanted.boot;
        config.labels.clone_from(&wanted.labels);
        Ok(())
    });
    stored.map(drop)
}

/// Sizes are rounded up to whole blocks.
fn is_other(before: Option<u64>, wanted: u64) -> bool {
    before.is_none_or(|before| before.abs_diff(wanted) >= 4096)
}

/// Attaches a VPS to the networks that it shall be on, and detaches it from others.
fn connect(condo: &Condo, record: &Record, wanted: &VpsConfig) -> Result<()> {
    let usual = [Attachment::to(NetworkRecord::default_name())];
    let wanted = if wanted.networks.is_empty() {
        &usual[..]
    } else {
        &wanted.networks
    };
    let is_on = |network: &Name| {
        record
            .interfaces
            .iter()
            .any(|interface| interface.network == *network)
    };
    for attachment in wanted.iter().filter(|attachment| !is_on(&attachment.network)) {
        condo.attach_network(&record.name, attachment)?;
    }
    let gone = record.interfaces.iter().map(|interface| &interface.network);
    for network in gone.filter(|network| wanted.iter().all(|one| one.network != **network)) {
        condo.detach_network(&record.name, network)?;
    }
    Ok(())
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
