//! Standard streams: they lead out of the container, so CRIU cannot make them again. Their names are kept beside the images, and at
//! restore the caller's streams take their places.
//!
//! `descriptors.json` is a list of names by descriptor, as runc writes it: `pipe:[INODE]`. A file of the host (a log, `/dev/null`
//! of the caller) is `file[MOUNT:INODE]`, in hexadecimal, which is CRIU's name for it. What is neither has no
//! name.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags};

use super::rpc::InheritFd;
use crate::error::{During, Error, Result};
use crate::files;

const FILE: &str = "descriptors.json";
/// More than any honest file has: it comes with the images, from who knows where.
const MAX_BYTES: u64 = 64 * 1024;
/// How many descriptors are looked at: their names fit into that file.
const MAX_NAMES: usize = 1024;

/// The names of the caller's first `count` descriptors, which init inherits, up to the first that is not open; empty for what does
/// not lead out. Asked when the container is made: a shell puts a file of the container's in a stream's place for the time of a
/// redirection.
pub(in crate::runtime) fn own(count: usize) -> Vec<String> {
    (0..count.min(MAX_NAMES)).map_while(|fd| name(fd).ok()).collect()
}

/// Terminals are CRIU's to deal with.
fn name(fd: usize) -> Result<String> {
    let path = format!("/proc/self/fd/{fd}");
    let link = fs::read_link(&path)?;
    let link = link.to_string_lossy();
    if is_external(&link) {
        return Ok(link.into_owned());
    }
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let found = rustix::fs::statx(CWD, path, AtFlags::empty(), wanted)?;
    let leads_out = match FileType::from_raw_mode(found.stx_mode.into()) {
        FileType::RegularFile => true,
        FileType::CharacterDevice => found.stx_rdev_major == MEMORY,
        _ => false,
    };
    Ok(match leads_out {
        true => format!("file[{:x}:{:x}]", found.stx_mnt_id, found.stx_ino),
        false => String::new(),
    })
}

/// The major number of `/dev/null`, `/dev/zero` and their like.
const MEMORY: u32 = 1;

/// The names that CRIU has to be told at the dump.
pub(super) fn external(names: &[String]) -> Vec<String> {
    let files: BTreeSet<&String> = names.iter().filter(|name| name.starts_with("file[")).collect();
    files.into_iter().cloned().collect()
}

/// Keeps the names beside the images, if [`Streams::load`] would take them.
pub(super) fn save(images: &Path, names: &[String]) -> Result<()> {
    let raw = serde_json::to_vec(names)?;
    if raw.len() as u64 > MAX_BYTES {
        let text =
            format!("cannot checkpoint: the names of init's open files take more than {MAX_BYTES} bytes");
        return Err(Error::Status(text));
    }
    files::write_atomic(&images.join(FILE), &raw, 0o600)
}

/// Saved names, and how many of our descriptors may take their places.
#[derive(Debug)]
pub(super) struct Streams {
    names: Vec<String>,
    end: usize,
}

impl Streams {
    /// Reads what [`save`] wrote. Those below `end` take saved ones' places.
    pub(super) fn load(images: &Path, end: usize) -> Result<Self> {
        let path = images.join(FILE);
        let read = || -> Result<Self> {
            let mut raw = Vec::new();
            File::open(&path)?.take(MAX_BYTES + 1).read_to_end(&mut raw)?;
            if raw.len() as u64 > MAX_BYTES {
                return Err(Error::Corrupt(format!("is larger than {MAX_BYTES} bytes")));
            }
            let names = serde_json::from_slice(&raw)?;
            Ok(Self { names, end })
        };
        read().during(|| format!("checkpoint's `{}`", path.display()))
    }

    /// Which of ours takes the place of a name: the first that was it.
    fn place(&self, name: &str) -> Option<usize> {
        let mut below = self.names.iter().take(self.end);
        below
            .position(|known| known == name)
            .filter(|_| is_external(name))
    }

    /// The names with our descriptors for them, each once.
    pub(super) fn inherited(&self) -> Vec<InheritFd> {
        let names = self.names.iter().enumerate();
        let first = names.filter(|(nth, name)| self.place(name) == Some(*nth));
        first
            .filter_map(|(nth, name)| {
                Some(InheritFd {
                    key: name.clone(),
                    fd: i32::try_from(nth).ok()?,
                })
            })
            .collect()
    }

