//! The table of two looks at the figures: counters become rates.

use std::cmp::Ordering;

use clap::ValueEnum;

use crate::vps::record::view::VpsStatus;
use crate::vps::report::stats::VpsStats;

/// A column that the table can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Column {
    /// The name.
    Name,
    /// Processor time.
    Cpu,
    /// Memory in use.
    Memory,
    /// Processes.
    Pids,
    /// Read from disks.
    Read,
    /// Written to disks.
    Write,
    /// Received from the network.
    In,
    /// Sent to the network.
    Out,
}

impl Column {
    /// All of them, with their headings, whose first letters are the keys that sort by them.
    pub(super) const ALL: [(Self, &'static str); 8] = [
        (Self::Name, "NAME"),
        (Self::Cpu, "CPU"),
        (Self::Memory, "MEMORY"),
        (Self::Pids, "PIDS"),
        (Self::Read, "READ/s"),
        (Self::Write, "WRITTEN/s"),
        (Self::In, "IN/s"),
        (Self::Out, "OUT/s"),
    ];

    /// The column that a letter stands for.
    pub(super) fn by(letter: char) -> Option<Self> {
        let letter = letter.to_ascii_uppercase();
        Self::ALL
            .into_iter()
            .find(|(_, heading)| heading.starts_with(letter))
            .map(|(column, _)| column)
    }
}

/// A VPS between two looks. Rates are per second.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) status: VpsStatus,
    /// Hundredths of one processor.
    pub(super) cpu: f64,
    /// Hundredths of the time that it had to wait because its share was used up.
    pub(super) throttled: f64,
    pub(super) memory: u64,
    pub(super) memory_limit: Option<u64>,
    pub(super) pids: u64,
    pub(super) pids_limit: Option<u64>,
    pub(super) read: u64,
    pub(super) written: u64,
    pub(super) incoming: u64,
    pub(super) outgoing: u64,
}

/// The rows of all VPSs that are there now, by name.
pub(super) fn of(before: &[VpsStats], now: &[VpsStats], seconds: f64) -> Vec<Row> {
    now.iter()
        .map(|vps| row(before.iter().find(|old| old.name == vps.name), vps, seconds))
        .collect()
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are shown with three digits"
)]
fn row(before: Option<&VpsStats>, now: &VpsStats, seconds: f64) -> Row {
    // A counter that has become less began anew with another run: how much of it is since the last look nobody knows.
    let since = |counter: fn(&VpsStats) -> u64| {
        let old = before.map_or_else(|| counter(now), counter);
        counter(now).saturating_sub(old) as f64 / seconds.max(0.001)
    };
    Row {
        name: now.name.to_string(),
        status: now.status,
        cpu: since(|vps| vps.cpu) / 1e4,
        throttled: since(|vps| vps.throttled) / 1e4,
        memory: now.memory,
        memory_limit: now.memory_limit,
        pids: now.pids,
        pids_limit: now.pids_limit,
        read: since(|vps| vps.read_bytes) as u64,
        written: since(|vps| vps.write_bytes) as u64,
        incoming: since(|vps| vps.received_bytes) as u64,
        outgoing: since(|vps| vps.sent_bytes) as u64,
    }
}

/// Sorts: names from the first, figures from the largest, or the other way round. What is equal stays by name; who uses nothing,
/// because he is stopped, comes last by any figure.
pub(super) fn sort(rows: &mut [Row], by: Column, reversed: bool) {
    let is_idle = |row: &Row| by != Column::Name && row.status == VpsStatus::Stopped;
    rows.sort_by(|a, b| {
        let order = match by {
            Column::Name => Ordering::Equal,
            Column::Cpu => b.cpu.total_cmp(&a.cpu),
            Column::Memory => b.memory.cmp(&a.memory),
            Column::Pids => b.pids.cmp(&a.pids),
            Column::Read => b.read.cmp(&a.read),
            Column::Write => b.written.cmp(&a.written),
            Column::In => b.incoming.cmp(&a.incoming),
            Column::Out => b.outgoing.cmp(&a.outgoing),
        };
        let order = order.then_with(|| a.name.cmp(&b.name));
        let order = if reversed { order.reverse() } else { order };
        is_idle(a).cmp(&is_idle(b)).then(order)
    });
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn vps(name: &str, cpu: u64, memory: u64) -> VpsStats {
        VpsStats {
            status: VpsStatus::Running,
            cpu,
            memory,
            memory_limit: Some(64 << 20),
            pids: 3,
            read_bytes: cpu,
            ..VpsStats::stopped(name.parse().unwrap(), "default")
        }
    }

    #[test]
    fn counters_become_rates() {
        let before = [vps("web", 1_000_000, 0)];
        let now = [vps("web", 2_000_000, 5), vps("new", 7_000_000, 1)];
        let rows = of(&before, &now, 2.0);
        assert!((rows[0].cpu - 50.0).abs() < 0.01, "{rows:?}");
        assert_eq!((rows[0].read, rows[0].memory), (500_000, 5));
        // Nothing is known of the time before the first look, nor of a run before this one.
        assert!(rows[1].cpu.abs() < 0.01);
        assert!(of(&now, &before, 2.0)[0].cpu.abs() < 0.01);
    }

    #[test]
    fn the_largest_come_first_and_names_decide() {
        let mut rows = of(&[], &[vps("b", 0, 1), vps("a", 0, 1), vps("c", 0, 2)], 1.0);
        let names = |rows: &[Row]| rows.iter().map(|row| row.name.clone()).collect::<String>();
        sort(&mut rows, Column::Memory, false);
        assert_eq!(names(&rows), "cab");
        sort(&mut rows, Column::Memory, true);
        assert_eq!(names(&rows), "bac");
        sort(&mut rows, Column::Name, false);
        assert_eq!(names(&rows), "abc");
        rows[0].status = VpsStatus::Stopped;
        sort(&mut rows, Column::Memory, true);
        assert_eq!(names(&rows), "bca");
    }

    #[test]
    fn every_column_has_a_letter_of_its_own() {
        for (column, heading) in Column::ALL {
            let letter = heading.chars().next().unwrap();
            assert_eq!(Column::by(letter.to_ascii_lowercase()), Some(column));
            assert!(!"qjk".contains(letter.to_ascii_lowercase()));
        }
        assert_eq!(Column::by('x'), None);
    }
}
