//! What happens, for whoever listens: `GET /1.0/events` is a websocket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::IntoResponse;
use condo::vps::record::events::Kind;
use condo::vps::record::instance::Condo;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender, channel};

use crate::reply::{Answer, Problem, Reply};
use crate::request::{DEFAULT, Params};
use crate::server::Server;
use crate::trust::Reach;

/// Events that wait for a slow listener. One that is slower misses some.
const WAITING: usize = 1024;
/// How often a listener is asked whether it is still there, and how often it may not answer.
const PING: Duration = Duration::from_secs(10);
const UNANSWERED: u8 = 3;

/// How long until the log is followed again after a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// What the log has, and what it is called here.
const LOGGED: [(Kind, &str); 12] = [
    (Kind::Created, "instance-created"),
    (Kind::Started, "instance-started"),
    (Kind::Stopped, "instance-shutdown"),
    (Kind::Exited, "instance-stopped"),
    (Kind::Oom, "instance-stopped"),
    (Kind::Killed, "instance-stopped"),
    (Kind::Rebooted, "instance-restarted"),
    (Kind::Restarted, "instance-started"),
    (Kind::Frozen, "instance-paused"),
    (Kind::Thawed, "instance-resumed"),
    (Kind::Renamed, "instance-renamed"),
    (Kind::Deleted, "instance-deleted"),
];

/// One event.
#[derive(Debug)]
struct Event {
    kind: &'static str,
    project: String,
    text: String,
}

/// Who listens.
#[derive(Debug, Clone)]
pub(crate) struct Events(Sender<Arc<Event>>);

impl Default for Events {
    fn default() -> Self {
        Self(channel(WAITING).0)
    }
}

impl Events {
    /// Tells all who listen.
    pub(crate) fn send(&self, kind: &'static str, project: &str, metadata: &Value) {
        let text = json!({
            "type": kind, "timestamp": time(SystemTime::now()), "metadata": metadata,
            "location": "none", "project": project,
        });
        // Nobody listening is fine.
        let _ = self.0.send(Arc::new(Event {
            kind,
            project: project.to_owned(),
            text: text.to_string(),
        }));
    }

    /// Something has become of an instance, an image or the like.
    pub(crate) fn lifecycle(&self, project: &str, action: &str, source: &str) {
        let metadata = json!({ "action": action, "source": source });
        self.send("lifecycle", project, &metadata);
    }

    /// Whether the log of what happens to VPSs tells of such an action, whoever did it.
    pub(crate) fn are_told_of(&self, action: &str) -> bool {
        LOGGED.iter().any(|(_, logged)| *logged == action)
    }

    /// Tells what happens to VPSs, whoever does it, for as long as this process lives.
    pub(crate) fn follow(&self, root: Option<PathBuf>) {
        let events = self.clone();
        std::thread::spawn(move || {
            loop {
                if let Err(e) = events.follow_log(root.as_deref()) {
                    log::warn!("what happens to VPSs is not told: {e}");
                }
                std::thread::sleep(AGAIN);
            }
        });
    }

    fn follow_log(&self, root: Option<&Path>) -> condo::error::Result<()> {
        // What happened before has been told, or nobody was there to listen.
        let since = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        Condo::open(root)?.events(true, &mut |event| {
            if event.time >= since {
                let action = LOGGED.iter().find(|(kind, _)| *kind == event.event);
                if let Some((_, action)) = action {
                    let project = event.project.as_ref().map_or(DEFAULT, |name| name.as_str());
                    self.lifecycle(project, action, &format!("/1.0/instances/{}", event.vps));
                }
            }
            Ok(())
        })
    }

    fn listen(&self) -> Receiver<Arc<Event>> {
        self.0.subscribe()
    }
}

/// A time as the API has it (RFC 3339).
pub(crate) fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_micros(at).to_string()
}

/// Seconds since 1970 in the same way; the API's word for never is the year 1.
pub(crate) fn seconds(at: Option<i64>) -> String {
    let since = at.and_then(|at| u64::try_from(at).ok()).map(Duration::from_secs);
    match since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)) {
        Some(at) => humantime::format_rfc3339_seconds(at).to_string(),
        None => NEVER.to_owned(),
    }
}

/// A time that has not come.
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

/// What a listener wants to hear.
struct Wish {
    kinds: Vec<String>,
    /// `None` is every project.
    project: Option<String>,
    /// Whether what the server itself says is for this listener.
    logging: bool,
}

impl Wish {
    fn fits(&self, event: &Event) -> bool {
        let kind = self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == event.kind);
        kind && match event.kind {
            "logging" => self.logging,
            _ => self.project.as_ref().is_none_or(|p| *p == event.project),
        }
    }
}

/// `GET /1.0/events`.
pub(crate) async fn get(
    State(server): State<Server>,
    Extension(reach): Extension<Reach>,
    params: Params,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Answer {
    let upgrade = upgrade.map_err(|e| Problem::bad(format!("events are sent over a websocket: {e}")))?;
    let kinds: Vec<String> = params
        .get("type")
        .map(|list| list.split(',').map(|kind| kind.trim().to_owned()).collect())
        .unwrap_or_default();
    if let Some(bad) = kinds
        .iter()
        .find(|kind| !["operation", "lifecycle", "logging"].contains(&kind.as_str()))
    {
        return Err(Problem::value(
            "type",
            bad,
            "is none of operation, lifecycle, logging",
        ));
    }
    let wish = Wish {
        kinds,
        logging: !reach.is_restricted(),
        project: (!params.all_projects()).then(|| params.project().to_owned()),
    };
    // Before the answer: what is begun right after it must not be missed.
    let receiver = server.events.listen();
    Ok(Reply::Other(
        upgrade
            .on_upgrade(move |socket| tell(socket, receiver, wish))
            .into_response(),
    ))
}

async fn tell(mut socket: WebSocket, mut events: Receiver<Arc<Event>>, wish: Wish) {
    let mut clock = tokio::time::interval(PING);
    clock.reset();
    let mut unanswered = 0;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(event) if wish.fits(&event) => {
                    if socket.send(Message::Text(event.text.clone().into())).await.is_err() {
                        return;
                    }
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break,
            },
            said = socket.recv() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => unanswered = 0,
            },
            _ = clock.tick() => {
                unanswered += 1;
                if unanswered > UNANSWERED || socket.send(Message::Ping(Vec::new().into())).await.is_err() {
                    return;
                }
            }
        }
    }
    let _ = socket.send(Message::Close(None)).await;
}
