//! What a running VPS uses, read from the kernel at the moment of asking.

use std::net::Ipv4Addr;

use crate::cgroups::{Device, Stats};
use crate::error::{Error, Result};
use crate::net::Mac;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::store::Record;
use crate::vps::wire::network;

/// What a VPS uses. Times are in microseconds, sizes in bytes, counters since its start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Its init as the host numbers it.
    pub pid: i32,
    /// Processor time.
    pub cpu: u64,
    /// Memory in use, and how much of it is page cache.
    pub memory: u64,
    /// Page cache.
    pub cached: u64,
    /// The most memory that was in use.
    pub memory_peak: Option<u64>,
    /// Swap in use.
    pub swap: u64,
    /// Processes and threads.
    pub processes: u64,
    /// Its network interfaces.
    pub interfaces: Vec<Interface>,
    /// Block devices it reads from and writes to.
    pub disks: Vec<Device>,
}

/// A network interface as the VPS sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name inside.
    pub name: String,
    /// What it has received.
    pub received: Counters,
    /// What it has sent.
    pub sent: Counters,
}

/// Traffic in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets that were broken.
    pub errors: u64,
    /// Packets that found no room.
    pub dropped: u64,
}

/// The end of a VPS's wire: what its address belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    /// The address.
    pub address: Ipv4Addr,
    /// How many bits of it are the network's.
    pub prefix: u8,
    /// The interface's hardware address.
    pub mac: String,
    /// The other end, on the host.
    pub host_interface: String,
}

impl Condo {
    /// What a VPS uses; nothing when it does not run.
    pub fn figures(&self, name: &Name) -> Result<Option<Figures>> {
        let Some(container) = self.container(name)? else {
            return Ok(None);
        };
        let Some(init) = container.state().init.filter(|init| init.is_alive()) else {
            return Ok(None);
        };
        let stats = match container.cgroup(&self.host)? {
            Some(cgroup) => cgroup.stats()?,
            None => Stats::default(),
        };
        // Of an init that has just ended there is nothing to read.
        let text = std::fs::read_to_string(format!("/proc/{}/net/dev", init.pid)).unwrap_or_default();
        Ok(Some(figures(init.pid, stats, &text)))
    }

    /// The wire of a VPS, whether it runs or not.
    pub fn wire(&self, record: &Record) -> Result<Wire> {
        let ports = network::ports(self, record)?;
        let first = ports.into_iter().next();
        let (network, port) = first.ok_or_else(|| Error::Corrupt("the VPS has no interface".into()))?;
        Ok(Wire {
            address: record.address,
            prefix: network.network.subnet.prefix(),
            mac: Mac(port.mac).to_string(),
            host_interface: port.host_if,
        })
    }
}

fn figures(pid: i32, stats: Stats, net_dev: &str) -> Figures {
    let memory = stats.memory.unwrap_or_default();
    Figures {
        pid,
        cpu: stats.cpu.map_or(0, |cpu| cpu.usage),
        memory: memory.usage,
        cached: memory.file,
        memory_peak: memory.peak,
        swap: memory.swap,
        processes: stats.pids.map_or(0, |pids| pids.current),
        interfaces: interfaces(net_dev),
        disks: stats.io,
    }
}

/// The lines of `/proc/PID/net/dev` (`proc_pid_net(5)`): eight columns received, eight sent.
fn interfaces(text: &str) -> Vec<Interface> {
    let read = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|n| n.parse().ok()).collect();
        let counters = |columns: &[u64]| match columns {
            [bytes, packets, errors, dropped, ..] => Some(Counters {
                bytes: *bytes,
                packets: *packets,
                errors: *errors,
                dropped: *dropped,
            }),
            _ => None,
        };
        Some(Interface {
            name: name.trim().to_owned(),
            received: counters(numbers.get(..8)?)?,
            sent: counters(numbers.get(8..)?)?,
        })
    };
    text.lines().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_have_two_directions() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
                    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n  \
                    eth0: 1500      10    1    2    0     0          0         0      700       7    3    4    0     0       0          0\n";
        let all = interfaces(text);
        assert_eq!(all.len(), 2);
        assert_eq!(
            (
                all[1].name.as_str(),
                all[1].received.bytes,
                all[1].received.dropped
            ),
            ("eth0", 1500, 2)
        );
        assert_eq!((all[1].sent.packets, all[1].sent.errors), (7, 3));
        assert!(interfaces("eth0: 1 2 3").is_empty());
    }
}
