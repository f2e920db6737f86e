//! Firewalls through the API: an instance's ACL, which has its name.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::reception::Reception;
use crate::vps::house::eventually;

tests![an_acl_is_the_firewall_of_its_instance: 120];

fn an_acl_is_the_firewall_of_its_instance() -> Result<()> {
    needs!(root, program: lxc);
    let all = Reception::new()?;
    all.ok("launch busybox web")?;
    all.house.up("web")?;
    all.house
        .sh("web", "mkdir /srv && httpd -p 80 -h /srv && httpd -p 81 -h /srv")?;
    let address = all.house.address("web")?;
    let reaches = |port: u16| -> Result<bool> {
        let to = format!("{address}:{port}").parse().context("an address")?;
        Ok(TcpStream::connect_timeout(&to, Duration::from_millis(500)).is_ok())
    };
    eventually("both answer", || Ok(reaches(80)? && reaches(81)?))?;

    all.ok("network acl rule add web ingress action=drop protocol=tcp destination_port=81")?;
    ensure!(reaches(80)? && !reaches(81)?, "the rule holds at once");
    let listed = all.house.ok("firewall web list")?;
    ensure!(listed.contains("deny    in   tcp       81"), "{listed}");
    all.ok("network acl rule add web ingress action=allow protocol=tcp destination_port=80 state=logged")?;
    all.ok("config device override web eth0 security.acls.default.ingress.action=drop")?;
    all.ok("network acl rule remove web ingress action=drop")?;
    ensure!(reaches(80)? && !reaches(81)?, "what no rule is about is dropped");
    let listed = all.ok("network acl show web")?;
    ensure!(
        listed.contains("state: logged") && listed.contains("/1.0/instances/web"),
        "{listed}"
    );

    refused(&all)?;
    all.ok("network acl delete web")?;
    all.house.ok("firewall web policy in allow")?;
    ensure!(reaches(81)?, "its rules are gone");
    let shown = all.ok("config show web --expanded")?;
    ensure!(
        !shown.contains("ingress.action: drop"),
        "the command line's policy shows: {shown}"
    );
    all.leave()
}

/// What condo's firewall says otherwise, or not at all.
fn refused(all: &Reception) -> Result<()> {
    for (words, named) in [
        ("network acl create nobody", "is no instance"),
        ("network acl create web", "already exists"),
        ("network acl rename web other", "cannot be renamed"),
        ("network acl rule add web egress action=reject", "reject"),
        (
            "network acl rule add web egress action=allow protocol=tcp source_port=1",
            "source_port",
        ),
        ("config device set web eth0 security.acls=web", "security.acls"),
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        let output = all.output(&words)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            !output.status.success() && said.contains(named),
            "{words:?}: {said}"
        );
    }
    // Of condo's rules the first that fits decides; an ACL that said them in its own order would say something else.
    all.house.ok("firewall web deny in any")?;
    let (code, answer) = all.ask(
        "PUT",
        "/1.0/network-acls/web",
        r#"{"ingress":[{"action":"allow"}]}"#,
    )?;
    ensure!(
        code == 409 && answer["error"].to_string().contains("condo firewall web"),
        "{answer}"
    );
    all.house.ok("firewall web remove 2").map(drop)
}
