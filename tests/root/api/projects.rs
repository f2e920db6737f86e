//! Projects through the API: what is in one is not there for another.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::reception::Reception;

tests![lxc_works_within_projects: 120, no_project_reaches_another: 60];

fn lxc_works_within_projects() -> Result<()> {
    needs!(root, program: lxc);
    let all = Reception::new()?;
    all.ok("project create shop -c features.images=false -c limits.instances=2 -c limits.memory=100MiB")?;
    let shop: Value = serde_json::from_str(&all.house.ok("project show shop --json")?)?;
    ensure!(
        shop["limits"]
            == json!({ "vpss": 2, "memory": 100 << 20, "addresses": null, "cpus": null, "disk": null, "bandwidth": null }),
        "{shop}"
    );
    all.ok("launch busybox other")?;
    all.ok("launch busybox web --project shop -c limits.memory=64MiB")?;
    all.house.up("web")?;
    ensure!(all.house.show("web")?["project"] == "shop");
    let beyond = all.output(&[
        "init",
        "busybox",
        "more",
        "--project",
        "shop",
        "-c",
        "limits.memory=64MiB",
    ])?;
    ensure!(
        String::from_utf8_lossy(&beyond.stderr).contains("36M of 100M memory"),
        "{beyond:?}"
    );
    ensure!(all.ok("list --format csv -c n")?.trim() == "other");
    ensure!(all.ok("list --format csv -c n --project shop")?.trim() == "web");
    let leases = all.ok("network list-leases condo0 --format csv")?;
    ensure!(leases.contains("other,") && !leases.contains("web,"), "{leases}");
    let everywhere = all.ok("list --format csv -c en --all-projects")?;
    ensure!(everywhere.trim() == "default,other\nshop,web", "{everywhere}");
    ensure!(all.ok("exec web --project shop -- echo in the shop")?.trim() == "in the shop");
    let info = all.ok("project info shop --format csv")?;
    ensure!(
        info.contains("INSTANCES,2,1") && info.to_uppercase().contains("MEMORY,100.00MIB,64.00MIB"),
        "{info}"
    );
    all.ok("project set shop limits.memory 200MiB")?;
    ensure!(all.ok("project get shop limits.memory")?.trim() == "200MiB");
    all.ok("copy web more --project shop")?;
    ensure!(all.house.show("more")?["project"] == "shop");
    what_has_no_place_is_refused(&all)?;
    all.ok("delete --force --project shop web more")?;
    all.ok("project delete shop")?;
    all.ok("delete --force other")?;
    all.leave()
}

fn what_has_no_place_is_refused(all: &Reception) -> Result<()> {
    // What was read can be written.
    let (_, read) = all.ask("GET", "/1.0/projects/default", "")?;
    let (code, said) = all.ask("PUT", "/1.0/projects/default", &read["metadata"].to_string())?;
    ensure!(code == 200, "{said}");
    for (refused, why) in [
        (
            &["project", "set", "shop", "limits.processes", "7"][..],
            "limits.processes",
        ),
        (&["project", "rename", "shop", "store"], "keep their names"),
        (&["project", "delete", "shop"], "is in the project"),
        (
            &["project", "create", "own", "-c", "features.images=true"],
            "features.images",
        ),
        (&["launch", "busybox", "--project", "nosuch"], "nosuch"),
    ] {
        let output = all.output(refused)?;
        ensure!(
            !output.status.success() && String::from_utf8_lossy(&output.stderr).contains(why),
            "{refused:?}: {output:?}"
        );
    }
    Ok(())
}

/// Requests about one VPS, of all kinds, as they end below `/1.0/instances/web`.
const ASKED: &[(&str, &str, &str)] = &[
    ("GET", "", ""),
    ("PUT", "", "{}"),
    ("PATCH", "", r#"{"config":{"user.a":"b"}}"#),
    ("POST", "", r#"{"name":"taken"}"#),
    ("DELETE", "", ""),
    ("GET", "/state", ""),
    ("PUT", "/state", r#"{"action":"stop","force":true}"#),
    ("POST", "/exec", r#"{"command":["true"]}"#),
    ("POST", "/console", "{}"),
    ("GET", "/console", ""),
    ("GET", "/snapshots", ""),
    ("POST", "/snapshots", r#"{"name":"s"}"#),
    ("GET", "/snapshots/before", ""),
    ("DELETE", "/snapshots/before", ""),
    ("GET", "/files?path=/etc/passwd", ""),
    ("POST", "/files?path=/root/new", "text"),
    ("DELETE", "/files?path=/etc/passwd", ""),
    ("GET", "/backups", ""),
    ("POST", "/backups", r#"{"name":"b"}"#),
    ("GET", "/backups/b", ""),
    ("GET", "/backups/b/export", ""),
    ("DELETE", "/backups/b", ""),
    ("GET", "/logs", ""),
    ("GET", "/logs/console.log", ""),
    ("DELETE", "/logs/console.log", ""),
];

fn no_project_reaches_another() -> Result<()> {
    needs!(root, program: curl);
    let all = Reception::new()?;
    all.house.ok("project create shop")?;
    all.house.ok("create web --image busybox")?;
    all.house.ok("snapshot create web before")?;
    all.house.ok("start web")?;
    let before = all.house.show("web")?;
    for kind in ["instances", "containers"] {
        for (method, rest, body) in ASKED {
            let mark = if rest.contains('?') { '&' } else { '?' };
            let path = format!("/1.0/{kind}/web{rest}{mark}project=shop");
            let (code, answer) = all.ask(method, &path, body)?;
            ensure!(code == 404, "{method} {path}: {code} {answer}");
        }
    }
    for (path, body) in [
        (
            "/1.0/instances?project=shop",
            r#"{"name":"taken","source":{"type":"copy","source":"web"}}"#,
        ),
        (
            "/1.0/instances?project=shop",
            r#"{"name":"taken","source":{"type":"copy","source":"web/before"}}"#,
        ),
        (
            "/1.0/images?project=shop",
            r#"{"source":{"type":"instance","name":"web"}}"#,
        ),
    ] {
        let (code, answer) = all.ask("POST", path, body)?;
        ensure!((400..500).contains(&code), "{body}: {code} {answer}");
    }
    let (_, listed) = all.ask("GET", "/1.0/instances?project=shop&recursion=2", "")?;
    ensure!(listed["metadata"] == json!([]), "{listed}");
    let (code, _) = all.ask("GET", "/1.0/instances?project=nosuch", "")?;
    ensure!(code == 404, "{code}");
    let mut after = all.house.show("web")?;
    for changes in ["uptime", "memory_used", "traffic"] {
        after[changes] = before[changes].clone();
    }
    ensure!(after == before, "{before}\n{after}");
    all.house.ok("delete --force web")?;
    all.house.ok("project delete shop")?;
    all.leave()
}
