//! Many clients, slow ones, those that break off, and a server that is killed.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::reception::{Reception, end, serve};
use crate::vps::house::eventually;

tests![
    two_hundred_clients_are_served_at_once: 120,
    whoever_breaks_off_leaves_nothing: 120,
    a_killed_server_leaves_what_can_be_finished: 240,
];

const CLIENTS: usize = 200;

fn two_hundred_clients_are_served_at_once() -> Result<()> {
    let all = Reception::new()?;
    all.house.running("web", "")?;
    // Those that say nothing, or half of what they want to, are in nobody's way.
    let socket = all.house.root.join("run/api.socket");
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = UnixStream::connect(&socket)?;
        stream.write_all(b"GET /1.0/instances HTTP/1.1\r\nHost:")?;
        slow.push(stream);
    }
    let failures: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let all = &all;
                scope.spawn(move || {
                    let (method, path, body, code) = match n % 4 {
                        0 => ("GET", "/1.0/instances?recursion=2".to_owned(), String::new(), 200),
                        1 => ("GET", "/1.0/instances/web/state".to_owned(), String::new(), 200),
                        2 => (
                            "POST",
                            "/1.0/profiles".to_owned(),
                            format!(r#"{{"name":"p{n}"}}"#),
                            201,
                        ),
                        _ => (
                            "GET",
                            "/1.0/instances/web/files?path=/etc".to_owned(),
                            String::new(),
                            200,
                        ),
                    };
                    match all.ask(method, &path, &body) {
                        Ok((said, _)) if said == code => None,
                        Ok((said, answer)) => Some(format!("{method} {path}: {said} {answer}")),
                        Err(e) => Some(format!("{method} {path}: {e:#}")),
                    }
                })
            })
            .collect();
        let ended = clients.into_iter();
        ended
            .filter_map(|client| client.join().unwrap_or_else(|_| Some("a client died".into())))
            .collect()
    });
    ensure!(failures.is_empty(), "{}: {:?}", failures.len(), failures.first());
    let (_, profiles) = all.ask("GET", "/1.0/profiles", "")?;
    ensure!(
        profiles["metadata"].as_array().map(Vec::len) == Some(1 + CLIENTS / 4),
        "{profiles}"
    );
    all.leave()
}

/// Sends a part of a request, and what comes back.
fn broken_off(all: &Reception, head: &str, body: &[u8]) -> Result<String> {
    let mut stream = UnixStream::connect(all.house.root.join("run/api.socket"))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    // Refused early, perhaps.
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn whoever_breaks_off_leaves_nothing() -> Result<()> {
    let all = Reception::new()?;
    all.house.running("web", "")?;
    let before = all.ask("GET", "/1.0/images", "")?.1;
    let head = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\nContent-Length: 9000000\r\n\r\n"
        )
    };
    for path in [
        "/1.0/images",
        "/1.0/instances",
        "/1.0/instances/web/files?path=/root/half",
    ] {
        broken_off(&all, &head(path), &vec![7; 1 << 20])?;
    }
    let huge = format!(
        "GET /1.0 HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    let said = broken_off(&all, &huge, b"")?;
    ensure!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "{said}");
    ensure!(all.house.sh("web", "ls /root")?.is_empty(), "half a file is none");
    ensure!(all.ask("GET", "/1.0/images", "")?.1 == before);
    let lib = std::fs::read_dir(all.house.root.join("lib"))?;
    for entry in lib {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(!name.starts_with(".condo"), "{name} is left");
    }
    let (code, _) = all.ask("GET", "/1.0/instances/web", "")?;
    ensure!(code == 200);
    all.leave()
}

/// What the killed one had begun is not there by a name that nobody knows.
fn has_two_images(all: &Reception) -> Result<()> {
    let mut images = serde_json::Value::Null;
    eventually("there are two images", || {
        images = all.ask("GET", "/1.0/images?recursion=1", "")?.1;
        Ok(images["metadata"].as_array().map(Vec::len) == Some(2))
    })
    .with_context(|| images.to_string())
}

fn a_killed_server_leaves_what_can_be_finished() -> Result<()> {
    let mut all = Reception::new()?;
    all.house.ok("create base --image busybox")?;
    // Something of its own: an image of it is no other name of the one that it was made of.
    let own = crate::harness::tempdir().join("own");
    std::fs::write(&own, "base")?;
    all.house.ok(&format!("cp {} base:/root/own", own.display()))?;
    let tasks: [(&str, &str, String); 5] = [
        (
            "POST",
            "/1.0/instances",
            r#"{"name":"new","source":{"type":"image","alias":"busybox"}}"#.into(),
        ),
        (
            "POST",
            "/1.0/instances",
            r#"{"name":"copied","source":{"type":"copy","source":"base"}}"#.into(),
        ),
        (
            "POST",
            "/1.0/images",
            r#"{"source":{"type":"instance","name":"base"},"aliases":[{"name":"made"}]}"#.into(),
        ),
        ("POST", "/1.0/instances/base/backups", r#"{"name":"b0"}"#.into()),
        ("POST", "/1.0/instances/base/snapshots", r#"{"name":"s0"}"#.into()),
    ];
    for (method, path, body) in tasks {
        let (code, begun) = all.ask(method, path, &body)?;
        ensure!(code == 202, "{path}: {begun}");
        end(&mut all.server, Signal::SIGKILL)?;
        all.server = serve(&all.house)?;
        // What was begun goes on without the server: soon it can be asked for again, or is there.
        eventually(path, || {
            // A request may still meet the end of the killed one's.
            let Ok((code, answer)) = all.ask(method, path, &body) else {
                return Ok(false);
            };
            if code == 409 {
                return Ok(true);
            }
            let id = answer["metadata"]["id"].as_str().context("no id")?;
            let (_, ended) = all.ask("GET", &format!("/1.0/operations/{id}/wait"), "")?;
            let err = ended["metadata"]["err"].as_str().unwrap_or_default().to_owned();
            // The killed one's image goes when it is whole.
            Ok(err.is_empty() || err.contains("already exists") && !err.contains("same fingerprint"))
        })?;
    }
    ensure!(all.house.list()?.len() == 3, "{:?}", all.house.list()?);
    has_two_images(&all)?;
    for name in ["new", "copied", "base"] {
        all.house.ok(&format!("start {name}"))?;
        all.house.up(name)?;
    }
    all.house.ok("delete --force --all")?;
    let images = all.house.ok("image list --json")?;
    let images: Vec<serde_json::Value> = serde_json::from_str(&images)?;
    for image in images.iter().filter(|image| image["name"] != "busybox") {
        all.house.ok(&format!(
            "image remove {}",
            image["name"].as_str().unwrap_or_default()
        ))?;
    }
    all.house.nothing_left()?;
    all.leave()
}
