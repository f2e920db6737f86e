//! eBPF instructions with labels: as much of an assembler as the fence needs (`linux/bpf.h`, RFC 9669).
//!
//! What is compared with packets is compared in memory order, so that values are written down as they stand in the packet.

use crate::sys::bpf::assembly::Assembly;
use crate::sys::bpf::op::{
    ADD, ADD_REGISTER, AND, CALL, EXIT, JUMP, JUMP_IF_AT_LEAST_32, JUMP_IF_BEYOND, JUMP_IF_EQUAL,
    JUMP_IF_EQUAL_32, JUMP_UNLESS_EQUAL_32, LOAD_LONG, LOAD_WORD, MOVE, MOVE_LONG, MOVE_REGISTER,
    SHIFT_RIGHT, STORE_REGISTER, STORE_REGISTER_LONG, STORE_WORD, XOR,
};

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
const FOUND: u8 = 9;
const FRAME: u8 = 10;

/// `BPF_PSEUDO_MAP_FD`: the number that is loaded is a descriptor, in place of which the kernel puts the map's address.
const A_MAP: u8 = 1;

/// Helper functions, by their numbers in `linux/bpf.h`. None is for programs under the GPL only.
#[derive(Debug, Clone, Copy)]
pub(super) enum Helper {
    LookUp = 1,
    Update = 2,
    Now = 5,
    StoreBytes = 9,
    ReplaceSum = 10,
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
    /// The address of a place in what a map had.
    Found(i32),
}

/// A program under construction; `L` names the places that are jumped to.
#[derive(Debug)]
pub(super) struct Code<L>(Assembly<L>);

impl<L: Copy + PartialEq> Code<L> {
    /// A program that has kept its context and done nothing yet.
    pub(super) fn new() -> Self {
        let mut code = Self(Assembly::default());
        code.push(MOVE_REGISTER, FIRST << 4 | CONTEXT, 0, 0);
        code
    }

    /// Here is what `label` names; jumps go forward only.
    pub(super) fn label(&mut self, label: L) {
        self.0.label(label);
    }

    /// Takes a field of `struct __sk_buff` into the working register.
    pub(super) fn field(&mut self, offset: i16) {
        self.push(LOAD_WORD, CONTEXT << 4 | SECOND, offset, 0);
    }

    /// Takes what is in the frame into the working register.
    pub(super) fn load(&mut self, size: Size, place: i16) {
        self.push(LOAD_WORD | size as u8, FRAME << 4 | SECOND, place, 0);
    }

    /// Puts the working register into the frame.
    pub(super) fn store(&mut self, size: Size, place: i16) {
        self.push(STORE_REGISTER | size as u8, SECOND << 4 | FRAME, place, 0);
    }

    /// Puts bytes into the frame, whose number is a multiple of four.
    pub(super) fn write(&mut self, place: i16, bytes: &[u8]) {
        for (n, word) in (0..).step_by(4).zip(bytes.chunks_exact(4)) {
            self.push(STORE_WORD, FRAME, place + n, value(word));
        }
    }

    /// Puts a byte into the frame.
    pub(super) fn write_byte(&mut self, place: i16, byte: u8) {
        self.push(STORE_WORD | Size::Byte as u8, FRAME, place, byte.into());
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
        self.jump(JUMP_IF_EQUAL_32, SECOND, value(bytes), to);
    }

    /// Jumps when the working register holds other bytes.
    pub(super) fn unless_is(&mut self, bytes: &[u8], to: L) {
        self.jump(JUMP_UNLESS_EQUAL_32, SECOND, value(bytes), to);
    }

