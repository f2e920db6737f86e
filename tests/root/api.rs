//! `condo-server` as clients see it: LXD's own, and requests that no client sends.

pub(crate) mod acls;
pub(crate) mod ansible;
pub(crate) mod browser;
pub(crate) mod clients;
pub(crate) mod files;
pub(crate) mod host;
pub(crate) mod images;
pub(crate) mod load;
pub(crate) mod metrics;
pub(crate) mod projects;
mod reception;
pub(crate) mod remote;
pub(crate) mod schema;
pub(crate) mod setup;
pub(crate) mod socket;
pub(crate) mod tenants;

use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness;
use crate::vps::house::eventually;
use reception::{Reception, end, serve};

tests![
    lxc_drives_a_vps: 180,
    keys_become_limits: 120,
    bad_requests_get_the_apis_own_error: 120,
    vpss_outlive_the_server: 120,
    the_socket_of_a_killed_server_is_taken_over,
];

fn lxc_drives_a_vps() -> Result<()> {
    needs!(root, program: lxc);
    let all = Reception::new()?;
    all.ok("launch busybox web")?;
    all.house.up("web")?;
    let list = all.ok("list --format csv -c ns4")?;
    let address = all.house.address("web")?;
    ensure!(list.contains(&format!("web,RUNNING,{address} (eth0)")), "{list}");
    ensure!(all.ok("list db --format csv")?.trim().is_empty());
    let info = all.ok("info web")?;
    ensure!(
        info.contains("Status: RUNNING") && info.contains(&address),
        "{info}"
    );
    // Streams apart, status as it is.
    let ended = all.output(&["exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7"])?;
    ensure!(
        ended.status.code() == Some(7) && ended.stdout == b"out\n" && ended.stderr == b"err\n",
        "{ended:?}"
    );
    let missing = all.output(&["exec", "web", "--", "/no/program"])?;
    ensure!(missing.status.code() == Some(127), "{missing:?}");
    let terminal = all.ok("exec web -t -- sh -c tty")?;
    ensure!(terminal.contains("/dev/pts/"), "{terminal}");
    all.house.sh("web", "echo one > /root/file")?;
    all.ok("snapshot web before")?;
    all.house.sh("web", "echo two > /root/file")?;
    all.ok("restore web before")?;
    ensure!(all.house.sh("web", "cat /root/file")? == "one");
    all.ok("copy web/before other")?;
    ensure!(all.house.status("other")? == "stopped");
    all.ok("delete web/before")?;
    all.ok("pause web")?;
    ensure!(all.house.status("web")? == "paused");
    all.ok("start web")?;
    all.ok("stop --force web")?;
    ensure!(all.house.status("web")? == "stopped");
    all.ok("move other moved")?;
    all.ok("delete web moved")?;
    ensure!(all.house.list()?.is_empty());
    all.house.nothing_left()?;
    all.leave()
}

fn keys_become_limits() -> Result<()> {
    needs!(root, program: lxc);
    let all = Reception::new()?;
    all.ok("launch busybox web -c limits.memory=64MiB -c user.note=hello")?;
    ensure!(all.house.show("web")?["limits"]["memory"] == 64 << 20);
    all.ok("config set web limits.memory 128MiB")?;
    ensure!(all.house.show("web")?["limits"]["memory"] == 128 << 20);
    // What the command line changes, clients see.
    all.house.ok("resize web --pids 77")?;
    ensure!(all.ok("config get web limits.processes")?.trim() == "77");
    ensure!(all.ok("config get web user.note")?.trim() == "hello");
    for (key, value) in [
        ("limits.memory", "4G"),
        ("raw.lxc", "x"),
        ("security.privileged", "true"),
    ] {
        let refused = all.output(&["config", "set", "web", key, value])?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(!refused.status.success() && said.contains(key), "{said}");
    }
    ensure!(all.house.show("web")?["limits"]["memory"] == 128 << 20);
    all.ok("profile create small")?;
    all.ok("profile set small limits.processes 50")?;
    let refused = all.output(&["profile", "set", "small", "limits.disk", "1"])?;
    ensure!(!refused.status.success(), "{refused:?}");
    all.ok("launch busybox db -p default -p small")?;
    ensure!(all.house.show("db")?["limits"]["pids"] == 50);
    all.ok("profile set small limits.processes 60")?;
    ensure!(
        all.house.show("db")?["limits"]["pids"] == 60,
        "those made of it follow"
    );
    ensure!(!all.output(&["profile", "delete", "small"])?.status.success());
    all.leave()
}

