//! Devices and keys through the API: what they make of a VPS, and what the command line has made of it.

use anyhow::{Result, ensure};

use super::reception::Reception;

tests![
    devices_become_what_they_say: 180,
    what_the_command_line_changes_shows: 120,
];

fn devices_become_what_they_say() -> Result<()> {
    needs!(root, program: lxc);
    let all = Reception::new()?;
    all.house
        .ok("network create lan --kind isolated --subnet 10.77.0.0/24")?;
    all.ok("init busybox web -c boot.autostart=true -c boot.autostart.delay=5 -c boot.autostart.priority=7 -c security.nesting=true -c security.idmap.size=131072")?;
    all.ok("config device add web lan nic network=lan name=eth1")?;
    all.ok("config device add web http proxy listen=tcp:0.0.0.0:18080 connect=tcp:127.0.0.1:80")?;
    all.ok("config device override web eth0 limits.ingress=10Mbit limits.egress=5Mbit")?;
    let web = all.house.show("web")?;
    ensure!(
        web["boot"]["autostart"] == true
            && web["boot"]["delay"] == 5
            && web["boot"]["order"] == -7
            && web["nesting"] == true,
        "{web}"
    );
    ensure!(web["ids"] == 131_072, "{web}");
    ensure!(
        web["limits"]["rate_in"] == 10_000_000 && web["limits"]["rate_out"] == 5_000_000,
        "{web}"
    );
    ensure!(web["published"][0] == "18080:80/tcp", "{web}");
    ensure!(web["addresses"][1]["network"] == "lan", "{web}");
    all.ok("start web")?;
    all.house.up("web")?;
    ensure!(all.house.sh("web", "ip -o addr show eth1")?.contains("10.77.0."));
    // While it runs, as well.
    all.ok("config device remove web http")?;
    all.ok("config device remove web lan")?;
    let web = all.house.show("web")?;
    ensure!(
        web["published"] == serde_json::json!([]) && web["addresses"].as_array().map(Vec::len) == Some(1),
        "{web}"
    );
    refused(&all)?;
    all.ok("delete --force web")?;
    given_once(&all)?;
    all.house.ok("network delete lan")?;
    all.leave()
}

/// What is not mapped, and what an error names.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &["config", "set", "web", "snapshots.schedule", "@daily"],
        "snapshots.schedule",
    ),
    (
        &["config", "set", "web", "security.nesting", "false"],
        "security.nesting",
    ),
    (
        &["config", "set", "web", "security.idmap.size", "65536"],
        "security.idmap.size",
    ),
    (
        &["config", "set", "web", "boot.autostart.priority", "soon"],
        "boot.autostart.priority",
    ),
    (
        &["config", "set", "web", "limits.disk.priority", "11"],
        "limits.disk.priority",
    ),
    (&["config", "device", "add", "web", "gpu", "gpu"], "gpu"),
    (
        &[
            "config",
            "device",
            "add",
            "web",
            "data",
            "disk",
            "source=/srv",
            "path=/srv",
        ],
        "/srv",
    ),
    (
        &[
            "config",
            "device",
            "add",
            "web",
            "p",
            "proxy",
            "listen=tcp:0.0.0.0:1",
            "connect=tcp:8.8.8.8:1",
        ],
        "8.8.8.8",
    ),
    (
        &[
            "config",
            "device",
            "add",
            "web",
            "f",
            "unix-char",
            "source=/dev/fuse",
        ],
        "/dev/fuse",
    ),
];

fn refused(all: &Reception) -> Result<()> {
    for (words, key) in REFUSED {
        let refused = all.output(words)?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(
            !refused.status.success() && said.contains(key),
            "{words:?}: {said}"
        );
    }
    Ok(())
}

/// What an instance has from its beginning on.
fn given_once(all: &Reception) -> Result<()> {
    let made = r#"{"name":"dev","source":{"type":"image","alias":"busybox"},"config":{"user.user-data":"x"},
        "devices":{"z":{"type":"unix-char","source":"/dev/fuse"}}}"#;
    let (code, answer) = all.ask("POST", "/1.0/instances", made)?;
    ensure!(code == 202, "{answer}");
    let id = answer["metadata"]["id"].as_str().unwrap_or_default().to_owned();
    let (_, ended) = all.ask("GET", &format!("/1.0/operations/{id}/wait"), "")?;
    // busybox's image has nothing that takes user data: the refusal names it.
    ensure!(
        ended["metadata"]["err"]
            .as_str()
            .unwrap_or_default()
            .contains("user-data")
            || all.house.show("dev")?["devices"][0] == "/dev/fuse",
        "{ended}"
    );
    if !all.house.list()?.is_empty() {
        all.ok("delete dev")?;
    }
    Ok(())
}

fn what_the_command_line_changes_shows() -> Result<()> {
    needs!(root, program: lxc);
    let all = Reception::new()?;
    all.house
        .ok("network create lan --kind isolated --subnet 10.77.0.0/24")?;
    all.ok("init busybox web")?;
    all.house.ok("publish web 127.0.0.1:18081:80")?;
    all.house.ok("network attach lan web")?;
    all.house.ok("set web --autostart")?;
    all.house.ok("resize web --rate-in 1mbit")?;
    let shown = all.ok("config show web")?;
    for line in [
        "listen: tcp:127.0.0.1:18081",
        "connect: tcp:127.0.0.1:80",
        "network: lan",
        "boot.autostart: \"true\"",
        "limits.ingress: 1Mbit",
    ] {
        ensure!(shown.contains(line), "{line}: {shown}");
    }
    // What is sent back as it was read changes nothing.
    all.ok("config set web user.note x")?;
    let web = all.house.show("web")?;
    ensure!(
        web["published"][0] == "127.0.0.1:18081:80/tcp" && web["addresses"][1]["network"] == "lan",
        "{web}"
    );
    all.house.ok("unpublish web --all")?;
    all.house.ok("network detach lan web")?;
    let shown = all.ok("config show web")?;
    ensure!(
        !shown.contains("18081") && !shown.contains("network: lan"),
        "{shown}"
    );
    all.ok("delete web")?;
    all.house.ok("network delete lan")?;
    all.leave()
}
