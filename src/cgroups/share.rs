//! What a cgroup's processes have of the machine's processors, and how hard it presses on them.

use super::Cgroup;
use super::dir::Dir;
use crate::error::Result;

/// A share of the machine's processors.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// Processors' worth of time; `None` without a limit.
    pub time: Option<f64>,
    /// The processors its processes may run on, in the kernel's list format; empty where the kernel does not say.
    pub list: String,
}

impl Cgroup {
    /// The share that holds now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn share(&self) -> Result<Share> {
        let place = |controller| self.hierarchy.place(controller).ok();
        let list = match place("cpuset") {
            Some(dir) => first_of(
                dir,
                &["cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"],
            )?,
            None => String::new(),
        };
        let time = match place("cpu") {
            Some(dir) => time(dir)?,
            None => None,
        };
        Ok(Share { time, list })
    }

    /// Pressure stall information of `cpu`, `io` or `memory`, in the kernel's own format; `None` where it is not counted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pressure(&self, resource: &str) -> Result<Option<String>> {
        let Some(dir) = self.hierarchy.cgroup2() else {
            return Ok(None);
        };
        let file = format!("{resource}.pressure");
        match dir.read(&file) {
            Ok(text) => Ok(Some(text)),
            // EOPNOTSUPP: switched off at boot or for this cgroup.
            Err(e) if e.is_gone() || e.errno() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

/// How long a cgroup's processes have waited for one resource, in microseconds since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stall {
    /// Some of them.
    pub some: u64,
    /// All of them at once.
    pub full: u64,
}

impl Cgroup {
    /// How long its processes have waited for `cpu`, `io` or `memory`; `None` where it is not counted.
    pub fn stall(&self, resource: &str) -> Option<Stall> {
        let text = self.pressure(resource).ok()??;
        Some(stall(&text))
    }
}

/// Lines of `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn stall(text: &str) -> Stall {
    let total = |kind: &str| {
        let line = text.lines().find(|line| line.starts_with(kind))?;
        line.rsplit_once("total=")?.1.trim().parse().ok()
    };
    Stall {
        some: total("some").unwrap_or_default(),
        full: total("full").unwrap_or_default(),
    }
}

/// The first of some files that is there, with something in it.
fn first_of(dir: &Dir, files: &[&str]) -> Result<String> {
    for file in files.iter().filter(|file| dir.has(file)) {
        let text = dir.read(file)?.trim().to_owned();
        if !text.is_empty() {
            return Ok(text);
        }
    }
    Ok(String::new())
}

fn time(dir: &Dir) -> Result<Option<f64>> {
    if dir.has("cpu.max") {
        return Ok(quotient(&dir.read("cpu.max")?));
    }
    if dir.has("cpu.cfs_quota_us") {
        let (quota, period) = (dir.read("cpu.cfs_quota_us")?, dir.read("cpu.cfs_period_us")?);
        return Ok(quotient(&format!("{} {}", quota.trim(), period.trim())));
    }
    Ok(None)
}

/// `50000 100000` is half a processor; `max 100000` and `-1 100000` are no limit.
fn quotient(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_told_by_its_totals() {
        let text = "some avg10=0.12 avg60=0.00 avg300=0.00 total=4711\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=42\n";
        assert_eq!(stall(text), Stall { some: 4711, full: 42 });
        assert_eq!(stall(""), Stall::default());
    }

    #[test]
    fn a_quota_is_processors() {
        assert_eq!(quotient("150000 100000\n"), Some(1.5));
        for none in ["max 100000", "-1 100000", "0 100000", "1 0", "", "1"] {
            assert_eq!(quotient(none), None, "{none}");
        }
    }
}
