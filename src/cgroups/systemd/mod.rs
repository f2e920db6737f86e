//! Cgroups that systemd makes: a container is a transient scope, and its limits are properties of that scope as well as
//! values in files.
//!
//! systemd regards the tree as its own ("single writer", `https://systemd.io/CGROUP_DELEGATION`) and leaves to others only
//! what is below a unit with `Delegate=`. So a scope is asked for and not made, and what systemd can know of its limits it is
//! told: else it would reset them at its next `daemon-reload`. The files are written all the same, because not every limit is a property.
//!
//! Rules for devices are never properties: our program stands beside whatever systemd attaches, and the kernel lets pass only what
//! all of them allow.

mod bus;
mod message;
mod name;
mod placeholder;
mod properties;
mod text;
mod value;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Limits;
use crate::error::{During, Error, Result};
use crate::host::{CgroupLayout, Host};
pub use bus::Bus;
use bus::{Connection, Fault};
use message::{Message, Target};
pub use placeholder::Placeholder;
pub use properties::Property;
pub(super) use properties::rounded;
use value::Value;

/// Where `sd_booted(3)` looks.
const BOOTED: &str = "/run/systemd/system";

const MANAGER: Target = Target {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
const PROPERTIES: Target = Target {
    interface: "org.freedesktop.DBus.Properties",
    ..MANAGER
};

/// Ends of jobs; whoever made the job is told, without subscribing to all signals.
const JOBS: &str = "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
    interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// How often a scope is asked for while one of that name is still there, waiting twice as long each time, 10 ms at first:
/// one that has just ended is collected within moments.
const ATTEMPTS: u32 = 6;

/// The scope of one container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scope {
    /// Its name, such as `cri-abc.scope`.
    unit: String,
    /// The slice it is in.
    slice: String,
    /// Its cgroup below the root of the hierarchy.
    path: String,
    /// Where its manager is reached.
    bus: Bus,
    /// What it is given beyond its limits when it is made.
    #[serde(skip)]
    properties: Vec<Property>,
}

impl Scope {
    /// The scope that `linux.cgroupsPath` (`slice:prefix:name`) and the annotations of a container ask for.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is in them, [`Error::Unsupported`] on a host without systemd or with cgroup v1.
    pub(super) fn plan(
        host: &Host,
        path: Option<&str>,
        id: &str,
        annotations: Option<&HashMap<String, String>>,
    ) -> Result<Self> {
        check_host(&host.cgroups)?;
        let bus = Bus::of(host.caller.uid);
        let default = match bus {
            Bus::System => "system.slice",
            Bus::User => "user.slice",
        };
        let names = name::parse(path, default, id)?;
        let description = Property::new("Description", Value::str(format!("condo container {id}")));
        let mut properties = vec![description];
        properties.extend(properties::of_annotations(annotations.into_iter().flatten())?);
        let above = match bus {
            Bus::System => String::new(),
            Bus::User => own_cgroup(bus)?,
        };
        let slice = name::expand(&names.slice)?;
        Ok(Self {
            path: format!("{above}{slice}/{}", name::escape(&names.unit)),
            unit: names.unit,
            slice: names.slice,
            bus,
            properties,
        })
    }

    /// Its cgroup below the root of the hierarchy.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Its name, for messages.
    pub(super) fn unit(&self) -> &str {
        &self.unit
    }

