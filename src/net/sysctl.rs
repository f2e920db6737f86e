//! The settings below `/proc/sys/net` that routing between isolated ports needs. The files are those of the caller's
//! network namespace.

use std::path::{Path, PathBuf};

use crate::error::{During, Result};
use crate::files;
use crate::host::in_first_user_namespace;

/// Bytes of fragments that wait for the rest of their packets. The kernel's 4 MB one VPS can fill (see `firewall`).
const FRAGMENTS: u64 = 64 << 20;

/// Makes the host a router and the bridge a network whose every packet passes it.
///
/// Not set: `send_redirects` of `all`, which would be the whole host's (the two are OR-ed); redirects are dropped by the
/// firewall.
pub(super) fn set_for_bridge(bridge: &str, has_ipv6: bool) -> Result<()> {
    // First, because a change of it resets other settings of every interface (ip-sysctl).
    set(Path::new("/proc/sys/net/ipv4/ip_forward"), "1")?;
    make_room_for_fragments("/proc/sys/net/ipv4/ipfrag_high_thresh")?;
    // Of connections between VPSs it sees a part of the packets, and would take the end of one for a packet of none (see `shortcut`).
    set_if_there(
        Path::new("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal"),
        "1",
    )?;
    let conf = PathBuf::from("/proc/sys/net/ipv4/conf").join(bridge);
    // The host answers ARP for the neighbours of a VPS (RFC 3069), so that they talk through it and its firewall.
    set(&conf.join("proxy_arp_pvlan"), "1")?;
    set(&conf.join("send_redirects"), "0")?;
    set(&conf.join("accept_redirects"), "0")?;
    set(&conf.join("accept_source_route"), "0")?;
    set(&conf.join("rp_filter"), "1")?;
    // Programs of the host reach published ports by 127.0.0.1, and the answers come back by the bridge. What a VPS sends to such an
    // address is dropped by the fence, and once more by the firewall.
    set(&conf.join("route_localnet"), "1")?;
    // The host's other addresses are not told to VPSs that ask for them.
    set(&conf.join("arp_ignore"), "1")?;
    let neighbours = PathBuf::from("/proc/sys/net/ipv4/neigh").join(bridge);
    // Proxy answers are otherwise held back for up to 0.8 s.
    set_if_there(&neighbours.join("proxy_delay"), "0")?;
    // VPSs are permanent neighbours; whoever is not one is not asked for, so nobody can claim to be it.
    set_if_there(&neighbours.join("mcast_solicit"), "0")?;
    if has_ipv6 {
        with_ipv6(bridge)
    } else {
        without_ipv6(bridge)
    }
}

/// Makes the host a router of IPv6, and the bridge a link of which it believes nothing.
fn with_ipv6(bridge: &str) -> Result<()> {
    keep_advertised_routes()?;
    // Where connection tracking puts packets together.
    make_room_for_fragments("/proc/sys/net/netfilter/nf_conntrack_frag6_high_thresh")?;
    set(Path::new("/proc/sys/net/ipv6/conf/all/forwarding"), "1")?;
    let conf = PathBuf::from("/proc/sys/net/ipv6/conf").join(bridge);
    set(&conf.join("accept_ra"), "0")?;
    set(&conf.join("accept_redirects"), "0")?;
    set(&conf.join("forwarding"), "1")?;
    // No address but those it is given.
    set(&conf.join("addr_gen_mode"), "1")?;
    set(&conf.join("disable_ipv6"), "0")?;
    let neighbours = PathBuf::from("/proc/sys/net/ipv6/neigh").join(bridge);
    set_if_there(&neighbours.join("mcast_solicit"), "0")
}

/// A router believes no other router (ip-sysctl, `accept_ra`): an interface that has its address and its default route from one
/// would lose them in time, unless it is told to go on.
fn keep_advertised_routes() -> Result<()> {
    if files::read_text(Path::new("/proc/sys/net/ipv6/conf/all/forwarding"))?.trim() == "1" {
        return Ok(());
    }
    let all = Path::new("/proc/sys/net/ipv6/conf");
    for entry in std::fs::read_dir(all)
        .during(|| format!("read `{}`", all.display()))?
        .flatten()
    {
        let accept = entry.path().join("accept_ra");
        // One that goes away meanwhile needs nothing.
        if files::read_text(&accept).is_ok_and(|value| value.trim() == "1") {
            let _ = set(&accept, "2");
        }
    }
    Ok(())
}

/// Lets the host answer for neighbours of IPv6 on this interface.
pub(super) fn answer_for_neighbours(interface: u32) -> Result<()> {
    let name = nix::net::if_::if_indextoname(interface);
    let name = name.map_err(std::io::Error::from)?;
    let conf = PathBuf::from("/proc/sys/net/ipv6/conf").join(name.to_string_lossy().as_ref());
    set(&conf.join("proxy_ndp"), "1")
}

/// Whether this kernel has IPv6.
pub fn has_ipv6() -> bool {
    files::exists(Path::new("/proc/sys/net/ipv6/conf"))
}

/// A port is the way to a link: the host itself takes nothing from it and answers nothing to it.
pub(super) fn set_for_port(port: &str) -> Result<()> {
    let conf = PathBuf::from("/proc/sys/net/ipv4/conf").join(port);
    set(&conf.join("rp_filter"), "1")?;
    // For no address of the host.
    set(&conf.join("arp_ignore"), "8")?;
    without_ipv6(port)
}

/// Lets a VPS's interface have IPv6 where new interfaces have none.
pub(super) fn with_ipv6_for_guest(interface: &str) -> Result<()> {
    let conf = PathBuf::from("/proc/sys/net/ipv6/conf").join(interface);
    set(&conf.join("disable_ipv6"), "0")
}

/// Keeps the kernel from giving an interface an IPv6 link-local address.
pub(super) fn without_ipv6(interface: &str) -> Result<()> {
    let conf = PathBuf::from("/proc/sys/net/ipv6/conf").join(interface);
    set_if_there(&conf.join("disable_ipv6"), "1")
}

/// In a VPS nobody may: it would be the machine's memory (see `cgroups::guard`).
fn make_room_for_fragments(path: &str) -> Result<()> {
    let path = Path::new(path);
    if !files::exists(path) || !in_first_user_namespace() {
        return Ok(());
    }
    let found: Option<u64> = files::read_text(path)?.trim().parse().ok();
    match found {
        Some(found) if found >= FRAGMENTS => Ok(()),
        _ => set(path, &FRAGMENTS.to_string()),
    }
}

/// What a kernel without IPv6 or without connection tracking does not have, and what it shows to the machine's root alone
/// (`neigh_sysctl_register`).
fn set_if_there(path: &Path, value: &str) -> Result<()> {
    match files::exists(path) {
        true => set(path, value),
        false => Ok(()),
    }
}

fn set(path: &Path, value: &str) -> Result<()> {
    if files::read_text(path)?.trim() == value {
        return Ok(());
    }
    std::fs::write(path, value).during(|| format!("write `{value}` to `{}`", path.display()))
}
