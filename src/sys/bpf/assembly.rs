//! Programs with jumps to places that have names: distances are counted when the program is whole.

use super::instruction;
use super::op::{JUMP, JUMP_IF_EQUAL, JUMP_UNLESS_EQUAL};

/// A program under construction; `L` names the places that are jumped to.
#[derive(Debug)]
pub struct Assembly<L> {
    instructions: Vec<(u8, u8, u8, i16, i32)>,
    jumps: Vec<(usize, L)>,
    labels: Vec<(L, usize)>,
}

impl<L> Default for Assembly<L> {
    /// A program that does nothing yet.
    fn default() -> Self {
        Self {
            instructions: Vec::new(),
            jumps: Vec::new(),
            labels: Vec::new(),
        }
    }
}

impl<L: Copy + PartialEq> Assembly<L> {
    /// One instruction, with the register that is written and the one that is read; see [`instruction`].
    pub fn op(&mut self, code: u8, [to, from]: [u8; 2], offset: i16, value: i32) {
        self.instructions.push((code, to, from, offset, value));
    }

    /// Here is what `label` names.
    pub fn label(&mut self, label: L) {
        self.labels.push((label, self.instructions.len()));
    }

    /// Whether a label was set already.
    pub fn has(&self, label: L) -> bool {
        self.labels.iter().any(|(set, _)| *set == label)
    }

    /// Goes to a place.
    pub fn go(&mut self, to: L) {
        self.jump(JUMP, [0, 0], 0, to);
    }

    /// Goes there when a register holds one of these values.
    pub fn go_if(&mut self, register: u8, values: &[i32], to: L) {
        for value in values {
            self.jump(JUMP_IF_EQUAL, [register, 0], *value, to);
        }
    }

    /// Goes there when a register holds another value.
    pub fn go_unless(&mut self, register: u8, value: i32, to: L) {
        self.jump(JUMP_UNLESS_EQUAL, [register, 0], value, to);
    }

    /// A jump of any kind, of a register against another or a value.
    pub fn jump(&mut self, code: u8, registers: [u8; 2], value: i32, to: L) {
        self.jumps.push((self.instructions.len(), to));
        self.op(code, registers, 0, value);
    }

    /// The instructions in the kernel's encoding; a jump to a label that was never set goes nowhere, which the kernel refuses.
    pub fn finish(mut self) -> Vec<u64> {
        for (at, to) in &self.jumps {
            let target = self.labels.iter().find(|(label, _)| label == to);
            let distance = target.map(|(_, place)| place.cast_signed() - at.cast_signed() - 1);
            self.instructions[*at].3 = distance.and_then(|d| d.try_into().ok()).unwrap_or(i16::MAX);
        }
        let encode = |(code, to, from, offset, value)| instruction(code, to, from, offset, value);
        self.instructions.into_iter().map(encode).collect()
    }
}