    /// Has it made, with a process in it that goes once another has come.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name in use, else systemd's own words.
    pub(super) fn start(&self, limits: &Limits) -> Result<Placeholder> {
        let mut connection = Connection::open(self.bus)?;
        connection.listen(JOBS)?;
        let placeholder = Placeholder::spawn()?;
        let pid = u32::try_from(placeholder.pid).unwrap_or(0);
        let mut fixed = self.fixed(pid);
        fixed.extend(self.properties.iter().cloned());
        let limits = properties::of_limits(limits);
        let mut pause = Duration::from_millis(10);
        for attempt in 1.. {
            let job = with_known(limits.clone(), |known| {
                let all: Vec<&Property> = fixed.iter().chain(known).collect();
                connection.call(MANAGER, "StartTransientUnit", &self.transient(&all))
            });
            match job {
                Err(Fault::Refused { name, .. }) if name.ends_with(".UnitExists") => {
                    if attempt == ATTEMPTS {
                        let problem =
                            "is the name of a unit that is there already: container's cgroup is not empty";
                        return Err(Error::invalid("linux.cgroupsPath", &self.unit, problem));
                    }
                    self.forget_failure(&mut connection);
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                Err(fault) => return Err(Error::from(fault)).during(|| self.asked()),
                Ok(answer) => {
                    self.made(&mut connection, &answer)?;
                    break;
                }
            }
        }
        Ok(placeholder)
    }

    fn fixed(&self, pid: u32) -> Vec<Property> {
        let yes = |name| Property::new(name, Value::Bool(true));
        vec![
            Property::new("Slice", Value::str(&self.slice)),
            Property::new("PIDs", Value::List("u".into(), vec![Value::U32(pid)])),
            yes("Delegate"),
            Property::new("DefaultDependencies", Value::Bool(false)),
            yes("CPUAccounting"),
            yes("IOAccounting"),
            yes("MemoryAccounting"),
            yes("TasksAccounting"),
        ]
    }

    fn transient(&self, properties: &[&Property]) -> [Value; 4] {
        let properties = properties.iter().map(|p| p.to_value()).collect();
        [
            Value::str(&self.unit),
            Value::str("replace"),
            Value::List("(sv)".into(), properties),
            Value::List("(sa(sv))".into(), Vec::new()),
        ]
    }

    /// What was asked for, with what the container's annotations added, which systemd's own words do not always name.
    fn asked(&self) -> String {
        let names: Vec<String> = self
            .properties
            .iter()
            .skip(1)
            .map(|p| format!("`{}`", p.name))
            .collect();
        match names.len() {
            0 => format!("make unit `{}`", self.unit),
            _ => format!(
                "make unit `{}` with the annotated {}",
                self.unit,
                names.join(", ")
            ),
        }
    }

    fn made(&self, connection: &mut Connection, answer: &Message) -> Result<()> {
        let problem = match self.job_of(connection, answer) {
            Ok(result) if result == "done" => return Ok(()),
            Ok(result) => Error::Status(format!(
                "the job's result is `{result}`; see `journalctl -u {}`",
                self.unit
            )),
            Err(e) => e,
        };
        self.forget_failure(connection);
        Err(problem).during(|| self.asked())
    }

    /// Waits for the end of a job, named first in systemd's answer, and for its result.
    fn job_of(&self, connection: &mut Connection, answer: &Message) -> Result<String> {
        let job = answer.strings()?.into_iter().next().unwrap_or_default();
        let result = connection.wait(answer, "JobRemoved", |signal| match signal {
            [path, _, result] if *path == job => Some(result.clone()),
            _ => None,
        });
        result.during(|| format!("wait for systemd's job for unit `{}`", self.unit))
    }

    /// Lets systemd collect a unit that has failed. One that has not is no error here.
    fn forget_failure(&self, connection: &mut Connection) {
        if let Err(fault) = connection.call(MANAGER, "ResetFailedUnit", &[Value::str(&self.unit)]) {
            log::debug!("{}", Error::from(fault));
        }
    }

    /// Tells systemd of new limits.
    pub(super) fn set(&self, limits: &Limits) -> Result<()> {
        let properties = properties::of_limits(limits);
        if properties.is_empty() {
            return Ok(());
        }
        let mut connection = Connection::open(self.bus)?;
        let set = with_known(properties, |known| {
            let properties = known.iter().map(Property::to_value).collect();
            let arguments = [
                Value::str(&self.unit),
                Value::Bool(true),
                Value::List("(sv)".into(), properties),
            ];
            connection.call(MANAGER, "SetUnitProperties", &arguments)
        });
        let set = set.map(drop).map_err(Error::from);
        set.during(|| format!("change unit `{}`", self.unit))
    }

    /// Has a process moved in from anywhere: into the scope, or a cgroup below it (`/init.scope`).
    pub(super) fn attach(&self, below: &str, pid: i32) -> Result<()> {
        let mut connection = Connection::open(self.bus)?;
        let pids = vec![Value::U32(u32::try_from(pid).unwrap_or(0))];
        let arguments = [
            Value::str(&self.unit),
            Value::str(below),
            Value::List("u".into(), pids),
        ];
        let moved = connection.call(MANAGER, "AttachProcessesToUnit", &arguments);
        let moved = moved.map(drop).map_err(Error::from);
        moved.during(|| format!("move process `{pid}` into unit `{}`", self.unit))
    }

    /// Has it ended, and waits until it is. One that is not there any more is.
    pub(super) fn stop(&self) -> Result<()> {
        let mut connection = Connection::open(self.bus)?;
        connection.listen(JOBS)?;
        let arguments = [Value::str(&self.unit), Value::str("replace")];
        match connection.call(MANAGER, "StopUnit", &arguments) {
            Err(Fault::Refused { name, .. }) if name.ends_with(".NoSuchUnit") => Ok(()),
            Err(fault) => Err(Error::from(fault)).during(|| format!("stop unit `{}`", self.unit)),
            Ok(answer) => {
                // Whatever it is: the removal of the cgroup, which is next, shows whether it is over.
                let result = self.job_of(&mut connection, &answer)?;
                log::debug!("unit `{}` is stopped: {result}", self.unit);
                self.forget_failure(&mut connection);
                Ok(())
            }
        }
    }
}

/// Makes a call with properties, again without one that this version of systemd does not know: its limit stands in the
/// cgroup's file all the same.
fn with_known<T>(
    mut properties: Vec<Property>,
    mut call: impl FnMut(&[Property]) -> std::result::Result<T, Fault>,
) -> std::result::Result<T, Fault> {
    loop {
        let fault = match call(&properties) {
            Err(Fault::Refused { name, text }) if !name.ends_with(".UnitExists") => (name, text),
            other => return other,
        };
        let (name, text) = fault;
        let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        let Some(at) = properties.iter().position(|p| words.contains(&p.name.as_str())) else {
            return Err(Fault::Refused { name, text });
        };
        log::debug!("systemd does not take `{}`: {text}", properties[at].name);
        properties.remove(at);
    }
}

fn check_host(layout: &CgroupLayout) -> Result<()> {
    let why = match layout {
        CgroupLayout::Hybrid { .. } => {
            "this host still mounts cgroup v1 controllers; boot it with `systemd.unified_cgroup_hierarchy=1`, or use \
             `--cgroup-manager cgroupfs`"
        }
        CgroupLayout::Unified(_) if !Path::new(BOOTED).is_dir() => {
            "systemd is not PID 1 here (no `/run/systemd/system`); use `--cgroup-manager cgroupfs`"
        }
        CgroupLayout::Unified(_) => return Ok(()),
    };
    Err(Error::unsupported("the systemd cgroup manager", why))
}

/// The cgroup of a user's manager, in which all its units are.
fn own_cgroup(bus: Bus) -> Result<String> {
    let mut connection = Connection::open(bus)?;
    let arguments = [Value::str(MANAGER.interface), Value::str("ControlGroup")];
    let answer = connection
        .call(PROPERTIES, "Get", &arguments)
        .map_err(Error::from)?;
    let path = answer.strings()?.into_iter().next();
    path.ok_or_else(|| Error::Corrupt("systemd does not say which cgroup is its own".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(name: &str, text: &str) -> Fault {
        Fault::Refused {
            name: name.into(),
            text: text.into(),
        }
    }

    #[test]
    fn a_limit_that_an_old_systemd_does_not_know_is_left_to_the_file() {
        let properties = ["AllowedCPUs", "MemoryMax"].map(|name| Property::new(name, Value::U64(1)));
        let left = with_known(properties.to_vec(), |known| match known {
            [_, _] => Err(refuse(
                "x.PropertyReadOnly",
                "Cannot set property AllowedCPUs, or unknown property.",
            )),
            known => Ok(known.len()),
        });
        assert_eq!(left.unwrap(), 1);
        let others = with_known(properties.to_vec(), |_| -> std::result::Result<(), _> {
            Err(refuse("x.Failed", "Cannot set property Foo"))
        });
        assert!(others.is_err());
    }

    #[test]
    fn a_host_that_cannot_is_told_what_to_do() {
        let hybrid = CgroupLayout::Hybrid {
            v1: Vec::new(),
            unified: None,
        };
        let e = check_host(&hybrid).unwrap_err().to_string();
        assert!(e.contains("cgroupfs") && e.contains("v1"), "{e}");
    }

    #[test]
    fn what_is_remembered_is_enough_to_find_it_again() {
        let scope = Scope {
            unit: "cri-a.scope".into(),
            slice: "system.slice".into(),
            path: "/system.slice/cri-a.scope".into(),
            bus: Bus::System,
            properties: vec![Property::new("Description", Value::str("x"))],
        };
        let again: Scope = serde_json::from_str(&serde_json::to_string(&scope).unwrap()).unwrap();
        let expected = Scope {
            properties: Vec::new(),
            ..scope
        };
        assert_eq!(again, expected);
    }
}
