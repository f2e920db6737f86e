//! `condo cp`: files into a VPS and out of it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::house::{House, eventually, finish, said};
use crate::harness;
use crate::image::Tar;

tests![
    files_go_in_and_out in guest: 120,
    no_link_leads_out_and_no_device_comes: 120,
    archives_go_in_and_out,
    what_is_kept_is_in_force in guest: 60,
    a_copy_that_fails_leaves_no_half,
];

/// A folder with a script, an empty folder, a link and a file with a hole.
fn site(at: &Path) -> Result<()> {
    fs::create_dir_all(at.join("empty"))?;
    fs::create_dir_all(at.join("a/b"))?;
    fs::write(at.join("a/b/run"), "#!/bin/sh\necho ran\n")?;
    fs::set_permissions(at.join("a/b/run"), fs::Permissions::from_mode(0o4750))?;
    symlink("/a/b/run", at.join("link"))?;
    let mut hole = fs::File::create(at.join("hole"))?;
    hole.set_len(1 << 30)?;
    hole.write_all(b"begin")?;
    std::os::unix::fs::chown(at.join("hole"), Some(33), Some(33))?;
    Ok(())
}

fn files_go_in_and_out() -> Result<()> {
    let house = House::new()?;
    let at = harness::tempdir().join("site");
    site(&at)?;
    let (site, out) = (at.display(), harness::tempdir().join("out"));
    fs::create_dir(&out)?;
    house.ok("create web --image busybox --memory 64M")?;
    // Once into a disk that nobody has used yet, then while it runs, then frozen.
    for round in ["stopped", "running", "paused"] {
        match round {
            "running" => {
                house.ok("start web")?;
                house.up("web")?;
            }
            "paused" => drop(house.ok("freeze web")?),
            _ => {}
        }
        ensure!(house.status("web")? == round);
        house.ok(&format!("cp {site} web:/srv"))?;
        house.ok(&format!("cp {site} web:/root"))?;
        house.ok(&format!("cp -a {site}/. web:root/kept-{round}"))?;
        house.ok(&format!("cp {site}/a/b/run web:/root/{round}"))?;
        house.ok(&format!("cp web:/root/site {}", out.join(round).display()))?;
        house.ok(&format!("cp web:/root/{round} {}/", out.join(round).display()))?;
        let copy = out.join(round);
        ensure!(copy.is_dir(), "the second copy replaced the folder");
        ensure!(fs::read(copy.join("a/b/run"))? == fs::read(at.join("a/b/run"))?);
        ensure!(fs::read_link(copy.join("link"))? == Path::new("/a/b/run"));
        ensure!(copy.join("empty").is_dir() && copy.join(round).is_file());
        let run = fs::metadata(copy.join("a/b/run"))?;
        ensure!(run.mode() & 0o7777 == 0o750 && run.uid() == 0, "{:o}", run.mode());
        let hole = fs::metadata(copy.join("hole"))?;
        ensure!(hole.len() == 1 << 30 && hole.blocks() < 1024, "{}", hole.blocks());
        ensure!(hole.mtime() == fs::metadata(at.join("hole"))?.mtime());
        house.ok(&format!(
            "cp -a web:/root/kept-{round}/hole {}",
            out.join("kept").display()
        ))?;
        ensure!(fs::metadata(out.join("kept"))?.uid() == 33);
    }
    house.ok("thaw web")?;
    let stat = "stat -c '%u:%g %a' /root/site/hole /root/site/a/b/run /root/kept-stopped/hole /root/kept-running/hole";
    let seen = house.sh("web", stat)?;
    ensure!(seen == "0:0 644\n0:0 4750\n33:33 644\n33:33 644", "{seen}");
    ensure!(
        house
            .sh(
                "web",
                "/root/stopped && /srv/a/b/run && du -k /root/site/hole | cut -f1"
            )?
            .starts_with("ran\nran\n")
    );
    // What is mounted inside is where it is seen.
    house.ok(&format!("cp {site}/a/b/run web:/tmp"))?;
    house.ok(&format!("cp {site}/a/b/run web:/run/there"))?;
    ensure!(house.sh("web", "/tmp/run && /run/there")? == "ran\nran");
    house.ok("stop web")?;
    house.ok("start web")?;
    ensure!(house.sh("web", "test ! -e /run/there && /root/paused")? == "ran");
    house.leave()
}

