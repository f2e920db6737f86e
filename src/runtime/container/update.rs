//! `update`: new limits for a container that runs.

use serde_json::Value;

use super::Container;
use crate::cgroups::Limits;
use crate::error::{During, Error, Result};
use crate::host::Host;
use crate::runtime::status::Status;
use crate::runtime::zero;

impl Container {
    /// Puts new limits in force: a `LinuxResources` document that changes what it names and leaves the rest.
    ///
    /// Period and quota, limit and swap depend on each other, so the new document is laid over the container's own before
    /// it is read as a whole. Device rules change only when they are named.
    pub fn update(&self, host: &Host, mut wanted: Value) -> Result<()> {
        unlimit_swap(&mut wanted);
        let _lock = self.lock_or_join()?;
        if self.status(host) == Status::Stopped {
            return Err(Error::Status("cannot update a stopped container".into()));
        }
        let lacks = || Error::unsupported("`update`", self.lacks_cgroup());
        let home = self.state.cgroup.as_ref().ok_or_else(lacks)?;
        let mut config: Value = serde_json::from_slice(&self.config()?)?;
        let devices = wanted.get("devices").is_some();
        let resources = &mut config["linux"]["resources"];
        end_idleness(resources, &wanted);
        lay_over(resources, wanted);
        let mut effective = resources.clone();
        if !devices && let Some(fields) = effective.as_object_mut() {
            fields.remove("devices");
        }
        zero::fill_resources(&mut effective);
        let effective = serde_json::from_value(effective).during(|| "resources")?;
        home.change(&host.cgroups, &Limits::for_update(&effective, &host.cgroups)?)?;
        self.folder.save_config(&serde_json::to_vec(&config)?)
    }

    /// Gives its class of `linux.intelRdt` other schemata.
    pub fn reallocate(&self, schemata: &[String]) -> Result<()> {
        let _lock = self.lock_or_join()?;
        match &self.state.resctrl {
            Some(allocation) => allocation.write_schemata(schemata),
            None => Err(Error::Status(
                "the container was created without linux.intelRdt, and so has no cache or bandwidth to change".into(),
            )),
        }
    }
}

/// A limit for memory and swap together cannot outlive that for memory: without a word about it, it goes as well.
fn unlimit_swap(wanted: &mut Value) {
    let Some(memory) = wanted.get_mut("memory").and_then(Value::as_object_mut) else {
        return;
    };
    let unsaid = |swap: &Value| swap.is_null() || *swap == 0;
    if memory.get("limit").is_some_and(|limit| *limit == -1) && memory.get("swap").is_none_or(unsaid) {
        memory.insert("swap".into(), (-1).into());
    }
}

/// A new weight ends what has been idle so far: while `cpu.idle` is 1 the kernel refuses a weight, and systemd has one property for both.
fn end_idleness(resources: &mut Value, wanted: &Value) {
    let names = |pointer| {
        wanted
            .pointer(pointer)
            .is_some_and(|value| !value.is_null() && *value != 0)
    };
    let idle = wanted
        .pointer("/cpu/idle")
        .or(wanted.pointer("/unified/cpu.idle"));
    if idle.is_some() || !(names("/cpu/shares") || names("/unified/cpu.weight")) {
        return;
    }
    for (pointer, no) in [("/cpu/idle", Value::from(0)), ("/unified/cpu.idle", "0".into())] {
        if let Some(idle) = resources.pointer_mut(pointer) {
            *idle = no;
        }
    }
}

/// Replaces what `new` names in `old`, object by object; `null` names nothing.
fn lay_over(old: &mut Value, new: Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                lay_over(old.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (old, new) => *old = new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn without_a_limit_of_memory_there_is_none_of_swap() {
        for (wanted, swap) in [
            (json!({ "memory": { "limit": -1 } }), json!(-1)),
            (json!({ "memory": { "limit": -1, "swap": 0 } }), json!(-1)),
            (json!({ "memory": { "limit": -1, "swap": 7 } }), json!(7)),
            (json!({ "memory": { "limit": 5 } }), Value::Null),
        ] {
            let mut wanted = wanted;
            unlimit_swap(&mut wanted);
            assert_eq!(wanted["memory"]["swap"], swap);
        }
    }

    #[test]
    fn a_new_weight_ends_idleness() {
        let idle = json!({ "cpu": { "idle": 1 }, "unified": { "cpu.idle": "1" } });
        let busy = json!({ "cpu": { "idle": 0 }, "unified": { "cpu.idle": "0" } });
        for (wanted, left) in [
            (json!({ "cpu": { "shares": 200 } }), &busy),
            (json!({ "unified": { "cpu.weight": "8" } }), &busy),
            (json!({ "cpu": { "shares": 200, "idle": 1 } }), &idle),
            (
                json!({ "unified": { "cpu.weight": "8", "cpu.idle": "1" } }),
                &idle,
            ),
            (json!({ "cpu": { "shares": 0, "quota": 5 } }), &idle),
        ] {
            let mut resources = idle.clone();
            end_idleness(&mut resources, &wanted);
            assert_eq!(resources, *left, "{wanted}");
        }
        let mut never = json!({ "cpu": { "quota": 5 } });
        end_idleness(&mut never, &json!({ "cpu": { "shares": 200 } }));
        assert_eq!(never, json!({ "cpu": { "quota": 5 } }));
    }

    #[test]
    fn an_update_changes_what_it_names() {
        let mut old = json!({ "cpu": { "quota": 5, "period": 10 }, "pids": { "limit": 3 } });
        lay_over(
            &mut old,
            json!({ "cpu": { "quota": 7, "shares": null }, "memory": { "limit": 1 } }),
        );
        let expected = json!({ "cpu": { "quota": 7, "period": 10, "shares": null }, "pids": { "limit": 3 }, "memory": { "limit": 1 } });
        assert_eq!(old, expected);
    }
}
