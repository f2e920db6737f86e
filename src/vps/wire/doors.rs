//! Whether a port of the host is free: a program that listens at it would get nothing any more, and never know.

use std::io::{Error as Io, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use crate::error::{Error, Result};
use crate::net::publication::{Door, Publication, Transport};

/// Refuses ports at which a program of the host listens, and addresses that the host does not have or that lead nowhere. Binding
/// tells, for a moment.
///
/// # Errors
/// [`Error::Invalid`] with the port.
pub(in crate::vps) fn check<'a>(publications: impl IntoIterator<Item = &'a Publication>) -> Result<()> {
    for publication in publications {
        let door = &publication.door;
        refuse_unroutable(door)?;
        for port in door.first..=door.last {
            probe(door, port)?;
        }
    }
    Ok(())
}

/// The kernel forwards nothing to or from these, whatever a rule says.
fn refuse_unroutable(door: &Door) -> Result<()> {
    let Some(IpAddr::V6(host)) = door.host else {
        return Ok(());
    };
    let problem = match () {
        () if host.is_loopback() => {
            "would lead nowhere: the kernel forwards nothing for ::1; publish at 127.0.0.1, or at another address of this host"
        }
        () if host.is_unicast_link_local() => {
            "would lead nowhere: the kernel forwards nothing for a link-local address; publish at another address of this host"
        }
        () => return Ok(()),
    };
    Err(Error::invalid("--publish", door, problem))
}

fn probe(door: &Door, port: u16) -> Result<()> {
    let hosts = match door.host {
        Some(host) => vec![host],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    };
    for host in hosts {
        match bind(door.transport, host, port) {
            Ok(()) => {}
            // A host without IPv6.
            Err(e) if door.host.is_none() && e.kind() != ErrorKind::AddrInUse => {}
            Err(e) => return Err(refusal(door, port, &e)),
        }
    }
    Ok(())
}

fn bind(transport: Transport, host: IpAddr, port: u16) -> Result<(), Io> {
    let place = SocketAddr::new(host, port);
    match transport {
        Transport::Tcp => TcpListener::bind(place).map(drop),
        Transport::Udp => UdpSocket::bind(place).map(drop),
    }
}

fn refusal(door: &Door, port: u16, e: &Io) -> Error {
    let problem = match e.kind() {
        ErrorKind::AddrInUse => format!(
            "is taken: a program of this host uses port {port} (see ss -lnp); end it, or choose another port"
        ),
        ErrorKind::AddrNotAvailable => {
            "names an address that this host does not have (see ip address)".to_owned()
        }
        _ => format!("cannot be had: {e}"),
    };
    Error::invalid("--publish", door, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_with_a_listener_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let publication = |text: String| text.parse::<Publication>().unwrap();
        for text in [format!("{port}:80"), format!("127.0.0.1:{port}:80")] {
            let e = check(&[publication(text)]).unwrap_err().to_string();
            assert!(e.contains("is taken: a program of this host"), "{e}");
        }
        check(&[publication(format!("127.0.0.2:{port}:80"))]).unwrap();
        let e = check(&[publication("192.0.2.7:80:80".into())]).unwrap_err();
        assert!(e.to_string().contains("does not have"), "{e}");
        for text in ["[::1]:80:80", "[fe80::1]:80:80"] {
            let e = check(&[publication(text.into())]).unwrap_err();
            assert!(e.to_string().contains("would lead nowhere"), "{e}");
        }
    }
}
