//! Instruction classes and operations of eBPF, as `linux/bpf_common.h` and `linux/bpf.h` put them together.

/// `r = *(u32 *)(r + offset)`.
pub const LOAD_WORD: u8 = 0x61;
/// `r = *(u64 *)(r + offset)`.
pub const LOAD_LONG: u8 = 0x79;
/// `r = *(u16 *)(r + offset)`.
pub const LOAD_HALF: u8 = 0x69;
/// `r = *(u8 *)(r + offset)`.
pub const LOAD_BYTE: u8 = 0x71;
/// `*(u32 *)(r + offset) = value`.
pub const STORE_WORD: u8 = 0x62;
/// `*(u64 *)(r + offset) = value`.
pub const STORE_LONG: u8 = 0x7a;
/// `*(u32 *)(r + offset) = r`.
pub const STORE_REGISTER: u8 = 0x63;
/// `*(u64 *)(r + offset) = r`.
pub const STORE_REGISTER_LONG: u8 = 0x7b;
/// `r = *(u64 *)(to + offset)`, and adds the old `r` there, as one step.
pub const FETCH_AND_ADD: u8 = 0xdb;
/// What [`FETCH_AND_ADD`] has for its value (`BPF_ADD | BPF_FETCH`).
pub const FETCH: i32 = 1;
/// `r = value`.
pub const MOVE: u8 = 0xb7;
/// `r = r`.
pub const MOVE_REGISTER: u8 = 0xbf;
/// `r = value`, of 64 bits: takes two instructions.
pub const MOVE_LONG: u8 = 0x18;
/// `r += value`.
pub const ADD: u8 = 0x07;
/// `r += r`.
pub const ADD_REGISTER: u8 = 0x0f;
/// `r -= r`.
pub const SUBTRACT_REGISTER: u8 = 0x1f;
/// `r = -r`.
pub const NEGATE: u8 = 0x87;
/// `r &= value`.
pub const AND: u8 = 0x57;
/// `r <<= value`.
pub const SHIFT_LEFT: u8 = 0x67;
/// `r >>= value`.
pub const SHIFT_RIGHT: u8 = 0x77;
/// Goes on `offset` instructions further.
pub const JUMP: u8 = 0x05;
/// The same if `r == value`.
pub const JUMP_IF_EQUAL: u8 = 0x15;
/// The same if `r != value`.
pub const JUMP_UNLESS_EQUAL: u8 = 0x55;
/// The same if `r & value`.
pub const JUMP_IF_SET: u8 = 0x45;
/// The same if `r <= value`, without signs.
pub const JUMP_IF_AT_MOST: u8 = 0xb5;
/// The same if `r < value`, without signs.
pub const JUMP_IF_BELOW: u8 = 0xa5;
/// The same if `r > r`, without signs.
pub const JUMP_IF_BEYOND: u8 = 0x2d;
/// The same if `r != r`.
pub const JUMP_UNLESS_SAME: u8 = 0x5d;
/// `r ^= value`.
pub const XOR: u8 = 0xa7;
// Jumps that compare 32 bits: no value is extended by its sign.
/// Goes on `offset` instructions further if `r == value`.
pub const JUMP_IF_EQUAL_32: u8 = 0x16;
/// The same if `r != value`.
pub const JUMP_UNLESS_EQUAL_32: u8 = 0x56;
/// The same if `r >= value`, without signs.
pub const JUMP_IF_AT_LEAST_32: u8 = 0x36;
/// The same if `r < value`, with signs.
pub const JUMP_IF_LESS_32: u8 = 0xc6;
/// Calls a function of the kernel's, by its number.
pub const CALL: u8 = 0x85;
/// Ends the program: the answer is in the first register.
pub const EXIT: u8 = 0x95;
