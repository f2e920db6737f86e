//! Shares of the last-level cache and of memory bandwidth: `linux.intelRdt` of the runtime spec, by the kernel's resctrl file
//! system (Intel RDT, AMD QoS; `Documentation/filesystems/resctrl.rst`).

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};

use crate::error::{During, Error, Failures, Result};
use crate::files;
use crate::undo::Undo;

/// Where resctrl is mounted, by convention and by the spec's example.
const MOUNT: &str = "/sys/fs/resctrl";
/// `RDTGROUP_SUPER_MAGIC` of `linux/magic.h`.
const MAGIC: rustix::fs::FsWord = 0x0765_5821;
/// Names the file system keeps for itself.
const RESERVED: [&str; 5] = ["", ".", "..", "info", "mon_groups"];

/// What a config asks for: a class of service, its schemata, and whether its use is measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// The class's directory.
    class: String,
    /// Whether the class is the container's alone, to be made and removed with it.
    own: bool,
    /// Lines for the class's `schemata`.
    #[serde(default)]
    schemata: Vec<String>,
    /// The container's directory among the class's `mon_groups`.
    monitor: Option<String>,
}

impl Allocation {
    /// Reads `linux.intelRdt` of the container `id`. `None` where it asks for nothing.
    ///
    /// # Errors
    /// Names the field: a `closID` that is not a directory's name.
    pub fn from_spec(rdt: &LinuxIntelRdt, id: &str) -> Result<Option<Self>> {
        let class = rdt.clos_id().clone().filter(|c| !c.is_empty());
        if let Some(class) = class.as_deref().filter(|c| !is_name(c)) {
            let problem = "is not the name of a directory";
            return Err(Error::invalid("linux.intelRdt.closID", class, problem));
        }
        let schemata = schemata(rdt);
        // Of spec 1.2's `enableCMT` and `enableMBM`, which 1.3 replaced, the types know nothing.
        let monitored = rdt.enable_monitoring().unwrap_or(false);
        if class.is_none() && schemata.is_empty() && !monitored {
            return Ok(None);
        }
        Ok(Some(Self {
            own: class.is_none(),
            class: class.unwrap_or_else(|| id.to_owned()),
            schemata,
            monitor: monitored.then(|| id.to_owned()),
        }))
    }

    /// Makes what is missing of it, or nothing.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without resctrl; a class that has other schemata than these; one that is to be there and is not.
    pub fn prepare(&self) -> Result<()> {
        if rustix::fs::statfs(MOUNT).map_or(true, |fs| fs.f_type != MAGIC) {
            return Err(Error::unsupported(
                "`linux.intelRdt`",
                format!("resctrl is not mounted; on a machine that has it: mount -t resctrl resctrl {MOUNT}"),
            ));
        }
        let mut undo = Undo::new();
        if self.claim_class()? {
            undo.push(|| Ok(std::fs::remove_dir(self.path())?));
            self.write_schemata(&self.schemata)?;
        } else {
            self.compare()?;
        }
        if let Some(path) = self.monitor_path() {
            std::fs::create_dir(&path).during(|| format!("create `{}`", path.display()))?;
        }
        undo.disarm();
        Ok(())
    }

    /// Puts a process, and with it the children it will have, into the class.
    pub fn admit(&self, pid: i32) -> Result<()> {
        let group = self.monitor_path().unwrap_or_else(|| self.path());
        let tasks = group.join("tasks");
        std::fs::write(&tasks, pid.to_string()).during(|| format!("write `{}`", tasks.display()))
    }

    /// Gives the class other schemata.
    pub fn write_schemata(&self, lines: &[String]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let file = self.path().join("schemata");
        let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        std::fs::write(&file, text).during(|| format!("linux.intelRdt: write `{}`", file.display()))
    }

    /// Removes what [`Allocation::prepare`] made; what is gone already is no error.
    pub fn remove(&self) -> Result<()> {
        let mut failures = Failures::default();
        let own = self.own.then(|| self.path());
        for path in self.monitor_path().into_iter().chain(own) {
            match std::fs::remove_dir(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                other => failures.note(other.during(|| format!("remove `{}`", path.display()))),
            }
        }
        failures.into_result()
    }

    /// True when the class is new. A class that others share needs schemata to be made from.
    fn claim_class(&self) -> Result<bool> {
        let path = self.path();
        if files::exists(&path) && !self.own {
            return Ok(false);
        }
        if self.schemata.is_empty() && !self.own {
            let problem = "is not a class of this host, and there are no schemata to make it with";
            return Err(Error::invalid("linux.intelRdt.closID", &self.class, problem));
        }
        std::fs::create_dir(&path).during(|| format!("linux.intelRdt: create `{}`", path.display()))?;
        Ok(true)
    }

