//! Tenants: clients whose certificates are for projects only.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::reception::Reception;
use super::remote::{ADDRESS, trust};
use crate::harness;
use crate::vps::house::eventually;

tests![a_certificate_for_projects_reaches_no_further: 120];

/// What somebody who is trusted with the project `shop` is refused.
const BEYOND: &[(&str, &str, &str)] = &[
    ("GET", "/1.0/instances", ""),
    ("GET", "/1.0/instances?project=default", ""),
    ("GET", "/1.0/instances?project=shop&project=default", ""),
    ("GET", "/1.0/instances?project=shop&all-projects=true", ""),
    ("GET", "/1.0/instances/web", ""),
    ("GET", "/1.0/containers/web", ""),
    ("POST", "/1.0/instances/web/exec", r#"{"command":["true"]}"#),
    ("GET", "/1.0/instances/web/files?path=/etc/passwd", ""),
    ("GET", "/1.0/events", ""),
    ("GET", "/1.0/events?all-projects=true", ""),
    ("GET", "/1.0/operations", ""),
    ("GET", "/1.0/operations?all-projects=true", ""),
    ("GET", "/1.0/profiles", ""),
    ("POST", "/1.0/profiles?project=shop", r#"{"name":"mine"}"#),
    (
        "PUT",
        "/1.0/profiles/default?project=shop",
        r#"{"config":{"security.nesting":"true"}}"#,
    ),
    ("DELETE", "/1.0/images/busybox?project=shop", ""),
    ("GET", "/1.0/images/busybox/export?project=shop", ""),
    (
        "POST",
        "/1.0/images?project=shop",
        r#"{"source":{"type":"instance","name":"mine"}}"#,
    ),
    ("GET", "/1.0/networks?project=shop", ""),
    ("GET", "/1.0/networks/condo0/leases?project=shop", ""),
    ("POST", "/1.0/networks/condo0/forwards?project=shop", "{}"),
    ("GET", "/1.0/storage-pools/default?project=shop", ""),
    ("GET", "/1.0/projects/default", ""),
    (
        "PATCH",
        "/1.0/projects/shop",
        r#"{"config":{"limits.memory":"1TiB"}}"#,
    ),
    ("DELETE", "/1.0/projects/shop", ""),
    ("POST", "/1.0/projects", r#"{"name":"own"}"#),
    ("GET", "/1.0/certificates", ""),
    ("POST", "/1.0/certificates", r#"{"token":true,"name":"friend"}"#),
    ("GET", "/1.0/metrics?project=shop", ""),
    ("GET", "/1.0/resources?project=shop", ""),
    ("GET", "/1.0/warnings?project=shop", ""),
    ("GET", "/1.0//instances?project=shop", ""),
    ("GET", "/nothing?project=shop", ""),
];

/// What would give a VPS more of the host than its project has.
const POWERS: &[(&str, &str)] = &[
    (r#""config":{"security.nesting":"true"}"#, "security.nesting"),
    (
        r#""config":{"security.idmap.size":"131072"}"#,
        "security.idmap.size",
    ),
    (
        r#""devices":{"fuse":{"type":"unix-char","path":"/dev/fuse"}}"#,
        "devices",
    ),
    (
        r#""devices":{"web":{"type":"proxy","listen":"tcp:0.0.0.0:18081","connect":"tcp:127.0.0.1:80"}}"#,
        "proxy devices",
    ),
    (
        r#""devices":{"lan":{"type":"nic","network":"lan","name":"eth1"}}"#,
        "nic devices",
    ),
];

/// Somebody with a certificate for the project `shop`.
struct Tenant {
    home: PathBuf,
}

impl Tenant {
    fn new(all: &Reception) -> Result<Self> {
        let tenant = Self {
            home: harness::tempdir(),
        };
        eventually("it listens", || Ok(TcpStream::connect(ADDRESS).is_ok()))?;
        let token = trust(all, &["add", "tenant", "--project", "shop", "--address", ADDRESS])?;
        tenant.lxc(&["remote", "add", "here", token.trim(), "--project", "shop"])?;
        ensure!(trust(all, &["list"])?.contains("tenant  projects: shop"));
        Ok(tenant)
    }

    fn lxc(&self, words: &[&str]) -> Result<String> {
        let mut lxc = Command::new("lxc");
        let lxc = lxc
            .args(words)
            .env("LXD_CONF", &self.home)
            .env("HOME", &self.home);
        Ok(harness::run(lxc)?.trim().to_owned())
    }

    /// The status of an answer, and what it says.
    fn ask(&self, method: &str, path: &str, body: &str) -> Result<(String, String)> {
        let mut curl = Command::new("curl");
        let how = [
            "-s",
            "-k",
            "-m",
            "20",
            "-w",
            "\n%{http_code}",
            "-X",
            method,
            "-d",
            body,
        ];
        curl.args(how).arg("--cert").arg(self.home.join("client.crt"));
        curl.arg("--key").arg(self.home.join("client.key"));
        let said = harness::run(curl.arg(format!("https://{ADDRESS}{path}")))?;
        let (text, code) = said.rsplit_once('\n').context("a status")?;
        Ok((code.to_owned(), text.to_owned()))
    }

    /// What its certificate is for, by its own client.
    fn works(&self, all: &Reception) -> Result<()> {
        self.lxc(&["launch", "here:busybox", "here:mine", "-c", "limits.memory=64MiB"])?;
        all.house.up("mine")?;
        ensure!(all.house.show("mine")?["project"] == "shop");
        ensure!(self.lxc(&["list", "here:", "--format", "csv", "-c", "n"])? == "mine");
        ensure!(self.lxc(&["exec", "here:mine", "--", "echo", "inside"])? == "inside");
        let projects = self.lxc(&["project", "list", "here:", "--format", "csv"])?;
        ensure!(
            projects.contains("shop") && !projects.contains("default"),
            "{projects}"
        );
        self.lxc(&["config", "set", "here:mine", "limits.memory", "32MiB"])
            .map(drop)
    }

    /// New instances and old ones get no powers over the host.
    fn gets_no_powers(&self) -> Result<()> {
        for (powers, named) in POWERS {
            let more = r#"{"name":"more","source":{"type":"image","alias":"busybox"},"#;
            for (method, path, body) in [
                ("POST", "/1.0/instances?project=shop", format!("{more}{powers}}}")),
                (
                    "PATCH",
                    "/1.0/instances/mine?project=shop",
                    format!("{{{powers}}}"),
                ),
            ] {
                let (code, text) = self.ask(method, path, &body)?;
                ensure!(
                    code.starts_with('4') && text.contains(named),
                    "{method} {body}: {code} {text}"
                );
            }
        }
        Ok(())
    }
}

fn a_certificate_for_projects_reaches_no_further() -> Result<()> {
    needs!(root, program: lxc, program: curl);
    let all = Reception::with(&["--listen", ADDRESS])?;
    all.house.ok("project create shop --vpss 2 --memory 128M")?;
    all.house
        .ok("network create lan --kind isolated --subnet 10.77.0.0/24")?;
    all.house.ok("create web --image busybox")?;
    let tenant = Tenant::new(&all)?;
    tenant.works(&all)?;
    for (method, path, body) in BEYOND {
        let (code, text) = tenant.ask(method, path, body)?;
        ensure!(code == "403", "{method} {path}: {code} {text}");
    }
    tenant.gets_no_powers()?;
    let (code, text) = tenant.ask("GET", "/1.0/profiles/default?project=shop", "")?;
    ensure!(
        code == "200" && text.contains("mine") && !text.contains("web"),
        "{text}"
    );
    ensure!(all.house.status("web")? == "stopped" && all.house.list()?.len() == 2);
    // It is the operator's to let it further, or less far.
    let listed = trust(&all, &["list"])?;
    let fingerprint = listed.split_whitespace().next().context("a fingerprint")?;
    let path = format!("/1.0/certificates/{fingerprint}");
    all.ask("PATCH", &path, r#"{"projects":["shop","default"]}"#)?;
    ensure!(tenant.ask("GET", "/1.0/instances/web", "")?.0 == "200");
    all.ask("PATCH", &path, r#"{"projects":[]}"#)?;
    ensure!(tenant.ask("GET", "/1.0/instances/mine?project=shop", "")?.0 == "403");
    all.house.ok("delete --force web mine")?;
    all.house.ok("project delete shop")?;
    all.house.ok("network delete lan")?;
    all.leave()
}
