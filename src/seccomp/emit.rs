//! Classic BPF from intervals, written from the last instruction to the first.
//!
//! BPF jumps forward only. Going backwards every target is there already when a jump to it is written, so an offset beyond the
//! 8 bits of a conditional jump is seen at once: a return is then repeated nearby, code is reached through an unconditional
//! jump nearby. Jumps name both their targets, so that nothing ever falls into such an aid.

use std::collections::BTreeMap;

use seccompiler::sock_filter;

use super::rules::{Clause, Compare, Condition, RET_KILL, Verdict};
use super::spans::{Machine, Span};

/// `BPF_LD | BPF_W | BPF_ABS`: a word of `struct seccomp_data`.
const LOAD: u16 = 0x20;
/// `BPF_ALU | BPF_AND | BPF_K`.
const AND: u16 = 0x54;
/// `BPF_JMP | BPF_JA`.
const JUMP: u16 = 0x05;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
const IF_EQ: u16 = 0x15;
/// `BPF_JMP | BPF_JGT | BPF_K`.
const IF_GT: u16 = 0x25;
/// `BPF_JMP | BPF_JGE | BPF_K`.
const IF_GE: u16 = 0x35;
/// `BPF_RET | BPF_K`.
const RETURN: u16 = 0x06;

/// `offsetof(struct seccomp_data, nr)`.
const NUMBER: u32 = 0;
/// `offsetof(struct seccomp_data, arch)`.
const ARCH: u32 = 4;
/// `offsetof(struct seccomp_data, args)`; both supported machines are little endian.
const ARGS: u32 = 16;

/// The farthest offset used, leaving room for the aids of one jump below 255.
const NEAR: usize = 250;

/// Where a jump leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// Out of the program, with this `SECCOMP_RET_*` value.
    Return(u32),
    /// To the instruction at this place, counted from the end of the program.
    Code(usize),
}

/// The program for these machines, and death for all others.
pub(super) fn program(machines: &[Machine]) -> Vec<sock_filter> {
    let mut emitter = Emitter::default();
    let mut next = Target::Return(RET_KILL);
    for machine in machines.iter().rev() {
        let body = emitter.spans(&machine.spans, machine.default);
        let body = emitter.load(NUMBER, body);
        next = emitter.branch((IF_EQ, machine.audit), body, next);
    }
    let start = emitter.load(ARCH, next);
    if let Target::Return(value) = start {
        emitter.push(RETURN, value);
    }
    emitter.code.reverse();
    emitter.code
}

#[derive(Debug, Default)]
struct Emitter {
    /// The program, last instruction first.
    code: Vec<sock_filter>,
    /// The latest place of each return.
    returns: BTreeMap<u32, usize>,
}

impl Emitter {
    fn push(&mut self, code: u16, k: u32) -> usize {
        self.code.push(sock_filter {
            code,
            jt: 0,
            jf: 0,
            k,
        });
        self.code.len() - 1
    }

    /// How far a jump written now has to go.
    fn distance(&self, place: usize) -> usize {
        self.code.len() - place - 1
    }

    /// A place near enough for a conditional jump from which `target` is reached.
    fn reach(&mut self, target: Target) -> usize {
        match target {
            Target::Return(value) => match self.returns.get(&value) {
                Some(place) if self.distance(*place) <= NEAR => *place,
                _ => {
                    let place = self.push(RETURN, value);
                    self.returns.insert(value, place);
                    place
                }
            },
            Target::Code(place) if self.distance(place) <= NEAR => place,
            Target::Code(place) => self.jump(place),
        }
    }

    fn jump(&mut self, place: usize) -> usize {
        // A program is refused from 4096 instructions on, long before this saturates.
        let offset = u32::try_from(self.distance(place)).unwrap_or(u32::MAX);
        self.push(JUMP, offset)
    }

    /// `if A <test> then yes else no`.
    fn branch(&mut self, (code, k): (u16, u32), yes: Target, no: Target) -> Target {
        if yes == no {
            return yes;
        }
        let (yes, no) = (self.reach(yes), self.reach(no));
        let offset = |place| u8::try_from(self.distance(place)).unwrap_or(u8::MAX);
        let (jt, jf) = (offset(yes), offset(no));
        self.code.push(sock_filter { code, jt, jf, k });
        Target::Code(self.code.len() - 1)
    }

    /// `A = data[offset]`, then on to `target`, for which no value is needed when it is a return.
    fn load(&mut self, offset: u32, target: Target) -> Target {
        let Target::Code(place) = target else {
            return target;
        };
        if self.distance(place) > 0 {
            self.jump(place);
        }
        Target::Code(self.push(LOAD, offset))
    }

    /// A binary search; the number is in A.
    fn spans(&mut self, spans: &[Span], default: u32) -> Target {
        match spans {
            [] => Target::Return(default),
            [span] => self.verdict(&span.verdict, default),
            _ => {
                let (low, high) = spans.split_at(spans.len() / 2);
                let start = high.first().map_or(0, |span| span.start);
                let high = self.spans(high, default);
                let low = self.spans(low, default);
                self.branch((IF_GE, start), high, low)
            }
        }
    }

    fn verdict(&mut self, verdict: &Verdict, default: u32) -> Target {
        match verdict {
            Verdict::Always(action) => Target::Return(*action),
            Verdict::When(clauses) => {
                let otherwise = Target::Return(default);
                clauses
                    .iter()
                    .rev()
                    .fold(otherwise, |next, clause| self.clause(clause, next))
            }
        }
    }

    fn clause(&mut self, clause: &Clause, otherwise: Target) -> Target {
        let action = Target::Return(clause.action);
        clause.conditions.iter().rev().fold(action, |then, condition| {
            self.condition(condition, then, otherwise)
        })
    }

    /// One comparison of 64 bits, high word first.
    fn condition(&mut self, condition: &Condition, yes: Target, no: Target) -> Target {
        let (yes, no) = if condition.holds { (yes, no) } else { (no, yes) };
        let low_word = ARGS + 8 * condition.index;
        let high_word = low_word + 4;
        match condition.compare {
            Compare::Bits { mask, value } => {
                let then = self.bits(low_word, (low(mask), low(value)), yes, no);
                self.bits(high_word, (high(mask), high(value)), then, no)
            }
            Compare::Above(value) => {
                let then = self.branch((IF_GT, low(value)), yes, no);
                let then = self.load(low_word, then);
                self.above(high_word, high(value), (yes, then, no))
            }
            Compare::AtLeast(value) => {
                let then = self.branch((IF_GE, low(value)), yes, no);
                let then = self.load(low_word, then);
                self.above(high_word, high(value), (yes, then, no))
            }
        }
    }

    /// `if word & mask == value & mask`.
    fn bits(&mut self, offset: u32, (mask, value): (u32, u32), yes: Target, no: Target) -> Target {
        if mask == 0 || yes == no {
            return yes;
        }
        let test = self.branch((IF_EQ, value & mask), yes, no);
        if mask != u32::MAX {
            self.push(AND, mask);
            return Target::Code(self.push(LOAD, offset));
        }
        self.load(offset, test)
    }

    /// Compares a high word three ways: above, equal, below.
    fn above(&mut self, offset: u32, value: u32, (above, equal, below): (Target, Target, Target)) -> Target {
        let not_above = self.branch((IF_EQ, value), equal, below);
        let test = self.branch((IF_GT, value), above, not_above);
        self.load(offset, test)
    }
}

fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

fn high(value: u64) -> u32 {
    (value >> 32) as u32
}
