//! How far somebody's trust goes. A certificate may be for projects only: then what is not known to be about these is refused.

use axum::extract::{Query, Request};
use axum::http::Method;
use condo::vps::record::config::VpsConfig;
use condo::vps::record::name::Name;

use crate::reply::Problem;
use crate::request::Params;
use crate::server::Server;

/// What somebody may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Look what this is, and ask to be trusted.
    Nothing,
    /// Work with the VPSs of these projects, and see what those are made of.
    Projects(Vec<Name>),
    /// All that the API has.
    All,
}

impl Reach {
    /// Whether a project is within it.
    pub(crate) fn has(&self, project: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Projects(projects) => projects.iter().any(|one| one.as_str() == project),
            Self::All => true,
        }
    }

    /// Whether it ends somewhere.
    pub(crate) fn is_restricted(&self) -> bool {
        *self != Self::All
    }

    /// Whether a request is within it.
    pub(super) fn permits(&self, server: &Server, request: &Request) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Projects(_) => self.permits_part(server, request).unwrap_or(false),
        }
    }

    /// The rows are what a tenant needs. Whatever else the API gets, it gets for others first.
    fn permits_part(&self, server: &Server, request: &Request) -> Option<bool> {
        let params = Params::from(
            Query::<Vec<(String, String)>>::try_from_uri(request.uri())
                .ok()?
                .0,
        );
        let within = !params.all_projects() && self.has(params.project());
        let path = request.uri().path().strip_prefix("/1.0/")?;
        let path: Vec<&str> = path.split('/').collect();
        let looks = *request.method() == Method::GET;
        Some(match path.as_slice() {
            ["instances" | "containers" | "network-acls", ..] => within,
            ["events" | "operations" | "profiles"] | ["profiles", _] => looks && within,
            ["operations", id, ..] => match server.operations.find(id) {
                Ok(operation) => self.has(operation.project()),
                Err(_) => true,
            },
            ["openapi.json" | "projects" | "images"] | ["images", _] | ["images", "aliases", _] => looks,
            ["projects", name] | ["projects", name, "state"] => looks && self.has(name),
            _ => false,
        })
    }
}

/// Refuses what somebody who is trusted with projects would give a VPS of the host: `granted` has what the operator has given it, by
/// profiles or by hand.
pub(crate) fn must_not_empower(granted: &VpsConfig, wanted: &VpsConfig) -> Result<(), Problem> {
    let (a, b) = (granted, wanted);
    let same = [
        ("security.nesting", a.nesting == b.nesting),
        (
            "security.syscalls.intercept.sysinfo",
            a.own_sysinfo == b.own_sysinfo,
        ),
        ("security.idmap.size", a.ids == b.ids),
        ("devices", a.devices == b.devices && a.permit == b.permit),
        ("proxy devices", a.publish == b.publish),
        ("nic devices", a.networks == b.networks && a.allow == b.allow),
    ];
    match same.into_iter().find(|(_, same)| !same) {
        Some((key, _)) => Err(Problem::forbidden(format!(
            "{key}: your certificate is for projects; what reaches beyond a VPS comes by a profile of the operator's"
        ))),
        None => Ok(()),
    }
}
