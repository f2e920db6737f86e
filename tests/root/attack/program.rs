//! Programs of a few system calls, small enough for a command line: a tenant's own machine code, for any entry of the kernel.

use anyhow::{Context, Result};

use crate::vps::house::House;

/// How a program enters the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// `syscall` of x86-64.
    Wide,
    /// `int 0x80` of i386.
    Narrow,
}

/// An argument of a call.
#[derive(Debug, Clone, Copy)]
pub enum Arg {
    Number(u32),
    /// The address of what is so far into the data.
    Data(u32),
    /// What the first call returned.
    First,
}

/// A call by its number, with up to five arguments.
pub type Call<'a> = (u32, &'a [Arg]);

const BASE: u32 = 0x0040_0000;

/// An ELF program that makes the calls and ends with the error number of the last, or 0.
fn elf(entry: Entry, calls: &[Call<'_>], data: &[u8]) -> Vec<u8> {
    let headers: u32 = if entry == Entry::Wide { 64 + 56 } else { 52 + 32 };
    // Where the data is depends on the code's length, which does not depend on where the data is.
    let length = u32::try_from(code(entry, calls, 0).len()).expect("a short program");
    let code = code(entry, calls, BASE + headers + length);
    let size = headers + length + u32::try_from(data.len()).expect("little data");
    let start = BASE + headers;
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let words = |elf: &mut Vec<u8>, words: &[u32]| elf.extend(words.iter().flat_map(|w| w.to_le_bytes()));
    let longs = |elf: &mut Vec<u8>, longs: &[u32]| {
        elf.extend(longs.iter().flat_map(|l| u64::from(*l).to_le_bytes()));
    };
    // Kind, machine, version, entry, program headers, no sections, flags; sizes; then LOAD: place, size, read, write, execute.
    if entry == Entry::Wide {
        elf[4] = 2;
        elf.extend([2, 0, 62, 0]);
        words(&mut elf, &[1]);
        longs(&mut elf, &[start, 64, 0]);
        words(&mut elf, &[0]);
        elf.extend([64, 56, 1, 0, 0, 0].map(u16::to_le_bytes).as_flattened());
        words(&mut elf, &[1, 7]);
        longs(&mut elf, &[0, BASE, BASE, size + 4, size + 4, 4096]);
    } else {
        elf.extend([2, 0, 3, 0]);
        words(&mut elf, &[1, start, 52, 0, 0]);
        elf.extend([52, 32, 1, 0, 0, 0].map(u16::to_le_bytes).as_flattened());
        words(&mut elf, &[1, 0, BASE, BASE, size + 4, size + 4, 7, 4096]);
    }
    elf.extend(code);
    // The word before the data is for the first call's result.
    elf.extend([0; 4]);
    elf.extend(data);
    elf
}

fn code(entry: Entry, calls: &[Call<'_>], result: u32) -> Vec<u8> {
    let mut code = Vec::new();
    let with = |code: &mut Vec<u8>, bytes: &[u8], value: u32| {
        code.extend(bytes);
        code.extend(value.to_le_bytes());
    };
    for (place, (number, args)) in calls.iter().enumerate() {
        for (argument, arg) in args.iter().enumerate() {
            let (set, load): (&[u8], &[u8]) = register(entry, argument);
            match arg {
                Arg::Number(n) => with(&mut code, set, *n),
                Arg::Data(at) => with(&mut code, set, result + 4 + at),
                Arg::First => with(&mut code, load, result),
            }
        }
        with(&mut code, &[0xb8], *number); // mov eax, number
        code.extend(gate(entry));
        if place == 0 {
            let save: &[u8] = if entry == Entry::Wide {
                &[0x89, 0x04, 0x25]
            } else {
                &[0xa3]
            };
            with(&mut code, save, result); // mov [result], eax
        }
    }
    code.extend([0xf7, 0xd8, 0x7f, 0x02, 0x31, 0xc0]); // neg eax; jg over; xor eax, eax
    let (to, exit) = if entry == Entry::Wide {
        (0xc7, 60)
    } else {
        (0xc3, 1)
    };
    code.extend([0x89, to]); // mov edi (ebx), eax
    with(&mut code, &[0xb8], exit);
    code.extend(gate(entry));
    code
}

fn gate(entry: Entry) -> [u8; 2] {
    if entry == Entry::Wide {
        [0x0f, 0x05]
    } else {
        [0xcd, 0x80]
    }
}

/// The codes of `mov register, number` and `mov register, [address]` for an argument's register.
fn register(entry: Entry, argument: usize) -> (&'static [u8], &'static [u8]) {
    const WIDE: [(&[u8], &[u8]); 5] = [
        (&[0xbf], &[0x8b, 0x3c, 0x25]),
        (&[0xbe], &[0x8b, 0x34, 0x25]),
        (&[0xba], &[0x8b, 0x14, 0x25]),
        (&[0x41, 0xba], &[0x44, 0x8b, 0x14, 0x25]),
        (&[0x41, 0xb8], &[0x44, 0x8b, 0x04, 0x25]),
    ];
    const NARROW: [(&[u8], &[u8]); 5] = [
        (&[0xbb], &[0x8b, 0x1d]),
        (&[0xb9], &[0x8b, 0x0d]),
        (&[0xba], &[0x8b, 0x15]),
        (&[0xbe], &[0x8b, 0x35]),
        (&[0xbf], &[0x8b, 0x3d]),
    ];
    if entry == Entry::Wide {
        WIDE[argument]
    } else {
        NARROW[argument]
    }
}

/// Runs a program in a VPS; the error number of its last call, or 0.
pub fn run(house: &House, name: &str, entry: Entry, calls: &[Call<'_>], data: &[u32]) -> Result<i32> {
    let data: Vec<u8> = data.iter().flat_map(|word| word.to_le_bytes()).collect();
    let octal: String = elf(entry, calls, &data)
        .iter()
        .map(|byte| format!("\\{byte:03o}"))
        .collect();
    let script =
        format!("printf '{octal}' > /tmp/program && chmod 755 /tmp/program && /tmp/program; echo $?");
    let said = house.sh(name, &script)?;
    said.parse().with_context(|| format!("it says `{said}`"))
}
