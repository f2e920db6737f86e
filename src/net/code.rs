//! eBPF instructions with labels: as much of an assembler as the fence needs (`linux/bpf.h`, RFC 9669).
//!
//! What is compared with packets is compared in memory order, so that values are written down as they stand in the packet.

use crate::sys::bpf::instruction;

// Registers of the calling convention: the answer, five arguments, those that survive calls, the frame.
const ANSWER: u8 = 0;
const FIRST: u8 = 1;
const SECOND: u8 = 2;
const THIRD: u8 = 3;
const FOURTH: u8 = 4;
const FIFTH: u8 = 5;
const CONTEXT: u8 = 6;
const SUM: u8 = 7;
const CURSOR: u8 = 8;
const FRAME: u8 = 10;

// Instruction classes and operations.
const LOAD: u8 = 0x61;
const LOAD_LONG: u8 = 0x18;
const STORE: u8 = 0x62;
const STORE_REGISTER: u8 = 0x63;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const ADD: u8 = 0x07;
const AND: u8 = 0x57;
const ADD_REGISTER: u8 = 0x0f;
const SHIFT_RIGHT: u8 = 0x77;
const XOR: u8 = 0xa7;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const JUMP: u8 = 0x05;
/// Jumps that compare 32 bits: no value is extended by its sign.
const JUMP_IF_EQUAL: u8 = 0x16;
const JUMP_IF_AT_LEAST: u8 = 0x36;
const JUMP_IF_NOT_EQUAL: u8 = 0x56;
/// Compares 64 bits, as an address has.
const JUMP_IF_ADDRESS_EQUAL: u8 = 0x15;
/// `BPF_PSEUDO_MAP_FD`: the number that is loaded is a descriptor, in place of which the kernel puts the map's address.
const A_MAP: u8 = 1;

/// Helper functions, by their numbers in `linux/bpf.h`. None is for programs under the GPL only.
#[derive(Debug, Clone, Copy)]
pub(super) enum Helper {
    LookUp = 1,
    StoreBytes = 9,
    Redirect = 23,
    LoadBytes = 26,
    ChangeType = 32,
    ChangeTail = 38,
}

/// How much is loaded or stored at once.
#[derive(Debug, Clone, Copy)]
pub(super) enum Size {
    Byte = 0x10,
    Half = 0x08,
    Word = 0x00,
}

/// An argument of a helper function; the first is always the packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Argument {
    Number(i32),
    /// The address of a place in the frame.
    Place(i16),
    /// Where in the packet the cursor is.
    Cursor,
}

/// A program under construction; `L` names the places that are jumped to.
#[derive(Debug)]
pub(super) struct Code<L> {
    instructions: Vec<(u8, u8, i16, i32)>,
    jumps: Vec<(usize, L)>,
    labels: Vec<(L, usize)>,
}

impl<L: Copy + PartialEq> Code<L> {
    /// A program that has kept its context and done nothing yet.
    pub(super) fn new() -> Self {
        let mut code = Self {
            instructions: Vec::new(),
            jumps: Vec::new(),
            labels: Vec::new(),
        };
        code.push(MOVE_REGISTER, FIRST << 4 | CONTEXT, 0, 0);
        code
    }

    /// Here is what `label` names; jumps go forward only.
    pub(super) fn label(&mut self, label: L) {
        self.labels.push((label, self.instructions.len()));
    }

    /// Takes a field of `struct __sk_buff` into the working register.
    pub(super) fn field(&mut self, offset: i16) {
        self.push(LOAD, CONTEXT << 4 | SECOND, offset, 0);
    }

    /// Takes what is in the frame into the working register.
    pub(super) fn load(&mut self, size: Size, place: i16) {
        self.push(LOAD | size as u8, FRAME << 4 | SECOND, place, 0);
    }

    /// Puts the working register into the frame.
    pub(super) fn store(&mut self, size: Size, place: i16) {
        self.push(STORE_REGISTER | size as u8, SECOND << 4 | FRAME, place, 0);
    }

    /// Puts bytes into the frame, whose number is a multiple of four.
    pub(super) fn write(&mut self, place: i16, bytes: &[u8]) {
        for (n, word) in (0..).step_by(4).zip(bytes.chunks_exact(4)) {
            self.push(STORE, FRAME, place + n, value(word));
        }
    }

    /// Puts a byte into the frame.
    pub(super) fn write_byte(&mut self, place: i16, byte: u8) {
        self.push(STORE | Size::Byte as u8, FRAME, place, byte.into());
    }

    /// Begins a checksum (RFC 1071) with what is known of its sum.
    pub(super) fn sum(&mut self, begin: u16) {
        self.push(MOVE, SUM, 0, begin.into());
    }

    /// Adds the two bytes in the working register to the checksum.
    pub(super) fn sum_add(&mut self) {
        self.push(ADD_REGISTER, SECOND << 4 | SUM, 0, 0);
    }

    /// Puts the finished checksum into the frame.
    pub(super) fn sum_store(&mut self, place: i16) {
        // A sum of few halves has at most one carry left after the first time.
        for _ in 0..2 {
            self.push(MOVE_REGISTER, SUM << 4 | SECOND, 0, 0);
            self.push(SHIFT_RIGHT, SECOND, 0, 16);
            self.push(AND, SUM, 0, 0xffff);
            self.push(ADD_REGISTER, SECOND << 4 | SUM, 0, 0);
        }
        self.push(XOR, SUM, 0, 0xffff);
        self.push(STORE_REGISTER | Size::Half as u8, SUM << 4 | FRAME, place, 0);
    }

