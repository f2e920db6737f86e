//! Rows of the database as types.

use std::net::Ipv4Addr;
use std::str::FromStr;

use rusqlite::Row;
use serde::{Deserialize, Serialize};

use super::super::attachment::{Attachment, Interface};
use super::super::config::VpsConfig;
use super::super::first_boot::FirstBoot;
use super::super::name::Name;
use super::super::network::NetworkRecord;
use super::super::project::DEFAULT;
use crate::error::{Error, Result};
use crate::storage::IdRange;

/// A VPS to be claimed.
#[derive(Debug, Clone, PartialEq)]
pub struct NewVps {
    /// Its name.
    pub name: Name,
    /// Its validated configuration.
    pub config: VpsConfig,
    /// The one address its first interface wants.
    pub wanted_ip: Option<Ipv4Addr>,
    /// What its system is given at its first start.
    pub first_boot: FirstBoot,
}

impl NewVps {
    /// The networks that it shall be on, the first with the address that it wants.
    pub fn attachments(&self) -> Vec<Attachment> {
        let mut all = self.config.networks.clone();
        if all.is_empty() {
            all.push(Attachment::to(NetworkRecord::default_name()));
        }
        if let (Some(first), Some(ip)) = (all.first_mut(), self.wanted_ip) {
            first.ip = Some(ip);
        }
        all
    }
}

/// What is known of a VPS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub name: Name,
    /// A small number of its own, for interface names.
    pub id: u32,
    /// The host uid (and gid) of its root; [`Record::ids`] are its own from there on.
    pub uid_base: u32,
    /// The address of its first interface.
    pub address: Ipv4Addr,
    /// Its interfaces, by number. Read together with it, see `Record::with_interfaces`.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    /// Identity that outlives renames and never comes back, handed to the init inside as its machine id.
    pub uuid: String,
    /// What the user asked for.
    pub config: VpsConfig,
    /// When it was created, in seconds since 1970.
    pub created: i64,
    /// How it ended last, if it ever ran.
    pub last_exit: Option<LastExit>,
}

impl Record {
    /// Its host name.
    pub fn hostname(&self) -> &str {
        self.config.hostname.as_deref().unwrap_or(self.name.as_str())
    }

    /// The image that boots: its own, or that of its rescue.
    pub fn booted(&self) -> &str {
        let rescue = self.config.rescue.as_ref();
        rescue.map_or(&self.config.image, |rescue| &rescue.image)
    }

    /// The project it is in.
    pub fn project(&self) -> &str {
        self.config.project.as_ref().map_or(DEFAULT, |name| name.as_str())
    }

    /// Whether it needs an image.
    pub fn needs(&self, image: &str) -> bool {
        self.config.image == image || self.booted() == image
    }
}

/// How a VPS ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    /// Why.
    pub reason: ExitReason,
    /// Exit status of its init, when it exited.
    pub status: Option<i32>,
    /// Signal that ended its init, when one did.
    pub signal: Option<i32>,
    /// When, in seconds since 1970.
    pub at: i64,
}

impl LastExit {
    /// An end that happened now.
    pub fn now(reason: ExitReason, status: Option<i32>, signal: Option<i32>) -> Self {
        Self {
            reason,
            status,
            signal,
            at: super::now(),
        }
    }
}

/// Why a VPS ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExitReason {
    /// Its init exited by itself, or `stop` asked it to.
    Exited,
    /// Its memory limit was reached and the kernel killed its init.
    Oom,
    /// A signal ended its init.
    Killed,
    /// Nobody was there to see it: the host or the monitor went away.
    Unknown,
}

impl ExitReason {
    /// The word it is stored and shown as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Oom => "oom",
            Self::Killed => "killed",
            Self::Unknown => "unknown",
        }
    }

    fn read(text: &str) -> Result<Self> {
        [Self::Exited, Self::Oom, Self::Killed, Self::Unknown]
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| corrupt("exit reason", text))
    }
}

/// Records with their last exit; columns as [`Record::read`] takes them.
pub(super) const SELECT: &str =
    "SELECT vps.name, id, uid_base, address, uuid, config, created, reason, status, signal, at
     FROM vps LEFT JOIN last_exit USING (name)";

