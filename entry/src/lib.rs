//! Where `condo-runtime` begins, before the C library does (x86_64 with glibc; the linker is told by condo's `build.rs`).
//!
//! The program executes itself once more before it makes processes (see `process::protect` of condo), and all that the first execution
//! has done by then is done in vain: relocating addresses, and the questions of glibc's start-up about the processor, some sixty times
//! `cpuid`, each of which leaves the guest in a virtual machine. So the second execution begins with the first instructions of the first.
//!
//! Nothing is set up there: no address in a table is right yet, and no function of another crate or of the C library may be called,
//! `memcpy` and the reports of panics among them. So this crate is compiled without the former and indexes nothing, with optimization
//! always (`profile.dev` calls what is inlined otherwise), and asks the kernel directly. Whatever fails is left to the ordinary way.
#![no_std]
#![no_builtins]
#![allow(
    unsafe_code,
    clippy::multiple_unsafe_ops_per_block,
    reason = "before the C library there is nothing but addresses; every block argues why it is sound"
)]

/// Tells the second execution that it is the second: our pid, which an `execve` keeps and a child does not have.
pub const MARK: &str = "_CONDO_PROTECTED";

/// The names of commands that make processes as a rule, each with a null byte behind it. Something else of such a name (a container)
/// makes the program only execute itself in vain.
pub const MAKERS: &[u8] = b"create\0run\0exec\0";

