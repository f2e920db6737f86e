//! The console in the browser. Where `CONDO_TEST_CLIENTS` names what `scripts/clients` made.

use std::net::TcpStream;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::clients::folder;
use super::reception::Reception;
use crate::harness;
use crate::vps::house::eventually;

tests![
    a_browser_drives_a_vps: 180,
    pages_of_others_have_no_power: 60,
];

const SCRIPT: &str = include_str!("../../data/clients/with_browser.py");
const BROWSER: &str = "chromium-headless-shell";
const ADDRESS: &str = "127.0.0.1:18444";

/// A reception whose console is served, and a link that logs in there.
fn open() -> Result<(Reception, String)> {
    let all = Reception::with(&["--listen", ADDRESS])?;
    eventually("it listens", || Ok(TcpStream::connect(ADDRESS).is_ok()))?;
    let link = all.house.ok(&format!("ui --address {ADDRESS}"))?;
    Ok((all, link.trim().to_owned()))
}

/// All of it, in Debian's Chromium. With `CONDO_TEST_PICTURES` its pictures stay in that folder.
fn a_browser_drives_a_vps() -> Result<()> {
    needs!(root);
    harness::need(BROWSER);
    let python = folder("playwright")?.join("bin/python3");
    let (all, link) = open()?;
    let home = harness::tempdir();
    let script = home.join("with_browser.py");
    std::fs::write(&script, SCRIPT)?;
    let mut program = Command::new(python);
    program
        .arg(script)
        .args([&link, BROWSER])
        .args(std::env::var_os("CONDO_TEST_PICTURES"))
        .env("HOME", &home);
    ensure!(harness::run(&mut program)?.trim() == "done");
    ensure!(all.house.list()?.is_empty());
    all.leave()
}

/// What the cookie is good for, and from where.
fn pages_of_others_have_no_power() -> Result<()> {
    needs!(root, program: curl);
    let (all, link) = open()?;
    let ask = |words: &[&str], path: &str| -> Result<String> {
        let mut curl = Command::new("curl");
        let show = ["-s", "-k", "-i"];
        harness::run(
            curl.args(show)
                .args(words)
                .arg(format!("https://{ADDRESS}{path}")),
        )
    };
    let page = ask(&[], "/ui/")?;
    ensure!(
        page.contains("frame-ancestors 'none'") && page.contains("main.js"),
        "{page}"
    );
    ensure!(
        ask(&["--path-as-is"], "/ui/../Cargo.toml")?.contains("404"),
        "there are no other files"
    );
    let path = link
        .strip_prefix(&format!("https://{ADDRESS}"))
        .context("another place")?;
    let said = ask(&[], path)?;
    let cookie = said.lines().find_map(|line| line.strip_prefix("set-cookie: "));
    let cookie = cookie.with_context(|| said.clone())?;
    for word in ["Secure", "HttpOnly", "SameSite=Strict"] {
        ensure!(cookie.contains(word), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap_or_default();
    ensure!(ask(&["-b", cookie], "/1.0/instances")?.contains("\"metadata\":[]"));
    let own = format!("Origin: https://{ADDRESS}");
    let profile = ["-b", cookie, "-d", r#"{"name":"big"}"#];
    for (origin, status) in [
        ("Origin: https://127.0.0.1:9999", "403"),
        ("X: y", "403"),
        (own.as_str(), "201"),
    ] {
        let said = ask(&[&profile[..], &["-H", origin]].concat(), "/1.0/profiles")?;
        ensure!(
            said.starts_with(&format!("HTTP/1.1 {status}")),
            "{origin}: {said}"
        );
    }
    ensure!(ask(&["-b", cookie, "-H", &own, "-X", "POST"], "/ui/logout")?.contains("Max-Age=0"));
    ensure!(
        ask(&["-b", cookie], "/1.0/instances")?.starts_with("HTTP/1.1 403"),
        "it is over"
    );
    all.leave()
}
