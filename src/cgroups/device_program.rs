//! Device rules as an eBPF program (`BPF_PROG_TYPE_CGROUP_DEVICE`), attached to a cgroup2 directory.
//!
//! The program gets a `struct bpf_cgroup_dev_ctx { access_type, major, minor }` per `open(2)` or `mknod(2)` of a device and
//! answers 1 or 0. Rules are tried from the last to the first, each taking away the accesses it decides, until none is left.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::devices::{ALL, Kind, Rule};
use crate::error::{During, Error, Failures, Result};
use crate::sys::bpf::op::{
    AND, EXIT, JUMP, JUMP_IF_SET, JUMP_UNLESS_EQUAL, LOAD_WORD, MOVE, MOVE_REGISTER, SHIFT_RIGHT,
};
use crate::sys::bpf::{self, Hook, instruction};

/// What our programs are called, to tell them from those of systemd and of administrators.
const NAME: &str = "condo_devices";

// `BPF_DEVCG_DEV_*`.
const BLOCK: i32 = 1;
const CHAR: i32 = 2;

// Registers: the answer and the context are given by the calling convention, the others are ours.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The program for these rules.
pub(super) fn program(rules: &[Rule]) -> Vec<u64> {
    let mut code = vec![
        instruction(LOAD_WORD, TYPE, CONTEXT, 0, 0),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
        instruction(MOVE_REGISTER, WANTED, TYPE, 0, 0),
        instruction(SHIFT_RIGHT, WANTED, 0, 0, 16),
        instruction(AND, TYPE, 0, 0, 0xffff),
    ];
    // A total rule decides all that is left; the verifier refuses code behind it, which nothing could reach.
    let start = rules.iter().rposition(Rule::is_total);
    for rule in rules.iter().skip(start.map_or(0, |s| s + 1)).rev() {
        code.extend(one(rule));
    }
    code.extend(answer(start.is_some_and(|s| rules[s].allow)));
    code
}

