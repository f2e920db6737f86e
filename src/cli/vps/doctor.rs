//! `condo doctor`.

use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;

use super::usage::digits;
use crate::cli::exit::Exit;
use crate::cli::output::{print, print_json, table};
use crate::files;
use crate::vps::record::instance::Condo;
use crate::vps::report::doctor::{Finding, Weight};

/// Where `--fix` keeps what it has set, for the next boot (`sysctl.d(5)`).
const KEPT: &str = "/etc/sysctl.d/60-condo.conf";

pub(super) const EXAMPLES: &str = "\
Exit status 1 says that something is to be mended.

Examples:
  condo doctor
  condo doctor --vpss 1000 --fix";

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Look whether the host is large enough for this many VPSs; for those there are, at least 100, without.
    #[arg(long, value_name = "N", value_parser = |t: &str| digits("--vpss", t))]
    vpss: Option<u64>,
    /// Set the sysctls that are too small, now and in /etc/sysctl.d/60-condo.conf.
    #[arg(long)]
    fix: bool,
    /// For scripts.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(condo: &Condo, args: &DoctorArgs) -> Result<Exit> {
    let mut findings = condo.examine(args.vpss)?;
    if args.fix {
        fix(&findings)?;
        findings = condo.examine(args.vpss)?;
    }
    condo.remember_findings(&findings);
    if args.json {
        print_json(&findings)?;
    } else {
        print(&listed(&findings))?;
    }
    let is_well = findings.iter().all(|finding| finding.weight == Weight::Good);
    Ok(if is_well { Exit::Success } else { Exit::Failure })
}

fn listed(findings: &[Finding]) -> String {
    let rows = findings.iter().map(|finding| {
        [
            finding.weight.as_str().to_owned(),
            finding.subject.clone(),
            finding.found.clone(),
            finding.remedy.clone().unwrap_or_default(),
        ]
    });
    table(["", "SUBJECT", "FOUND", "REMEDY"], rows)
}

/// Sets what can be set. Lines that are kept already stay, unless they are of the same sysctl.
fn fix(findings: &[Finding]) -> Result<()> {
    let set: Vec<_> = findings
        .iter()
        .filter_map(|finding| finding.sysctl.clone())
        .collect();
    for (name, value) in &set {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        std::fs::write(&path, value.to_string()).with_context(|| format!("set {name}"))?;
    }
    if set.is_empty() {
        return Ok(());
    }
    let kept = std::fs::read_to_string(KEPT).unwrap_or_default();
    files::write_atomic(Path::new(KEPT), merged(&kept, &set).as_bytes(), 0o644)?;
    Ok(())
}

fn merged(kept: &str, set: &[(String, u64)]) -> String {
    let is_of_another = |line: &&str| {
        let name = line.split('=').next().unwrap_or_default().trim();
        set.iter().all(|(new, _)| new != name)
    };
    let mut lines: Vec<String> = kept.lines().filter(is_of_another).map(Into::into).collect();
    lines.extend(set.iter().map(|(name, value)| format!("{name} = {value}")));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_kept_once() {
        let set = [("kernel.pty.max".to_owned(), 9)];
        assert_eq!(merged("", &set), "kernel.pty.max = 9\n");
        let before = "# mine\nkernel.pty.max=3\nfs.file-max = 4\n";
        assert_eq!(
            merged(before, &set),
            "# mine\nfs.file-max = 4\nkernel.pty.max = 9\n"
        );
    }
}
