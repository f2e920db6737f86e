//! Names by DNS: dnsmasq at a network's gateway knows the VPSs that run on it.

use std::net::UdpSocket;

use anyhow::{Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::house::{House, eventually};
use crate::harness::{self, Ended};
use crate::net::wire;

tests![
    names_are_told_as_vpss_come_and_go: 120,
    other_names_are_asked_for_elsewhere: 120,
];

/// A network's name server, until the test ends.
struct Server(Ended);

impl Server {
    fn new(house: &House, network: &str) -> Result<Self> {
        house
            .spawn(&format!("network dns {network}"))
            .map(|child| Self(Ended(child)))
    }
}

/// What a VPS is told of a name or an address; nothing when it is told that there is none.
fn asks(house: &House, name: &str, question: &str) -> Result<Option<String>> {
    let output = house.try_sh(name, &format!("nslookup {question}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(Some(said).filter(|_| output.status.success()))
}

fn is_told(house: &House, name: &str, question: &str, answer: &str) -> Result<()> {
    eventually(&format!("{name} is told of {question}: {answer}"), || {
        Ok(asks(house, name, question)?.is_some_and(|said| said.contains(answer)))
    })
}

fn is_not_told(house: &House, name: &str, question: &str) -> Result<()> {
    eventually(
        &format!("{name} is told of {question} that there is none"),
        || Ok(asks(house, name, question)?.is_none()),
    )
}

fn names_are_told_as_vpss_come_and_go() -> Result<()> {
    let house = House::new()?;
    needs!(program:dnsmasq);
    house.refused("network dns condo0", "network set condo0 --dns on")?;
    house.ok("network create lan --subnet 10.50.0.0/24 --dns on")?;
    house.running("a", "--network lan")?;
    ensure!(house.sh("a", "cat /etc/resolv.conf")? == "nameserver 10.50.0.1");
    let _server = Server::new(&house, "lan")?;
    is_told(&house, "a", "a.condo", "10.50.0.2")?;
    // One that comes, by both families and by its addresses as well.
    house.running("b", "--network lan,ip=10.50.0.7")?;
    is_told(&house, "a", "b.condo", "10.50.0.7")?;
    let shown = house.show("b")?;
    let address6 = shown["addresses"][0]["ipv6"].as_str().unwrap_or_default();
    is_told(&house, "a", "b.condo", address6)?;
    is_told(&house, "a", "10.50.0.7", "b.condo")?;
    is_told(&house, "a", address6, "b.condo")?;
    is_not_told(&house, "a", "nobody.condo")?;
    house.refused("network set lan --domain a..b", "--domain")?;
    house.ok("network set lan --domain vps.example.net")?;
    is_told(&house, "a", "b.vps.example.net", "10.50.0.7")?;
    is_told(&house, "a", "b.condo", "10.50.0.7")?;
    house.ok("network set lan --domain none")?;
    ensure!(!house.ok("network show lan --json")?.contains("domain"));
    // One of another network gets no answer here.
    house.running("c", "")?;
    ensure!(asks(&house, "c", "b.condo 10.50.0.1")?.is_none());
    house.ok("network attach lan c")?;
    is_told(&house, "a", "c.condo", "10.50.0.")?;
    house.ok("network detach lan c")?;
    is_not_told(&house, "a", "c.condo")?;
    house.ok("stop b --timeout 20")?;
    is_not_told(&house, "a", "b.condo")?;
    // What its tenant has not changed follows, and what he has stays.
    house.ok("network set lan --dns off")?;
    ensure!(
        asks(&house, "a", "a.condo")?.is_none(),
        "the gateway still answers"
    );
    house.ok("restart a --timeout 20")?;
    ensure!(!house.sh("a", "cat /etc/resolv.conf")?.contains("10.50.0.1"));
    house.ok("network set lan --dns on")?;
    house.sh("a", "echo '# mine' > /etc/resolv.conf")?;
    house.ok("restart a --timeout 20")?;
    ensure!(house.sh("a", "cat /etc/resolv.conf")? == "# mine");
    is_told(&house, "a", "a.condo 10.50.0.1", "10.50.0.2")?;
    house.ok("delete --force --all")?;
    house.ok("network delete lan")?;
    house.refused(
        "network create br --kind bridged --bridge lo --subnet 10.51.0.0/24 --dns on",
        "--dns",
    )?;
    house.leave()
}

/// Answers every question for an address with this one.
const ELSEWHERE: [u8; 4] = [192, 0, 2, 99];

fn answer(socket: &UdpSocket) {
    let mut question = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut question) {
        let mut message = question[..length].to_vec();
        let is_ipv4 = message.windows(4).any(|part| part == [0, 1, 0, 1]);
        // An answer (RFC 1035, section 4.1.1), and no record behind it but its own.
        message[2] |= 0x80;
        message[6..12].copy_from_slice(&[0, u8::from(is_ipv4), 0, 0, 0, 0]);
        let end = 12 + message[12..].iter().position(|byte| *byte == 0).unwrap_or(0) + 5;
        message.truncate(end);
        if is_ipv4 {
            message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            message.extend(ELSEWHERE);
        }
        let _ = socket.send_to(&message, from);
    }
}

fn other_names_are_asked_for_elsewhere() -> Result<()> {
    let house = House::new()?;
    needs!(program:dnsmasq, ip);
    // The name server of the host.
    unshare(CloneFlags::CLONE_NEWNS)?;
    let nothing = None::<&str>;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_PRIVATE | MsFlags::MS_REC,
        nothing,
    )?;
    let file = harness::tempdir().join("resolv.conf");
    std::fs::write(&file, "nameserver 198.51.100.1\n")?;
    mount(
        Some(&file),
        "/etc/resolv.conf",
        nothing,
        MsFlags::MS_BIND,
        nothing,
    )?;
    let world = wire(["198.51.100.2/24", "198.51.100.1/24"])?;
    let socket = world.run(|| Ok(UdpSocket::bind("198.51.100.1:53")?))?;
    std::thread::spawn(move || answer(&socket));
    house.ok("network set condo0 --dns on")?;
    house.ok("network create inner --kind isolated --subnet 10.50.0.0/24 --dns on")?;
    let _servers = [Server::new(&house, "condo0")?, Server::new(&house, "inner")?];
    house.running("a", "")?;
    house.running("b", "--network inner")?;
    is_told(&house, "a", "printer.example", "192.0.2.99")?;
    is_told(&house, "a", "a.condo", &house.address("a")?)?;
    // What is nobody else's is asked of nobody else.
    is_not_told(&house, "a", "nobody.condo")?;
    is_told(&house, "b", "b.condo", "10.50.0.2")?;
    ensure!(
        asks(&house, "b", "printer.example")?.is_none(),
        "an isolated VPS asks the world"
    );
    house.ok("delete --force --all")?;
    house.ok("network delete inner condo0")?;
    house.leave()
}
