//! What a container costs: system calls, which do not depend on how busy a machine is, and memory. A budget that is exceeded is a
//! question, not yet a defect: raise it with a reason, or find what became dearer. `benches/README.md` has times.

use anyhow::{Result, ensure};
use nix::mount::{MsFlags, mount};
use serde_json::json;

use super::{Container, ensure_eq};
use crate::harness;
use crate::harness::trace;

tests![
    system_calls in guest: 120,
    other_containers_and_mounts_cost_nothing: 300,
    two_mebibytes_are_enough_for_a_static_program in guest,
];

/// System calls of one container's life, all processes of the runtime included.
#[derive(Debug)]
struct Calls {
    create: usize,
    start: usize,
    exec: usize,
    delete: usize,
}

impl Calls {
    fn measure() -> Result<Self> {
        // Counting ends with the command, and with it the init that was made: another one goes on.
        let first = Container::idle()?;
        let create = count(&first, &["create", "--bundle", "%", "@"])?;
        first.delete()?;
        let c = Container::idle()?;
        c.create()?;
        Ok(Self {
            create,
            start: count(&c, &["start", "@"])?,
            exec: count(&c, &["exec", "@", "/bin/true"])?,
            delete: count(&c, &["delete", "--force", "@"])?,
        })
    }

    /// Each command with its calls.
    fn each(&self) -> [(&'static str, usize); 4] {
        [
            ("create", self.create),
            ("start", self.start),
            ("exec", self.exec),
            ("delete", self.delete),
        ]
    }
}

fn count(c: &Container, args: &[&str]) -> Result<usize> {
    let ended = trace::count(&c.command(args))?;
    ensure!(ended.success, "{args:?}: {ended:?}");
    Ok(ended.calls)
}

fn system_calls() -> Result<()> {
    needs!(ours);
    // One directory with cgroup v2, up to a dozen with v1. A build with debug assertions looks at each descriptor it closes.
    // The first execution of the program makes four calls (`entry/`); sixty more, and it has not begun there.
    let budget = if harness::has("cgroup2") {
        Calls {
            create: 590,
            start: 85,
            exec: 345,
            delete: 105,
        }
    } else {
        Calls {
            create: 990,
            start: 110,
            exec: 425,
            delete: 160,
        }
    };
    let calls = Calls::measure()?;
    for ((command, used), (_, most)) in calls.each().into_iter().zip(budget.each()) {
        ensure!(
            used <= most,
            "{command} makes {used} system calls, more than {most}"
        );
    }
    Ok(())
}

fn other_containers_and_mounts_cost_nothing() -> Result<()> {
    needs!(ours);
    let before = Calls::measure()?;
    let dir = harness::tempdir();
    let (mounts, containers) = (harness::rounds(100), harness::rounds(10));
    for n in 0..mounts {
        let place = dir.join(n.to_string());
        std::fs::create_dir(&place)?;
        let none = None::<&str>;
        mount(Some(&dir), &place, none, MsFlags::MS_BIND, none)?;
    }
    let others: Vec<Container> = (0..containers)
        .map(|_| Container::idle())
        .collect::<Result<_>>()?;
    others.iter().try_for_each(Container::up)?;
    let after = Calls::measure()?;
    for n in 0..mounts {
        nix::mount::umount(&dir.join(n.to_string()))?;
    }
    for ((command, before), (_, after)) in before.each().into_iter().zip(after.each()) {
        // A cgroup that is not yet empty is asked again, on a busy machine more often.
        ensure!(
            after <= before + 60,
            "{command}: {before} system calls, then {after}"
        );
    }
    Ok(())
}

fn two_mebibytes_are_enough_for_a_static_program() -> Result<()> {
    known_difference!("runc", "takes more than that itself");
    let mut c = Container::new(&["echo", "alive"])?;
    c.set(
        "/linux/resources/memory",
        json!({"limit": 2 << 20, "swap": 2 << 20}),
    )?;
    ensure_eq!(c.run()?.ok()?, "alive\n");
    let c = {
        let mut c = Container::idle()?;
        c.set(
            "/linux/resources/memory",
            json!({"limit": 2 << 20, "swap": 2 << 20}),
        )?;
        c
    };
    c.up()?;
    ensure_eq!(c.exec(&["@", "echo", "inside"])?.ok()?, "inside\n");
    Ok(())
}