    fn compare(&self) -> Result<()> {
        let there = files::read_text(&self.path().join("schemata"))?;
        let there: Vec<String> = there.lines().map(normal).collect();
        match self.schemata.iter().find(|line| !there.contains(&normal(line))) {
            Some(line) => Err(Error::invalid(
                "linux.intelRdt",
                line,
                format!(
                    "is not what the class `{}` has; leave it out or name another",
                    self.class
                ),
            )),
            None => Ok(()),
        }
    }

    fn path(&self) -> PathBuf {
        Path::new(MOUNT).join(&self.class)
    }

    fn monitor_path(&self) -> Option<PathBuf> {
        let name = self.monitor.as_ref()?;
        Some(self.path().join("mon_groups").join(name))
    }
}

/// `schemata`, or the two older fields, a line each. The memory bandwidth of `l3CacheSchema` gives way to its own field.
fn schemata(rdt: &LinuxIntelRdt) -> Vec<String> {
    if let Some(lines) = rdt.schemata().as_ref().filter(|lines| !lines.is_empty()) {
        return lines.clone();
    }
    let bandwidth = rdt.mem_bw_schema().as_deref().unwrap_or("").lines();
    let cache = rdt.l3_cache_schema().as_deref().unwrap_or("").lines();
    let cache = cache.filter(|line| rdt.mem_bw_schema().is_none() || !line.trim_start().starts_with("MB:"));
    cache
        .chain(bandwidth)
        .filter(|line| !line.trim().is_empty())
        .map(ToOwned::to_owned)
        .collect()
}

fn is_name(text: &str) -> bool {
    !RESERVED.contains(&text) && !text.contains(['/', '\0', '\n'])
}

/// A schema without what the kernel adds when it prints one: blanks, and zeros in front of numbers.
fn normal(line: &str) -> String {
    let trim = |number: &str| {
        let short = number.trim_start_matches('0');
        if short.is_empty() {
            "0".into()
        } else {
            short.to_owned()
        }
    };
    let dense: String = line.chars().filter(|c| !c.is_whitespace()).collect();
    let (resource, domains) = dense.split_once(':').unwrap_or((&dense, ""));
    let mut domains: Vec<String> = domains
        .split(';')
        .map(|domain| match domain.split_once('=') {
            Some((id, value)) => format!("{}={}", trim(id), trim(value)),
            None => domain.to_owned(),
        })
        .collect();
    domains.sort();
    format!("{resource}:{}", domains.join(";"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(rdt: Value) -> Result<Option<Allocation>> {
        Allocation::from_spec(&serde_json::from_value(rdt).unwrap(), "web")
    }

    #[test]
    fn without_a_class_the_container_has_one_of_its_own() {
        let asked = read(json!({"l3CacheSchema": "L3:0=f\nMB:0=90\n", "memBwSchema": "MB:0=50"}));
        let wanted = Allocation {
            class: "web".into(),
            own: true,
            schemata: vec!["L3:0=f".into(), "MB:0=50".into()],
            monitor: None,
        };
        assert_eq!(asked.unwrap(), Some(wanted));
        assert_eq!(read(json!({})).unwrap(), None);
    }

    #[test]
    fn schemata_replace_the_older_fields_and_monitoring_has_a_group() {
        let asked = read(json!({
            "closID": "gold", "schemata": ["L3:0=ff", "MB:0=20"], "l3CacheSchema": "L3:0=1", "enableMonitoring": true
        }));
        let asked = asked.unwrap().unwrap();
        assert_eq!(asked.schemata, ["L3:0=ff", "MB:0=20"]);
        assert_eq!(asked.path(), Path::new("/sys/fs/resctrl/gold"));
        assert_eq!(
            asked.monitor_path().unwrap(),
            Path::new("/sys/fs/resctrl/gold/mon_groups/web")
        );
        assert!(!asked.own);
        assert!(read(json!({"enableMonitoring": true})).unwrap().unwrap().own);
    }

    #[test]
    fn a_class_is_one_directory() {
        for bad in ["..", ".", "a/b", "/", "info", "mon_groups", "a\nb"] {
            let e = read(json!({"closID": bad})).unwrap_err().to_string();
            assert!(e.contains("linux.intelRdt.closID"), "{e}");
        }
    }

    #[test]
    fn the_kernels_way_to_print_is_the_same_schema() {
        assert_eq!(normal("L3:0=00f;1=0ff"), normal(" L3: 1=ff;0=f "));
        assert_ne!(normal("L3:0=f"), normal("L3:0=ff"));
        assert_ne!(normal("MB:0=10"), normal("MB:0=1"));
    }
}