    /// Puts the cursor to this byte of the packet.
    pub(super) fn cursor(&mut self, offset: i32) {
        self.push(MOVE, CURSOR, 0, offset);
    }

    /// Moves the cursor on by as many bytes as the working register says, and some more.
    pub(super) fn cursor_on(&mut self, more: i32) {
        self.push(ADD_REGISTER, SECOND << 4 | CURSOR, 0, 0);
        self.push(ADD, CURSOR, 0, more);
    }

    /// Keeps these bits of the working register.
    pub(super) fn mask(&mut self, bytes: &[u8]) {
        self.push(AND, SECOND, 0, value(bytes));
    }

    /// Jumps when the working register holds these bytes of a packet.
    pub(super) fn if_is(&mut self, bytes: &[u8], to: L) {
        self.jump(JUMP_IF_EQUAL, SECOND, value(bytes), to);
    }

    /// Jumps when the working register holds other bytes.
    pub(super) fn unless_is(&mut self, bytes: &[u8], to: L) {
        self.jump(JUMP_IF_NOT_EQUAL, SECOND, value(bytes), to);
    }

    /// Jumps when the byte in the working register is at least this.
    pub(super) fn if_at_least(&mut self, byte: u8, to: L) {
        self.jump(JUMP_IF_AT_LEAST, SECOND, byte.into(), to);
    }

    /// Jumps.
    pub(super) fn go(&mut self, to: L) {
        self.jump(JUMP, 0, 0, to);
    }

    /// Calls a helper with the packet and further arguments.
    pub(super) fn call(&mut self, helper: Helper, arguments: &[Argument]) {
        self.push(MOVE_REGISTER, CONTEXT << 4 | FIRST, 0, 0);
        for (register, argument) in [SECOND, THIRD, FOURTH, FIFTH].into_iter().zip(arguments) {
            match argument {
                Argument::Number(n) => self.push(MOVE, register, 0, *n),
                Argument::Cursor => self.push(MOVE_REGISTER, CURSOR << 4 | register, 0, 0),
                Argument::Place(place) => {
                    self.push(MOVE_REGISTER, FRAME << 4 | register, 0, 0);
                    self.push(ADD, register, 0, (*place).into());
                }
            }
        }
        self.push(CALL, 0, 0, helper as i32);
    }

    /// Looks up what the place in the frame holds in a map, by the map's descriptor.
    pub(super) fn look_up(&mut self, map: i32, place: i16) {
        self.push(LOAD_LONG, A_MAP << 4 | FIRST, 0, map);
        self.push(0, 0, 0, 0);
        self.push(MOVE_REGISTER, FRAME << 4 | SECOND, 0, 0);
        self.push(ADD, SECOND, 0, place.into());
        self.push(CALL, 0, 0, Helper::LookUp as i32);
    }

    /// Jumps when the map had nothing.
    pub(super) fn if_nothing(&mut self, to: L) {
        self.jump(JUMP_IF_ADDRESS_EQUAL, ANSWER, 0, to);
    }

    /// Ends with a redirection of the packet to be sent by the interface whose number the map had.
    pub(super) fn send_to_found(&mut self) {
        self.push(LOAD, ANSWER << 4 | FIRST, 0, 0);
        self.push(MOVE, SECOND, 0, 0);
        self.push(CALL, 0, 0, Helper::Redirect as i32);
        self.push(EXIT, 0, 0, 0);
    }

    /// Jumps when the helper failed.
    pub(super) fn if_failed(&mut self, to: L) {
        self.jump(JUMP_IF_NOT_EQUAL, ANSWER, 0, to);
    }

    /// Ends with the helper's answer to a redirection of the packet, out of the interface that it came in by.
    pub(super) fn send_back(&mut self, interface_field: i16) {
        self.push(LOAD, CONTEXT << 4 | FIRST, interface_field, 0);
        self.push(MOVE, SECOND, 0, 0);
        self.push(CALL, 0, 0, Helper::Redirect as i32);
        self.push(EXIT, 0, 0, 0);
    }

    /// Ends with this answer.
    pub(super) fn answer(&mut self, answer: i32) {
        self.push(MOVE, ANSWER, 0, answer);
        self.push(EXIT, 0, 0, 0);
    }

    /// The instructions in the kernel's encoding; a jump to a label that was never set goes nowhere, which the kernel refuses.
    pub(super) fn finish(mut self) -> Vec<u64> {
        for (at, to) in &self.jumps {
            let target = self.labels.iter().find(|(label, _)| label == to);
            let distance = target.and_then(|(_, place)| place.checked_sub(at + 1));
            self.instructions[*at].2 = distance.and_then(|d| d.try_into().ok()).unwrap_or(i16::MAX);
        }
        let encode = |(operation, registers, offset, number)| {
            // Two registers share a byte: the one that is written, and above it the one that is read.
            instruction(operation, registers & 0x0f, registers >> 4, offset, number)
        };
        self.instructions.into_iter().map(encode).collect()
    }

    fn jump(&mut self, operation: u8, register: u8, number: i32, to: L) {
        self.jumps.push((self.instructions.len(), to));
        self.push(operation, register, 0, number);
    }

    fn push(&mut self, operation: u8, registers: u8, offset: i16, number: i32) {
        self.instructions.push((operation, registers, offset, number));
    }
}

/// One, two or four bytes of a packet as the number that a register has which was loaded from there.
fn value(bytes: &[u8]) -> i32 {
    match *bytes {
        [a] => a.into(),
        [a, b] => u16::from_ne_bytes([a, b]).into(),
        [a, b, c, d] => i32::from_ne_bytes([a, b, c, d]),
        _ => 0,
    }
}
