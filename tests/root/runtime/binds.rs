//! Bind mounts: which flags of their source they keep, and where sources are looked for.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use serde_json::json;

use super::{Container, ensure_eq, says_all};
use crate::harness;

tests![
    flags_are_those_named_if_any_is,
    flags_stay_in_a_user_namespace_and_cannot_be_cleared,
    a_source_that_answers_its_owner_alone in guest,
    a_source_that_an_earlier_mount_holds,
    a_source_inside_follows_no_link_to_the_host,
    a_source_inside_has_its_owners_translated in guest,
    masked_twice_is_masked,
];

/// A filesystem of the host's, with flags as the test wants them.
struct Source(PathBuf);

impl Source {
    fn new() -> Result<Self> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
        let (none, dir) = (None::<&str>, harness::tempdir());
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), none)?;
        Ok(Self(dir))
    }

    /// Gives it exactly these flags.
    fn set(&self, flags: &[&str]) -> Result<()> {
        let bits = flags.iter().map(|flag| match *flag {
            "ro" => MsFlags::MS_RDONLY,
            "nosuid" => MsFlags::MS_NOSUID,
            "nodev" => MsFlags::MS_NODEV,
            "noexec" => MsFlags::MS_NOEXEC,
            "noatime" => MsFlags::MS_NOATIME,
            "nodiratime" => MsFlags::MS_NODIRATIME,
            "relatime" => MsFlags::MS_RELATIME,
            _ => MsFlags::MS_STRICTATIME,
        });
        let times = MsFlags::MS_NOATIME | MsFlags::MS_NODIRATIME | MsFlags::MS_RELATIME;
        let mut all: MsFlags = bits.collect();
        if !all.intersects(times | MsFlags::MS_STRICTATIME) {
            all |= MsFlags::MS_RELATIME;
        }
        let none = None::<&str>;
        Ok(mount(
            none,
            &self.0,
            none,
            MsFlags::MS_REMOUNT | MsFlags::MS_BIND | all,
            none,
        )?)
    }

    /// Has another file system over it, which has one directory and answers nobody but root of the host.
    fn becomes_private(&self) -> Result<()> {
        let device = fs::File::options().read(true).write(true).open("/dev/fuse")?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            std::os::fd::AsRawFd::as_raw_fd(&device)
        );
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(
            Some("private"),
            &self.0,
            Some("fuse"),
            flags,
            Some(options.as_str()),
        )?;
        std::thread::spawn(move || while serve(&device).is_ok() {});
        Ok(())
    }

    /// The flags that a container sees at `/mnt`, bound with these options.
    fn seen(&self, c: &mut Container, options: &[&str]) -> Result<super::Ran> {
        let bind = json!({"destination": "/mnt", "type": "bind", "source": self.0, "options": options});
        let mounts = c.bundle.config["mounts"].as_array_mut().context("no mounts")?;
        mounts.retain(|m| m["destination"] != "/mnt");
        c.push("/mounts", bind)?;
        c.run()
    }
}

/// Answers one question of the kernel's (`linux/fuse.h`).
fn serve(mut device: &fs::File) -> io::Result<()> {
    let mut question = vec![0; 1 << 17];
    let length = device.read(&mut question)?;
    question.truncate(length);
    // struct fuse_out_header: length, error, and the number of the question.
    let mut answer = vec![0; 8];
    answer.extend(&question[8..16]);
    match u32::from_ne_bytes([question[4], question[5], question[6], question[7]]) {
        // FUSE_GETATTR: struct fuse_attr_out with a mode and a number of links.
        3 => {
            answer.extend([0; 104]);
            for (place, value) in [(16 + 16 + 60, 0o40_755_u32), (16 + 16 + 64, 1)] {
                answer[place..place + 4].copy_from_slice(&value.to_ne_bytes());
            }
        }
        // FUSE_INIT: struct fuse_init_out with a version.
        26 => {
            answer.extend([7_u32, 31].map(u32::to_ne_bytes).concat());
            answer.extend([0; 56]);
        }
        // ENOSYS
        _ => answer[4..8].copy_from_slice(&(-38_i32).to_ne_bytes()),
    }
    let length = u32::try_from(answer.len()).unwrap_or_default();
    answer[..4].copy_from_slice(&length.to_ne_bytes());
    device.write_all(&answer)
}

fn shower() -> Result<Container> {
    let mut c = Container::sh("grep ' /mnt ' /proc/self/mounts | cut -d ' ' -f 4")?;
    c.set("/root/readonly", true.into())?;
    fs::create_dir(c.bundle.rootfs().join("mnt"))?;
    Ok(c)
}

