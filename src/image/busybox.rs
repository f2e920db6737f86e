//! A root filesystem out of this host's static busybox: one program, a link for each applet. Needs no network.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::entry::{Entry, Kind};
use super::tree::Tree;
use crate::error::{During, Error, Result};
use crate::files::inside;

/// Where distributions keep it.
const PLACES: [&str; 3] = ["/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static"];

/// Puts busybox and its applets into the tree.
pub(super) fn install(tree: &mut Tree<'_>) -> Result<()> {
    let (path, mut program) = find()?;
    let applets = applets(&path)?;
    tree.put(&Entry::new("", Kind::Dir, 0o755), &mut std::io::empty())?;
    tree.put(&Entry::new("bin/busybox", Kind::File(None), 0o755), &mut program)?;
    for applet in applets.iter().filter(|a| *a != Path::new("bin/busybox")) {
        let link = Kind::Symlink("/bin/busybox".into());
        tree.put(&Entry::new(applet, link, 0o777), &mut std::io::empty())?;
    }
    Ok(())
}

/// A busybox that runs in a root without libraries.
fn find() -> Result<(PathBuf, File)> {
    for place in PLACES {
        let Ok(mut file) = File::open(place) else { continue };
        let mut program = Vec::new();
        file.read_to_end(&mut program)
            .during(|| format!("read `{place}`"))?;
        if is_static(&program) {
            file.rewind()?;
            return Ok((place.into(), file));
        }
    }
    Err(Error::unsupported(
        "the recipe `busybox`",
        "there is no static busybox at `/bin/busybox`; install one: `apt-get install busybox-static`",
    ))
}

/// Whether a 64-bit little-endian ELF program asks for no interpreter (`elf(5)`): a dynamic one has a `PT_INTERP` header.
fn is_static(program: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, width: usize| {
        let bytes = program.get(at..at.checked_add(width)?)?;
        Some(bytes.iter().rev().fold(0_usize, |n, b| n << 8 | usize::from(*b)))
    };
    let headers = || {
        let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        (0..count)
            .map(|n| number(table.checked_add(n * size)?, 4))
            .collect::<Option<Vec<_>>>()
    };
    program.starts_with(b"\x7fELF\x02\x01")
        && headers().is_some_and(|all| !all.contains(&(PT_INTERP as usize)))
}

/// The applets by their usual places: `bin/ls`, `sbin/init`.
fn applets(busybox: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new(busybox)
        .arg("--list-full")
        .output()
        .during(|| format!("run `{} --list-full`", busybox.display()))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(Error::unsupported("this busybox", words.trim().to_owned()));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| inside(Path::new(line.trim())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_makes_a_program_dynamic() {
        let mut elf = vec![0_u8; 64 + 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 1;
        elf[64] = 1;
        assert!(is_static(&elf));
        elf[64] = 3;
        assert!(!is_static(&elf));
        elf[32] = 255;
        assert!(!is_static(&elf), "a table outside of the file");
        assert!(!is_static(b"#!/bin/sh"));
    }
}
