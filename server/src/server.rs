//! What all requests share.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use condo::vps::record::config::VpsConfig;
use condo::vps::record::instance::Condo;
use condo::vps::record::name::Name;
use condo::vps::record::view::VpsStatus;

use crate::errand::{self, Streams, Task, Whose};
use crate::events::Events;
use crate::operations::Operations;
use crate::reply::Problem;
use crate::request::Params;
use crate::trust::{self, Reach};

/// The port that clients try.
pub(crate) const PORT: u16 = 8443;

/// The server as one request has it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Server {
    shared: Arc<Shared>,
    /// The project whose VPSs are there, if not all are.
    project: Option<Name>,
    /// Whether the request comes from somebody who is trusted with projects only.
    restricted: bool,
}

/// What there is one of.
pub(crate) struct Shared {
    /// The `--root` of the condo that is served.
    pub(crate) root: Option<PathBuf>,
    /// Who listens to what happens.
    pub(crate) events: Events,
    /// What goes on.
    pub(crate) operations: Operations,
    /// Where it listens for TLS, if it does.
    pub(crate) address: Option<SocketAddr>,
    arrivals: Mutex<()>,
}

impl std::ops::Deref for Server {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// For requests about VPSs, and for those that say who uses what: those of the request's project are there, and no others. What
/// changes the host's networks, profiles and the like takes the server as it is, by `State`.
impl FromRequestParts<Server> for Server {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Server) -> Result<Self, Problem> {
        let params = Params::from_request_parts(parts, state).await?;
        let wanted = (!params.all_projects()).then(|| params.project());
        let project = wanted.map(|name| name.parse().map_err(|_| Problem::missing("Project", name)));
        Ok(Self {
            shared: state.shared.clone(),
            project: project.transpose()?,
            restricted: parts.extensions.get().is_none_or(Reach::is_restricted),
        })
    }
}

impl Server {
    /// For the condo below `root`, or the host's own.
    pub(crate) fn new(root: Option<PathBuf>, address: Option<SocketAddr>) -> Self {
        let events = Events::default();
        let shared = Shared {
            root,
            operations: Operations::new(events.clone()),
            events,
            address,
            arrivals: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
            project: None,
            restricted: false,
        }
    }

    /// Held while an image that came is compared with those that are there: of two equal ones that come at once, one stays.
    pub(crate) fn admit_one(&self) -> MutexGuard<'_, ()> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The port that clients find it at over TLS.
    pub(crate) fn port(&self) -> u16 {
        self.address.map_or(PORT, |address| address.port())
    }

    /// Reads from condo's records, beside the threads that serve connections.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Condo) -> condo::error::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        let whose = self.whose();
        let done = tokio::task::spawn_blocking(move || work(&whose.open()?)).await;
        done.map_err(|e| Problem::internal(e.to_string()))?
            .map_err(Problem::from)
    }

    /// What a VPS is doing now.
    pub(crate) async fn status(&self, name: &Name) -> Result<VpsStatus, Problem> {
        let name = name.clone();
        self.read(move |condo| Ok(condo.show(&name)?.status)).await
    }

    /// Has a task done in a process of its own.
    pub(crate) async fn run(&self, task: Task) -> Result<serde_json::Value, Problem> {
        self.run_with(task, Streams::default()).await
    }

    /// The same for a task that reads or writes a file.
    pub(crate) async fn run_with(&self, task: Task, streams: Streams) -> Result<serde_json::Value, Problem> {
        errand::run(self.whose(), task, streams).await
    }

    /// Refuses what nobody may do who is trusted with projects only.
    pub(crate) fn must_be_unrestricted(&self, what: &str) -> Result<(), Problem> {
        match self.restricted {
            true => Err(Problem::forbidden(format!(
                "{what}: your certificate is for projects only"
            ))),
            false => Ok(()),
        }
    }

    /// Refuses powers that somebody who is trusted with projects only would give a VPS beyond those that are granted.
    pub(crate) fn must_not_empower(&self, granted: &VpsConfig, wanted: &VpsConfig) -> Result<(), Problem> {
        match self.restricted {
            true => trust::must_not_empower(granted, wanted),
            false => Ok(()),
        }
    }

    /// Whose VPSs are worked with.
    pub(crate) fn whose(&self) -> Whose {
        Whose {
            root: self.root.clone(),
            project: self.project.clone(),
        }
    }
}