impl Record {
    /// How many user ids it has.
    pub fn ids(&self) -> u32 {
        self.config.ranges() * super::UIDS
    }

    /// Which they are.
    pub fn range(&self) -> IdRange {
        IdRange {
            base: self.uid_base,
            size: self.ids(),
        }
    }

    pub(super) fn read(row: &Row<'_>) -> Result<Self> {
        let config: String = row.get(5).map_err(sql)?;
        Ok(Self {
            name: name(row, 0)?,
            id: row.get(1).map_err(sql)?,
            uid_base: row.get(2).map_err(sql)?,
            address: address(row, 3)?,
            interfaces: Vec::new(),
            uuid: row.get(4).map_err(sql)?,
            config: serde_json::from_str(&config).map_err(|e| unusable(&e, &config))?,
            created: row.get(6).map_err(sql)?,
            last_exit: last_exit(row)?,
        })
    }
}

impl Record {
    /// The record with its interfaces; one of an earlier condo has one, on the default network.
    pub(super) fn with_interfaces(mut self, interfaces: Vec<Interface>) -> Self {
        self.interfaces = interfaces;
        if self.interfaces.is_empty() {
            self.interfaces.push(Interface {
                number: 0,
                network: NetworkRecord::default_name(),
                address: self.address,
                address6: None,
                mac: None,
            });
        }
        self
    }
}

fn last_exit(row: &Row<'_>) -> Result<Option<LastExit>> {
    let Some(reason) = row.get::<_, Option<String>>(7).map_err(sql)? else {
        return Ok(None);
    };
    Ok(Some(LastExit {
        reason: ExitReason::read(&reason)?,
        status: row.get(8).map_err(sql)?,
        signal: row.get(9).map_err(sql)?,
        at: row.get(10).map_err(sql)?,
    }))
}

pub(super) fn name(row: &Row<'_>, column: usize) -> Result<Name> {
    parsed(row, column, "name")
}

pub(super) fn address(row: &Row<'_>, column: usize) -> Result<Ipv4Addr> {
    parsed(row, column, "address")
}

/// A column that may be NULL.
pub(super) fn parsed_if_any<T: FromStr>(row: &Row<'_>, column: usize, what: &str) -> Result<Option<T>> {
    let text: Option<String> = row.get(column).map_err(sql)?;
    let parse = |text: String| text.parse().map_err(|_| corrupt(what, &text));
    text.map(parse).transpose()
}

fn parsed<T: FromStr>(row: &Row<'_>, column: usize, what: &str) -> Result<T> {
    let text: String = row.get(column).map_err(sql)?;
    text.parse().map_err(|_| corrupt(what, &text))
}

pub(super) fn corrupt(what: &str, text: &str) -> Error {
    Error::Corrupt(format!("the database holds an unusable {what}: `{text}`"))
}

/// A configuration that cannot be read. One that has a field which nothing here knows was written by a newer condo: to read on
/// without it would lose what the field asked for.
fn unusable(why: &serde_json::Error, config: &str) -> Error {
    if why.to_string().starts_with("unknown field") {
        return Error::Corrupt(format!(
            "a newer condo wrote the database ({why}); use that condo, or a newer one"
        ));
    }
    corrupt(&format!("config ({why})"), config)
}

/// SQLite's errors in the library's terms: waited too long, not what we wrote, or the disk.
pub(super) fn sql(e: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{CannotOpen, DatabaseCorrupt, PermissionDenied, ReadOnly};
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, NotADatabase, SystemIoFailure};
    use std::io::{Error as Io, ErrorKind::StorageFull};
    match e.sqlite_error_code() {
        Some(DatabaseBusy | DatabaseLocked) => Error::Busy("the database".into()),
        Some(DiskFull) => Error::Io(Io::new(StorageFull, e)),
        Some(SystemIoFailure | CannotOpen | PermissionDenied | ReadOnly) => Error::Io(Io::other(e)),
        Some(NotADatabase | DatabaseCorrupt) => Error::Damaged(format!("the database is damaged: {e}")),
        _ => Error::Corrupt(format!("the database: {e}")),
    }
}
