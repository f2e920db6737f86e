//! Ansible from Debian, with the playbook of `examples/`, where `CONDO_TEST_CLIENTS` names what `scripts/clients` made.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::clients;
use super::reception::Reception;
use crate::harness;
use crate::vps::debian;

tests![
    a_playbook_makes_three_web_servers: 180,
    the_module_and_the_connection: 180,
];

fn a_playbook_makes_three_web_servers() -> Result<()> {
    needs!(root, program: lxc);
    harness::need("ansible-playbook");
    let clients = clients::folder("ansible")?;
    debian::image()?;
    let mut all = Reception::new()?;
    all.house.take_in_debian()?;
    let given = json!({"api": api(&all), "packages": debs(&clients)?});
    // The second time there is nothing to make.
    for changed in [1, 0] {
        let mut playbook = ansible(&all, &clients, "ansible-playbook");
        playbook.args([
            "--extra-vars",
            &given.to_string(),
            "examples/ansible/web-servers.yml",
        ]);
        let said = harness::run(&mut playbook)?;
        let recap = said.lines().find(|line| line.starts_with("localhost "));
        ensure!(
            recap.is_some_and(|line| line.contains(&format!("changed={changed} "))),
            "{said}"
        );
    }
    for name in ["web1", "web2", "web3"] {
        let limits = all.house.show(name)?["limits"].clone();
        ensure!(limits["memory"] == 256 << 20 && limits["pids"] == 200, "{limits}");
        ensure!(all.house.sh(name, "systemctl is-active nginx")? == "active");
    }
    all.leave()
}

/// Every state that the module knows, and a script that the connection plugin pushes and runs.
fn the_module_and_the_connection() -> Result<()> {
    needs!(root, program: lxc);
    harness::need("ansible");
    let clients = clients::folder("ansible")?;
    let all = Reception::new()?;
    let state = |state: &str, more: Value| -> Result<String> {
        let mut wanted = json!({"url": api(&all), "name": "web", "state": state, "timeout": 60});
        let object = wanted.as_object_mut().context("an object")?;
        object.extend(more.as_object().cloned().unwrap_or_default());
        let mut module = ansible(&all, &clients, "ansible");
        module.args([
            "localhost",
            "-m",
            "community.general.lxd_container",
            "-a",
            &wanted.to_string(),
        ]);
        harness::run(&mut module)
    };
    let source = json!({"type": "image", "alias": "busybox"});
    state(
        "started",
        json!({"source": source, "config": {"limits.processes": "60"}}),
    )?;
    all.house.up("web")?;
    let changed = state("started", json!({"config": {"limits.processes": "70"}}))?;
    ensure!(changed.contains("CHANGED"), "{changed}");
    ensure!(all.house.show("web")?["limits"]["pids"] == 70);
    runs_a_script(&all, &clients)?;
    for (wanted, status) in [
        ("frozen", "paused"),
        ("restarted", "running"),
        ("stopped", "stopped"),
    ] {
        state(wanted, json!({"force_stop": true}))?;
        ensure!(
            all.house.status("web")? == status,
            "{wanted}: {}",
            all.house.status("web")?
        );
    }
    state("absent", json!({}))?;
    ensure!(all.house.list()?.is_empty());
    all.leave()
}

/// The connection pushes it and runs it.
fn runs_a_script(all: &Reception, clients: &Path) -> Result<()> {
    let script = harness::tempdir().join("script");
    std::fs::write(&script, "#!/bin/sh\necho \"$(hostname) $1\"; exit 3\n")?;
    let words = format!("{} hears", script.display());
    let said = ansible(all, clients, "ansible")
        .args([
            "all",
            "-i",
            "web,",
            "-c",
            "community.general.lxd",
            "-m",
            "script",
            "-a",
            &words,
        ])
        .output()?;
    let text = String::from_utf8_lossy(&said.stdout);
    ensure!(
        text.contains("web hears") && text.contains("\"rc\": 3"),
        "{said:?}"
    );
    Ok(())
}

fn api(all: &Reception) -> String {
    format!("unix:{}", all.house.root.join("run/api.socket").display())
}

fn debs(clients: &Path) -> Result<Vec<PathBuf>> {
    let files = std::fs::read_dir(clients.join("packages"))?;
    Ok(files
        .map(|file| Ok(file?.path()))
        .collect::<std::io::Result<_>>()?)
}

/// A program of Ansible's, that finds its collection and the server.
fn ansible(all: &Reception, clients: &Path, program: &str) -> Command {
    let own = harness::tempdir();
    let mut command = Command::new(program);
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("ANSIBLE_COLLECTIONS_PATH", clients.join("collections"))
        .env("ANSIBLE_LOCALHOST_WARNING", "false")
        .env("HOME", &own)
        .env("LXD_SOCKET", all.house.root.join("run/api.socket"))
        .env("LXD_CONF", own.join("lxc"));
    command
}
