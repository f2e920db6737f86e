//! The fields of `process` and of the container as a whole, seen from inside.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Container, ensure_eq};
use crate::harness;

tests![
    the_root_is_where_the_config_says,
    user_groups_and_umask,
    the_working_directory_is_made,
    exec_does_not_make_its_working_directory,
    programs_are_found_by_the_configs_path,
    programs_that_cannot_be_run_say_so_at_create,
    the_environment_is_the_configs_alone,
    rlimits,
    the_oom_score_is_raised,
    host_and_domain_name,
    sysctls_of_namespaces,
    sysctls_of_a_user_namespace,
    a_readonly_root,
    without_pivot_root,
    without_pivot_root_no_mount_of_the_host_stays,
    masked_and_readonly_paths,
    standard_and_extra_devices,
    preserved_descriptors_arrive_and_no_others,
    listening_sockets_are_announced,
    streams_belong_to_the_user,
    signals_are_as_at_birth,
    binds_of_files_and_directories,
    idmapped_binds_have_their_own_users_and_groups,
];

fn the_root_is_where_the_config_says() -> Result<()> {
    let mut c = Container::sh("cat /where")?;
    let place = c.bundle.dir.join("a/place");
    fs::create_dir(c.bundle.dir.join("a"))?;
    fs::rename(c.bundle.rootfs(), &place)?;
    fs::write(place.join("where"), "there\n")?;
    c.set("/root/path", "a/place".into())?;
    ensure_eq!(c.run()?.ok()?, "there\n");
    c.set("/root/path", json!(place))?;
    ensure_eq!(c.run()?.ok()?, "there\n");
    Ok(())
}

fn user_groups_and_umask() -> Result<()> {
    let mut c = Container::sh("id -u; id -g; id -G; umask; grep -E '^(Uid|Gid):' /proc/self/status")?;
    c.set(
        "/process/user",
        json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o27}),
    )?;
    let said = c.run()?.ok()?;
    ensure_eq!(
        said,
        "1000\n1001\n1001 5 6\n0027\nUid:\t1000\t1000\t1000\t1000\nGid:\t1001\t1001\t1001\t1001\n"
    );
    // None of the caller's groups either.
    c.set("/process/user", json!({"uid": 0, "gid": 0}))?;
    c.set(
        "/process/args",
        json!(["sh", "-c", "grep Groups /proc/self/status; umask"]),
    )?;
    let said = c.run()?.ok()?;
    ensure_eq!(said.split_whitespace().collect::<Vec<_>>(), ["Groups:", "0022"]);
    Ok(())
}

fn the_working_directory_is_made() -> Result<()> {
    let mut c = Container::new(&["pwd"])?;
    c.set("/process/cwd", "/a/new/place".into())?;
    ensure_eq!(c.run()?.ok()?, "/a/new/place\n");
    ensure!(c.bundle.rootfs().join("a/new/place").is_dir());
    Ok(())
}

fn exec_does_not_make_its_working_directory() -> Result<()> {
    let c = Container::idle()?;
    c.up()?;
    let fault = c.exec(&["--cwd", "/not/there", "@", "true"])?.fault()?;
    ensure!(fault.contains("no such file or directory"), "{fault}");
    ensure!(!c.bundle.rootfs().join("not").exists());
    Ok(())
}

fn programs_are_found_by_the_configs_path() -> Result<()> {
    let mut c = Container::new(&["hello"])?;
    let dir = c.bundle.rootfs().join("opt/hello/bin");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("hello"), "#!/bin/sh\necho hello\n")?;
    fs::set_permissions(dir.join("hello"), fs::Permissions::from_mode(0o755))?;
    c.set("/process/env", json!(["PATH=/bin:/opt/hello/bin"]))?;
    ensure_eq!(c.run()?.ok()?, "hello\n");
    c.set("/process/args", json!(["bin/hello"]))?
        .set("/process/cwd", "/opt/hello".into())?;
    ensure_eq!(c.run()?.ok()?, "hello\n");
    Ok(())
}

