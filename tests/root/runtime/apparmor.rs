//! AppArmor profiles of containers and of the processes that join them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Container, ensure_eq, until};
use crate::harness;

tests![
    a_profile_holds_for_init_and_exec in guest,
    exec_may_have_a_profile_of_its_own in guest,
    a_profile_that_is_not_loaded_is_named in guest,
];

/// A loaded profile that denies one file and nothing else; it is unloaded when this is dropped.
struct Profile {
    name: String,
    text: PathBuf,
}

impl Profile {
    fn denying(file: &str) -> Result<Self> {
        needs!(root, apparmor, program:apparmor_parser);
        let profile = Self {
            name: harness::unique(),
            text: harness::tempdir().join("profile"),
        };
        // What is open already was opened outside: its paths are in no root that the profile could see.
        fs::write(
            &profile.text,
            format!(
                "profile {} flags=(attach_disconnected) {{ file, capability, signal, ptrace, deny {file} r, }}\n",
                profile.name
            ),
        )?;
        profile.parser("--replace")?;
        Ok(profile)
    }

    fn parser(&self, action: &str) -> Result<String> {
        harness::run(
            Command::new("/sbin/apparmor_parser")
                .args(["--skip-cache", action])
                .arg(&self.text),
        )
    }

    /// What a process says that is confined by it.
    fn confines(&self) -> String {
        format!("{} (enforce)\n", self.name)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        if let Err(e) = self.parser("--remove") {
            eprintln!("left behind: {e}");
        }
    }
}

/// Which profile a process has, and which of two files it may read.
const SHOW: &str = "cat /proc/self/attr/current; cat /first /second 2>/dev/null; true";

/// An idle container with the two files.
fn container(profile: &Profile) -> Result<Container> {
    let mut c = Container::sh(&format!("{SHOW}; exec sleep 100000"))?;
    for name in ["first", "second"] {
        fs::write(c.bundle.rootfs().join(name), format!("{name}\n"))?;
    }
    c.set("/process/apparmorProfile", json!(profile.name))?;
    Ok(c)
}

fn a_profile_holds_for_init_and_exec() -> Result<()> {
    let profile = Profile::denying("/first")?;
    for mapped in [false, true] {
        let mut c = container(&profile)?;
        c.set("/process/noNewPrivileges", mapped.into())?;
        if mapped {
            c.with_user_namespace()?;
        }
        c.up()?;
        let expected = format!("{}second\n", profile.confines());
        until("it has looked", || Ok(c.printed().ends_with("second\n")))?;
        ensure_eq!(c.printed(), expected);
        ensure_eq!(c.exec(&["@", "sh", "-c", SHOW])?.ok()?, expected);
        let outside = fs::read_to_string(format!("/proc/{}/attr/apparmor/current", c.pid()?))?;
        ensure_eq!(outside, profile.confines());
        c.delete()?;
    }
    Ok(())
}

fn exec_may_have_a_profile_of_its_own() -> Result<()> {
    let (first, second) = (Profile::denying("/first")?, Profile::denying("/second")?);
    let c = container(&first)?;
    c.up()?;
    let said = c
        .exec(&["--apparmor", &second.name, "@", "sh", "-c", SHOW])?
        .ok()?;
    ensure_eq!(said, format!("{}first\n", second.confines()));
    let said = c
        .exec(&["--apparmor", "unconfined", "@", "sh", "-c", SHOW])?
        .ok()?;
    ensure_eq!(said, "unconfined\nfirst\nsecond\n");
    let fault = c
        .exec(&["--apparmor", &second.name, "@", "no-such-program"])?
        .fault()?;
    ensure!(fault.contains("no-such-program"), "{fault}");
    Ok(())
}

fn a_profile_that_is_not_loaded_is_named() -> Result<()> {
    needs!(root, apparmor);
    let mut c = Container::new(&["true"])?;
    c.set("/process/apparmorProfile", json!("condo-no-such-profile"))?;
    let ran = c.run()?;
    ensure!(ran.err.contains("condo-no-such-profile"), "{ran:?}");
    ensure!(!ran.status.success(), "{ran:?}");
    c.nothing_left()
}