    /// Jumps when the byte in the working register is at least this.
    pub(super) fn if_at_least(&mut self, byte: u8, to: L) {
        self.jump(JUMP_IF_AT_LEAST_32, SECOND, byte.into(), to);
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
                Argument::Found(place) => self.address(register, FOUND, *place),
                Argument::Place(place) => self.address(register, FRAME, (*place).into()),
            }
        }
        self.push(CALL, 0, 0, helper as i32);
    }

    /// Adds to the working register.
    pub(super) fn add(&mut self, number: i32) {
        self.push(ADD, SECOND, 0, number);
    }

    /// Looks up what the place in the frame holds in a map, by the map's descriptor, and goes on when it is there.
    pub(super) fn look_up(&mut self, map: i32, place: i16, otherwise: L) {
        self.map_and_key(map, place);
        self.push(CALL, 0, 0, Helper::LookUp as i32);
        self.jump(JUMP_IF_EQUAL, ANSWER, 0, otherwise);
        self.push(MOVE_REGISTER, ANSWER << 4 | FOUND, 0, 0);
    }

    /// Enters the value into the map, under the key, both at these places in the frame. A map that is full forgets others.
    pub(super) fn enter(&mut self, map: i32, key: i16, value: i16) {
        self.map_and_key(map, key);
        self.address(THIRD, FRAME, value.into());
        self.push(MOVE, FOURTH, 0, 0);
        self.push(CALL, 0, 0, Helper::Update as i32);
    }

    fn map_and_key(&mut self, map: i32, key: i16) {
        self.push(MOVE_LONG, A_MAP << 4 | FIRST, 0, map);
        self.push(0, 0, 0, 0);
        self.address(SECOND, FRAME, key.into());
    }

    /// Takes the address of a place behind what a register points to into another.
    fn address(&mut self, register: u8, base: u8, place: i32) {
        self.push(MOVE_REGISTER, base << 4 | register, 0, 0);
        self.push(ADD, register, 0, place);
    }

    /// Takes a number from a place in what the map had into the working register.
    pub(super) fn load_found(&mut self, place: i16) {
        self.push(LOAD_WORD, FOUND << 4 | SECOND, place, 0);
    }

    /// Puts into the frame the time that it is so many nanoseconds from now.
    pub(super) fn store_time_in(&mut self, nanoseconds: i32, place: i16) {
        self.push(CALL, 0, 0, Helper::Now as i32);
        self.push(ADD, ANSWER, 0, nanoseconds);
        self.push(STORE_REGISTER_LONG, ANSWER << 4 | FRAME, place, 0);
    }

    /// Jumps when the time at a place in what the map had is over.
    pub(super) fn if_over(&mut self, place: i16, to: L) {
        self.push(CALL, 0, 0, Helper::Now as i32);
        self.push(LOAD_LONG, FOUND << 4 | SECOND, place, 0);
        self.jump(JUMP_IF_BEYOND, SECOND << 4, 0, to);
    }

    /// Puts the working register into a field of `struct __sk_buff`.
    pub(super) fn set_field(&mut self, offset: i16) {
        self.push(STORE_REGISTER, SECOND << 4 | CONTEXT, offset, 0);
    }

    /// Takes a number into the working register.
    pub(super) fn number(&mut self, number: i32) {
        self.push(MOVE, SECOND, 0, number);
    }

    /// Ends with a redirection of the packet to be sent by the interface whose number is in the working register.
    pub(super) fn send_by(&mut self) {
        self.push(MOVE_REGISTER, SECOND << 4 | FIRST, 0, 0);
        self.push(MOVE, SECOND, 0, 0);
        self.push(CALL, 0, 0, Helper::Redirect as i32);
        self.push(EXIT, 0, 0, 0);
    }

    /// Jumps when the helper failed.
    pub(super) fn if_failed(&mut self, to: L) {
        self.jump(JUMP_UNLESS_EQUAL_32, ANSWER, 0, to);
    }

    /// Ends with the helper's answer to a redirection of the packet, out of the interface that it came in by.
    pub(super) fn send_back(&mut self, interface_field: i16) {
        self.push(LOAD_WORD, CONTEXT << 4 | FIRST, interface_field, 0);
        self.push(MOVE, SECOND, 0, 0);
        self.push(CALL, 0, 0, Helper::Redirect as i32);
        self.push(EXIT, 0, 0, 0);
    }

    /// Ends with this answer.
    pub(super) fn answer(&mut self, answer: i32) {
        self.push(MOVE, ANSWER, 0, answer);
        self.push(EXIT, 0, 0, 0);
    }

    /// The instructions in the kernel's encoding; see [`Assembly::finish`].
    pub(super) fn finish(self) -> Vec<u64> {
        self.0.finish()
    }

    fn jump(&mut self, operation: u8, register: u8, number: i32, to: L) {
        match self.0.has(to) {
            // Back: leads nowhere, which the kernel refuses.
            true => self.push(operation, register, i16::MAX, number),
            false => self
                .0
                .jump(operation, [register & 0x0f, register >> 4], number, to),
        }
    }

    /// Two registers share a byte: the one that is written, and above it the one that is read.
    fn push(&mut self, operation: u8, registers: u8, offset: i16, number: i32) {
        self.0
            .op(operation, [registers & 0x0f, registers >> 4], offset, number);
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
