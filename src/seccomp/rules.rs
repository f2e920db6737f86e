//! A profile, checked and put into order: what is to be done about each system call name.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Op, LinuxSyscall,
};

use crate::error::{Error, Result};

/// The kernel returns no larger error numbers (`MAX_ERRNO`), and would clamp silently.
const MAX_ERRNO: u32 = 4095;
/// `SECCOMP_RET_DATA`: what a tracer can be told.
const MAX_TRACE: u32 = 0xffff;
/// `EPERM`, for ERRNO and TRACE without an `errnoRet`.
const EPERM: u32 = 1;
/// System calls have six arguments.
const ARGUMENTS: usize = 6;
/// `SECCOMP_RET_ERRNO | ENOSYS`, for calls that are newer than the profile.
pub(super) const RET_ENOSYS: u32 = 0x0005_0000 | 38;
/// `SECCOMP_RET_KILL_THREAD`, for architectures that are not listed.
pub(super) const RET_KILL: u32 = 0;

/// A condition on one 64-bit argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which argument, from 0 to 5.
    pub(super) index: u32,
    pub(super) compare: Compare,
    /// Whether the comparison must hold, or must not.
    pub(super) holds: bool,
}

/// The three comparisons that the seven operators are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    /// `argument & mask == value & mask`.
    Bits { mask: u64, value: u64 },
    /// `argument > value`.
    Above(u64),
    /// `argument >= value`.
    AtLeast(u64),
}

impl Condition {
    fn new(index: u32, arg: LinuxSeccompArg) -> Self {
        let value = arg.value();
        let equal = Compare::Bits {
            mask: u64::MAX,
            value,
        };
        let (compare, holds) = match arg.op() {
            Op::ScmpCmpEq => (equal, true),
            Op::ScmpCmpNe => (equal, false),
            Op::ScmpCmpMaskedEq => (
                Compare::Bits {
                    mask: value,
                    value: arg.value_two().unwrap_or(0),
                },
                true,
            ),
            Op::ScmpCmpGt => (Compare::Above(value), true),
            Op::ScmpCmpLe => (Compare::Above(value), false),
            Op::ScmpCmpGe => (Compare::AtLeast(value), true),
            Op::ScmpCmpLt => (Compare::AtLeast(value), false),
        };
        Self {
            index,
            compare,
            holds,
        }
    }
}

/// Conditions that must all hold, and the `SECCOMP_RET_*` value for then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    pub(super) conditions: Vec<Condition>,
    pub(super) action: u32,
}

/// What is to be done about a system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This, whatever its arguments.
    Always(u32),
    /// The first clause whose conditions hold, else the default action.
    When(Vec<Clause>),
}

/// A checked profile.
#[derive(Debug)]
pub(super) struct Rules<'p> {
    /// The default action's `SECCOMP_RET_*` value.
    pub(super) default: u32,
    /// What to do about numbers above all that the profile names.
    pub(super) newer: u32,
    /// Every name of the profile; `None` when its entries say nothing beyond the default action.
    pub(super) calls: BTreeMap<&'p str, Option<Verdict>>,
    notifies: bool,
}

impl<'p> Rules<'p> {
    /// Checks and orders a profile.
    pub(super) fn new(profile: &'p LinuxSeccomp) -> Result<Self> {
        let default = profile.default_action();
        let value = action(
            "linux.seccomp.defaultErrnoRet",
            default,
            profile.default_errno_ret(),
        )?;
        if default == Action::ScmpActNotify {
            let problem = "cannot be the default: the process that hands the listener over would wait for it";
            return Err(Error::invalid("linux.seccomp.defaultAction", default, problem));
        }
        let passes = matches!(
            default,
            Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace
        );
        let mut rules = Self {
            default: value,
            newer: if passes { value } else { RET_ENOSYS },
            calls: BTreeMap::new(),
            notifies: false,
        };
        for (i, entry) in profile.syscalls().iter().flatten().enumerate() {
            rules.add(&format!("linux.seccomp.syscalls[{i}]"), entry)?;
        }
        Ok(rules)
    }

    /// Whether any entry asks for a listener.
    pub(super) fn notifies(&self) -> bool {
        self.notifies
    }

    fn add(&mut self, field: &str, entry: &'p LinuxSyscall) -> Result<()> {
        let action = action(&format!("{field}.errnoRet"), entry.action(), entry.errno_ret())?;
        let alternatives = alternatives(field, entry.args().as_deref().unwrap_or_default())?;
        let notify = entry.action() == Action::ScmpActNotify;
        self.notifies |= notify;
        for name in entry.names() {
            if name.is_empty() {
                return Err(Error::invalid(
                    format!("{field}.names"),
                    name,
                    "is not a system call",
                ));
            }
            if notify && name == "write" {
                let problem = "must go: SCMP_ACT_NOTIFY cannot be used for the write syscall, which hands the listener over";
                return Err(Error::invalid(format!("{field}.names"), name, problem));
            }
            let call = self.calls.entry(name).or_default();
            if action != self.default {
                extend(call, &alternatives, action);
            }
        }
        Ok(())
    }
}

/// Adds an entry to what is known of a call. An unconditional entry outweighs all conditional ones (libseccomp's rule).
fn extend(call: &mut Option<Verdict>, alternatives: &[Vec<Condition>], action: u32) {
    if matches!(call, Some(Verdict::Always(_))) {
        return;
    }
    if alternatives.is_empty() {
        *call = Some(Verdict::Always(action));
        return;
    }
    let clauses = alternatives.iter().map(|conditions| Clause {
        conditions: conditions.clone(),
        action,
    });
    match call {
        Some(Verdict::When(known)) => known.extend(clauses),
        _ => *call = Some(Verdict::When(clauses.collect())),
    }
}

/// The lists of conditions, one of which must hold; none for an entry without conditions.
fn alternatives(field: &str, args: &[LinuxSeccompArg]) -> Result<Vec<Vec<Condition>>> {
    let mut seen = [false; ARGUMENTS];
    let mut repeated = false;
    let mut conditions = Vec::new();
    for arg in args {
        let (Some(seen), Ok(index)) = (seen.get_mut(arg.index()), u32::try_from(arg.index())) else {
            let problem = "is not an argument: they are 0 to 5";
            return Err(Error::invalid(
                format!("{field}.args.index"),
                arg.index(),
                problem,
            ));
        };
        repeated |= std::mem::replace(seen, true);
        conditions.push(Condition::new(index, *arg));
    }
    Ok(if conditions.is_empty() {
        Vec::new()
    } else if repeated {
        conditions.into_iter().map(|condition| vec![condition]).collect()
    } else {
        vec![conditions]
    })
}

/// The `SECCOMP_RET_*` value of an action. An errno for an action that has none is an error (runtime-spec, `errnoRet`).
fn action(field: &str, action: Action, errno: Option<u32>) -> Result<u32> {
    let limit = match action {
        Action::ScmpActErrno => MAX_ERRNO,
        Action::ScmpActTrace => MAX_TRACE,
        _ => {
            return match errno {
                Some(e) => Err(Error::invalid(
                    field,
                    e,
                    format!("has no meaning for action `{action}`"),
                )),
                None => Ok(action.as_u32(None)),
            };
        }
    };
    match errno.unwrap_or(EPERM) {
        e if e > limit => Err(Error::invalid(field, e, format!("is above {limit}"))),
        e => Ok(action.as_u32(Some(e))),
    }
}