fn no_link_leads_out_and_no_device_comes() -> Result<()> {
    let house = House::new()?;
    let dir = harness::tempdir();
    fs::write(dir.join("secret"), "the host's")?;
    fs::write(dir.join("new"), "new")?;
    house.running("web", "--memory 64M")?;
    let (host, new) = (dir.display(), dir.join("new"));
    let new = new.display();
    house.sh(
        "web",
        &format!(
            "ln -s {host} /srv; ln -s {host}/secret /secret; mkdir -p /up/b; ln -s ../../../../.. /up/b/c"
        ),
    )?;
    house.refused(&format!("cp web:/srv/secret {host}/got"), "no such file")?;
    house.refused(&format!("cp {new} web:/srv/x"), "does not exist")?;
    house.refused(&format!("cp -L web:/secret {host}/got"), "no such file")?;
    house.ok(&format!("cp {new} web:/up/b/c/top"))?;
    ensure!(house.sh("web", "cat /top")? == "new");
    // A link below what is copied into is no folder; one that is named leads where it leads inside.
    house.sh("web", "mkdir -p /in/tree /else /proc/1; ln -s /else /in/tree/a; ln -s /else /named; echo old > /else/file; ln -s /else/file /byname")?;
    fs::create_dir_all(dir.join("tree/a"))?;
    fs::write(dir.join("tree/a/file"), "x")?;
    house.refused(&format!("cp {host}/tree web:/in"), "in the way")?;
    house.ok(&format!("cp {new} web:/named"))?;
    house.ok(&format!("cp {new} web:/byname"))?;
    ensure!(house.sh("web", "cat /else/new /else/file; test -L /byname; ls /else")? == "newnewfile\nnew");
    // Files of the kernel's are none: not where they are, and not where a tenant leads to.
    house.sh(
        "web",
        "ln -s /proc/sys/kernel /data; mkfifo /up/pipe; touch /up/plain",
    )?;
    for to in [
        "/proc/sys/kernel/core_pattern",
        "/data/core_pattern",
        "/sys/kernel/x",
        "/dev/pts/x",
    ] {
        house.refused(&format!("cp {new} web:{to}"), "filesystem of the kernel's")?;
    }
    house.refused(
        &format!("cp web:/proc/1/environ {host}/env"),
        "filesystem of the kernel's",
    )?;
    house.refused(&format!("cp web:/dev/null {host}/null"), "is a device")?;
    house.refused(&format!("cp {new} web:/dev/null"), "is a device")?;
    house.refused(&format!("cp web:/up/pipe {host}/pipe"), "is a named pipe")?;
    house.refused("cp web:/up/plain /dev/null", "is a device")?;
    let partly = house.output(&format!("cp web:/up {host}/up"))?;
    ensure!(
        !partly.status.success() && said(&partly).contains("pipe` is a named pipe and was left out"),
        "{}",
        said(&partly)
    );
    ensure!(dir.join("up/plain").is_file() && !dir.join("up/pipe").exists());
    ensure!(fs::read_link(dir.join("up/b/c"))? == Path::new("../../../../.."));
    bad_arguments(&house, &new.to_string())?;
    ensure!(fs::read_to_string(dir.join("secret"))? == "the host's" && !dir.join("x").exists());
    house.leave()
}

fn bad_arguments(house: &House, file: &str) -> Result<()> {
    for (line, needle) in [
        (format!("cp {file} {file}"), "names no VPS"),
        ("cp web:/a web:/b".into(), "two"),
        (format!("cp {file} Web:/a"), "./FILE"),
        (format!("cp {file} nobody:/a"), "does not exist"),
        (
            format!("cp {file} web:/none/there"),
            "folder `/none` does not exist",
        ),
        (format!("cp {file} web:/none/"), "does not exist"),
        (format!("cp {file}.none web:/"), "no such file"),
        (format!("cp web:/etc {file}"), "is no folder"),
    ] {
        house.refused(&line, needle)?;
    }
    Ok(())
}

