//! What goes on in the background: operations, in memory.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::events::{Events, time};
use crate::reply::Problem;

mod routes;

pub(crate) use routes::{cancel, get, list, socket, wait};

/// How long an ended operation can still be asked for: clients look after it has ended.
const KEPT: Duration = Duration::from_secs(60);
/// How many may be known at once: more is an attack or a mistake.
const MOST: usize = 10_000;

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Running,
    Cancelling,
    Success,
    Failure,
    Cancelled,
}

impl Status {
    fn words(self) -> (&'static str, u16) {
        match self {
            Self::Running => ("Running", 103),
            Self::Cancelling => ("Cancelling", 104),
            Self::Success => ("Success", 200),
            Self::Failure => ("Failure", 400),
            Self::Cancelled => ("Cancelled", 401),
        }
    }

    /// Whether it is over.
    pub(crate) fn is_final(self) -> bool {
        !matches!(self, Self::Running | Self::Cancelling)
    }
}

/// What is known when it begins.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    /// What is done.
    pub(crate) description: &'static str,
    /// Whose it is.
    pub(crate) project: String,
    /// What it is done to: kind, and addresses.
    pub(crate) resources: Map<String, Value>,
    /// What a client needs, such as the secrets of websockets.
    pub(crate) metadata: Map<String, Value>,
    /// Whether a client may end it.
    pub(crate) may_cancel: bool,
    /// `task`, if not given, `websocket` or `token`.
    pub(crate) class: Option<&'static str>,
}

impl Plan {
    /// Something that is done to an instance.
    pub(crate) fn of_instance(description: &'static str, project: &str, name: &str) -> Self {
        let address = json!([format!("/1.0/instances/{name}")]);
        let resources = [
            ("instances".to_owned(), address.clone()),
            ("containers".to_owned(), address),
        ];
        Self {
            description,
            project: project.to_owned(),
            resources: resources.into_iter().collect(),
            ..Self::default()
        }
    }

    /// The same with something else it is done to.
    pub(crate) fn and(mut self, kind: &str, address: &str) -> Self {
        self.resources.insert(kind.to_owned(), json!([address]));
        self
    }
}

/// One operation.
pub(crate) struct Operation {
    /// Its name.
    pub(crate) id: String,
    plan: Plan,
    created: SystemTime,
    state: Mutex<State>,
    over: watch::Sender<bool>,
    /// Told to end early.
    pub(crate) cancel: CancellationToken,
    /// Where its websockets are brought together.
    sockets: Mutex<Option<Arc<dyn Sockets>>>,
}

struct State {
    status: Status,
    updated: SystemTime,
    metadata: Map<String, Value>,
    err: String,
}

/// Takes the websockets of an operation.
pub(crate) trait Sockets: Send + Sync {
    /// Which one a secret is for.
    fn known(&self, secret: &str) -> bool;
    /// Takes one.
    fn take(&self, secret: &str, socket: axum::extract::ws::WebSocket);
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Operation {
    /// As clients see it.
    pub(crate) fn view(&self) -> Value {
        let state = locked(&self.state);
        let (status, code) = state.status.words();
        let metadata = if state.metadata.is_empty() {
            Value::Null
        } else {
            Value::Object(state.metadata.clone())
        };
        json!({
            "id": self.id, "class": self.plan.class.unwrap_or("task"), "description": self.plan.description,
            "created_at": time(self.created), "updated_at": time(state.updated),
            "status": status, "status_code": code,
            "resources": self.plan.resources, "metadata": metadata,
            "may_cancel": self.plan.may_cancel, "err": state.err, "location": "none",
        })
    }

    /// Whose it is.
    pub(crate) fn project(&self) -> &str {
        &self.plan.project
    }

    /// From now on its websockets can be connected.
    pub(crate) fn expect(&self, sockets: Arc<dyn Sockets>) {
        *locked(&self.sockets) = Some(sockets);
    }

    /// How far it is.
    pub(crate) fn status(&self) -> Status {
        locked(&self.state).status
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        let mut state = locked(&self.state);
        change(&mut state);
        state.updated = SystemTime::now();
    }

    /// Waits until it is over, or the patience is.
    pub(crate) async fn ended(&self, patience: Option<Duration>) {
        let mut over = self.over.subscribe();
        let end = async {
            let _ = over.wait_for(|over| *over).await;
        };
        match patience {
            Some(patience) => {
                let _ = tokio::time::timeout(patience, end).await;
            }
            None => end.await,
        }
    }
}

/// How an operation ends: metadata for the client, or why not with metadata all the same.
pub(crate) type End = Result<Map<String, Value>, (Problem, Map<String, Value>)>;

/// All operations.
pub(crate) struct Operations {
    all: Arc<Mutex<HashMap<String, Arc<Operation>>>>,
    events: Events,
}

impl Operations {
    pub(crate) fn new(events: Events) -> Self {
        Self {
            all: Arc::default(),
            events,
        }
    }