fn answer(allow: bool) -> [u64; 2] {
    [
        instruction(MOVE, ANSWER, 0, 0, i32::from(allow)),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

/// The code of one rule; it falls through to the next when it does not decide.
fn one(rule: &Rule) -> Vec<u64> {
    let kind = rule.kind.map(|k| match k {
        Kind::Block => BLOCK,
        Kind::Char => CHAR,
    });
    let number = |n: Option<u32>| n.map(u32::cast_signed);
    let tests = [
        (TYPE, kind),
        (MAJOR, number(rule.major)),
        (MINOR, number(rule.minor)),
    ];
    let tests: Vec<(u8, i32)> = tests
        .into_iter()
        .filter_map(|(register, value)| Some((register, value?)))
        .collect();
    let verdict = verdict(rule);
    let mut code = Vec::new();
    for (place, (register, value)) in tests.iter().enumerate() {
        let over = tests.len() - place - 1 + verdict.len();
        code.push(instruction(JUMP_UNLESS_EQUAL, *register, 0, over as i16, *value));
    }
    code.extend(verdict);
    code
}

fn verdict(rule: &Rule) -> Vec<u64> {
    let access = rule.access.cast_signed();
    let [set, exit] = answer(rule.allow);
    if rule.allow {
        let left = ALL.cast_signed() & !access;
        vec![
            instruction(AND, WANTED, 0, 0, left),
            instruction(JUMP_UNLESS_EQUAL, WANTED, 0, 2, 0),
            set,
            exit,
        ]
    } else {
        vec![
            instruction(JUMP_IF_SET, WANTED, 0, 1, access),
            instruction(JUMP, 0, 0, 2, 0),
            set,
            exit,
        ]
    }
}

/// Puts the rules in force for a cgroup2 directory, in place of those we put there before.
///
/// A caller without privileges over the host may not load programs. Its containers get no further than its own rights to
/// device nodes, so that is no failure.
///
/// The new program is attached before the old one goes: in between both must agree, so there is no moment without rules.
pub(super) fn enforce(cgroup: BorrowedFd<'_>, rules: &[Rule]) -> Result<()> {
    let old = match ours(cgroup) {
        Err(e) if e.raw_os_error() == Some(Errno::EPERM as i32) && is_rootless() => {
            log::debug!("device rules are left to the file modes: {e}");
            return Ok(());
        }
        other => other.map_err(explain).during(|| "list device programs")?,
    };
    let new = bpf::load(Hook::Device, &program(rules), NAME)
        .map_err(explain)
        .during(|| "load the device program")?;
    bpf::attach(Hook::Device, cgroup, new.as_fd()).during(|| "attach the device program")?;
    let mut failures = Failures::default();
    for program in old {
        failures.note(
            bpf::detach(Hook::Device, cgroup, program.as_fd()).during(|| "detach the former device program"),
        );
    }
    failures.into_result()
}

/// Whether we are somebody's user, or root only in a user namespace.
fn is_rootless() -> bool {
    let everybody = |map: &str| map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    !nix::unistd::geteuid().is_root()
        || std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !everybody(&map))
}

fn explain(e: std::io::Error) -> Error {
    if e.raw_os_error() == Some(Errno::ENOSYS as i32) {
        return Error::unsupported("device control", "the kernel has no bpf(2)");
    }
    Error::Io(e)
}

fn ours(cgroup: BorrowedFd<'_>) -> std::io::Result<Vec<std::os::fd::OwnedFd>> {
    let mut found = Vec::new();
    for id in bpf::programs(Hook::Device, cgroup)? {
        let program = bpf::open_program(id)?;
        if bpf::program_name(program.as_fd())? == NAME {
            found.push(program);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: u32 = 2;
    const WRITE: u32 = 4;

    fn rule(allow: bool, kind: Option<Kind>, numbers: (Option<u32>, Option<u32>), access: u32) -> Rule {
        Rule {
            allow,
            kind,
            major: numbers.0,
            minor: numbers.1,
            access,
        }
    }

    /// Runs a program like the kernel would: an independent reading of the encoding.
    fn run(code: &[u64], kind: u32, access: u32, major: u32, minor: u32) -> i64 {
        let context = [access << 16 | kind, major, minor];
        let mut r = [0_i64; 11];
        let mut pc = 0;
        loop {
            let [op, registers, o0, o1, v0, v1, v2, v3] = code[pc].to_ne_bytes();
            let (to, from) = (usize::from(registers & 15), usize::from(registers >> 4));
            let offset = i16::from_ne_bytes([o0, o1]);
            let value = i64::from(i32::from_ne_bytes([v0, v1, v2, v3]));
            pc += 1;
            let jump = match op {
                0x61 if from == 1 => {
                    r[to] = i64::from(context[offset as usize / 4]);
                    false
                }
                0xb7 => {
                    r[to] = value;
                    false
                }
                0xbf => {
                    r[to] = r[from];
                    false
                }
                0x57 => {
                    r[to] &= value;
                    false
                }
                0x77 => {
                    r[to] >>= value;
                    false
                }
                0x05 => true,
                0x55 => r[to] != value,
                0x45 => r[to] & value != 0,
                0x95 => return r[0],
                other => panic!("instruction {other:#x}"),
            };
            if jump {
                pc += offset as usize;
            }
        }
    }

    /// What the rules mean, straight from the definition.
    fn model(rules: &[Rule], kind: u32, access: u32, major: u32, minor: u32) -> i64 {
        let covers = |r: &Rule, bit: u32| {
            let kinds = [None, Some(Kind::Block), Some(Kind::Char)];
            (r.kind.is_none() || r.kind == kinds[kind as usize])
                && r.major.is_none_or(|m| m == major)
                && r.minor.is_none_or(|m| m == minor)
                && r.access & bit != 0
        };
        let allowed = [1, 2, 4].into_iter().filter(|bit| access & bit != 0).all(|bit| {
            rules
                .iter()
                .rev()
                .find(|r| covers(r, bit))
                .is_some_and(|r| r.allow)
        });
        i64::from(allowed)
    }

    #[test]
    fn no_rule_denies_and_a_total_one_decides() {
        assert_eq!(run(&program(&[]), 2, READ, 1, 3), 0);
        let all = rule(true, None, (None, None), ALL);
        assert_eq!(run(&program(&[all]), 1, ALL, 8, 0), 1);
        assert_eq!(program(&[all, all]).len(), program(&[all]).len());
    }

    #[test]
    fn accesses_may_be_allowed_by_different_rules() {
        let rules = [
            rule(true, Some(Kind::Char), (Some(1), Some(3)), READ),
            rule(true, Some(Kind::Char), (Some(1), None), WRITE),
        ];
        assert_eq!(run(&program(&rules), 2, READ | WRITE, 1, 3), 1);
        assert_eq!(run(&program(&rules), 2, READ | WRITE, 1, 5), 0);
        assert_eq!(run(&program(&rules), 1, READ, 1, 3), 0);
    }

    proptest::proptest! {
        #[test]
        fn the_program_means_what_the_rules_say(
            rules in proptest::collection::vec(
                (proptest::bool::ANY, 0..3_u32, proptest::option::of(0..3_u32), proptest::option::of(0..3_u32), 1..8_u32),
                0..7,
            ),
            asked in (1..3_u32, 1..8_u32, 0..4_u32, 0..4_u32),
        ) {
            let kinds = [None, Some(Kind::Block), Some(Kind::Char)];
            let rules: Vec<Rule> = rules
                .into_iter()
                .map(|(allow, kind, major, minor, access)| rule(allow, kinds[kind as usize], (major, minor), access))
                .collect();
            let (kind, access, major, minor) = asked;
            proptest::prop_assert_eq!(
                run(&program(&rules), kind, access, major, minor),
                model(&rules, kind, access, major, minor)
            );
        }
    }
}
