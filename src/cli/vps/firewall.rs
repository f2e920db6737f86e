//! `condo firewall`.

use anyhow::Result;
use clap::{Args, Subcommand};
use ipnetwork::IpNetwork;
use serde::Serialize;

use super::usage::digits;
use crate::cli::exit::Exit;
use crate::cli::output::{print, print_json, table};
use crate::error::{self, Error};
use crate::net::filter::{Action, Direction, Filter, FilterRule, Ports, Protocol, network};
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;

pub(super) const EXAMPLES: &str = "\
The first rule that fits decides, then the policy. Answers to what was allowed always pass.

Examples:
  condo firewall web allow in tcp 80
  condo firewall web allow in tcp 22 --from 198.51.100.0/24
  condo firewall web policy in deny
  condo firewall web deny out tcp 25 --log
  condo firewall web list";

#[derive(Debug, Args)]
pub(super) struct FirewallArgs {
    /// The VPS.
    name: Name,
    #[command(subcommand)]
    command: FirewallCommand,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
enum FirewallCommand {
    /// Add a rule that lets pass what fits.
    Allow(RuleArgs),
    /// Add a rule that drops what fits.
    Deny(RuleArgs),
    /// List policies and rules.
    List {
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Remove rules by their numbers in the list.
    Remove {
        /// The rules' numbers.
        #[arg(value_name = "NUMBER", required = true, value_parser = |t: &str| digits("NUMBER", t))]
        numbers: Vec<u64>,
    },
    /// Remove all rules and let everything pass.
    Reset,
    /// Say what becomes of what no rule fits.
    Policy {
        /// in or out, seen from the VPS.
        #[arg(value_name = "in|out")]
        direction: Direction,
        /// allow or deny.
        #[arg(value_name = "allow|deny")]
        action: Action,
    },
}

#[derive(Debug, Args)]
struct RuleArgs {
    /// in or out, seen from the VPS: who begins the connection.
    #[arg(value_name = "in|out")]
    direction: Direction,
    /// tcp, udp, icmp or any.
    #[arg(value_name = "PROTOCOL")]
    protocol: Protocol,
    /// The destination's port or range of ports; all without.
    #[arg(value_name = "PORT[-END]")]
    ports: Option<Ports>,
    /// Only what comes from this address or network.
    #[arg(long, value_name = "CIDR", value_parser = |t: &str| network("--from", t))]
    from: Option<IpNetwork>,
    /// Only what goes to this address or network.
    #[arg(long, value_name = "CIDR", value_parser = |t: &str| network("--to", t))]
    to: Option<IpNetwork>,
    /// Write what fits to the kernel's log, ten lines a second at most.
    #[arg(long)]
    log: bool,
    /// Where in the list it is put, 1 being first; at the end without.
    #[arg(long, value_name = "NUMBER", value_parser = |t: &str| digits("--at", t))]
    at: Option<u64>,
}

pub(super) fn run(condo: &Condo, args: &FirewallArgs) -> Result<Exit> {
    let name = &args.name;
    match &args.command {
        FirewallCommand::Allow(rule) => add(condo, name, Action::Allow, rule),
        FirewallCommand::Deny(rule) => add(condo, name, Action::Deny, rule),
        FirewallCommand::List { json } => list(&condo.store.get(name)?.config.firewall, *json),
        FirewallCommand::Remove { numbers } => change(condo, name, &|filter| remove(filter, numbers)),
        FirewallCommand::Reset => change(condo, name, &|filter| {
            *filter = Filter::default();
            Ok(())
        }),
        FirewallCommand::Policy { direction, action } => change(condo, name, &|filter| {
            filter.set_policy(*direction, *action);
            Ok(())
        }),
    }
}

fn change(condo: &Condo, name: &Name, work: &dyn Fn(&mut Filter) -> error::Result<()>) -> Result<Exit> {
    condo.change_firewall(name, work)?;
    Ok(Exit::Success)
}

fn add(condo: &Condo, name: &Name, action: Action, args: &RuleArgs) -> Result<Exit> {
    let rule = FilterRule {
        action,
        direction: args.direction,
        protocol: args.protocol,
        ports: args.ports,
        from: args.from,
        to: args.to,
        log: args.log,
    };
    change(condo, name, &|filter| {
        let at = place(args.at, filter.rules.len())?;
        put(&mut filter.rules, at, &rule);
        Ok(())
    })
}

/// Puts a rule at a place. Of two that are the same the second decides nothing: there is only one, and a command can be run again.
fn put(rules: &mut Vec<FilterRule>, at: usize, rule: &FilterRule) {
    if rules[..at].contains(rule) {
        return;
    }
    let mut behind = rules.split_off(at);
    behind.retain(|other| other != rule);
    rules.push(rule.clone());
    rules.append(&mut behind);
}

fn place(at: Option<u64>, rules: usize) -> error::Result<usize> {
    let Some(number) = at else { return Ok(rules) };
    usize::try_from(number)
        .ok()
        .and_then(|n| n.checked_sub(1))
        .filter(|n| *n <= rules)
        .ok_or_else(|| Error::invalid("--at", number, format!("is not from 1 to {}", rules + 1)))
}

fn remove(filter: &mut Filter, numbers: &[u64]) -> error::Result<()> {
    let known = filter.rules.len() as u64;
    if let Some(unknown) = numbers.iter().find(|n| **n == 0 || **n > known) {
        let problem = format!("is no rule's number; there are {known} rules");
        return Err(Error::invalid("NUMBER", unknown, problem));
    }
    let mut number = 0;
    filter.rules.retain(|_| {
        number += 1;
        !numbers.contains(&number)
    });
    Ok(())
}

/// A rule as `list --json` has it.
#[derive(Serialize)]
struct Numbered<'a> {
    number: usize,
    #[serde(flatten)]
    rule: &'a FilterRule,
}

#[derive(Serialize)]
struct Listed<'a> {
    policy: Policies,
    rules: Vec<Numbered<'a>>,
}

