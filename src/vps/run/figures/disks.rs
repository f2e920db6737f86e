//! Reads and writes, as `iostat` and `vmstat -d` read them.

use std::fmt::Write;

use crate::cgroups::Device;

/// The unit of `/proc/diskstats`, in bytes.
const SECTOR: u64 = 512;

/// `/proc/diskstats`: what the VPS did on each of the host's disks, by the names that the host's own file has. How long it took is
/// not counted.
pub(super) fn diskstats(devices: &[Device], host: &str) -> String {
    let mut text = String::new();
    for device in devices {
        let Some(name) = name(host, device) else { continue };
        let _ = writeln!(
            text,
            "{:4} {:7} {name} {} 0 {} 0 {} 0 {} 0 0 0 0 0 0 0 0 0 0",
            device.major,
            device.minor,
            device.reads,
            device.read_bytes / SECTOR,
            device.writes,
            device.write_bytes / SECTOR,
        );
    }
    text
}

fn name<'h>(host: &'h str, device: &Device) -> Option<&'h str> {
    let numbers = [device.major.to_string(), device.minor.to_string()];
    host.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let same = numbers.iter().all(|number| words.next() == Some(number));
        words.next().filter(|_| same)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_the_hosts_names_and_sectors() {
        let host = "   7       0 loop0 1 2 3\n 254       0 vda 9 9 9 9 9\n";
        let device = |major| Device {
            major,
            minor: 0,
            read_bytes: 4096,
            write_bytes: 1024,
            reads: 3,
            writes: 2,
        };
        let text = diskstats(&[device(254), device(99)], host);
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(
            words[..10],
            ["254", "0", "vda", "3", "0", "8", "0", "2", "0", "2"]
        );
        assert_eq!((words.len(), text.lines().count()), (20, 1));
    }
}