fn piped(house: &House, line: &str, input: &[u8]) -> Result<Output> {
    let mut command = house.command();
    command.args(line.split_whitespace()).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may have refused already.
        let _ = stdin.write_all(input);
    }
    finish(child)
}

fn archives_go_in_and_out() -> Result<()> {
    let house = House::new()?;
    house.ok("create web --image busybox")?;
    let long = "long/".repeat(15);
    let archive = Tar::new()
        .dir("site/", 0o750)
        .file("site/a", 0o640, b"content")
        .file(&format!("site/{long}deep"), 0o600, b"deep")
        .entry(b'1', "site/same", "site/a", b"")
        .entry(b'2', "site/link", "/etc", b"")
        .end();
    let put = piped(&house, "cp - web:/srv", &archive)?;
    ensure!(
        said(&put).contains("`/srv`") && !put.status.success(),
        "{}",
        said(&put)
    );
    let put = piped(&house, "cp - web:/root", &archive)?;
    ensure!(put.status.success(), "{}", said(&put));
    // Through a link that the archive brings itself.
    let hostile = Tar::new()
        .entry(b'2', "out", "/etc", b"")
        .file("out/new", 0o644, b"x")
        .end();
    let put = piped(&house, "cp - web:/root", &hostile)?;
    ensure!(said(&put).contains("in the way"), "{}", said(&put));
    let put = piped(&house, "cp - web:/root", b"this is no archive")?;
    ensure!(
        !put.status.success() && said(&put).lines().count() == 1,
        "{}",
        said(&put)
    );
    let got = piped(&house, "cp web:/root/site -", b"")?;
    ensure!(got.status.success(), "{}", said(&got));
    house.ok("start web")?;
    house.up("web")?;
    let again = piped(&house, "cp - web:/mnt", &got.stdout)?;
    ensure!(again.status.success(), "{}", said(&again));
    let seen = house.sh("web", &format!("cd /mnt/site; cat a same {long}deep; readlink link; stat -c %a . a; test ! -e /etc/new; ls -A /root"))?;
    ensure!(
        seen.starts_with("contentcontentdeep/etc\n750\n640\nout\nsite"),
        "{seen}"
    );
    house.leave()
}

const CAPABILITY: &str = "security.capability";
const LIST: &str = "system.posix_acl_access";
const DEFAULT_LIST: &str = "system.posix_acl_default";

/// User 1000 may read, and whoever else only as the owner (`posix_acl_xattr.h`).
fn access_list() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] = [
        (0x01, 6, u32::MAX),
        (0x02, 4, 1000),
        (0x04, 0, u32::MAX),
        (0x10, 4, u32::MAX),
        (0x20, 0, u32::MAX),
    ];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, may, id) in entries {
        list.extend([&tag.to_le_bytes()[..], &may.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    list
}

/// CAP_NET_RAW (13), permitted and effective, as `setcap` writes it for the host.
fn capability() -> Vec<u8> {
    let words = [0x0200_0001_u32, 1 << 13, 0, 0, 0];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// What a path has of an attribute.
fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::getxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

/// A program with a capability, and a file that its access list lets user 1000 read.
fn dressed(at: &Path) -> Result<()> {
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty())
    };
    fs::create_dir(at)?;
    let (tool, file) = (at.join("busybox"), at.join("file"));
    fs::copy("/bin/busybox", &tool)?;
    fs::write(&file, "for some")?;
    std::os::unix::fs::chown(&file, Some(33), Some(44))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4600))?;
    set(&tool, CAPABILITY, &capability())?;
    set(&file, LIST, &access_list())?;
    set(&file, "user.note", b"mine")?;
    set(at, DEFAULT_LIST, &access_list())?;
    Ok(())
}

