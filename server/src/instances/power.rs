//! Instances started, stopped and deleted.

use axum::extract::Path;
use condo::vps::record::name::Name;
use condo::vps::record::view::VpsStatus;
use serde::Deserialize;

use crate::errand::{PATIENCE, Task};
use crate::operations::Plan;
use crate::reply::{Answer, Problem, Reply};
use crate::request::{Body, Params, name};
use crate::server::Server;

/// Seconds that are as good as without end (136 years).
const FOREVER: u64 = u32::MAX as u64;

/// The body of `PUT /1.0/instances/NAME/state`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Change {
    action: String,
    timeout: Option<i64>,
    force: bool,
    stateful: bool,
}

impl Change {
    /// What is to be done, what it is called, and what it is called when it is done.
    fn task(&self, name: &Name, status: VpsStatus) -> Result<(Task, &'static str, &'static str), Problem> {
        if self.stateful {
            return Err(Problem::value(
                "stateful",
                "true",
                "is not supported: a running VPS is not saved",
            ));
        }
        let patience = match self.timeout {
            _ if self.force => 0,
            // Without end.
            Some(seconds) if seconds < 0 => FOREVER,
            Some(seconds) => seconds.unsigned_abs(),
            None => PATIENCE,
        };
        let name = name.clone();
        let running = status != VpsStatus::Stopped;
        Ok(match self.action.as_str() {
            "start" if status == VpsStatus::Running => {
                return Err(Problem::bad("The instance is already running"));
            }
            "start" if status == VpsStatus::Paused => {
                (Task::Thaw(name), "Unfreezing instance", "instance-resumed")
            }
            "start" => (Task::Start(name), "Starting instance", "instance-started"),
            "stop" | "restart" if !running => return Err(Problem::bad("The instance is already stopped")),
            "stop" => (
                Task::Stop(name, patience),
                "Stopping instance",
                "instance-shutdown",
            ),
            "restart" => (
                Task::Restart(name, patience),
                "Restarting instance",
                "instance-restarted",
            ),
            "freeze" => (Task::Freeze(name), "Freezing instance", "instance-paused"),
            "unfreeze" => (Task::Thaw(name), "Unfreezing instance", "instance-resumed"),
            other => {
                return Err(Problem::value(
                    "action",
                    other,
                    "is none of start, stop, restart, freeze, unfreeze",
                ));
            }
        })
    }
}

/// `PUT /1.0/instances/NAME/state`.
pub(crate) async fn set_state(
    server: Server,
    Path(text): Path<String>,
    params: Params,
    Body(change): Body<Change>,
) -> Answer {
    let name = name(&text)?;
    let status = server.status(&name).await?;
    let (task, description, done) = change.task(&name, status)?;
    let plan = Plan::of_instance(description, params.project(), &text);
    act(&server, plan, task, done, &name)
}

/// `DELETE /1.0/instances/NAME`.
pub(crate) async fn delete(server: Server, Path(text): Path<String>, params: Params) -> Answer {
    let name = name(&text)?;
    let status = server.status(&name).await?;
    if status != VpsStatus::Stopped {
        return Err(Problem::bad(
            "The instance is currently running, stop it first or pass --force",
        ));
    }
    let plan = Plan::of_instance("Deleting instance", params.project(), &text);
    act(
        &server,
        plan,
        Task::Delete(name.clone(), false),
        "instance-deleted",
        &name,
    )
}

/// Begins an operation that is one errand, and tells when it is done.
pub(super) fn act(server: &Server, plan: Plan, task: Task, done: &'static str, name: &Name) -> Answer {
    let (server, project) = (server.clone(), plan.project.clone());
    let source = format!("/1.0/instances/{name}");
    let operations = server.clone();
    let work = async move {
        server.run(task).await?;
        if !server.events.are_told_of(done) {
            server.events.lifecycle(&project, done, &source);
        }
        Ok(())
    };
    Ok(Reply::begun(&*operations.operations.begin(plan, work)?))
}
