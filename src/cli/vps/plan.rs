//! `condo plan`.

use anyhow::Result;
use clap::Subcommand;
use serde_json::Value;

use crate::cli::exit::Exit;
use crate::cli::output::{print, print_json, table};
use crate::vps::record::instance::Condo;
use crate::vps::record::plans::Plan;
use crate::vps::record::size;

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(super) enum PlanCommand {
    /// List all plans.
    #[command(
        after_help = "Plans are in /etc/condo/plans.toml.\n\nExample:\n  condo plan list --json | jq .small.memory"
    )]
    List {
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(condo: &Condo, command: &PlanCommand) -> Result<Exit> {
    let PlanCommand::List { json } = command;
    let plans = condo.plans()?;
    if *json {
        print_json(&plans)?;
        return Ok(Exit::Success);
    }
    let rows = plans.iter().map(|(name, plan)| row(name, plan));
    print(&table(["NAME", "CPUS", "MEMORY", "DISK", "OTHER"], rows))?;
    Ok(Exit::Success)
}

fn row(name: &str, plan: &Plan) -> [String; 5] {
    let or_nothing = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        name.to_owned(),
        or_nothing(plan.limits.cpus.map(|n| n.to_string())),
        or_nothing(plan.limits.memory.map(size::display)),
        or_nothing(plan.disk.map(size::display)),
        other(plan),
    ]
}

/// The limits that have no column, by their options' names.
fn other(plan: &Plan) -> String {
    let Ok(Value::Object(limits)) = serde_json::to_value(&plan.limits) else {
        return String::new();
    };
    let rest = limits
        .iter()
        .filter(|(field, _)| !["cpus", "memory"].contains(&field.as_str()));
    let words: Vec<String> = rest
        .map(|(field, value)| format!("{}={value}", field.replace('_', "-")))
        .collect();
    words.join(" ")
}
