//! What all requests share.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use condo::error::Result;
use condo::vps::record::instance::Condo;
use condo::vps::record::name::Name;
use condo::vps::record::view::VpsStatus;

use crate::errand::{self, Streams, Task};
use crate::events::Events;
use crate::operations::Operations;
use crate::reply::Problem;

/// The port that clients try.
pub(crate) const PORT: u16 = 8443;

/// The server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Server(Arc<Shared>);

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
        &self.0
    }
}

impl Server {
    /// For the condo below `root`, or the host's own.
    pub(crate) fn new(root: Option<PathBuf>, address: Option<SocketAddr>) -> Self {
        let events = Events::default();
        Self(Arc::new(Shared {
            root,
            operations: Operations::new(events.clone()),
            events,
            address,
            arrivals: Mutex::default(),
        }))
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
        work: impl FnOnce(&Condo) -> Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        let root = self.root.clone();
        let done = tokio::task::spawn_blocking(move || work(&Condo::open(root.as_deref())?)).await;
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
        errand::run(self.root.clone(), task, streams).await
    }
}
