//! Seccomp profiles of containers and the processes that join them.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{Container, ensure_eq};
use crate::harness::{self, Receiver};

tests![
    a_profile_holds_for_init_and_exec,
    a_profile_that_cannot_be_compiled_is_refused,
    a_listener_goes_to_its_agent,
    without_no_new_privileges_an_agent_hears_at_create,
    an_agent_that_is_not_there_is_named,
];

fn profile(action: &str) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": action}]})
}

fn a_profile_holds_for_init_and_exec() -> Result<()> {
    for no_new_privs in [true, false] {
        let mut c = Container::sh("mkdir /x; grep Seccomp: /proc/self/status; exec sleep 100000")?;
        let mut rules = profile("SCMP_ACT_ERRNO");
        rules["syscalls"][0]["errnoRet"] = json!(28);
        c.set("/process/noNewPrivileges", no_new_privs.into())?
            .set("/linux/seccomp", rules)?;
        c.up()?;
        super::until("it says so", || Ok(c.printed() == "Seccomp:\t2\n"))?;
        ensure!(
            c.complained().contains("No space left on device"),
            "{}",
            c.complained()
        );
        let ran = c.exec(&["@", "mkdir", "/y"])?;
        ensure!(ran.err.contains("No space left on device"), "{ran:?}");
    }
    Ok(())
}

fn a_profile_that_cannot_be_compiled_is_refused() -> Result<()> {
    let mut c = Container::new(&["true"])?;
    c.set("/linux/seccomp", profile("SCMP_ACT_NOTIFY"))?;
    let fault = c.run()?.fault()?;
    ensure!(
        !harness::is_ours() || fault.contains("linux.seccomp.listenerPath"),
        "{fault}"
    );
    c.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NONSENSE"}))?;
    c.run()?.fault()?;
    c.nothing_left()
}

fn a_listener_goes_to_its_agent() -> Result<()> {
    let agent = Receiver::new()?;
    let mut c = Container::sh("echo ready; mkdir /x; exec sleep 100000")?;
    let mut rules = profile("SCMP_ACT_NOTIFY");
    rules["listenerPath"] = json!(agent.path());
    rules["listenerMetadata"] = json!("blue");
    c.set("/linux/seccomp", rules)?
        .set("/annotations", json!({"a": "b"}))?;
    c.up()?;
    let (about, listener): (Value, _) = agent.described()?;
    ensure_eq!(about["pid"].as_i64(), Some(i64::from(c.pid()?)));
    ensure_eq!(about["metadata"].as_str(), Some("blue"));
    ensure_eq!(about["fds"], json!(["seccompFd"]));
    ensure_eq!(about["state"]["id"].as_str(), Some(&*c.id));
    ensure_eq!(about["state"]["annotations"]["a"].as_str(), Some("b"));
    // Nobody answers any more: the call in hand fails.
    super::until("it calls", || Ok(c.printed() == "ready\n"))?;
    drop(listener);
    super::until("the call fails", || {
        Ok(c.complained().contains("not implemented"))
    })?;
    // exec reports its calls to an agent of its own.
    let pid = c.exec_detached(&[], &["sleep", "100000"])?;
    let (about, _listener): (Value, _) = agent.described()?;
    ensure_eq!(about["pid"].as_i64(), Some(i64::from(pid)));
    ensure_eq!(about["state"]["status"].as_str(), Some("running"));
    super::end(pid)
}

fn without_no_new_privileges_an_agent_hears_at_create() -> Result<()> {
    let agent = Receiver::new()?;
    let mut c = Container::sh("grep Seccomp: /proc/self/status; echo ready; mkdir /x; exec sleep 100000")?;
    let mut rules = profile("SCMP_ACT_NOTIFY");
    rules["listenerPath"] = json!(agent.path());
    c.set("/linux/seccomp", rules)?
        .set("/process/noNewPrivileges", false.into())?;
    c.create()?;
    let (about, listener): (Value, _) = agent.described()?;
    ensure_eq!(about["pid"].as_i64(), Some(i64::from(c.pid()?)));
    ensure_eq!(c.status()?, "created");
    c.start()?;
    super::until("it calls", || Ok(c.printed() == "Seccomp:\t2\nready\n"))?;
    drop(listener);
    super::until("the call fails", || {
        Ok(c.complained().contains("not implemented"))
    })
}

fn an_agent_that_is_not_there_is_named() -> Result<()> {
    let mut c = Container::new(&["true"])?;
    let mut rules = profile("SCMP_ACT_NOTIFY");
    rules["listenerPath"] = json!("/no/such/agent");
    c.set("/linux/seccomp", rules)?;
    let fault = c.run()?.fault()?;
    ensure!(!harness::is_ours() || fault.contains("/no/such/agent"), "{fault}");
    c.nothing_left()
}