fn programs_that_cannot_be_run_say_so_at_create() -> Result<()> {
    for (program, words) in [
        ("no-such-program", "executable file not found in $PATH"),
        ("/no/such/program", "no such file or directory"),
        ("/bin/busybox/x", "not a directory"),
        ("/etc/passwd", "permission denied"),
    ] {
        let c = Container::new(&[program])?;
        let fault = c.call(&["create", "--bundle", "%", "@"])?.fault()?;
        ensure!(fault.contains(words), "{program}: {fault}");
        c.nothing_left()?;
    }
    Ok(())
}

fn the_environment_is_the_configs_alone() -> Result<()> {
    let mut c = Container::new(&["env"])?;
    c.set("/process/env", json!(["A=1", "EMPTY=", "PATH=/bin", "B=x=y"]))?;
    let mut command = c.command(&["run", "--bundle", "%", "@"]);
    command
        .env("SECRET", "1")
        .env("LISTEN_FDS", "1")
        .env("LISTEN_PID", "1");
    let said = super::to_the_end(command)?.ok()?;
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    // HOME is the image's.
    ensure_eq!(lines, ["A=1", "B=x=y", "EMPTY=", "HOME=/root", "PATH=/bin"]);
    Ok(())
}

fn rlimits() -> Result<()> {
    let mut c = Container::sh("ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc")?;
    c.set(
        "/process/rlimits",
        json!([
            {"type": "RLIMIT_NOFILE", "soft": 512, "hard": 600},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 1024},
        ]),
    )?;
    ensure_eq!(c.run()?.ok()?, "512\n600\n0\n2\n");
    c.set("/process/args", json!(["sleep", "100000"]))?;
    c.up()?;
    ensure_eq!(c.exec(&["@", "sh", "-c", "ulimit -Hn"])?.ok()?, "600\n");
    Ok(())
}

fn the_oom_score_is_raised() -> Result<()> {
    let mut c = Container::new(&["cat", "/proc/self/oom_score_adj"])?;
    c.set("/process/oomScoreAdj", json!(777))?;
    ensure_eq!(c.run()?.ok()?, "777\n");
    Ok(())
}

fn host_and_domain_name() -> Result<()> {
    let mut c = Container::sh("hostname; cat /proc/sys/kernel/domainname")?;
    c.set("/hostname", "some.host".into())?;
    ensure_eq!(c.run()?.ok()?.lines().next(), Some("some.host"));
    known_difference!("runc", "before 1.2 does not know the domain name");
    c.set("/domainname", "example.org".into())?;
    ensure_eq!(c.run()?.ok()?, "some.host\nexample.org\n");
    Ok(())
}

