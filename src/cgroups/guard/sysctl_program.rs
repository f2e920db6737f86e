//! Kernel parameters that processes of a cgroup may not write, by an eBPF program (`BPF_PROG_TYPE_CGROUP_SYSCTL`).
//!
//! Some parameters of a network namespace say how much memory the kernel may take that no memory limit counts. They belong to the
//! namespace's root, who may be a tenant, and a namespace that a tenant makes has them as well: only the cgroup stands above both.
//!
//! The program gets a `struct bpf_sysctl { write, file_pos }` per access and answers 1, or 0 for `EPERM`.

use super::Cgroup;
use crate::error::Result;
use crate::sys::bpf::op::{
    ADD, CALL, EXIT, JUMP_UNLESS_EQUAL, JUMP_UNLESS_SAME, LOAD_LONG, LOAD_WORD, MOVE, MOVE_LONG,
    MOVE_REGISTER, STORE_LONG,
};
use crate::sys::bpf::{Hook, instruction};

/// What the program is called.
const NAME: &str = "condo_sysctls";

/// Room for a parameter's name, in words of eight bytes.
const WORDS: usize = 4;

/// Queues that the kernel fills with packets: of fragments that wait for the rest (IPv4, IPv6, 6LoWPAN, connection tracking), and of
/// packets that wait for a neighbour's address. As the files are called, without their directories.
const GUARDED: [&str; 6] = [
    "ipfrag_high_thresh",
    "ip6frag_high_thresh",
    "6lowpanfrag_high_thresh",
    "nf_conntrack_frag6_high_thresh",
    "unres_qlen",
    "unres_qlen_bytes",
];

// Registers: the answer, the arguments of a call; one that a call leaves alone; the frame.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const SECOND: u8 = 2;
const THIRD: u8 = 3;
const FOURTH: u8 = 4;
const FRAME: u8 = 10;

/// `bpf_sysctl_get_name`, and its flag for the name without directories.
const GET_NAME: i32 = 101;
const BASE_NAME: i32 = 1;

impl Cgroup {
    /// Keeps processes here from raising what the kernel may queue for a network namespace without counting it as anybody's memory.
    /// A host without cgroup2 has no such fence, and nothing is done there.
    ///
    /// # Errors
    /// Of `bpf(2)`.
    pub fn guard_sysctls(&self) -> Result<()> {
        self.guard(Hook::Sysctl, &program(&GUARDED), NAME, "kernel parameters")
    }
}

/// Refuses writes to the parameters with these names.
fn program(names: &[&str]) -> Vec<u64> {
    let mut code = vec![
        instruction(LOAD_WORD, SECOND, CONTEXT, 0, 0),
        instruction(JUMP_UNLESS_EQUAL, SECOND, 0, 2, 0),
    ];
    code.extend(answer(true));
    // The name's end is followed by zeros: names are compared as words.
    code.extend((0..WORDS).map(|word| instruction(STORE_LONG, FRAME, 0, place(word), 0)));
    code.extend([
        instruction(MOVE_REGISTER, SECOND, FRAME, 0, 0),
        instruction(ADD, SECOND, 0, 0, i32::from(place(0))),
        instruction(MOVE, THIRD, 0, 0, WORDS as i32 * 8),
        instruction(MOVE, FOURTH, 0, 0, BASE_NAME),
        instruction(CALL, 0, 0, 0, GET_NAME),
    ]);
    for name in names {
        code.extend(refuse(name));
    }
    code.extend(answer(true));
    code
}

/// Answers no if this is the name; falls through if not.
fn refuse(name: &str) -> Vec<u64> {
    const STEP: usize = 4;
    let verdict = answer(false);
    let mut code = Vec::new();
    for word in 0..WORDS {
        let mut bytes = [0; 8];
        let part = name.as_bytes().iter().skip(word * 8);
        bytes.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
        let [low, high] = halves(u64::from_ne_bytes(bytes));
        let over = (WORDS - word - 1) * STEP + verdict.len();
        code.extend([
            instruction(LOAD_LONG, SECOND, FRAME, place(word), 0),
            instruction(MOVE_LONG, THIRD, 0, 0, low),
            instruction(0, 0, 0, 0, high),
            instruction(JUMP_UNLESS_SAME, SECOND, THIRD, over as i16, 0),
        ]);
    }
    code.extend(verdict);
    code
}

fn answer(allow: bool) -> [u64; 2] {
    [
        instruction(MOVE, ANSWER, 0, 0, i32::from(allow)),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

/// Where a word of the name is in the frame.
fn place(word: usize) -> i16 {
    (word * 8) as i16 - WORDS as i16 * 8
}

/// The two immediate values of a 64-bit one, the lower first.
fn halves(value: u64) -> [i32; 2] {
    [(value as u32).cast_signed(), ((value >> 32) as u32).cast_signed()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_with_their_end() {
        for name in GUARDED {
            assert!(name.len() < WORDS * 8, "{name}");
        }
    }

    #[test]
    fn a_name_is_compared_word_by_word() {
        let code = refuse("unres_qlen");
        assert_eq!(code.len(), WORDS * 4 + 2);
        assert_eq!([place(0), place(3)], [-32, -8]);
        // The first comparison leads behind the last instruction.
        let [.., o0, o1, _, _, _, _] = code[3].to_ne_bytes();
        assert_eq!(i16::from_ne_bytes([o0, o1]), code.len() as i16 - 4);
    }
}
