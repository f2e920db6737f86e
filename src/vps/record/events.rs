//! What happened to VPSs, as a log that scripts and servers follow: one JSON object a line.
//!
//! ```text
//! lib/events/log      what happened lately, at most 1 MiB
//! lib/events/log.1    what happened before
//! lib/events/lock     held while the one becomes the other
//! ```
//! A line is one `write(2)` to a file opened with `O_APPEND`, so that those of several commands do not mix. That the log cannot
//! be written (a full disk) is no reason for anything else to fail.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::inotify;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::instance::Condo;
use super::name::Name;
use super::store::{ExitReason, LastExit, Record};
use crate::error::{During, Error, Result};
use crate::files::{self, Lock};

/// Size at which the log starts anew, in bytes.
const PART: u64 = 1 << 20;

/// Something that happened to a VPS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When (RFC 3339, UTC).
    pub time: String,
    /// To whom.
    pub vps: Name,
    /// The project that it is in; of an earlier condo's event it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<Name>,
    /// What.
    pub event: Kind,
    /// More about it, by kind: `status` and `signal` of an end, `reason` of a failure.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub detail: Map<String, Value>,
}

/// What can happen to a VPS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It has a record now.
    Created,
    /// It runs.
    Started,
    /// It did not start.
    Failed,
    /// It ended because `stop` asked it to.
    Stopped,
    /// Its init ended by itself.
    Exited,
    /// The kernel killed its init, for want of memory.
    Oom,
    /// A signal ended its init.
    Killed,
    /// It boots again, because its own system asked for it.
    Rebooted,
    /// It boots again, because its restart policy says so.
    Restarted,
    /// It has other limits.
    Resized,
    /// Its processes stand still.
    Frozen,
    /// They go on.
    Thawed,
    /// It has another name: this one.
    Renamed,
    /// Its disk was emptied for another system.
    Rebuilt,
    /// It met a limit of its own, and goes on within it.
    Limited,
    /// Its disk has little room left.
    Full,
    /// It is gone, with all it had.
    Deleted,
}

impl Kind {
    /// The word it is written and shown as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Started => "started",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Exited => "exited",
            Self::Oom => "oom",
            Self::Killed => "killed",
            Self::Rebooted => "rebooted",
            Self::Restarted => "restarted",
            Self::Resized => "resized",
            Self::Frozen => "frozen",
            Self::Thawed => "thawed",
            Self::Renamed => "renamed",
            Self::Rebuilt => "rebuilt",
            Self::Limited => "limited",
            Self::Full => "full",
            Self::Deleted => "deleted",
        }
    }
}

impl Condo {
    /// Writes down that something happened now.
    pub(in crate::vps) fn tell(&self, vps: &Record, event: Kind, detail: Value) {
        let detail = match detail {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        let event = Event {
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            vps: vps.name.clone(),
            project: vps.config.project.clone(),
            event,
            detail,
        };
        if let Err(e) = append(&self.folders.events(), &event) {
            log::debug!("an event is lost: {e}");
        }
    }

    /// Writes down how a run ended; `stopped` when condo was asked for it.
    pub(in crate::vps) fn tell_end(&self, vps: &Record, end: &LastExit, stopped: bool) {
        let event = match end.reason {
            _ if stopped => Kind::Stopped,
            ExitReason::Oom => Kind::Oom,
            ExitReason::Killed => Kind::Killed,
            ExitReason::Exited | ExitReason::Unknown => Kind::Exited,
        };
        let detail = [("status", end.status), ("signal", end.signal)];
        let known = detail
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?.into())));
        self.tell(vps, event, Value::Object(known.collect()));
    }

    /// Passes all events that are known to `each`, the oldest first, and with `follow` those to come, until `each` fails.
    ///
    /// # Errors
    /// What `each` says, and what the kernel says of the log.
    pub fn events(&self, follow: bool, each: &mut dyn FnMut(&Event) -> Result<()>) -> Result<()> {
        let dir = self.folders.events();
        files::create_dir_all(&dir, 0o700)?;
        // Before the first look: what comes meanwhile wakes us.
        let bell = follow.then(|| Bell::at(&dir)).transpose()?;
        if let Some(older) = open(&older(&dir))? {
            Reader::new(older)?.pass(each)?;
        }
        let mut reader = None;
        loop {
            read_on(&dir, &mut reader, each)?;
            match &bell {
                Some(bell) => bell.wait()?,
                None => return Ok(()),
            }
        }
    }
}

fn log(dir: &Path) -> PathBuf {
    dir.join("log")
}

fn older(dir: &Path) -> PathBuf {
    dir.join("log.1")
}

