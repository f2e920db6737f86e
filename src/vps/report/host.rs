//! Figures of the host: what there is of what all VPSs share.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::doctor::{Finding, Weight};
use crate::error::Result;
use crate::files;
use crate::net::ipam;
use crate::vps::record::instance::Condo;
use crate::vps::record::store;
use crate::vps::record::view::VpsStatus;

/// What of the host is worth a curve.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct HostFigures {
    /// How many VPSs do what.
    pub(super) vpss: Vec<(String, u64)>,
    /// How many addresses of each network nobody has.
    pub(super) addresses: Vec<(String, u64)>,
    /// How many findings of each weight the doctor had last.
    pub(super) findings: Vec<(String, u64)>,
    /// When that was, in seconds since 1970.
    pub(super) examined: Option<u64>,
    /// Of each project and resource, what is used and the limit.
    pub(super) projects: Vec<Use>,
}

/// The name of a project, a resource, what is used of it, and the limit.
pub(super) type Use = (String, &'static str, f64, Option<f64>);

/// The doctor's last findings, kept because to find them takes longer than a scrape may.
#[derive(Debug, Serialize, Deserialize)]
struct Examined {
    at: u64,
    findings: Vec<(String, u64)>,
}

impl Condo {
    /// Keeps what the doctor has found, for `Condo::host_figures`. That it cannot be kept is worth no failure.
    pub fn remember_findings(&self, findings: &[Finding]) {
        let count = |weight: Weight| {
            let of_it = findings.iter().filter(|finding| finding.weight == weight);
            (weight.as_str().to_owned(), of_it.count() as u64)
        };
        let examined = Examined {
            at: u64::try_from(store::now()).unwrap_or_default(),
            findings: [Weight::Good, Weight::Warning, Weight::Error].map(count).into(),
        };
        let kept = serde_json::to_vec(&examined)
            .map_err(Into::into)
            .and_then(|text| files::write_atomic(&self.examined(), &text, 0o600));
        if let Err(e) = kept {
            log::debug!("{e}");
        }
    }

    fn examined(&self) -> PathBuf {
        self.folders.run().join("doctor.json")
    }

    pub(super) fn host_figures(&self, statuses: &[VpsStatus]) -> Result<HostFigures> {
        let all = [
            VpsStatus::Running,
            VpsStatus::Paused,
            VpsStatus::Created,
            VpsStatus::Stopped,
        ];
        let count = |status: VpsStatus| {
            let of_it = statuses.iter().filter(|found| **found == status);
            (status.as_str().to_owned(), of_it.count() as u64)
        };
        let examined: Option<Examined> = files::read(&self.examined())
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        let (examined, findings) = examined.map_or((None, Vec::new()), |e| (Some(e.at), e.findings));
        Ok(HostFigures {
            vpss: all.map(count).into(),
            addresses: self.free_addresses()?,
            findings,
            examined,
            projects: self.uses_of_projects()?,
        })
    }

    /// What is left of each network: its addresses for VPSs, without those that VPSs have.
    fn free_addresses(&self) -> Result<Vec<(String, u64)>> {
        let records = self.store.list()?;
        let used = |network: &str| {
            let interfaces = records.iter().flat_map(|record| &record.interfaces);
            interfaces
                .filter(|interface| interface.network.as_str() == network)
                .count() as u64
        };
        let networks = self.store.networks()?;
        Ok(networks
            .iter()
            .map(|network| {
                let all = ipam::room(network.network.subnet.size().into());
                let name = network.name.to_string();
                let left = all.saturating_sub(used(&name));
                (name, left)
            })
            .collect())
    }

    fn uses_of_projects(&self) -> Result<Vec<Use>> {
        let mut found = Vec::new();
        for project in self.store.projects()? {
            let name = project.name.to_string();
            let figures = project.limits.figures(&project.used);
            found.extend(
                figures
                    .into_iter()
                    .map(|(resource, used, limit)| (name.clone(), resource, used, limit)),
            );
        }
        Ok(found)
    }
}