/// All words, in any order, `relatime` unless said otherwise.
fn check(seen: &str, expected: &[&str], case: &str) -> Result<()> {
    let known = [
        "ro",
        "rw",
        "nosuid",
        "nodev",
        "noexec",
        "noatime",
        "nodiratime",
        "relatime",
    ];
    let mut found: Vec<_> = seen
        .trim()
        .split(',')
        .filter(|word| known.contains(word))
        .collect();
    let mut wanted = expected.to_vec();
    found.sort_unstable();
    wanted.sort_unstable();
    ensure!(found == wanted, "{case}: {seen:?}, not {expected:?}");
    Ok(())
}

fn flags_are_those_named_if_any_is() -> Result<()> {
    known_difference!(
        "runc",
        "before 1.2 acts only where a flag is set, not where one is cleared"
    );
    let source = Source::new()?;
    let mut c = shower()?;
    for (host, options, expected) in [
        (
            &["ro", "noexec", "nodiratime"][..],
            &["bind"][..],
            &["ro", "noexec", "nodiratime", "relatime"][..],
        ),
        (
            &["ro", "noexec", "nodiratime"],
            &["rbind", "rprivate"],
            &["ro", "noexec", "nodiratime", "relatime"],
        ),
        (
            &["ro", "noexec", "nodiratime"],
            &["bind", "dev"],
            &["rw", "nodiratime", "relatime"],
        ),
        (
            &["ro"],
            &["bind", "nosuid", "nodev", "rprivate"],
            &["rw", "nosuid", "nodev", "relatime"],
        ),
        (
            &["nosuid", "nodev", "noexec", "noatime"],
            &["bind", "ro"],
            &["ro", "noatime"],
        ),
        (&["noatime"], &["bind", "norelatime"], &["rw", "noatime"]),
        (&["noatime"], &["bind", "atime"], &["rw", "noatime"]),
        (&["noatime"], &["bind", "relatime"], &["rw", "relatime"]),
        (
            &["noatime"],
            &["bind", "nodiratime"],
            &["rw", "nodiratime", "relatime"],
        ),
        (&["nodiratime"], &["bind", "strictatime"], &["rw"]),
        (
            &["noatime"],
            &["bind", "nodiratime", "strictatime"],
            &["rw", "nodiratime"],
        ),
    ] {
        source.set(host)?;
        check(
            &source.seen(&mut c, options)?.ok()?,
            expected,
            &format!("{host:?} {options:?}"),
        )?;
    }
    Ok(())
}

fn flags_stay_in_a_user_namespace_and_cannot_be_cleared() -> Result<()> {
    known_difference!("runc", "before 1.2 has other rules");
    let source = Source::new()?;
    let mut c = shower()?;
    c.with_user_namespace()?;
    harness::give(&c.bundle.rootfs(), 100_000)?;
    for (host, options, expected) in [
        (
            &["ro", "noexec"][..],
            &["bind", "dev"][..],
            &["ro", "noexec", "relatime"][..],
        ),
        (
            &["ro"],
            &["bind", "nosuid", "nodev", "rprivate"],
            &["ro", "nosuid", "nodev", "relatime"],
        ),
        (
            &["nodev", "nosuid", "noatime"],
            &["bind", "ro", "exec"],
            &["ro", "nodev", "nosuid", "noatime"],
        ),
        (
            &["noatime", "nodiratime"],
            &["bind", "norelatime"],
            &["rw", "noatime", "nodiratime"],
        ),
        (&["noatime"], &["bind", "atime"], &["rw", "noatime"]),
        (&["strictatime"], &["bind", "strictatime", "ro"], &["ro"]),
    ] {
        source.set(host)?;
        check(
            &source.seen(&mut c, options)?.ok()?,
            expected,
            &format!("{host:?} {options:?}"),
        )?;
    }
    for (host, options) in [
        (&["ro"][..], &["bind", "rw", "nosuid"][..]),
        (&["nodev", "nosuid"], &["bind", "dev", "suid"]),
        (&["nodiratime"], &["bind", "strictatime"]),
        (&["noatime"], &["bind", "relatime"]),
        (&["relatime"], &["bind", "nodiratime"]),
        (&["strictatime"], &["bind", "noatime"]),
    ] {
        source.set(host)?;
        let fault = source.seen(&mut c, options)?.fault()?;
        says_all(
            &fault,
            &[
                "options: ",
                "cannot be had",
                "error mounting",
                "operation not permitted",
            ],
        )?;
    }
    c.nothing_left()
}

