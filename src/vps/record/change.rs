//! New limits for a VPS that has some already.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::facts::Facts;
use super::limits::Limits;
use super::plans::{Membership, of_disk};
use crate::error::{Error, Result};
use crate::storage::Quota;

/// What is to change; what it does not name stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Change {
    /// Limits that are to hold from now on.
    pub set: Limits,
    /// Limits that are to hold no longer, by their options' names without dashes in front: `memory`, `io-read`.
    pub lift: BTreeSet<String>,
    /// What its disk is to hold from now on.
    pub disk: Quota,
    /// The plan it is to have from now on.
    pub plan: Option<String>,
}

impl Change {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The limits afterwards. As for a new VPS there is no swap beside a first limit of memory; without one there is none of swap.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming what is lifted and is no limit, or is set as well.
    pub fn apply(&self, before: &Limits, facts: &Facts) -> Result<Limits> {
        let mut fields = fields(before)?;
        for name in &self.lift {
            let field = field(name)?;
            if self.set_fields()?.contains_key(&field) {
                return Err(Error::invalid("--no-limit", name, "is given a limit as well"));
            }
            fields.remove(&field);
        }
        fields.extend(self.set_fields()?);
        if !fields.contains_key("memory") && !self.set_fields()?.contains_key("swap") {
            fields.remove("swap");
        }
        let mut after: Limits = serde_json::from_value(Value::Object(fields))?;
        if before.memory.is_none() && after.memory.is_some() && facts.swap_accounting {
            after.swap.get_or_insert(0);
        }
        Ok(after)
    }

    /// The plan of a VPS afterwards, which had `before`: what is set is an exception from now on, and what is lifted is none.
    ///
    /// # Errors
    /// As [`Change::apply`].
    pub fn membership(&self, before: Option<&Membership>) -> Result<Option<Membership>> {
        let mut after = before.cloned().unwrap_or_default();
        if let Some(plan) = &self.plan {
            after.name.clone_from(plan);
        }
        after
            .except
            .extend(self.set_fields()?.into_iter().map(|(field, _)| field));
        after.except.extend(of_disk(&self.disk));
        for name in &self.lift {
            after.except.remove(&field(name)?);
        }
        Ok(Some(after).filter(|membership| !membership.name.is_empty()))
    }

    fn set_fields(&self) -> Result<Map<String, Value>> {
        fields(&self.set)
    }
}

/// The limits that hold, by their names in JSON.
pub(super) fn fields(limits: &Limits) -> Result<Map<String, Value>> {
    match serde_json::to_value(limits)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(Error::Corrupt("limits are no JSON object".into())),
    }
}

/// The field in JSON of a limit's option.
fn field(name: &str) -> Result<String> {
    let field = name.replace('-', "_");
    let alone = Map::from_iter([(field.clone(), Value::Null)]);
    match serde_json::from_value::<Limits>(Value::Object(alone)) {
        Ok(_) => Ok(field),
        Err(_) => Err(Error::invalid(
            "--no-limit",
            name,
            "is no limit; they are called as the options, such as `memory` or `io-read`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            cpus: [0, 1].into(),
            memory: 4 << 30,
            swap: 1 << 30,
            controllers: BTreeSet::new(),
            swap_accounting: true,
            unified: true,
            open_files: 1 << 20,
            oom_score: 0,
            clocks: None,
        }
    }

    fn limits(json: &str) -> Limits {
        serde_json::from_str(json).unwrap()
    }

    fn change(set: &str, lift: &[&str]) -> Change {
        Change {
            disk: Quota::default(),
            set: limits(set),
            lift: lift.iter().map(|name| (*name).to_owned()).collect(),
            ..Change::default()
        }
    }

    #[test]
    fn what_is_not_named_stays() {
        let before = limits(r#"{"cpus":1.0,"memory":100,"swap":5,"pids":7}"#);
        let after = change(r#"{"memory":50}"#, &["pids"])
            .apply(&before, &facts())
            .unwrap();
        assert_eq!(after, limits(r#"{"cpus":1.0,"memory":50,"swap":5}"#));
        assert!(Change::default().is_empty() && !change("{}", &["pids"]).is_empty());
    }

    #[test]
    fn what_is_set_is_an_exception_from_the_plan() {
        let small = Membership {
            name: "small".into(),
            except: ["cpus".to_owned(), "pids".to_owned()].into(),
        };
        let after = change(r#"{"io_read":5000}"#, &["pids"])
            .membership(Some(&small))
            .unwrap();
        let except = ["cpus".to_owned(), "io_read".to_owned()].into();
        assert_eq!(
            after,
            Some(Membership {
                except,
                ..small.clone()
            })
        );
        let large = Change {
            plan: Some("large".into()),
            ..Change::default()
        };
        assert_eq!(
            large.membership(Some(&small)).unwrap().unwrap().except,
            small.except
        );
        assert_eq!(change(r#"{"pids":5}"#, &[]).membership(None).unwrap(), None);
    }

    #[test]
    fn swap_follows_memory() {
        let first = change(r#"{"memory":50}"#, &[]).apply(&Limits::default(), &facts());
        assert_eq!(first.unwrap(), limits(r#"{"memory":50,"swap":0}"#));
        let before = limits(r#"{"memory":50,"swap":0}"#);
        let lifted = change("{}", &["memory"]).apply(&before, &facts());
        assert_eq!(lifted.unwrap(), Limits::default());
    }

    #[test]
    fn what_is_no_limit_cannot_be_lifted() {
        let refused = |change: Change| {
            change
                .apply(&Limits::default(), &facts())
                .unwrap_err()
                .to_string()
        };
        assert!(refused(change("{}", &["memroy"])).starts_with("--no-limit: `memroy` is no limit"));
        assert!(refused(change(r#"{"io_read":5000}"#, &["io-read"])).contains("is given a limit as well"));
    }
}
