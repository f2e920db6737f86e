//! What an unpacked root filesystem is: its init, its architecture, its name.

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags};

use crate::error::{Error, Result};
use crate::files::Root;

/// Where a system keeps its init, first come first served.
const INITS: [&[&str]; 5] = [
    &["/sbin/init"],
    &["/lib/systemd/systemd"],
    &["/usr/lib/systemd/systemd"],
    &["/init"],
    &["/bin/busybox", "init"],
];

/// The init of the tree: the one asked for, or the first that is there.
///
/// # Errors
/// [`Error::Invalid`] when there is none: the archive holds no system, or holds it below another directory.
pub(super) fn init(root: &Root, asked: Option<&[String]>) -> Result<Vec<String>> {
    if let Some(asked) = asked {
        let program = asked.first().map_or("", String::as_str);
        if program.starts_with('/') && program_at(root, Path::new(program)).is_some() {
            return Ok(asked.to_vec());
        }
        return Err(Error::invalid(
            "init",
            program,
            "is not the absolute path of a program in the image",
        ));
    }
    INITS
        .iter()
        .find(|init| program_at(root, Path::new(init[0])).is_some())
        .map(|init| init.iter().map(ToString::to_string).collect())
        .ok_or_else(|| {
            Error::invalid(
                "image",
                "/sbin/init",
                "is not in the root filesystem; name the program to start as process 1, and see that the archive holds the \
                 root itself and not a directory around it",
            )
        })
}

/// The signal that asks this init to power off.
pub(super) fn stop_signal(root: &Root, init: &[String]) -> &'static str {
    let program = init.first().and_then(|p| program_at(root, Path::new(p)));
    match program
        .as_deref()
        .and_then(Path::file_name)
        .and_then(|n| n.to_str())
    {
        // systemd(1): start poweroff.target.
        Some("systemd") => "SIGRTMIN+3",
        // init/init.c of busybox: USR1 halts, USR2 powers off, TERM reboots.
        Some("busybox") => "SIGUSR2",
        _ => "SIGTERM",
    }
}

/// Whether this init is busybox's.
pub(super) fn is_busybox(root: &Root, init: &[String]) -> bool {
    let program = init.first().and_then(|p| program_at(root, Path::new(p)));
    program.is_some_and(|path| path.ends_with("busybox"))
}

/// The real path, inside the root, of an executable regular file.
fn program_at(root: &Root, path: &Path) -> Option<PathBuf> {
    let file = root.get(path, OFlags::PATH).ok()?;
    let status = rustix::fs::fstat(&file).ok()?;
    let executable =
        FileType::from_raw_mode(status.st_mode) == FileType::RegularFile && status.st_mode & 0o111 != 0;
    let real = real_path(file.as_fd())?;
    let real = real.strip_prefix(real_path(root.as_fd())?).ok()?;
    executable.then(|| real.to_owned())
}

fn real_path(fd: std::os::fd::BorrowedFd<'_>) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()
}

/// The machine the tree is for, as `uname -m` says it; `unknown` when nothing in it tells.
pub(super) fn architecture(root: &Root, init: &[String]) -> String {
    // A script says nothing, its interpreter does.
    init.iter()
        .take(1)
        .map(String::as_str)
        .chain(["/bin/sh", "/bin/busybox"])
        .filter_map(|program| root.read(Path::new(program), 20).ok())
        .find_map(|header| machine(&header))
        .unwrap_or("unknown")
        .to_owned()
}

/// `e_machine` of an ELF header, by its `uname -m` name.
fn machine(header: &[u8]) -> Option<&'static str> {
    let big_endian = *header.get(5)? == 2;
    let bytes = [*header.get(18)?, *header.get(19)?];
    let number = if big_endian {
        u16::from_be_bytes(bytes)
    } else {
        u16::from_le_bytes(bytes)
    };
    match (header.starts_with(b"\x7fELF"), number) {
        (true, 3) => Some("i686"),
        (true, 21) => Some(if big_endian { "ppc64" } else { "ppc64le" }),
        (true, 22) => Some("s390x"),
        (true, 40) => Some("armv7l"),
        (true, 62) => Some("x86_64"),
        (true, 183) => Some("aarch64"),
        (true, 243) => Some("riscv64"),
        (true, 258) => Some("loongarch64"),
        _ => None,
    }
}

/// The name the system gives itself in `os-release(5)`, or nothing. It ends up on terminals: control characters are dropped.
pub(super) fn os_name(root: &Root) -> String {
    ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .filter_map(|path| root.read(Path::new(path), 1 << 14).ok())
        .find_map(|text| pretty_name(&String::from_utf8_lossy(&text)))
        .unwrap_or_default()
}

fn pretty_name(os_release: &str) -> Option<String> {
    let value = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    let name: String = value
        .trim_matches(['"', '\'', ' '])
        .chars()
        .filter(|c| !c.is_control())
        .take(80)
        .collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elf_machines() {
        let mut header = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0";
        assert_eq!(machine(&header), Some("x86_64"));
        header[18] = 183;
        assert_eq!(machine(&header), Some("aarch64"));
        header[5] = 2;
        header[18..].copy_from_slice(&[0, 22]);
        assert_eq!(machine(&header), Some("s390x"));
        assert_eq!(machine(b"#!/bin/sh"), None);
        assert_eq!(machine(&header[..19]), None);
    }

    #[test]
    fn names_of_systems_cannot_steer_a_terminal() {
        assert_eq!(
            pretty_name("ID=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n").unwrap(),
            "Debian GNU/Linux 12 (bookworm)"
        );
        assert_eq!(pretty_name("PRETTY_NAME=\"a\x1b[2Jb\"").unwrap(), "a[2Jb");
        assert_eq!(pretty_name("NAME=x"), None);
    }
}
