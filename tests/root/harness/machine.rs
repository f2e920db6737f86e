//! What this machine has: the names a test can need.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Names a file system that has the engines of Debian's packages, for a machine that has not installed them.
pub const ENGINES: &str = "CONDO_TEST_ENGINES";

/// Whether the machine has what `need` names; see [`super::need`].
pub fn has(need: &str) -> bool {
    if let Some(engine) = need.strip_prefix("engine:") {
        return std::env::var_os(ENGINES).is_some() || program(OsStr::new(engine)).is_some();
    }
    if let Some(controller) = need.strip_prefix("controller:") {
        return has_controller(controller);
    }
    if let Some(version) = need.strip_prefix("linux_") {
        return kernel_version() >= numbers(version);
    }
    match need.strip_prefix("program:").unwrap_or(need) {
        "root" => nix::unistd::geteuid().is_root(),
        "cgroup2" => Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        "hybrid" => Path::new("/sys/fs/cgroup/memory").exists(),
        // Only v1 has it, of kernels with CONFIG_RT_GROUP_SCHED; distributions go without.
        "realtime_groups" => Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists(),
        "apparmor" => has_apparmor(),
        "selinux" => has_selinux(),
        // What sd_booted(3) asks.
        "systemd" => Path::new("/run/systemd/system").is_dir(),
        // Built in, or loaded.
        "vxlan" => Path::new("/sys/module/vxlan").exists(),
        "device_mapper" => has_device_mapper(),
        "userns" => has_userns(),
        "table_programs" => condo::cgroups::can_bound_tables().is_ok(),
        "ours" => super::is_ours(),
        "criu" => criu_check(&[]),
        "lazy_pages" => criu_check(&["--feature", "uffd-noncoop"]),
        name => program(OsStr::new(name)).is_some(),
    }
}

/// Where the program `name` is, if it is on the path or is a path.
pub fn program(name: &OsStr) -> Option<PathBuf> {
    if name.as_encoded_bytes().contains(&b'/') {
        return Some(name.into()).filter(|p: &PathBuf| p.exists());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    // Debian's paths of ordinary users lack these.
    dirs.extend(["/usr/sbin".into(), "/sbin".into()]);
    dirs.into_iter().map(|d| d.join(name)).find(|p| p.is_file())
}

fn has_controller(name: &str) -> bool {
    let v2 = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    v2.split_whitespace().any(|c| c == name) || Path::new("/sys/fs/cgroup").join(name).is_dir()
}

/// It is on, and profiles can be loaded.
fn has_apparmor() -> bool {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|text| text.trim() == "Y") && Path::new("/sys/kernel/security/apparmor").is_dir()
}

/// It enforces the policy of the guest's, which has a type that no other has.
fn has_selinux() -> bool {
    let enforce = fs::read_to_string("/sys/fs/selinux/enforce").is_ok_and(|text| text == "1");
    enforce && fs::write("/sys/fs/selinux/context", "system_u:object_r:secret_t:s0").is_ok()
}

/// The kernel has it, or a module of it, and the program that asks for it is there.
fn has_device_mapper() -> bool {
    let version = program(OsStr::new("dmsetup"))
        .map(|dmsetup| std::process::Command::new(dmsetup).arg("version").output());
    version.is_some_and(|asked| asked.is_ok_and(|said| said.status.success()))
}

/// CRIU is there and gets on with this kernel, or does what it is asked for.
fn criu_check(args: &[&str]) -> bool {
    let Some(criu) = program(OsStr::new("criu")) else {
        return false;
    };
    let check = std::process::Command::new(criu).arg("check").args(args).output();
    check.is_ok_and(|done| done.status.success())
}

fn has_userns() -> bool {
    Path::new("/proc/self/ns/user").exists()
        && fs::read_to_string("/proc/sys/user/max_user_namespaces").is_ok_and(|max| max.trim() != "0")
}

/// `6.1.0-56-cloud` is 6, 1.
fn kernel_version() -> Vec<u32> {
    let release = nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned());
    let mut version = numbers(&release.unwrap_or_default());
    version.truncate(2);
    version
}

fn numbers(version: &str) -> Vec<u32> {
    let parts = version.split(|c: char| !c.is_ascii_digit());
    parts.map_while(|p| p.parse().ok()).collect()
}