fn sysctls_of_namespaces() -> Result<()> {
    let mut c = Container::sh(
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced /proc/sys/fs/mqueue/msg_max",
    )?;
    c.set(
        "/linux/sysctl",
        json!({"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "33"}),
    )?;
    ensure_eq!(c.run()?.ok()?, "1\n1\n33\n");
    Ok(())
}

fn a_readonly_root() -> Result<()> {
    let mut c = Container::sh("touch /x 2>/dev/null || echo no; touch /dev/shm/x && echo yes")?;
    c.set("/root/readonly", true.into())?;
    ensure_eq!(c.run()?.ok()?, "no\nyes\n");
    Ok(())
}

fn without_pivot_root() -> Result<()> {
    let c = Container::sh("hostname; ls /bin/busybox; test -e /proc/self && echo proc")?;
    let said = c.call(&["run", "--no-pivot", "--bundle", "%", "@"])?.ok()?;
    ensure_eq!(said, "test\n/bin/busybox\nproc\n");
    c.nothing_left()
}

/// A procfs or sysfs of the host's that stayed mounted would let the container's users mount another that hides nothing.
fn without_pivot_root_no_mount_of_the_host_stays() -> Result<()> {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    let (none, there) = (None::<&str>, harness::tempdir());
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    // One on top of another, and one that is hidden below a third.
    let hidden = there.join("hidden/proc");
    fs::create_dir_all(&hidden)?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none)?;
    mount(Some("proc"), &hidden, Some("proc"), MsFlags::empty(), none)?;
    mount(
        Some("tmpfs"),
        &there.join("hidden"),
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )?;
    let script = "for fs in proc sysfs; do unshare -U -r -m -p -f -n mount -t $fs x /mnt && echo mounted $fs; done; echo END";
    for users in [false, true] {
        let mut c = Container::sh(script)?;
        fs::create_dir(c.bundle.rootfs().join("mnt"))?;
        if users {
            c.with_user_namespace()?;
        }
        c.set("/linux/maskedPaths", json!(["/proc/keys", "/sys/firmware"]))?;
        let ran = c.call(&["run", "--no-pivot", "--bundle", "%", "@"])?;
        ensure_eq!(ran.out, "END\n");
        ensure!(ran.err.matches("not permitted").count() == 2, "{}", ran.err);
    }
    Ok(())
}

fn masked_and_readonly_paths() -> Result<()> {
    let mut c = Container::sh(
        "cat /secret; ls /hidden; echo 1 > /proc/sys/kernel/domainname; (echo x > /kept) 2>/dev/null || echo kept; echo y > /plain && echo plain",
    )?;
    let root = c.bundle.rootfs();
    fs::write(root.join("secret"), "secret\n")?;
    fs::write(root.join("kept"), "")?;
    fs::create_dir(root.join("hidden"))?;
    fs::write(root.join("hidden/file"), "")?;
    c.push("/linux/maskedPaths", "/secret".into())?
        .push("/linux/maskedPaths", "/hidden".into())?
        .push("/linux/maskedPaths", "/not/there".into())?
        .push("/linux/readonlyPaths", "/kept".into())?;
    let ran = c.run()?;
    ensure_eq!(ran.out, "kept\nplain\n");
    ensure!(ran.err.contains("domainname"), "{}", ran.err);
    Ok(())
}

fn standard_and_extra_devices() -> Result<()> {
    let mut c = Container::sh(
        "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; echo x > /dev/null; head -c 4 /dev/zero | wc -c; \
         (head -c 1 /dev/ours > /dev/null) 2>/dev/null && echo ours; stat -c '%a %u %g %t %T' /dev/ours; (head -c 1 /dev/kmsg >/dev/null) 2>/dev/null && echo kmsg; \
         for l in fd stdin ptmx; do readlink /dev/$l; done",
    )?;
    c.set("/linux/devices", json!([
        {"path": "/dev/ours", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 0, "gid": 4},
        {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666, "uid": 0, "gid": 0},
    ]))?;
    c.push(
        "/linux/resources/devices",
        json!({"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rw"}),
    )?;
    ensure_eq!(
        c.run()?.ok()?,
        "4\nours\n640 0 4 1 5\n/proc/self/fd\n/proc/self/fd/0\npts/ptmx\n"
    );
    Ok(())
}

/// Runs a command with `files` as descriptors from 3 on.
fn with_descriptors(command: &Command, count: usize) -> Result<super::Ran> {
    let mut wrapped = Command::new("sh");
    let opened: String = (3..3 + count)
        .map(|n| format!("exec {n}</etc/hostname; "))
        .collect();
    wrapped.arg("-c").arg(format!("{opened}exec \"$@\"")).arg("sh");
    wrapped.arg(command.get_program()).args(command.get_args());
    wrapped.stdin(std::process::Stdio::null());
    super::to_the_end(wrapped)
}

fn preserved_descriptors_arrive_and_no_others() -> Result<()> {
    // The shell's glob opens the directory itself.
    let c = Container::sh("echo /proc/self/fd/*; cat /proc/self/fd/3 >/dev/null")?;
    let said = |count: &str, open| -> Result<String> {
        with_descriptors(
            &c.command(&["run", "--preserve-fds", count, "--bundle", "%", "@"]),
            open,
        )?
        .ok()
    };
    let fds = |said: String| -> Vec<String> {
        said.split_whitespace()
            .map(|p| p.replace("/proc/self/fd/", ""))
            .collect()
    };
    let two = fds(said("2", 4)?);
    ensure!(
        two.starts_with(&["0", "1", "2", "3", "4"].map(String::from)) && two.len() <= 6,
        "{two:?}"
    );
    // The log is opened by the runtime, as descriptor 3 where nothing else is.
    let log = harness::tempdir().join("log");
    let mut command = c.command(&["--log"]);
    command
        .arg(&log)
        .args(["run", "--preserve-fds", "1", "--bundle"])
        .arg(&c.bundle.dir)
        .arg(&c.id);
    let ran = with_descriptors(&command, 0)?;
    if harness::is_ours() {
        ensure!(
            ran.err
                .contains("--preserve-fds: `1` needs descriptor 3, which is not open"),
            "{ran:?}"
        );
    }
    c.nothing_left()
}

fn listening_sockets_are_announced() -> Result<()> {
    let c = Container::sh("echo $LISTEN_FDS $LISTEN_PID $$; test -e /proc/self/fd/4 && echo both")?;
    let command = c.command(&["run", "--preserve-fds", "1", "--bundle", "%", "@"]);
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "exec 3</etc/hostname 4</etc/hostname; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"",
        "sh",
    ]);
    shell.arg(command.get_program()).args(command.get_args());
    ensure_eq!(super::to_the_end(shell)?.ok()?, "1 1 1\nboth\n");
    Ok(())
}

