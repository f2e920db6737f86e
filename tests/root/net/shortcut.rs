//! The short way of connections between VPSs that may talk, and that it is open to nothing else.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use condo::net::filter::{Action, Filter};

use super::doors::{filter, provide};
use super::room::{Vps, host_with_ipv6};
use crate::vps::house::eventually;

tests![
    a_known_connection_goes_past_the_rules in guest,
    what_is_denied_leaves_the_short_way,
    a_firewall_lets_answers_pass_after_the_short_way in guest,
    strict_tracking_costs_the_short_way_and_no_connection,
];

const PATIENCE: Duration = Duration::from_secs(20);
const GLANCE: Duration = Duration::from_millis(500);
/// Packets there and back.
const ROUNDS: u64 = 200;

/// A connection between two VPSs: the end of who asked for it, and the other.
struct Line(TcpStream, TcpStream);

impl Line {
    fn new(from: &Vps, to: &Vps, address: IpAddr) -> Result<Self> {
        let listener = to.room.run(|| Ok(TcpListener::bind((address, 80))?))?;
        let caller = from.room.run(|| Ok(TcpStream::connect((address, 80))?))?;
        let (called, _) = listener.accept()?;
        for end in [&caller, &called] {
            end.set_nodelay(true)?;
            end.set_read_timeout(Some(PATIENCE))?;
        }
        Ok(Self(caller, called))
    }

    /// Says something small and waits for the answer.
    fn talk(&mut self) -> Result<()> {
        let mut word = [0];
        self.0.write_all(b"?")?;
        self.1.read_exact(&mut word)?;
        self.1.write_all(b"!")?;
        Ok(self.0.read_exact(&mut word)?)
    }

    /// Sends more than a window at once, in both directions.
    fn pour(&mut self) -> Result<()> {
        const MUCH: usize = 16 << 20;
        for (from, to) in [(&self.0, &self.1), (&self.1, &self.0)] {
            let (mut from, mut to) = (from, to);
            std::thread::scope(|scope| {
                scope.spawn(move || from.write_all(&vec![7; MUCH]));
                to.read_exact(&mut vec![0; MUCH])
            })?;
        }
        Ok(())
    }

    /// Whether what is said now is heard.
    fn goes_on(&mut self) -> Result<bool> {
        self.1.set_read_timeout(Some(GLANCE))?;
        self.0.write_all(b"?")?;
        match self.1.read(&mut [0; 64]) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

/// Packets that the host has routed.
fn routed() -> Result<u64> {
    let own = |file: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{file}"));
    let v4 = own("snmp")?;
    let v4 = v4.lines().filter_map(|line| line.strip_prefix("Ip: ")).nth(1);
    let v4 = v4.and_then(|line| line.split(' ').nth(5)).context("no count")?;
    let v6 = own("snmp6")?;
    let v6 = v6
        .lines()
        .find_map(|line| line.strip_prefix("Ip6OutForwDatagrams"));
    Ok(v4.parse::<u64>()? + v6.context("no count of IPv6")?.trim().parse::<u64>()?)
}

/// Two that may talk.
fn friends() -> Result<(condo::net::Network, Vps, Vps)> {
    let network = host_with_ipv6()?;
    let (a, b) = (Vps::with_ipv6(&network, 2)?, Vps::with_ipv6(&network, 3)?);
    network.allow(&pairs(&a, &b))?;
    Ok((network, a, b))
}

fn pairs(a: &Vps, b: &Vps) -> [(IpAddr, IpAddr); 2] {
    [(a.ip().into(), b.ip().into()), (a.ip6().into(), b.ip6().into())]
}

fn a_known_connection_goes_past_the_rules() -> Result<()> {
    needs!(root);
    let (network, a, b) = friends()?;
    for address in [IpAddr::V4(b.ip()), b.ip6().into()] {
        let mut line = Line::new(&a, &b, address)?;
        eventually("few packets of a connection are routed", || {
            let before = routed()?;
            (0..ROUNDS).try_for_each(|_| line.talk())?;
            Ok(routed()? - before < ROUNDS / 4)
        })?;
        line.pour()?;
        // A rule that is flushed opens nothing, and what was let through before stops.
        super::nft(&["flush", "ruleset"])?;
        eventually("without rules nothing goes on", || Ok(!line.goes_on()?))?;
        let ports = [a.port.clone(), b.port.clone()];
        network.restore(&ports, &pairs(&a, &b))?;
    }
    Ok(())
}

/// An operator may set back what condo sets: tracking then takes what it has not seen the beginning of for nobody's.
fn strict_tracking_costs_the_short_way_and_no_connection() -> Result<()> {
    const LIBERAL: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";
    needs!(root);
    let (network, a, b) = friends()?;
    let setting = || Ok::<_, anyhow::Error>(std::fs::read_to_string(LIBERAL)?.trim().to_owned());
    anyhow::ensure!(setting()? == "1");
    let mut line = Line::new(&a, &b, b.ip().into())?;
    (0..ROUNDS).try_for_each(|_| line.talk())?;
    std::fs::write(LIBERAL, "0")?;
    for _ in 0..3 {
        line.pour()?;
        std::thread::sleep(GLANCE);
        (0..ROUNDS).try_for_each(|_| line.talk())?;
    }
    anyhow::ensure!(line.goes_on()?);
    network.ensure()?;
    anyhow::ensure!(setting()? == "1", "who makes a network's link sets it again");
    Ok(())
}

fn what_is_denied_leaves_the_short_way() -> Result<()> {
    needs!(root);
    let (network, a, b) = friends()?;
    let mut line = Line::new(&a, &b, b.ip().into())?;
    (0..ROUNDS).try_for_each(|_| line.talk())?;
    provide(&b, &[], &filter(Action::Allow, &["deny in tcp 81"]))?;
    line.pour()?;
    provide(&b, &[], &filter(Action::Allow, &["deny in tcp 80"]))?;
    eventually("a denied connection stops", || Ok(!line.goes_on()?))?;
    provide(&b, &[], &Filter::default())?;
    let mut line = Line::new(&a, &b, b.ip6().into())?;
    (0..ROUNDS).try_for_each(|_| line.talk())?;
    network.disallow(&pairs(&a, &b))?;
    eventually("strangers stop talking", || Ok(!line.goes_on()?))
}

/// Connection tracking saw few packets, and still knows who began.
fn a_firewall_lets_answers_pass_after_the_short_way() -> Result<()> {
    needs!(root);
    let (_network, a, b) = friends()?;
    let mut line = Line::new(&a, &b, b.ip().into())?;
    line.pour()?;
    provide(&a, &[], &filter(Action::Deny, &[]))?;
    for _ in 0..3 {
        line.talk().context("what a VPS began itself is cut")?;
        std::thread::sleep(Duration::from_millis(120));
    }
    line.pour()
}
