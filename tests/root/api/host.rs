//! Networks, backups and the host through the API, and events of what others do.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::reception::Reception;
use crate::harness;

tests![
    lxc_has_networks_and_forwards: 120,
    lxc_exports_and_imports_instances: 180,
    lxc_looks_at_the_host: 60,
    what_the_command_line_does_is_told: 120,
];

fn lxc_has_networks_and_forwards() -> Result<()> {
    needs!(root, program: lxc);
    let all = Reception::new()?;
    ensure!(all.ok("network list --format csv")?.contains("condo0,bridge,YES"));
    all.ok("network create lan ipv4.address=10.78.0.1/24 bridge.mtu=1400")?;
    ensure!(all.house.ok("network show lan")?.contains("10.78.0.0/24"));
    all.ok("launch busybox web --network lan")?;
    all.house.up("web")?;
    ensure!(all.ok("network info lan")?.contains("10.78.0.1"));
    let address = all.house.address("web")?;
    ensure!(address.starts_with("10.78.0."), "{address}");
    ensure!(all.ok("network list-leases lan --format csv")?.contains("web,"));
    all.ok("network forward create lan 127.0.0.1")?;
    all.ok(&format!(
        "network forward port add lan 127.0.0.1 tcp 18082 {address} 80"
    ))?;
    ensure!(all.house.show("web")?["published"][0] == "127.0.0.1:18082:80/tcp");
    ensure!(
        all.ok("network forward show lan 127.0.0.1")?
            .contains("target_port: \"80\"")
    );
    all.ok("network forward port remove lan 127.0.0.1 tcp 18082")?;
    ensure!(all.house.show("web")?["published"] == serde_json::json!([]));
    all.ok("network forward delete lan 127.0.0.1")?;
    all.ok("network set lan bridge.mtu 1420")?;
    ensure!(all.ok("network get lan bridge.mtu")?.trim() == "1420");
    let refused = all.output(&["network", "set", "lan", "dns.mode", "dynamic"])?;
    ensure!(
        String::from_utf8_lossy(&refused.stderr).contains("dns.mode"),
        "{refused:?}"
    );
    let used = all.output(&["network", "delete", "lan"])?;
    ensure!(!used.status.success(), "{used:?}");
    all.ok("delete --force web")?;
    all.ok("network delete lan")?;
    all.leave()
}

fn lxc_exports_and_imports_instances() -> Result<()> {
    needs!(root, program: lxc);
    let all = Reception::new()?;
    all.ok("launch busybox web -c user.note=kept")?;
    all.house.up("web")?;
    all.house.sh("web", "echo precious > /root/file")?;
    let file = harness::tempdir().join("web.tar.zst");
    all.ok(&format!("export web {}", file.display()))?;
    ensure!(std::fs::metadata(&file)?.len() > 1000);
    ensure!(
        !all.house
            .root
            .join("lib/vps/web/backups")
            .read_dir()?
            .any(|_| true),
        "the copy here is gone"
    );
    all.ok(&format!("import {} other", file.display()))?;
    all.ok("start other")?;
    all.house.up("other")?;
    ensure!(all.house.sh("other", "cat /root/file")? == "precious");
    ensure!(all.ok("config get other user.note")?.trim() == "kept");
    all.ok("delete --force web")?;
    all.ok(&format!("import {}", file.display()))?;
    ensure!(all.house.status("web")? == "stopped");
    let junk = harness::tempdir().join("junk");
    std::fs::write(&junk, "junk")?;
    let refused = all.output(&["import", junk.to_str().unwrap_or_default(), "new"])?;
    ensure!(
        !refused.status.success() && all.house.list()?.len() == 2,
        "{refused:?}"
    );
    all.ok("delete --force web other")?;
    all.leave()
}

fn lxc_looks_at_the_host() -> Result<()> {
    needs!(root, program: lxc);
    let all = Reception::new()?;
    all.ok("launch busybox web")?;
    ensure!(all.ok("storage list --format csv")?.contains("default"));
    ensure!(all.ok("storage info default")?.contains("total space"));
    ensure!(all.ok("info --resources")?.contains("CPU"));
    ensure!(all.ok("project list --format csv")?.contains("default"));
    ensure!(all.ok("warning list --format csv")?.trim().is_empty());
    let cluster = all.output(&["cluster", "list"])?;
    ensure!(!cluster.status.success(), "{cluster:?}");
    let metrics = all.ok("query --raw /1.0/metrics").or_else(|_| {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-s", "--unix-socket"])
            .arg(all.house.root.join("run/api.socket"))
            .arg("http://x/1.0/metrics");
        harness::run(&mut curl)
    })?;
    ensure!(
        metrics.contains("lxd_memory_Cached_bytes{name=\"web\"") && metrics.trim_end().ends_with("# EOF"),
        "{metrics}"
    );
    all.ok("delete --force web")?;
    all.leave()
}

fn what_the_command_line_does_is_told() -> Result<()> {
    needs!(root, program: lxc);
    let all = Reception::new()?;
    let mut monitor = all.lxc(&["monitor", "--type", "lifecycle", "--format", "json"]);
    let mut monitor = monitor.stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(monitor.stdout.take().context("no output")?).lines();
    // It is heard once it listens: events are sent until one arrives.
    all.house.ok("create web --image busybox")?;
    let pump = || -> Result<()> {
        for _ in 0..5 {
            all.house.ok("start web")?;
            all.house.ok("stop web -t 0")?;
        }
        all.house.ok("delete web")?;
        Ok(())
    };
    pump()?;
    let mut seen = String::new();
    while !seen.contains("instance-deleted") {
        seen.push_str(&lines.next().context("the monitor ended")??);
    }
    for action in ["instance-started", "instance-shutdown", "/1.0/instances/web"] {
        ensure!(seen.contains(action), "{action}: {seen}");
    }
    monitor.kill()?;
    monitor.wait()?;
    all.leave()
}
