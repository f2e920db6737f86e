//! The settings below `/proc/sys/net` that routing between isolated ports needs. The files are those of the caller's
//! network namespace.

use std::path::{Path, PathBuf};

use crate::error::{During, Result};
use crate::files;

/// Makes the host a router and the bridge a network whose every packet passes it.
///
/// Not set: `send_redirects` of `all`, which would be the whole host's (the two are OR-ed); redirects are dropped by the
/// firewall.
pub(super) fn set_for_bridge(bridge: &str) -> Result<()> {
    // First, because a change of it resets other settings of every interface (ip-sysctl).
    set(Path::new("/proc/sys/net/ipv4/ip_forward"), "1")?;
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
    set(&neighbours.join("proxy_delay"), "0")?;
    // VPSs are permanent neighbours; whoever is not one is not asked for, so nobody can claim to be it.
    set(&neighbours.join("mcast_solicit"), "0")?;
    without_ipv6(bridge)
}

/// A port is the bridge's: the host itself takes nothing from it and answers nothing to it.
pub(super) fn set_for_port(port: &str) -> Result<()> {
    let conf = PathBuf::from("/proc/sys/net/ipv4/conf").join(port);
    set(&conf.join("rp_filter"), "1")?;
    // For no address of the host.
    set(&conf.join("arp_ignore"), "8")?;
    without_ipv6(port)
}

/// Keeps the kernel from giving an interface an IPv6 link-local address.
pub(super) fn without_ipv6(interface: &str) -> Result<()> {
    let path = PathBuf::from("/proc/sys/net/ipv6/conf")
        .join(interface)
        .join("disable_ipv6");
    // A kernel without IPv6 has no such file.
    if files::exists(&path) {
        set(&path, "1")
    } else {
        Ok(())
    }
}

fn set(path: &Path, value: &str) -> Result<()> {
    if files::read_text(path)?.trim() == value {
        return Ok(());
    }
    std::fs::write(path, value).during(|| format!("write `{value}` to `{}`", path.display()))
}
