//! What the kernel says of itself (`/dev/kmsg`, Documentation/ABI/testing/dev-kmsg).

use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Longest record that the kernel hands out.
const LONGEST: usize = 8192;
/// The first namespace of process numbers, `PROC_PID_INIT_INO`: the log has the numbers of this one.
const FIRST: &str = "pid:[4026531836]";

/// Whether the kernel killed this process because memory had run out; nothing where its log cannot be had or does not have our
/// numbers of processes.
pub fn was_killed_for_memory(pid: i32) -> Option<bool> {
    let own = std::fs::read_link("/proc/self/ns/pid").ok()?;
    if own != Path::new(FIRST) {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let log = rustix::fs::open("/dev/kmsg", flags, Mode::empty()).ok()?;
    let mut record = [0; LONGEST];
    loop {
        match rustix::io::read(&log, &mut record) {
            Ok(0) | Err(Errno::AGAIN) => return Some(false),
            Ok(length) if tells_of(&record[..length], pid) => return Some(true),
            // Written over while we read: the next one comes.
            Ok(_) | Err(Errno::PIPE | Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// `LEVEL,NUMBER,TIME,FLAGS;Memory cgroup out of memory: Killed process PID (NAME) …`: the line of `__oom_kill_process`. What
/// comes before the number is the kernel's own, whatever the process calls itself.
fn tells_of(record: &[u8], pid: i32) -> bool {
    let record = String::from_utf8_lossy(record);
    let Some((_, text)) = record.split_once(';') else {
        return false;
    };
    let text = text
        .strip_prefix("Memory cgroup out")
        .or_else(|| text.strip_prefix("Out"));
    let rest = text.and_then(|text| text.strip_prefix(" of memory: Killed process "));
    rest.is_some_and(|rest| rest.split(' ').next() == Some(&pid.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_own_words_count() {
        let group = b"3,100,200,-;Memory cgroup out of memory: Killed process 1753 (dd) total-vm:104668kB";
        assert!(tells_of(group, 1753) && !tells_of(group, 175) && !tells_of(group, 17530));
        assert!(tells_of(
            b"3,1,2,-;Out of memory: Killed process 7 (a b) total-vm:1kB",
            7
        ));
        let forged = b"3,1,2,-;Memory cgroup out of memory: Killed process 5 (process 7 (x) total-vm:1kB";
        assert!(!tells_of(forged, 7));
        assert!(!tells_of(
            b"6,1,2,-;init says: Out of memory: Killed process 7 (a)",
            7
        ));
        assert!(!tells_of(b"", 7));
    }
}