/// As FUSE file systems are without `allow_other` (sshfs): root of the container may not even look what its top is.
fn a_source_that_answers_its_owner_alone() -> Result<()> {
    needs!(root, userns);
    known_difference!("runc", "looks at it since 1.2 before init does");
    let source = Source::new()?;
    source.becomes_private()?;
    let mut c = shower()?;
    c.with_user_namespace()?;
    harness::give(&c.bundle.rootfs(), 100_000)?;
    let expected = ["ro", "nosuid", "nodev", "relatime"];
    check(&source.seen(&mut c, &["bind", "ro"])?.ok()?, &expected, "ro")?;
    let fault = source.seen(&mut c, &["bind", "dev"])?.fault()?;
    says_all(
        &fault,
        &["options: `dev` cannot be had", "operation not permitted"],
    )?;
    c.nothing_left()
}

fn a_source_that_an_earlier_mount_holds() -> Result<()> {
    for users in [false, true] {
        let mut c = Container::sh("cat /final/file /direct; echo END")?;
        if users {
            known_difference!("runc", "before 1.2 looks for it too early in a user namespace");
            c.with_user_namespace()?;
        }
        let (root, dir) = (c.bundle.rootfs(), harness::tempdir());
        for part in ["a/x", "b/y"] {
            fs::create_dir_all(dir.join(part))?;
            fs::write(dir.join(part).join("file"), format!("{part}\n"))?;
        }
        fs::create_dir_all(root.join("mnt"))?;
        if users {
            harness::give(&root, 100_000)?;
        }
        let bind = |from: &Path, to: &str| json!({"source": from, "destination": to, "options": ["rbind"]});
        c.push("/mounts", bind(&dir.join("a"), "/mnt"))?
            .push("/mounts", bind(&dir.join("b"), "/mnt/x"))?
            .push("/mounts", bind(&root.join("mnt/x/y"), "/final"))?
            .push("/mounts", bind(Path::new("rootfs/mnt/x/y/file"), "/direct"))?;
        ensure_eq!(c.run()?.ok()?, "b/y\nb/y\nEND\n");
        c.push("/mounts", bind(&root.join("mnt/nothing"), "/last"))?;
        let fault = c.run()?.fault()?;
        ensure!(
            !harness::is_ours() || fault.contains("source: `/mnt/nothing` does not exist"),
            "{fault}"
        );
    }
    Ok(())
}

fn a_source_inside_follows_no_link_to_the_host() -> Result<()> {
    known_difference!("runc", "follows it");
    let mut c = Container::sh("cat /final/os")?;
    let root = c.bundle.rootfs();
    let outside = harness::tempdir();
    fs::write(outside.join("os"), "of the host")?;
    std::os::unix::fs::symlink(&outside, root.join("link"))?;
    let there = outside.strip_prefix("/")?;
    fs::create_dir_all(root.join(there))?;
    fs::write(root.join(there).join("os"), "of the image")?;
    c.push(
        "/mounts",
        json!({"source": root.join("link"), "destination": "/final", "options": ["rbind", "ro"]}),
    )?;
    ensure_eq!(c.run()?.ok()?, "of the image");
    Ok(())
}

fn a_source_inside_has_its_owners_translated() -> Result<()> {
    needs!(root);
    known_difference!("runc", "has it since 1.2");
    let map = json!([{ "containerID": 0, "hostID": 4000, "size": 1000 }]);
    for userns in [false, true] {
        if !userns && !harness::has("linux_6_3") {
            // Owners of a tmpfs cannot be translated yet.
            continue;
        }
        let mut c = Container::sh("stat -c %u /data /final")?;
        if userns {
            c.with_user_namespace()?;
        }
        let root = c.bundle.rootfs();
        let mut entry = json!({"source": root.join("data"), "destination": root.join("final"), "options": ["bind", "idmap"]});
        if userns {
            // By the container's own maps: what is root's on disk is root's inside.
            ["data", "final"]
                .iter()
                .try_for_each(|name| fs::create_dir(root.join(name)))?;
        } else {
            entry["uidMappings"] = map.clone();
            entry["gidMappings"] = map.clone();
            c.push(
                "/mounts",
                json!({"source": "tmpfs", "type": "tmpfs", "destination": "/data"}),
            )?;
        }
        c.push("/mounts", entry)?;
        let seen = c.run()?.ok()?;
        ensure_eq!(seen, if userns { "65534\n0\n" } else { "0\n4000\n" });
    }
    Ok(())
}

fn masked_twice_is_masked() -> Result<()> {
    let mut c = Container::sh("cat /secret; ls /hidden; echo END")?;
    let root = c.bundle.rootfs();
    fs::write(root.join("secret"), "secret\n")?;
    fs::create_dir(root.join("hidden"))?;
    fs::write(root.join("hidden/file"), "")?;
    c.set(
        "/linux/maskedPaths",
        json!(["/secret", "/hidden", "/secret", "/hidden", "/hidden/file"]),
    )?;
    ensure_eq!(c.run()?.ok()?, "END\n");
    Ok(())
}
