//! Standard streams: they lead out of the container, so CRIU cannot make them again. Their names are kept beside the images, and at
//! restore the caller's streams take their places.
//!
//! `descriptors.json` is a list of names by descriptor, as runc writes it: `pipe:[INODE]`. A file of the host (a log, `/dev/null`
//! of the caller) is `file[MOUNT:INODE]`, in hexadecimal, which is CRIU's name for it. What is neither has no name.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::rpc::InheritFd;
use crate::error::{During, Error, Result};
use crate::files;
use crate::files::mountinfo::Mounted;

const FILE: &str = "descriptors.json";
/// More than any honest file has: it comes with the images, from who knows where.
const MAX_BYTES: u64 = 64 * 1024;
/// How many descriptors are looked at: their names fit into that file.
const MAX_NAMES: usize = 1024;

/// The names of init's first descriptors, up to the first that is not open; empty for what does not lead out.
///
/// A shell puts a file of the container's in a stream's place for the time of a redirection. What its children have there is
/// asked as well then: `pids` are all processes, init first.
pub(super) fn names(pids: &[i32], inside: &[Mounted]) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for (nth, pid) in pids.iter().enumerate() {
        for fd in 0..MAX_NAMES {
            let Ok(name) = name(*pid, fd, inside) else { break };
            match names.get_mut(fd) {
                None if nth == 0 => names.push(name),
                Some(known) if fd < 3 && !is_external(known) && is_external(&name) => *known = name,
                Some(_) => {}
                None => break,
            }
        }
    }
    Ok(names)
}

fn name(pid: i32, fd: usize, inside: &[Mounted]) -> Result<String> {
    let link = fs::read_link(format!("/proc/{pid}/fd/{fd}"))?;
    let name = outside(pid, fd, inside)?;
    let name = name.unwrap_or_else(|| link.to_string_lossy().into_owned());
    Ok(if is_external(&name) { name } else { String::new() })
}

/// The name of an open file that is not in the container's mount tree. Terminals are CRIU's to deal with.
fn outside(pid: i32, fd: usize, inside: &[Mounted]) -> Result<Option<String>> {
    let found = fs::metadata(format!("/proc/{pid}/fd/{fd}"))?;
    let kind = found.file_type();
    let terminal = kind.is_char_device() && rustix::fs::major(found.rdev()) != MEMORY;
    if terminal || !(kind.is_file() || kind.is_char_device()) {
        return Ok(None);
    }
    let info = files::read_text(Path::new(&format!("/proc/{pid}/fdinfo/{fd}")))?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    let mount: u64 = mount
        .and_then(|id| id.trim().parse().ok())
        .ok_or_else(|| Error::Corrupt(format!("`/proc/{pid}/fdinfo/{fd}` names no mount")))?;
    let outside = !inside.iter().any(|mounted| mounted.id == mount);
    Ok(outside.then(|| format!("file[{mount:x}:{:x}]", found.ino())))
}

/// The major number of `/dev/null`, `/dev/zero` and their like.
const MEMORY: u32 = 1;

/// The names that CRIU has to be told at the dump.
pub(super) fn external(names: &[String]) -> Vec<String> {
    let files: BTreeSet<&String> = names.iter().filter(|name| name.starts_with("file[")).collect();
    files.into_iter().cloned().collect()
}

/// Keeps the names beside the images, if [`load`] would take them.
pub(super) fn save(images: &Path, names: &[String]) -> Result<()> {
    let raw = serde_json::to_vec(names)?;
    if raw.len() as u64 > MAX_BYTES {
        let text =
            format!("cannot checkpoint: the names of init's open files take more than {MAX_BYTES} bytes");
        return Err(Error::Status(text));
    }
    files::write_atomic(&images.join(FILE), &raw, 0o600)
}

/// Which of our descriptors below `end` take the places of saved ones.
pub(super) fn load(images: &Path, end: usize) -> Result<Vec<InheritFd>> {
    let path = images.join(FILE);
    let read = || -> Result<Vec<InheritFd>> {
        let mut raw = Vec::new();
        File::open(&path)?.take(MAX_BYTES + 1).read_to_end(&mut raw)?;
        if raw.len() as u64 > MAX_BYTES {
            return Err(Error::Corrupt(format!("is larger than {MAX_BYTES} bytes")));
        }
        Ok(inherited(&serde_json::from_slice::<Vec<String>>(&raw)?, end))
    };
    read().during(|| format!("checkpoint's `{}`", path.display()))
}

fn inherited(names: &[String], end: usize) -> Vec<InheritFd> {
    let mut seen = BTreeSet::new();
    names
        .iter()
        .enumerate()
        .take(end)
        .filter(|(_, name)| is_external(name) && seen.insert(name.as_str()))
        .filter_map(|(fd, name)| {
            Some(InheritFd {
                key: name.clone(),
                fd: i32::try_from(fd).ok()?,
            })
        })
        .collect()
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
        let taken: Vec<_> = inherited(&names, 4)
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
            load(&dir, 3).unwrap_err().to_string()
        };
        assert!(refused(b"{}").contains("descriptors.json"));
        assert!(refused(&vec![b' '; 70_000]).contains("larger"));
        save(&dir, &["pipe:[1]".to_owned()]).unwrap();
        assert_eq!(load(&dir, 3).unwrap().len(), 1);
        assert!(load(&dir, 0).unwrap().is_empty());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_is_saved_can_be_loaded() {
        let dir = std::env::temp_dir().join(format!("condo-names-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let longest = format!("file[{:x}:{:x}]", u32::MAX, u64::MAX);
        save(&dir, &vec![longest.clone(); MAX_NAMES]).unwrap();
        assert_eq!(load(&dir, MAX_NAMES).unwrap().len(), 1);
        let refused = save(&dir, &vec![longest; 2 * MAX_NAMES]).unwrap_err();
        assert!(refused.to_string().contains("open files"), "{refused}");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn only_what_leads_out_has_a_name() {
        let (_read, write) = std::io::pipe().unwrap();
        let inside = File::open("/proc/self/status").unwrap();
        use std::os::fd::AsRawFd;
        let pid = i32::try_from(std::process::id()).unwrap();
        let mounts = files::mountinfo::of("self").unwrap();
        let named = |fd: i32| name(pid, usize::try_from(fd).unwrap(), &mounts).unwrap();
        assert!(named(write.as_raw_fd()).starts_with("pipe:["));
        assert_eq!(named(inside.as_raw_fd()), "");
    }
}
