//! The API over TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::reception::Reception;
use crate::harness;
use crate::vps::house::eventually;

tests![
    lxc_comes_in_by_a_token_over_tls: 120,
];

pub(super) const ADDRESS: &str = "127.0.0.1:18443";

/// `condo-server trust`.
pub(super) fn trust(all: &Reception, words: &[&str]) -> Result<String> {
    let mut command = Command::new(harness::condo_server());
    harness::run(
        command
            .arg("trust")
            .args(words)
            .env("CONDO_ROOT", &all.house.root),
    )
}

/// A client with its own settings.
fn lxc_at(home: &Path, words: &[&str]) -> Command {
    let mut lxc = Command::new("lxc");
    lxc.args(words).env("LXD_CONF", home).env("HOME", home);
    lxc
}

/// Has the client with these settings trusted as `laptop`, and know the server as `here`. Its certificate and key are `client.crt` and
/// `client.key` there. Returns the token.
pub(super) fn befriend(all: &Reception, home: &Path, address: &str) -> Result<String> {
    let token = trust(all, &["add", "laptop", "--address", address])?;
    harness::run(&mut lxc_at(home, &["remote", "add", "here", token.trim()]))?;
    Ok(token)
}

fn lxc_comes_in_by_a_token_over_tls() -> Result<()> {
    needs!(root, program: lxc, program: curl);
    let all = Reception::with(&["--listen", ADDRESS])?;
    all.house.ok("create web --image busybox")?;
    eventually("it listens", || Ok(TcpStream::connect(ADDRESS).is_ok()))?;
    let home = harness::tempdir();
    let lxc = |words: &[&str]| lxc_at(&home, words);
    let token = befriend(&all, &home, ADDRESS)?;
    ensure!(harness::run(&mut lxc(&["list", "here:", "--format", "csv", "-c", "n"]))?.trim() == "web");
    // Streams, over websockets that are over TLS.
    harness::run(&mut lxc(&["start", "here:web"]))?;
    all.house.up("web")?;
    ensure!(harness::run(&mut lxc(&["exec", "here:web", "--", "echo", "inside"]))?.trim() == "inside");
    let listed = trust(&all, &["list"])?;
    ensure!(listed.contains("laptop"), "{listed}");
    // A token is used once.
    let other = harness::tempdir();
    let again = lxc(&["remote", "add", "here", token.trim()])
        .env("LXD_CONF", &other)
        .output()?;
    ensure!(!again.status.success(), "{again:?}");
    strangers()?;
    trust(&all, &["remove", "laptop"])?;
    let refused = lxc(&["list", "here:"]).output()?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        !refused.status.success(),
        "who is not trusted any more is out: {said}"
    );
    all.leave()
}

/// Whoever is not trusted sees what this is, and nothing of what it has.
fn strangers() -> Result<()> {
    let ask = |method: &str, path: &str| -> Result<String> {
        let mut curl = Command::new("curl");
        let show = ["-s", "-k", "-w", "\n%{http_code}", "-X", method];
        harness::run(curl.args(show).arg(format!("https://{ADDRESS}{path}")))
    };
    let about = ask("GET", "/1.0")?;
    ensure!(
        about.contains("\"auth\":\"untrusted\"") && !about.contains("kernel"),
        "{about}"
    );
    for (method, path) in [
        ("GET", "/1.0/instances"),
        ("GET", "/1.0/instances/web"),
        ("GET", "/1.0//instances"),
        ("GET", "/1.0/certificates"),
        ("GET", "/1.0/metrics"),
        ("GET", "/1.0/events"),
        ("GET", "/1.0/operations/x/websocket"),
        ("DELETE", "/1.0/instances/web"),
        ("GET", "/nothing"),
    ] {
        let said = ask(method, path)?;
        ensure!(
            said.ends_with("403") && said.contains("not authorized"),
            "{method} {path}: {said}"
        );
    }
    // What is no handshake is not answered, and harms nobody.
    let mut stream = TcpStream::connect(ADDRESS)?;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    ensure!(!answer.starts_with(b"HTTP"), "{answer:?}");
    Ok(())
}
