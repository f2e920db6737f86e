//! An OCI bundle for tests: a root file system of busybox and the config.json that `runc spec` would write.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

/// Applets that tests call by name; all others are reached as `busybox NAME`.
const APPLETS: &[&str] = &[
    "sh", "ash", "cat", "chmod", "chown", "cp", "cut", "date", "dd", "df", "echo", "env", "false", "find",
    "free", "grep", "head", "hostname", "id", "ip", "kill", "ln", "ls", "mkdir", "mkfifo", "mknod", "mount",
    "mv", "nproc", "nc", "ping", "ps", "pwd", "readlink", "rm", "sed", "seq", "setsid", "sleep", "sort",
    "stat", "stty", "sync", "tail", "tee", "test", "touch", "tr", "true", "tty", "umount", "uname",
    "unshare", "vi", "wc", "wget", "xargs", "yes",
];

/// A bundle directory; `config` is edited by the test and written by [`Bundle::write`].
pub struct Bundle {
    /// The bundle.
    pub dir: PathBuf,
    /// What `write` writes to config.json.
    pub config: Value,
}

impl Bundle {
    /// A bundle that runs `args` in a root file system of busybox.
    pub fn new(args: &[&str]) -> anyhow::Result<Self> {
        let dir = super::tempdir();
        busybox_root(&dir.join("rootfs"))?;
        let bundle = Self {
            dir,
            config: config(args),
        };
        bundle.write()?;
        Ok(bundle)
    }

    /// Its root file system.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Writes config.json.
    pub fn write(&self) -> anyhow::Result<()> {
        Ok(fs::write(
            self.dir.join("config.json"),
            serde_json::to_vec_pretty(&self.config)?,
        )?)
    }

    /// Sets a value by JSON pointer, makes the objects on the way, and writes: `set("/linux/resources/pids/limit", json!(9))`.
    pub fn set(&mut self, pointer: &str, value: Value) -> anyhow::Result<&mut Self> {
        let mut place = &mut self.config;
        for key in pointer.split('/').skip(1) {
            place = match place {
                Value::Array(items) => items.get_mut(key.parse::<usize>()?).context("no such element")?,
                other => {
                    if other.is_null() {
                        *other = json!({});
                    }
                    other
                        .as_object_mut()
                        .context("not an object")?
                        .entry(key)
                        .or_insert(Value::Null)
                }
            };
        }
        *place = value;
        self.write()?;
        Ok(self)
    }

    /// Adds a namespace (`{"type": "user"}`), a mount or the like to an array and writes.
    pub fn push(&mut self, pointer: &str, value: Value) -> anyhow::Result<&mut Self> {
        let array = self.config.pointer_mut(pointer).and_then(Value::as_array_mut);
        array
            .with_context(|| format!("no array at {pointer}"))?
            .push(value);
        self.write()?;
        Ok(self)
    }
}

/// Makes a root file system of the machine's static busybox.
pub fn busybox_root(root: &Path) -> anyhow::Result<()> {
    for dir in [
        "bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var",
    ] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).context("the package busybox-static is needed")?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000::/:/bin/sh\n",
    )?;
    fs::write(root.join("etc/group"), "root:x:0:\nguest:x:1000:\n")?;
    Ok(())
}

/// As `runc spec` has it, but without a terminal and with a writable root.
fn config(args: &[&str]) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "test",
        "mounts": usual_mounts(),
        "linux": {
            // An absolute path: a relative one lands below the cgroup of whoever runs the tests.
            "cgroupsPath": format!("/{}", super::unique()),
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"},
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// The one of the usual mounts that is at `destination`.
pub fn usual_mount(destination: &str) -> Value {
    let at = |mount: &Value| mount["destination"] == destination;
    usual_mounts().into_iter().find(at).expect("a usual mount")
}

fn usual_mounts() -> Vec<Value> {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    vec![
        mount("/proc", "proc", "proc", &[]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        ),
    ]
}
