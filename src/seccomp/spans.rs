//! Per architecture: intervals of system call numbers with equal verdicts.

use std::collections::BTreeMap;

use super::abi::{Abi, SubCall, X32_BIT};
use super::rules::{Clause, Compare, Condition, RET_KILL, Rules, Verdict};

/// The numbers from `start` up to the next span's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) verdict: Verdict,
}

/// What to do on one audit architecture; `spans` is not empty and begins at 0.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) audit: u32,
    pub(super) default: u32,
    pub(super) spans: Vec<Span>,
}

/// Resolves the rules for each ABI; the first one is tested for first.
pub(super) fn machines(rules: &Rules<'_>, abis: &[Abi]) -> Vec<Machine> {
    let own = abis.iter().filter(|abi| **abi != Abi::X32);
    own.map(|abi| Machine {
        audit: abi.audit(),
        default: rules.default,
        spans: machine(rules, *abi, abis.contains(&Abi::X32)),
    })
    .collect()
}

fn machine(rules: &Rules<'_>, abi: Abi, x32: bool) -> Vec<Span> {
    let mut spans = Vec::new();
    fill(&mut spans, rules, abi, 0);
    if abi == Abi::X86_64 {
        if x32 {
            fill(&mut spans, rules, Abi::X32, X32_BIT);
        } else {
            push(&mut spans, X32_BIT, Verdict::Always(RET_KILL));
        }
    }
    // A tracer skips a call by setting its number to -1, and the filter sees that: it must not kill.
    push(&mut spans, u32::MAX, Verdict::Always(rules.default));
    spans
}

/// Adds the spans of one ABI, whose numbers begin at `first`.
fn fill(spans: &mut Vec<Span>, rules: &Rules<'_>, abi: Abi, first: u32) {
    let (numbers, newest) = resolve(rules, abi);
    let default = || Verdict::Always(rules.default);
    let mut next = first;
    for (number, verdict) in numbers {
        if number > next {
            push(spans, next, default());
        }
        push(spans, number, verdict);
        next = number + 1;
    }
    match newest {
        Some(newest) => {
            if next <= newest {
                push(spans, next, default());
            }
            push(spans, newest + 1, Verdict::Always(rules.newer));
        }
        // The profile has nothing to say about this ABI, not even how old it is.
        None => push(spans, next, default()),
    }
}

fn push(spans: &mut Vec<Span>, start: u32, verdict: Verdict) {
    if spans.last().is_none_or(|last| last.verdict != verdict) {
        spans.push(Span { start, verdict });
    }
}

/// The verdicts by number, and the highest number that the profile names.
fn resolve(rules: &Rules<'_>, abi: Abi) -> (BTreeMap<u32, Verdict>, Option<u32>) {
    let mut numbers = BTreeMap::new();
    let mut newest = None;
    for (name, number) in abi.calls() {
        if let Some(verdict) = rules.calls.get(name) {
            newest = newest.max(Some(number));
            if let Some(verdict) = verdict {
                numbers.insert(number, adapt(verdict, abi));
            }
        }
    }
    for (name, verdict) in &rules.calls {
        if let (Some(verdict), Some(sub)) = (verdict, abi.sub_call(name)) {
            newest = newest.max(Some(sub.number));
            multiplex(&mut numbers, sub, blind(verdict, rules.default));
        }
    }
    (numbers, newest)
}

/// What to do about a call whose arguments are in memory, where no filter sees them: of all that the conditions could lead to,
/// the strictest, by the kernel's order of precedence (as signed numbers, KILL_PROCESS is the least and ALLOW the greatest).
fn blind(verdict: &Verdict, default: u32) -> u32 {
    let strictness = |action: &u32| (action & 0xffff_0000).cast_signed();
    match verdict {
        Verdict::Always(action) => *action,
        Verdict::When(clauses) => {
            let actions = clauses.iter().map(|clause| clause.action);
            std::iter::once(default)
                .chain(actions)
                .min_by_key(strictness)
                .unwrap_or(default)
        }
    }
}

/// Lets a multiplexer's sub-call do as its plain call does, after what the profile says of the multiplexer itself.
fn multiplex(numbers: &mut BTreeMap<u32, Verdict>, sub: SubCall, action: u32) {
    let condition = Condition {
        index: 0,
        compare: Compare::Bits {
            mask: u64::from(sub.mask),
            value: u64::from(sub.value),
        },
        holds: true,
    };
    let clause = Clause {
        conditions: vec![condition],
        action,
    };
    if let Verdict::When(clauses) = numbers.entry(sub.number).or_insert(Verdict::When(Vec::new())) {
        clauses.push(clause);
    }
}

/// The verdict as an ABI with 32-bit arguments needs it: of a value that means bits (such as -1), 32 count.
fn adapt(verdict: &Verdict, abi: Abi) -> Verdict {
    let mut verdict = verdict.clone();
    if let (Verdict::When(clauses), true) = (&mut verdict, abi.is_narrow()) {
        for condition in clauses.iter_mut().flat_map(|c| &mut c.conditions) {
            narrow(condition);
        }
    }
    verdict
}

fn narrow(condition: &mut Condition) {
    if let Compare::Bits { mask, .. } = &mut condition.compare {
        *mask &= 0xffff_ffff;
    }
}