#[cfg(target_arch = "x86_64")]
pub use x86_64::condo_runtime_entry;

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use core::arch::{asm, naked_asm};

    use super::{MAKERS, MARK};

    /// Where `struct mount_attr`, the mark, and the environment are put, in words.
    const ATTRIBUTES: usize = 0;
    const MARKED: usize = 4;
    const ENVIRONMENT: usize = 8;
    /// A caller that has more variables is served by the ordinary way.
    const MOST_VARIABLES: usize = 1000;
    /// What [`alike`] says of strings that are the same.
    const ALL: usize = usize::MAX;
    const SCRATCH: usize = (ENVIRONMENT + MOST_VARIABLES + 2) * size_of::<usize>();

    /// The program's entry: the second execution, or else the C library's own entry as the kernel would have called it.
    ///
    /// # Safety
    /// Only for the kernel, with the stack that `execve` prepares.
    #[unsafe(naked)]
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn condo_runtime_entry() -> ! {
        naked_asm!(
            "mov rbx, rsp",
            "mov r12, rdx",
            "mov rdi, rsp",
            "sub rsp, {scratch}",
            "and rsp, -16",
            "mov rsi, rsp",
            "call {protect}",
            "mov rsp, rbx",
            "mov rdx, r12",
            "xor ebp, ebp",
            "jmp _start",
            scratch = const SCRATCH,
            protect = sym protect,
        )
    }

    /// Executes the program through a read-only mount of its file when its words say that it makes processes, and comes back otherwise.
    ///
    /// # Safety
    /// `stack` is what `execve` prepares: the number of words, their addresses, a null, the addresses of variables, a null; each of
    /// them a string with a null byte behind it. `scratch` has room for [`SCRATCH`] bytes.
    unsafe extern "C" fn protect(stack: *const usize, scratch: *mut usize) {
        // SAFETY: as promised; nothing is read behind a null, and nothing written behind the scratch.
        unsafe {
            let count = *stack;
            let words = stack.add(1);
            if !(0..count).any(|at| makes_processes(string(words, at))) {
                return;
            }
            let mark = scratch.add(MARKED).cast();
            write_mark(mark);
            let variables = scratch.add(ENVIRONMENT);
            if copy_variables(words.add(count + 1), variables, mark) {
                execute(words, variables, scratch.add(ATTRIBUTES));
            }
        }
    }

    /// Whether the string is one of [`MAKERS`].
    unsafe fn makes_processes(string: *const u8) -> bool {
        let mut name = 0;
        while name < MAKERS.len() {
            // SAFETY: a name begins here, which ends with a null byte as the string does.
            unsafe {
                if alike(string, MAKERS.as_ptr().add(name)) == ALL {
                    return true;
                }
                while byte(MAKERS.as_ptr(), name) != 0 {
                    name += 1;
                }
            }
            name += 1;
        }
        false
    }

    /// Writes the variable that tells the second execution.
    unsafe fn write_mark(to: *mut u8) {
        // SAFETY: `getpid` has no arguments; 17 bytes, at most 10 digits and a null are within the words of the mark.
        unsafe {
            let mut pid = ask(libc::SYS_getpid, [0; 5]);
            let mut digits = 1;
            let mut power = 10;
            while pid >= power {
                (digits, power) = (digits + 1, power * 10);
            }
            for at in 0..MARK.len() {
                to.add(at).write_volatile(byte(MARK.as_ptr(), at));
            }
            to.add(MARK.len()).write_volatile(b'=');
            let end = MARK.len() + 1 + digits;
            to.add(end).write_volatile(0);
            for at in 1..=digits {
                to.add(end - at).write_volatile(b'0' + (pid % 10) as u8);
                pid /= 10;
            }
        }
    }

    /// Copies the addresses of all variables but an old mark, and adds the new one. Not when that stands already, and not when there are
    /// too many.
    unsafe fn copy_variables(from: *const usize, to: *mut usize, mark: *const u8) -> bool {
        // SAFETY: as for `protect`.
        unsafe {
            let (mut read, mut written) = (0, 0);
            while *from.add(read) != 0 {
                let variable = string(from, read);
                read += 1;
                let alike = alike(variable, mark);
                if alike == ALL || written == MOST_VARIABLES {
                    return false;
                }
                if alike <= MARK.len() {
                    to.add(written).write_volatile(variable.addr());
                    written += 1;
                }
            }
            to.add(written).write_volatile(mark.addr());
            to.add(written + 1).write_volatile(0);
            true
        }
    }

    /// In how many bytes two strings begin alike; [`ALL`] when they are the same.
    unsafe fn alike(one: *const u8, other: *const u8) -> usize {
        let mut at = 0;
        loop {
            // SAFETY: both are the same up to here and have not ended.
            let (a, b) = unsafe { (byte(one, at), byte(other, at)) };
            match (a == b, a) {
                (false, _) => return at,
                (true, 0) => return ALL,
                (true, _) => at += 1,
            }
        }
    }

    /// Executes the program's own file by a mount that is read-only and attached nowhere. Comes back where that fails.
    unsafe fn execute(words: *const usize, variables: *const usize, attributes: *mut usize) {
        let (exe, empty) = (c"/proc/self/exe".as_ptr().addr(), c"".as_ptr().addr());
        let here = libc::AT_FDCWD as usize;
        let cloned = (libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC) as usize;
        let by_fd = libc::AT_EMPTY_PATH as usize;
        // SAFETY: the kernel reads strings, lists and the words of the attributes, all of which stay where they are.
        unsafe {
            let mount = ask(libc::SYS_open_tree, [here, exe, cloned, 0, 0]);
            if mount < 0 {
                return;
            }
            let mount = mount.cast_unsigned();
            attributes.write_volatile(libc::MOUNT_ATTR_RDONLY as usize);
            for at in 1..MARKED {
                attributes.add(at).write_volatile(0);
            }
            let length = MARKED * size_of::<usize>();
            if ask(
                libc::SYS_mount_setattr,
                [mount, empty, by_fd, attributes.addr(), length],
            ) == 0
            {
                ask(
                    libc::SYS_execveat,
                    [mount, empty, words.addr(), variables.addr(), by_fd],
                );
            }
            ask(libc::SYS_close, [mount, 0, 0, 0, 0]);
        }
    }

    unsafe fn byte(string: *const u8, at: usize) -> u8 {
        // SAFETY: who calls knows that the string has not ended before.
        unsafe { string.add(at).read_volatile() }
    }

    unsafe fn string(list: *const usize, at: usize) -> *const u8 {
        // SAFETY: as for `protect`.
        unsafe { *list.add(at) as *const u8 }
    }

    /// A system call.
    unsafe fn ask(number: libc::c_long, [a, b, c, d, e]: [usize; 5]) -> isize {
        let answer;
        // SAFETY: who calls answers for the arguments; the kernel changes these registers and memory alone.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") number as isize => answer,
                in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
                lateout("rcx") _, lateout("r11") _,
                options(nostack),
            );
        }
        answer
    }
}