    /// One of them.
    pub(crate) fn find(&self, id: &str) -> Result<Arc<Operation>, Problem> {
        let found = locked(&self.all).get(id).cloned();
        found.ok_or_else(|| Problem::missing("Operation", id))
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Operation>> {
        locked(&self.all).values().cloned().collect()
    }

    /// Begins one whose end has nothing to say but whether it worked.
    pub(crate) fn begin<F>(&self, plan: Plan, work: F) -> Result<Arc<Operation>, Problem>
    where
        F: Future<Output = Result<(), Problem>> + Send + 'static,
    {
        self.launch(plan, |_| async {
            work.await.map(|()| Map::new()).map_err(|e| (e, Map::new()))
        })
    }

    /// Begins one. `work` is told which.
    pub(crate) fn launch<F>(
        &self,
        plan: Plan,
        work: impl FnOnce(Arc<Operation>) -> F,
    ) -> Result<Arc<Operation>, Problem>
    where
        F: Future<Output = End> + Send + 'static,
    {
        let operation = Arc::new(Operation {
            id: random_id()?,
            created: SystemTime::now(),
            state: Mutex::new(State {
                status: Status::Running,
                updated: SystemTime::now(),
                metadata: plan.metadata.clone(),
                err: String::new(),
            }),
            plan,
            over: watch::channel(false).0,
            cancel: CancellationToken::new(),
            sockets: Mutex::new(None),
        });
        {
            let mut all = locked(&self.all);
            if all.len() >= MOST {
                return Err(Problem::of_status(
                    axum::http::StatusCode::SERVICE_UNAVAILABLE,
                    "too many operations go on: wait for some to end",
                ));
            }
            all.insert(operation.id.clone(), operation.clone());
        }
        self.tell(&operation);
        let (all, events) = (self.all.clone(), self.events.clone());
        let work = work(operation.clone());
        let running = operation.clone();
        tokio::spawn(async move {
            let end = work.await;
            finish(&running, end);
            events.send("operation", &running.plan.project, &running.view());
            let _ = running.over.send_replace(true);
            tokio::time::sleep(KEPT).await;
            locked(&all).remove(&running.id);
        });
        Ok(operation)
    }

    /// Says how far one is to whoever listens.
    fn tell(&self, operation: &Operation) {
        self.events
            .send("operation", &operation.plan.project, &operation.view());
    }

    /// Asks one to end early.
    pub(crate) fn cancel(&self, operation: &Operation) -> Result<(), Problem> {
        if operation.status().is_final() {
            return Err(Problem::bad("only running operations can be cancelled"));
        }
        if !operation.plan.may_cancel {
            return Err(Problem::bad("this operation cannot be cancelled"));
        }
        operation.set(|state| state.status = Status::Cancelling);
        operation.cancel.cancel();
        self.tell(operation);
        Ok(())
    }
}

fn finish(operation: &Operation, end: End) {
    let cancelled = operation.cancel.is_cancelled();
    operation.set(|state| match end {
        Ok(metadata) => {
            state.metadata.extend(metadata);
            state.status = if cancelled {
                Status::Cancelled
            } else {
                Status::Success
            };
        }
        Err((problem, metadata)) => {
            state.metadata.extend(metadata);
            state.status = if cancelled {
                Status::Cancelled
            } else {
                Status::Failure
            };
            state.err = problem.text;
        }
    });
}

/// A name nobody has and nobody guesses.
pub(crate) fn random_id() -> Result<String, Problem> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid");
    text.map(|text| text.trim().to_owned())
        .map_err(|e| Problem::internal(format!("make a random name: {e}")))
}