/// That programs inside have of it what it says.
fn is_in_force(house: &House, name: &str, at: &str) -> Result<()> {
    ensure!(house.sh(name, &format!("busybox stat -c '%u:%g %a' {at}/file"))? == "33:44 4640");
    let by =
        |user: u32, what: &str| house.output(&format!("exec {name} --user {user} -- {at}/busybox {what}"));
    let status = by(1000, "grep CapEff /proc/self/status")?;
    let status = format!("{}{}", said(&status), String::from_utf8_lossy(&status.stdout));
    ensure!(status.trim().ends_with("0000000000002000"), "{status}");
    ensure!(by(1000, &format!("cat {at}/file"))?.stdout == b"for some");
    ensure!(!by(1001, &format!("cat {at}/file"))?.status.success());
    house.sh(name, &format!("umask 0; : > {at}/born"))?;
    ensure!(
        by(1000, &format!("cat {at}/born"))?.status.success(),
        "no list by default"
    );
    ensure!(!by(1001, &format!("cat {at}/born"))?.status.success());
    Ok(())
}

/// Modes, owners, attributes, access lists and file capabilities, each by what the kernel makes of it on the other side.
fn what_is_kept_is_in_force() -> Result<()> {
    let house = House::quick()?;
    let dir = harness::tempdir();
    let kept = dir.join("kept");
    dressed(&kept)?;
    // Into a disk that is not in use, and into one that is.
    house.ok("create web --image quick")?;
    house.ok(&format!("cp -a {} web:/srv", kept.display()))?;
    house.ok("start web")?;
    is_in_force(&house, "web", "/srv")?;
    house.ok(&format!("cp -a {} web:/", kept.display()))?;
    is_in_force(&house, "web", "/kept")?;
    // Out, where a tenant's capability is none and no bit makes anybody somebody else.
    house.ok(&format!("cp -a web:/kept {}", dir.join("out").display()))?;
    let out = |name: &str| dir.join("out").join(name);
    let status = fs::metadata(out("file"))?;
    ensure!(
        (status.uid(), status.gid(), status.mode() & 0o7777) == (33, 44, 0o640),
        "{status:?}"
    );
    ensure!(attribute(&out("file"), "user.note").as_deref() == Some(&b"mine"[..]));
    let list = attribute(&out("file"), LIST);
    ensure!(list == Some(access_list()), "{list:?}");
    ensure!(attribute(&dir.join("out"), DEFAULT_LIST) == Some(access_list()));
    ensure!(attribute(&out("busybox"), CAPABILITY).is_none());
    // From one VPS to another, whose numbers are others on the host.
    house.ok("create db --image quick --start")?;
    let tar = piped(&house, "cp web:/kept -", b"")?;
    let put = piped(&house, "cp -a - db:/", &tar.stdout)?;
    ensure!(put.status.success(), "{}", said(&put));
    is_in_force(&house, "db", "/kept")?;
    // Without it nothing of that comes along.
    house.ok(&format!("cp {} db:/plain", kept.display()))?;
    let plain = "exec db --user 1000 -- /plain/busybox grep CapEff /proc/self/status";
    let plain = house.ok(plain)?;
    ensure!(plain.trim().ends_with("0000000000000000"), "{plain}");
    ensure!(house.sh("db", "busybox stat -c %u:%g /plain/file")? == "0:0");
    house.leave()
}

fn a_copy_that_fails_leaves_no_half() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--memory 64M")?;
    let big = harness::tempdir().join("big");
    fs::write(&big, vec![7_u8; 48 << 20])?;
    // A disk that is full.
    house.sh(
        "web",
        "mkdir /small; mount -t tmpfs -o size=1m none /small; echo old > /small/big",
    )?;
    house.refused(&format!("cp {} web:/small", big.display()), "no space left")?;
    ensure!(house.sh("web", "cat /small/big; ls -A /small")? == "old\nbig");
    // A copy that is killed while it reads a pipe that does not end.
    let mut command = house.command();
    command
        .args(["cp", "-", "web:/root"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let mut child = command.spawn()?;
    let mut tar = Tar::new().file("big", 0o600, &fs::read(&big)?).end();
    tar.truncate(40 << 20);
    if let Some(stdin) = child.stdin.as_mut() {
        stdin.write_all(&tar)?;
    }
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGKILL)?;
    child.wait()?;
    eventually("nothing is left", || {
        Ok(house.sh("web", "ls -A /root")?.is_empty())
    })?;
    house.leave()
}