    /// The names of what is in their places then.
    pub(super) fn renamed(&self) -> Vec<String> {
        let now = |name: &String| self.place(name).and_then(|fd| self::name(fd).ok());
        self.names
            .iter()
            .map(|name| now(name).unwrap_or_default())
            .collect()
    }
}

/// `pipe:[123]` and `file[1f:2a]`, and nothing else: other files are CRIU's to open.
fn is_external(name: &str) -> bool {
    let body = |prefix| {
        name.strip_prefix(prefix)
            .and_then(|rest: &str| rest.strip_suffix(']'))
    };
    let all = |text: &str, fits: fn(&char) -> bool| !text.is_empty() && text.chars().all(|c| fits(&c));
    if let Some(inode) = body("pipe:[") {
        return all(inode, char::is_ascii_digit);
    }
    body("file[")
        .and_then(|ids| ids.split_once(':'))
        .is_some_and(|(mount, inode)| {
            all(mount, char::is_ascii_hexdigit) && all(inode, char::is_ascii_hexdigit)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_two_forms_are_taken_and_each_once() {
        let names = ["/dev/null", "pipe:[12]", "pipe:[12]", "file[1f:2a]", "pipe:[13]"].map(str::to_owned);
        let streams = Streams {
            names: names.into(),
            end: 4,
        };
        let taken: Vec<_> = streams
            .inherited()
            .into_iter()
            .map(|fd| (fd.key, fd.fd))
            .collect();
        assert_eq!(
            taken,
            [("pipe:[12]".to_owned(), 1), ("file[1f:2a]".to_owned(), 3)]
        );
        for bad in [
            "",
            "pipe:[]",
            "pipe:[1]x",
            "xpipe:[1]",
            "pipe:[a]",
            "file[1]",
            "file[:1]",
            "file[1:g]",
            "socket:[1]",
        ] {
            assert!(!is_external(bad), "{bad}");
        }
    }

    #[test]
    fn a_file_of_another_form_or_size_is_refused() {
        let dir = std::env::temp_dir().join(format!("condo-descriptors-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let refused = |content: &[u8]| {
            fs::write(dir.join(FILE), content).unwrap();
            Streams::load(&dir, 3).unwrap_err().to_string()
        };
        assert!(refused(b"{}").contains("descriptors.json"));
        assert!(refused(&vec![b' '; 70_000]).contains("larger"));
        save(&dir, &["pipe:[1]".to_owned()]).unwrap();
        assert_eq!(Streams::load(&dir, 3).unwrap().inherited().len(), 1);
        assert!(Streams::load(&dir, 0).unwrap().inherited().is_empty());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_is_saved_can_be_loaded() {
        let dir = std::env::temp_dir().join(format!("condo-names-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let longest = format!("file[{:x}:{:x}]", u32::MAX, u64::MAX);
        save(&dir, &vec![longest.clone(); MAX_NAMES]).unwrap();
        assert_eq!(Streams::load(&dir, MAX_NAMES).unwrap().inherited().len(), 1);
        let refused = save(&dir, &vec![longest; 2 * MAX_NAMES]).unwrap_err();
        assert!(refused.to_string().contains("open files"), "{refused}");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn only_what_leads_out_has_a_name() {
        use std::os::fd::AsRawFd;
        let (_read, write) = std::io::pipe().unwrap();
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let [file, null, directory] =
            ["/proc/self/status", "/dev/null", "/proc"].map(|path| File::open(path).unwrap());
        let named = |fd: i32| name(usize::try_from(fd).unwrap()).unwrap();
        assert!(named(write.as_raw_fd()).starts_with("pipe:["));
        for leads_out in [&file, &null] {
            assert!(is_external(&named(leads_out.as_raw_fd())));
        }
        assert_eq!(named(directory.as_raw_fd()), "");
        assert_eq!(named(socket.as_raw_fd()), "");
        assert!(name(1_000_000).is_err());
    }

    #[test]
    fn what_takes_a_place_gives_it_its_name() {
        let here = own(1);
        let names = ["pipe:[12]", "", "pipe:[12]", "pipe:[13]"].map(str::to_owned);
        let streams = Streams {
            names: names.into(),
            end: 3,
        };
        assert_eq!(streams.renamed(), [here[0].as_str(), "", here[0].as_str(), ""]);
    }
}