fn streams_belong_to_the_user() -> Result<()> {
    known_difference!("runc", "leaves streams that the caller owns");
    let mut c = Container::sh("echo again > /dev/stdout")?;
    c.set("/process/user", json!({"uid": 1000, "gid": 1000}))?;
    let file = fs::File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .open(harness::tempdir().join("out"))?;
    let mut command = c.command(&["run", "--bundle", "%", "@"]);
    let status = command.stdout(file.try_clone()?).status()?;
    ensure!(status.success(), "{status}");
    ensure_eq!(file.metadata()?.uid(), 1000);
    ensure!(file.as_raw_fd() > 2);
    Ok(())
}

fn signals_are_as_at_birth() -> Result<()> {
    known_difference!("runc", "leaves ignored signals ignored");
    // Not through a shell, which ignores some by itself.
    let c = Container::new(&["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"])?;
    let command = c.command(&["run", "--bundle", "%", "@"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP PIPE USR1; exec \"$@\"", "sh"]);
    shell
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(std::process::Stdio::null());
    let said = super::to_the_end(shell)?.ok()?;
    ensure_eq!(said, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    Ok(())
}

fn binds_of_files_and_directories() -> Result<()> {
    let mut c =
        Container::sh("cat /etc/given /data/file; (echo x > /data/new) 2>/dev/null || echo read-only")?;
    let source = harness::tempdir();
    fs::write(source.join("file"), "file\n")?;
    c.push("/mounts", json!({"destination": "/etc/given", "type": "bind", "source": source.join("file"), "options": ["bind"]}))?
        .push("/mounts", json!({"destination": "/data", "type": "none", "source": source, "options": ["rbind", "ro"]}))?;
    ensure_eq!(c.run()?.ok()?, "file\nfile\nread-only\n");
    Ok(())
}

fn idmapped_binds_have_their_own_users_and_groups() -> Result<()> {
    known_difference!("runc", "before 1.2 maps only in a user namespace");
    let source = harness::tempdir();
    for (name, user, group) in [("first", 1, 4), ("last", 2, 5), ("beyond", 3, 6)] {
        fs::write(source.join(name), "")?;
        std::os::unix::fs::chown(source.join(name), Some(user), Some(group))?;
    }
    let mut c = Container::sh("cd /data; stat -c '%n %u %g' first last beyond")?;
    c.push("/mounts", json!({
        "destination": "/data", "type": "bind", "source": source, "options": ["bind"],
        "uidMappings": [{"containerID": 1, "hostID": 7001, "size": 2}], "gidMappings": [{"containerID": 4, "hostID": 8004, "size": 2}],
    }))?;
    ensure_eq!(
        c.run()?.ok()?,
        "first 7001 8004\nlast 7002 8005\nbeyond 65534 65534\n"
    );
    Ok(())
}

fn sysctls_of_a_user_namespace() -> Result<()> {
    needs!(userns);
    known_difference!("runc", "since 1.5");
    let mut c = Container::sh("cat /proc/sys/user/max_uts_namespaces")?;
    let host = fs::read_to_string("/proc/sys/user/max_uts_namespaces")?;
    c.set("/linux/sysctl", json!({"user.max_uts_namespaces": "37"}))?;
    c.refused(&["linux.sysctl", "user namespace"])?;
    c.with_user_namespace()?;
    ensure_eq!(c.run()?.ok()?, "37\n");
    ensure_eq!(fs::read_to_string("/proc/sys/user/max_uts_namespaces")?, host);
    Ok(())
}
