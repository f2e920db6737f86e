//! SELinux's labels of containers, of the processes that join them, and of what is mounted for them.

use std::ffi::CString;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::fs::XattrFlags;
use serde_json::json;

use super::{Container, ensure_eq, until};

tests![
    selinux_a_label_holds_for_init_and_exec,
    selinux_exec_may_have_a_label_of_its_own,
    selinux_a_keyring_has_the_label_of_its_process,
    selinux_mounts_have_the_label,
    selinux_a_label_that_the_policy_lacks_is_named,
];

/// What containers are; the commas in both are what engines tell tenants apart by.
const PROCESS: &str = "system_u:system_r:container_t:s0:c1,c2";
const FILE: &str = "system_u:object_r:container_file_t:s0:c1,c2";
/// What the policy keeps from containers.
const SECRET: &str = "system_u:object_r:secret_t:s0";

/// Which label a process has, and which of two files it may read.
const SHOW: &str = "tr -d '\\0' < /proc/self/attr/current; echo; cat /open /secret 2>/dev/null; true";

/// An idle container, which says at first what it sees.
fn container(script: &str) -> Result<Container> {
    needs!(root, selinux);
    let mut c = Container::sh(&format!("{script}; echo end; exec sleep 100000"))?;
    for name in ["open", "secret"] {
        fs::write(c.bundle.rootfs().join(name), format!("{name}\n"))?;
    }
    let secret = c.bundle.rootfs().join("secret");
    rustix::fs::setxattr(
        &secret,
        "security.selinux",
        SECRET.as_bytes(),
        XattrFlags::empty(),
    )?;
    c.set("/process/selinuxLabel", json!(PROCESS))?
        .set("/linux/mountLabel", json!(FILE))?;
    Ok(c)
}

/// Starts it, and returns what it said.
fn said(c: &Container) -> Result<String> {
    c.up()?;
    until("it has looked", || {
        let status = c.status()?;
        ensure!(status == "running", "{status}: {}{}", c.printed(), c.complained());
        Ok(c.printed().ends_with("end\n"))
    })?;
    Ok(c.printed().trim_end_matches("end\n").to_owned())
}

fn selinux_a_label_holds_for_init_and_exec() -> Result<()> {
    for mapped in [false, true] {
        let mut c = container(SHOW)?;
        c.set("/process/noNewPrivileges", mapped.into())?;
        if mapped {
            c.with_user_namespace()?;
        }
        let expected = format!("{PROCESS}\nopen\n");
        ensure_eq!(said(&c)?, expected);
        ensure_eq!(c.exec(&["@", "sh", "-c", SHOW])?.ok()?, expected);
        c.delete()?;
    }
    Ok(())
}

fn selinux_exec_may_have_a_label_of_its_own() -> Result<()> {
    let c = container(SHOW)?;
    said(&c)?;
    let own = "system_u:system_r:container_t:s0:c3";
    let shown = c.exec(&["--process-label", own, "@", "sh", "-c", SHOW])?.ok()?;
    ensure_eq!(shown, format!("{own}\nopen\n"));
    Ok(())
}

fn selinux_a_keyring_has_the_label_of_its_process() -> Result<()> {
    // The kernel shows only keys that the reader may view, and the policy lets it view those of its own type.
    let mut c = container("grep -c keyring /proc/keys")?;
    c.set("/linux/maskedPaths", json!([]))?;
    let seen = said(&c)?;
    ensure!(seen.trim().parse::<u32>()? > 0, "{seen}");
    let seen = c.exec(&["@", "grep", "-c", "keyring", "/proc/keys"])?.ok()?;
    ensure!(seen.trim().parse::<u32>()? > 0, "{seen}");
    Ok(())
}

/// The label of a file of the container's, as the host reads it.
fn label(c: &Container, path: &str) -> Result<String> {
    let path = Path::new("/proc")
        .join(c.pid()?.to_string())
        .join("root")
        .join(path);
    let path = CString::new(path.into_os_string().into_encoded_bytes())?;
    let mut value = [0; 256];
    let length = rustix::fs::getxattr(&path, "security.selinux", &mut value)?;
    Ok(String::from_utf8_lossy(&value[..length])
        .trim_end_matches('\0')
        .to_owned())
}

fn selinux_mounts_have_the_label() -> Result<()> {
    for mapped in [false, true] {
        let mut c = container("touch /scratch/made; ls /masked /dev/mqueue; echo masked")?;
        if mapped {
            c.with_user_namespace()?;
        }
        for name in ["masked", "scratch"] {
            fs::create_dir(c.bundle.rootfs().join(name))?;
        }
        fs::write(c.bundle.rootfs().join("masked/hidden"), "")?;
        c.set("/linux/maskedPaths", json!(["/masked"]))?.push(
            "/mounts",
            json!({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs"}),
        )?;
        ensure_eq!(said(&c)?, "/dev/mqueue:\n\n/masked:\nmasked\n");
        let own = [
            "scratch/made",
            "masked",
            "dev",
            "dev/pts/ptmx",
            "dev/shm",
            "dev/mqueue",
        ];
        // In a user namespace, where nobody can make it, the host's.
        let made = (!mapped).then_some("dev/null");
        for path in own.into_iter().chain(made) {
            ensure!(label(&c, path)? == FILE, "{path}: {}", label(&c, path)?);
        }
        for path in ["proc/version", "sys/kernel"] {
            ensure!(
                label(&c, path)?.contains(":machine_t:"),
                "{path}: {}",
                label(&c, path)?
            );
        }
        c.delete()?;
    }
    Ok(())
}

fn selinux_a_label_that_the_policy_lacks_is_named() -> Result<()> {
    for field in ["/process/selinuxLabel", "/linux/mountLabel"] {
        let mut c = container("true")?;
        let unknown = "system_u:object_r:no_such_type_t:s0";
        c.set(field, json!(unknown))?;
        let ran = c.run()?;
        ensure!(!ran.status.success() && ran.err.contains(unknown), "{ran:?}");
        c.nothing_left()?;
    }
    Ok(())
}