#[derive(Serialize)]
struct Policies {
    #[serde(rename = "in")]
    incoming: Action,
    #[serde(rename = "out")]
    outgoing: Action,
}

fn list(filter: &Filter, json: bool) -> Result<Exit> {
    if json {
        let numbered = filter
            .rules
            .iter()
            .zip(1..)
            .map(|(rule, number)| Numbered { number, rule });
        print_json(&Listed {
            policy: Policies {
                incoming: filter.incoming,
                outgoing: filter.outgoing,
            },
            rules: numbered.collect(),
        })?;
        return Ok(Exit::Success);
    }
    print(&format!(
        "policy: {} in, {} out",
        filter.incoming, filter.outgoing
    ))?;
    if !filter.rules.is_empty() {
        print(&shown(filter))?;
    }
    Ok(Exit::Success)
}

fn shown(filter: &Filter) -> String {
    let or_any = |text: Option<String>| text.unwrap_or_else(|| "any".to_owned());
    let rows = filter.rules.iter().zip(1..).map(|(rule, number)| {
        [
            number.to_string(),
            rule.action.to_string(),
            rule.direction.to_string(),
            rule.protocol.to_string(),
            or_any(rule.ports.map(|ports| ports.to_string())),
            or_any(rule.from.map(|from| from.to_string())),
            or_any(rule.to.map(|to| to.to_string())),
            if rule.log { "yes" } else { "-" }.to_owned(),
        ]
    });
    table(
        ["#", "ACTION", "WAY", "PROTOCOL", "PORT", "FROM", "TO", "LOG"],
        rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_exact() {
        assert_eq!(network("--from", "10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(network("--from", "10.0.0.1").unwrap().prefix(), 32);
        assert!(
            network("--from", "10.0.0.1/8")
                .unwrap_err()
                .to_string()
                .contains("the network is 10.0.0.0/8")
        );
        assert!(
            network("--to", "host")
                .unwrap_err()
                .to_string()
                .starts_with("--to: `host`")
        );
    }

    #[test]
    fn rules_are_put_and_removed_by_number() {
        assert_eq!(
            (
                place(None, 3).unwrap(),
                place(Some(1), 3).unwrap(),
                place(Some(4), 3).unwrap()
            ),
            (3, 0, 3)
        );
        assert!(place(Some(0), 3).is_err() && place(Some(5), 3).is_err());
        let rule = |text: &str| -> FilterRule {
            serde_json::from_str(&format!(
                r#"{{"action":"deny","direction":"in","protocol":"tcp","ports":"{text}"}}"#
            ))
            .unwrap()
        };
        let mut filter = Filter {
            rules: vec![rule("1"), rule("2"), rule("3")],
            ..Filter::default()
        };
        assert!(remove(&mut filter, &[4]).is_err() && remove(&mut filter, &[0]).is_err());
        remove(&mut filter, &[3, 1]).unwrap();
        assert_eq!(filter.rules, [rule("2")]);
        put(&mut filter.rules, 1, &rule("4"));
        for at in [1, 2] {
            put(&mut filter.rules, at, &rule("4"));
            assert_eq!(filter.rules, [rule("2"), rule("4")]);
        }
        put(&mut filter.rules, 0, &rule("4"));
        assert_eq!(filter.rules, [rule("4"), rule("2")]);
    }
}
