//! The figures, scraped by Debian's Prometheus. Where `CONDO_TEST_CLIENTS` names what `scripts/clients` made.

use std::net::TcpStream;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::clients::folder;
use super::reception::Reception;
use super::remote::befriend;
use crate::harness::{self, Ended};
use crate::vps::house::eventually;

tests![
    prometheus_scrapes_the_host: 120,
];

const SERVED: &str = "127.0.0.1:18445";
const ASKED: &str = "127.0.0.1:19090";

fn prometheus_scrapes_the_host() -> Result<()> {
    needs!(root, program: lxc, program: curl);
    let program = folder("prometheus")?.join("prometheus/usr/bin/prometheus");
    let all = Reception::with(&["--listen", SERVED])?;
    eventually("it listens", || Ok(TcpStream::connect(SERVED).is_ok()))?;
    all.house.running("web", "--memory 64M")?;
    let home = harness::tempdir();
    befriend(&all, &home, SERVED)?;
    let config = home.join("prometheus.yml");
    let scraped = format!(
        "scrape_configs:\n- job_name: condo\n  scrape_interval: 1s\n  scheme: https\n  metrics_path: /1.0/metrics\n  \
         tls_config: {{cert_file: client.crt, key_file: client.key, insecure_skip_verify: true}}\n  \
         static_configs: [{{targets: ['{SERVED}']}}]\n"
    );
    std::fs::write(&config, scraped)?;
    let mut prometheus = Command::new(program);
    prometheus
        .arg("--config.file")
        .arg(&config)
        .arg("--storage.tsdb.path")
        .arg(home.join("data"))
        .args(["--web.listen-address", ASKED]);
    let prometheus = Ended(prometheus.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    for (query, value) in [
        ("up{job=\"condo\"}", "1"),
        ("condo_up{name=\"web\",project=\"default\"}", "1"),
        ("lxd_memory_MemTotal_bytes{name=\"web\"}", "67108864"),
        ("count(lxd_cpu_seconds_total{name=\"web\"}) > bool 0", "1"),
    ] {
        eventually(query, || Ok(answer(query)?.as_deref() == Some(value)))?;
    }
    drop(prometheus);
    all.leave()
}

/// What it knows of this; nothing while it has not begun, or found nothing.
fn answer(query: &str) -> Result<Option<String>> {
    let mut curl = Command::new("curl");
    curl.args(["-s", "-f", "-G", "--data-urlencode", &format!("query={query}")]);
    let output = curl.arg(format!("http://{ASKED}/api/v1/query")).output()?;
    if !output.status.success() {
        return Ok(None);
    }
    let said: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(said["status"] == "success", "{said}");
    let first = &said["data"]["result"][0]["value"][1];
    Ok(first.as_str().map(str::to_owned))
}
