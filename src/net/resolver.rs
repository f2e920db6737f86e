//! The name servers a VPS is told.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Quad9 and Cloudflare: what a VPS gets when the host names no server that a VPS can reach.
pub const PUBLIC_RESOLVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(9, 9, 9, 9), Ipv4Addr::new(1, 1, 1, 1)];

/// Where the servers behind a local stub are found: the second is systemd-resolved's list of the real ones.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// The host's IPv4 name servers that a VPS can reach, at most three (`MAXNS` of `resolv.conf(5)`).
///
/// Loopback servers are the host's own and link-local ones are kept from VPSs, so where `/etc/resolv.conf` lists nothing else,
/// systemd-resolved's list is taken, and without that [`PUBLIC_RESOLVERS`].
pub fn resolvers() -> Vec<Ipv4Addr> {
    FILES
        .iter()
        .filter_map(|path| std::fs::read_to_string(Path::new(path)).ok())
        .map(|text| reachable(&text))
        .find(|servers| !servers.is_empty())
        .unwrap_or_else(|| PUBLIC_RESOLVERS.to_vec())
}

/// The file that names the host's real servers, those behind a local stub as well; none where no file does.
pub fn resolver_file() -> Option<&'static Path> {
    let names_some = |path: &&Path| {
        std::fs::read_to_string(path).is_ok_and(|text| servers(&text).any(|server| !server.is_loopback()))
    };
    FILES.iter().map(|path| Path::new(*path)).find(names_some)
}

/// All that a file names.
fn servers(resolv_conf: &str) -> impl Iterator<Item = IpAddr> {
    let named = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok())?
    };
    resolv_conf.lines().filter_map(named)
}

fn reachable(resolv_conf: &str) -> Vec<Ipv4Addr> {
    servers(resolv_conf)
        .filter_map(|server| match server {
            IpAddr::V4(server) => Some(server),
            IpAddr::V6(_) => None,
        })
        .filter(|a| !a.is_loopback() && !a.is_link_local() && !a.is_unspecified())
        .take(3)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_that_a_vps_can_reach_are_listed() {
        let text = "# nameserver 8.8.8.8\nsearch lan\nnameserver 127.0.0.53\nnameserver ::1\n nameserver\t10.0.0.2 # x\nnameserver\n\
                    nameserver 169.254.169.254\nnameserver 10.0.0.3\nnameserver 10.0.0.4\nnameserver 10.0.0.5\noptions edns0\n";
        let found: Vec<_> = reachable(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.2", "10.0.0.3", "10.0.0.4"]);
    }

    #[test]
    fn stubs_alone_are_no_servers() {
        assert_eq!(
            reachable("nameserver 127.0.0.53\noptions trust-ad\n"),
            [Ipv4Addr::LOCALHOST; 0]
        );
    }
}