fn append(dir: &Path, event: &Event) -> Result<()> {
    files::create_dir_all(dir, 0o700)?;
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    let options = || {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(log(dir))
    };
    let mut file = options()?;
    if file.metadata()?.len() >= PART {
        let _lock = Lock::wait(&dir.join("lock"))?;
        // Another command may have been first.
        if std::fs::metadata(log(dir)).is_ok_and(|status| status.len() >= PART) {
            std::fs::rename(log(dir), older(dir))?;
        }
        file = options()?;
    }
    Ok(file.write_all(&line)?)
}

/// Passes what is new in the log on. One that was put aside is read to its end first.
fn read_on(
    dir: &Path,
    reader: &mut Option<Reader>,
    each: &mut dyn FnMut(&Event) -> Result<()>,
) -> Result<()> {
    if let Some(reader) = reader {
        reader.pass(each)?;
    }
    let Some(file) = open(&log(dir))? else {
        return Ok(());
    };
    let new = Reader::new(file)?;
    if reader.as_ref().is_none_or(|known| known.inode != new.inode) {
        reader.insert(new).pass(each)?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some).during(|| format!("read `{}`", path.display())),
    }
}

/// A log with what of it was read.
struct Reader {
    inode: u64,
    lines: BufReader<File>,
    /// The beginning of a line whose end is still to come.
    begun: String,
}

impl Reader {
    fn new(file: File) -> Result<Self> {
        Ok(Self {
            inode: file.metadata()?.ino(),
            lines: BufReader::new(file),
            begun: String::new(),
        })
    }

    /// Passes all whole lines on. One that is no event (another condo's, or a torn one after a power loss) is left out.
    fn pass(&mut self, each: &mut dyn FnMut(&Event) -> Result<()>) -> Result<()> {
        while self
            .lines
            .read_line(&mut self.begun)
            .during(|| "read the events")?
            > 0
        {
            if !self.begun.ends_with('\n') {
                continue;
            }
            if let Ok(event) = serde_json::from_str(&self.begun) {
                each(&event)?;
            }
            self.begun.clear();
        }
        Ok(())
    }
}

/// Rings when something in a folder changes (`inotify(7)`).
struct Bell(rustix::fd::OwnedFd);

impl Bell {
    fn at(dir: &Path) -> Result<Self> {
        let work = || -> Result<Self> {
            let fd = inotify::init(inotify::CreateFlags::CLOEXEC)?;
            inotify::add_watch(
                &fd,
                dir,
                inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE,
            )?;
            Ok(Self(fd))
        };
        work().during(|| format!("watch `{}`", dir.display()))
    }

    fn wait(&self) -> Result<()> {
        let mut buffer = [0; 4096];
        match rustix::io::read(&self.0, &mut buffer) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(Error::from(e)).during(|| "wait for events"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(vps: &str, event: Kind) -> Event {
        Event {
            time: "2026-01-01T00:00:00.000Z".into(),
            vps: vps.parse().unwrap(),
            project: None,
            event,
            detail: Map::new(),
        }
    }

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(what: &str) -> Self {
            let path = std::env::temp_dir().join(format!("condo-events-{what}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn read(dir: &Path, reader: &mut Option<Reader>) -> Vec<Kind> {
        let mut seen = Vec::new();
        read_on(dir, reader, &mut |event| {
            seen.push(event.event);
            Ok(())
        })
        .unwrap();
        seen
    }

    #[test]
    fn a_reader_misses_nothing_when_the_log_starts_anew() {
        let scratch = Scratch::new("anew");
        append(&scratch.0, &event("web", Kind::Created)).unwrap();
        let mut reader = None;
        assert_eq!(read(&scratch.0, &mut reader), [Kind::Created]);
        assert!(read(&scratch.0, &mut reader).is_empty());
        append(&scratch.0, &event("web", Kind::Started)).unwrap();
        // Full from here on.
        OpenOptions::new()
            .write(true)
            .open(log(&scratch.0))
            .unwrap()
            .set_len(PART)
            .unwrap();
        append(&scratch.0, &event("web", Kind::Stopped)).unwrap();
        assert_eq!(read(&scratch.0, &mut reader), [Kind::Started, Kind::Stopped]);
        assert!(older(&scratch.0).exists());
    }

    #[test]
    fn a_line_that_is_no_event_is_left_out() {
        let scratch = Scratch::new("torn");
        append(&scratch.0, &event("web", Kind::Created)).unwrap();
        let mut file = OpenOptions::new().append(true).open(log(&scratch.0)).unwrap();
        file.write_all(b"nonsense\n{\"vps\":").unwrap();
        let mut reader = None;
        assert_eq!(read(&scratch.0, &mut reader), [Kind::Created]);
        file.write_all(b"\n").unwrap();
        append(&scratch.0, &event("web", Kind::Deleted)).unwrap();
        assert_eq!(read(&scratch.0, &mut reader), [Kind::Deleted]);
    }

    #[test]
    fn events_have_their_words() {
        for kind in [Kind::Created, Kind::Oom, Kind::Resized] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
