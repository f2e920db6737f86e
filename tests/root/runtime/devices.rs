//! Network devices that move in. What the tests call the host is a network namespace of their own.

use std::process::Command;

use anyhow::{Result, ensure};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use super::{Container, says_all};
use crate::harness;

tests![
    a_device_moves_in_with_its_addresses,
    a_device_moves_into_a_user_namespace,
    a_template_takes_the_first_free_number,
    a_device_moves_into_a_joined_namespace,
    devices_that_cannot_move,
    a_failed_create_gives_devices_back,
];

fn ip(args: &str) -> Result<String> {
    harness::run(Command::new("ip").args(args.split_whitespace()))
}

/// A "host" with a veth pair: `outside`, which stays, and `inside`, with an address of each family.
fn host() -> Result<()> {
    known_difference!("runc", "1.1 is older than this field");
    harness::need("ip");
    unshare(CloneFlags::CLONE_NEWNET)?;
    for line in [
        "link add outside type veth peer name inside",
        "link set inside address 02:00:00:00:00:07 mtu 1400",
        "address add 192.0.2.1/24 dev outside",
        "link set outside up",
        "address add 192.0.2.2/24 brd + dev inside",
        "link set inside up",
        "address add 2001:db8::2/64 dev inside nodad",
    ] {
        ip(line)?;
    }
    Ok(())
}

fn with_devices(devices: Value) -> Result<Container> {
    let mut c = Container::idle()?;
    c.set("/linux/netDevices", devices)?;
    Ok(c)
}

/// What busybox in the container says about its interface.
fn seen(c: &Container, name: &str) -> Result<String> {
    c.exec(&["@", "ip", "address", "show", "dev", name])?.ok()
}

/// What is said of the interface where it is in use.
const IN_USE: &[&str] = &["inet 192.0.2.2/24", "inet6 2001:db8::2/64", ",UP"];

fn check_arrived(c: &Container, name: &str) -> Result<()> {
    let seen = seen(c, name)?;
    says_all(&seen, &["02:00:00:00:00:07", "mtu 1400", "192.0.2.255"])?;
    says_all(&seen, IN_USE)
}

/// `inside` is on the host as it was.
fn check_at_home() -> Result<()> {
    says_all(&ip("address show dev inside")?, IN_USE)
}

fn a_device_moves_in_with_its_addresses() -> Result<()> {
    host()?;
    let c = with_devices(json!({"inside": {"name": "eth0"}}))?;
    c.up()?;
    check_arrived(&c, "eth0")?;
    ensure!(ip("link show dev inside").is_err(), "it is on the host as well");
    // It carries packets: the neighbour is resolved by ARP through the pair.
    ip("neighbour flush dev outside")?;
    let route = c.exec(&["@", "ip", "route"])?.ok()?;
    ensure!(route.contains("192.0.2.0/24 dev eth0"), "{route}");
    harness::run(Command::new("/bin/busybox").args(["arping", "-c1", "-w20", "-I", "outside", "192.0.2.2"]))?;
    c.delete()?;
    c.nothing_left()
}

fn a_device_moves_into_a_user_namespace() -> Result<()> {
    host()?;
    let mut c = with_devices(json!({"inside": {}}))?;
    c.with_user_namespace()?;
    c.up()?;
    check_arrived(&c, "inside")
}

fn a_template_takes_the_first_free_number() -> Result<()> {
    host()?;
    ip("link add other type veth peer name other-end")?;
    let c = with_devices(json!({"inside": {"name": "net%d"}, "other": {"name": "net%d"}}))?;
    c.up()?;
    check_arrived(&c, "net0")?;
    let other = seen(&c, "net1")?;
    ensure!(
        other.contains(",UP") || other.contains("<BROADCAST,MULTICAST,UP"),
        "{other}"
    );
    Ok(())
}

fn a_device_moves_into_a_joined_namespace() -> Result<()> {
    host()?;
    let first = Container::idle()?;
    first.up()?;
    let path = format!("/proc/{}/ns/net", first.pid()?);
    let mut c = with_devices(json!({"inside": {"name": "eth7"}}))?;
    c.namespace("network", Some(std::path::Path::new(&path)))?;
    c.up()?;
    check_arrived(&first, "eth7")
}

fn devices_that_cannot_move() -> Result<()> {
    host()?;
    for (devices, words) in [
        (
            json!({"nothing": {}}),
            "network interface `nothing` does not exist",
        ),
        (json!({"inside": {"name": "lo"}}), "`lo` already exists"),
        (json!({"lo": {"name": "eth0"}}), "linux.netDevices: move `lo`"),
        // All or none: the one that could move comes back.
        (json!({"inside": {}, "nothing": {}}), "`nothing` does not exist"),
    ] {
        with_devices(devices)?.refused(&[words])?;
        check_at_home()?;
    }
    let mut c = with_devices(json!({"inside": {}}))?;
    c.namespace("network", None)?;
    c.refused(&["linux.netDevices", "network namespace"])?;
    check_at_home()
}

fn a_failed_create_gives_devices_back() -> Result<()> {
    host()?;
    let mut c = with_devices(json!({"inside": {"name": "eth0"}}))?;
    c.set("/process/args", json!(["/no/such/program"]))?;
    c.refused(&["/no/such/program"])?;
    check_at_home()?;
    ensure!(ip("link show dev inside")?.contains("mtu 1400"), "another MTU");
    Ok(())
}