/// Requests and the status of their answers.
const BAD: &[(&str, &str, &str, u16)] = &[
    ("GET", "/", "", 200),
    ("GET", "/1.0/instances/web", "null", 200),
    ("GET", "/nothing", "", 404),
    ("GET", "/1.0/instances/none", "", 404),
    ("GET", "/1.0/instances/%ff", "", 400),
    ("GET", "/1.0/instances/..%2f..", "", 404),
    ("GET", "/1.0/instances?filter=name", "", 400),
    ("GET", "/1.0/instances?recursion=x", "", 200),
    ("GET", "/1.0/instances/web/logs/..%2frecord.json", "", 404),
    ("GET", "/1.0/events", "", 400),
    ("GET", "/1.0/operations/none/wait?timeout=1", "", 404),
    ("GET", "/1.0/images/zzzzzzzz", "", 404),
    ("GET", "/1.0/images/aliases/no%2Fimage", "", 404),
    ("PATCH", "/1.0/events", "", 405),
    ("POST", "/1.0/instances", "", 400),
    ("POST", "/1.0/instances", "[]", 400),
    (
        "POST",
        "/1.0/instances",
        r#"{"name":"a/b","source":{"type":"image","alias":"busybox"}}"#,
        400,
    ),
    (
        "POST",
        "/1.0/instances",
        r#"{"name":"x","source":{"type":"image","alias":"none"}}"#,
        404,
    ),
    (
        "POST",
        "/1.0/instances",
        r#"{"name":"x","source":{"type":"migration"}}"#,
        400,
    ),
    (
        "POST",
        "/1.0/instances",
        r#"{"name":"x","type":"virtual-machine","source":{"type":"image","alias":"busybox"}}"#,
        400,
    ),
    ("PUT", "/1.0/instances/web/state", r#"{"action":"dance"}"#, 400),
    (
        "PUT",
        "/1.0/instances/web/state",
        r#"{"action":"start","timeout":"x"}"#,
        400,
    ),
    ("POST", "/1.0/instances/web/exec", r#"{"command":["true"]}"#, 400),
    ("POST", "/1.0/instances/web/console", "{}", 400),
    ("DELETE", "/1.0/profiles/default", "", 403),
    ("POST", "/1.0/profiles", r#"{"name":"../x"}"#, 400),
];

fn bad_requests_get_the_apis_own_error() -> Result<()> {
    let all = Reception::new()?;
    all.house.ok("create web --image busybox")?;
    for (method, path, body, code) in BAD {
        let (said, answer) = all.ask(method, path, body)?;
        ensure!(said == *code, "{method} {path} {body}: {said} {answer}");
        let kind = if *code == 200 { "sync" } else { "error" };
        ensure!(
            answer["type"] == kind && (*code == 200 || answer["error_code"] == *code),
            "{path}: {answer}"
        );
    }
    let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(5 << 20));
    let (said, _) = all
        .ask("POST", "/1.0/profiles", &long)
        .unwrap_or((413, Value::Null));
    ensure!(said == 413, "a body of 5 MiB: {said}");
    // A change of what somebody else has changed meanwhile.
    let (_, before) = all.ask("GET", "/1.0/instances/web", "")?;
    ensure!(before["metadata"]["status"] == "Stopped");
    all.leave()
}

/// What a server that was killed had begun to start holds its socket until it is a program of its own; here the test does.
fn the_socket_of_a_killed_server_is_taken_over() -> Result<()> {
    let mut all = Reception::new()?;
    let another = Command::new(harness::condo_server())
        .env("CONDO_ROOT", &all.house.root)
        .output()?;
    let said = String::from_utf8_lossy(&another.stderr);
    ensure!(
        !another.status.success() && said.contains("served by another"),
        "{another:?}"
    );
    end(&mut all.server, Signal::SIGKILL)?;
    let socket = all.house.root.join("run/api.socket");
    std::fs::remove_file(&socket)?;
    let held = UnixListener::bind(&socket)?;
    let letting_go = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        drop(held);
    });
    all.server = serve(&all.house)?;
    ensure!(letting_go.join().is_ok());
    all.leave()
}

fn vpss_outlive_the_server() -> Result<()> {
    let mut all = Reception::new()?;
    all.house.running("web", "")?;
    let init = all.house.init("web")?;
    let wanted = r#"{"name":"db","source":{"type":"image","alias":"busybox"}}"#;
    let (code, begun) = all.ask("POST", "/1.0/instances", wanted)?;
    ensure!(code == 202 && begun["type"] == "async", "{begun}");
    end(&mut all.server, Signal::SIGKILL)?;
    ensure!(all.house.init("web")? == init);
    all.server = serve(&all.house)?;
    // What was begun is done by itself; what was not can be asked for again.
    eventually("the VPS is there", || {
        all.ask("POST", "/1.0/instances", wanted)?;
        Ok(all.house.list()?.len() == 2)
    })?;
    let (_, list) = all.ask("GET", "/1.0/instances", "")?;
    ensure!(list["metadata"].as_array().map(Vec::len) == Some(2), "{list}");
    all.leave()
}
