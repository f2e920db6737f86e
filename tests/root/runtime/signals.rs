//! Signals to a container that waits, and to one that is no more.

use anyhow::{Result, ensure};

use super::{Container, ensure_eq};

tests![
    a_signal_ends_a_created_container,
    signal_0_asks_whether_somebody_is_there,
];

fn a_signal_ends_a_created_container() -> Result<()> {
    for (signal, own_pids) in [("TERM", true), ("INT", true), ("TERM", false)] {
        let mut c = Container::sh("echo started")?;
        if !own_pids {
            c.namespace("pid", None)?;
        }
        c.create()?;
        if own_pids {
            c.call(&["kill", "@", "USR1"])?.ok()?;
        }
        c.call(&["kill", "@", signal])?.ok()?;
        c.stopped()?;
        ensure_eq!(c.printed(), "");
        c.call(&["delete", "@"])?.ok()?;
        c.nothing_left()?;
    }
    Ok(())
}

fn signal_0_asks_whether_somebody_is_there() -> Result<()> {
    let c = Container::idle()?;
    c.up()?;
    c.call(&["kill", "@", "0"])?.ok()?;
    c.call(&["kill", "--all", "@", "0"])?.ok()?;
    c.call(&["kill", "@", "KILL"])?.ok()?;
    c.stopped()?;
    let fault = c.call(&["kill", "@", "0"])?.fault()?;
    ensure!(fault.contains("container not running"), "{fault}");
    for signal in ["0", "TERM", "KILL"] {
        c.call(&["kill", "--all", "@", signal])?.ok()?;
    }
    Ok(())
}
