//! Beside firewalls of others, as their own tools write them: what the documentation says to do is enough.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use condo::net::Network;
use condo::net::filter::Filter;

use super::doors::{greet, hears, is_closed, provide};
use super::nft;
use super::room::{Room, Vps, host};
use super::wire;

tests![vpss_get_through_beside_firewalld_and_ufw];

/// The host outside, and who is there.
const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const WORLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// What firewalld 1.3 does with packets that are forwarded, where `TRUSTED` is a rule of the trusted zone.
const FIREWALLD: &str = "
table inet firewalld {
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname \"lo\" accept
        ct state invalid drop
        jump filter_FORWARD_ZONES
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD_ZONES {
        TRUSTED
        goto filter_FWD_public
    }
    chain filter_FWD_trusted {
        accept
    }
    chain filter_FWD_public {
        reject with icmpx admin-prohibited
    }
}";

/// What ufw 0.36 does with them, where `ROUTED` is what `ufw route` has added.
const UFW: &str = "
table ip filter {
    chain FORWARD {
        type filter hook forward priority filter; policy drop;
        ct state related,established accept
        icmp type { destination-unreachable, time-exceeded, parameter-problem, echo-request } accept
        jump ufw-user-forward
    }
    chain ufw-user-forward {
        ROUTED
    }
}";

fn load(rules: &str) -> Result<()> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()?;
    nft.stdin
        .take()
        .context("its input")?
        .write_all(rules.as_bytes())?;
    ensure!(nft.wait()?.success(), "{rules}");
    Ok(())
}

fn vpss_get_through_beside_firewalld_and_ufw() -> Result<()> {
    needs!(root, nft, ip);
    let network = host()?;
    let world = wire(["198.51.100.2/24", "198.51.100.1/24"])?;
    let (a, b) = (Vps::new(&network, 2)?, Vps::new(&network, 3)?);
    network.allow(&[(a.ip().into(), b.ip().into())])?;
    greet(&a, 80)?;
    greet(&b, 80)?;
    provide(&a, &["8080:80"], &Filter::default())?;
    let server = world.run(|| Ok(std::net::TcpListener::bind((WORLD, 80))?))?;
    std::thread::spawn(move || {
        for stream in server.incoming().flatten() {
            let _ = (&stream).write_all(b"outside");
        }
    });
    get_through(&network, &world, (&a, &b))?;
    let trusted = "iifname \"condo0\" goto filter_FWD_trusted";
    beside(FIREWALLD, ("TRUSTED", trusted), &network, &world, (&a, &b))?;
    nft(&["delete", "table", "inet", "firewalld"])?;
    let routed = "iifname \"condo0\" accept; oifname \"condo0\" accept";
    beside(UFW, ("ROUTED", routed), &network, &world, (&a, &b))
}

/// First without the rules for condo, so that they are seen to be what opens the way.
fn beside(
    rules: &str,
    (place, own): (&str, &str),
    network: &Network,
    world: &Room,
    vpss: (&Vps, &Vps),
) -> Result<()> {
    load(&rules.replace(place, ""))?;
    vpss.0.room.run(|| is_closed((WORLD, 80)))?;
    let table = rules.trim().split('{').next().unwrap_or_default();
    load(&format!("delete {table}\n{}", rules.replace(place, own)))?;
    get_through(network, world, vpss)
}

fn get_through(network: &Network, world: &Room, (a, b): (&Vps, &Vps)) -> Result<()> {
    ensure!(network.stands()?, "condo's own rules are gone");
    a.room.run(|| hears((WORLD, 80), "outside"))?;
    a.room.run(|| hears((b.ip(), 80), &format!("80 {}", a.ip())))?;
    world.run(|| hears((HOST, 8080), &format!("80 {WORLD}")))
}
