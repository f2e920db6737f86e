//! Tests of the compiler against an interpreter of classic BPF and a second, naive reading of profiles.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompFilterFlag as Flag, LinuxSeccompOperator as Op, LinuxSyscall,
};
use proptest::prelude::*;
use seccompiler::sock_filter;

use super::abi::Abi;
use super::*;

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const KILL: u32 = 0;
const AMD64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;

/// `struct seccomp_data` without the instruction pointer.
#[derive(Debug, Clone, Copy)]
struct Call {
    number: u32,
    arch: u32,
    args: [u64; 6],
}

impl Call {
    fn new(arch: u32, number: u32, first: u64) -> Self {
        let args = [first, 0, 0, 0, 0, 0];
        Self { number, arch, args }
    }

    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            16..64 => {
                let arg = self.args[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) {
                    arg as u32
                } else {
                    (arg >> 32) as u32
                }
            }
            _ => panic!("load from {offset}"),
        }
    }
}

/// Runs a program as the kernel would; panics where the kernel's verifier would refuse it.
fn run(program: &[sock_filter], call: &Call) -> u32 {
    let (mut a, mut at) = (0, 0);
    loop {
        let i = &program[at];
        at += 1;
        let mut test = |yes| at += usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            0x20 => a = call.word(i.k),
            0x54 => a &= i.k,
            0x05 => at += i.k as usize,
            0x15 => test(a == i.k),
            0x25 => test(a > i.k),
            0x35 => test(a >= i.k),
            0x06 => return i.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// What the profile means for a call, read entry by entry on an x86-64 machine.
fn meaning(profile: &LinuxSeccomp, call: &Call) -> u32 {
    let listed = |arch| profile.architectures().iter().flatten().any(|a| *a == arch);
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    let passing = [Action::ScmpActAllow, Action::ScmpActLog, Action::ScmpActTrace];
    let passes = passing.contains(&profile.default_action());
    let abi = match (call.arch, call.number) {
        (AMD64, 0..0x4000_0000) => Abi::X86_64,
        (AMD64, u32::MAX) => return default,
        (AMD64, _) if listed(Arch::ScmpArchX32) => Abi::X32,
        (I386, u32::MAX) if listed(Arch::ScmpArchX86) => return default,
        (I386, _) if listed(Arch::ScmpArchX86) => Abi::X86,
        _ => return KILL,
    };
    let table = calls_of(abi);
    let entries: Vec<&LinuxSyscall> = profile.syscalls().iter().flatten().collect();
    let value = |e: &LinuxSyscall| e.action().as_u32(e.errno_ret());
    let is_plain = |e: &LinuxSyscall| e.args().as_ref().is_none_or(Vec::is_empty);
    let rules_of = |name: &str| -> Vec<&LinuxSyscall> {
        let of = entries.iter().filter(|e| e.names().iter().any(|n| n == name));
        of.copied().filter(|e| value(e) != default).collect()
    };
    let names = table
        .iter()
        .filter(|(_, n)| *n == call.number)
        .map(|(name, _)| *name);
    let rules: Vec<&LinuxSyscall> = names.flat_map(rules_of).collect();
    if let Some(plain) = rules.iter().find(|e| is_plain(e)) {
        return value(plain);
    }
    if let Some(rule) = rules.iter().find(|e| applies(e, call, abi.is_narrow())) {
        return value(rule);
    }
    let all_names: BTreeSet<&str> = entries
        .iter()
        .flat_map(|e| e.names())
        .map(String::as_str)
        .collect();
    let muxed = |name: &&str| abi.sub_call(name).filter(|_| !rules_of(name).is_empty());
    for name in &all_names {
        if let Some(sub) = muxed(name)
            && sub.number == call.number
            && call.args[0] as u32 & sub.mask == sub.value
        {
            return blind(&rules_of(name), default);
        }
    }
    let muxed = all_names.iter().filter_map(muxed).map(|sub| sub.number);
    let direct = table
        .iter()
        .filter(|(name, _)| all_names.contains(name))
        .map(|(_, n)| *n);
    match direct.chain(muxed).max() {
        Some(newest) if call.number > newest && !passes => ERRNO | 38,
        _ => default,
    }
}

/// What to do without seeing the arguments: the unconditional rule, else the strictest of what could be meant.
fn blind(rules: &[&LinuxSyscall], default: u32) -> u32 {
    let value = |e: &&LinuxSyscall| e.action().as_u32(e.errno_ret());
    let plain = rules.iter().find(|e| e.args().as_ref().is_none_or(Vec::is_empty));
    // The kernel's order of precedence: KILL_PROCESS is negative, ALLOW the largest.
    let strictest = rules
        .iter()
        .map(value)
        .min_by_key(|v| (v & 0xffff_0000) as i32)
        .unwrap_or(default);
    match plain {
        Some(rule) => value(rule),
        None if ((strictest & 0xffff_0000) as i32) < (default & 0xffff_0000) as i32 => strictest,
        None => default,
    }
}

/// The tables, which take a while to make.
fn calls_of(abi: Abi) -> &'static [(&'static str, u32)] {
    static TABLES: LazyLock<[Vec<(&str, u32)>; 4]> =
        LazyLock::new(|| [Abi::X86_64, Abi::X32, Abi::X86, Abi::Aarch64].map(Abi::calls));
    &TABLES[abi as usize]
}

fn applies(entry: &LinuxSyscall, call: &Call, narrow: bool) -> bool {
    let args = entry.args().as_deref().unwrap_or_default();
    let repeated = args
        .iter()
        .enumerate()
        .any(|(i, a)| args[..i].iter().any(|b| a.index() == b.index()));
    let mut holds = args.iter().map(|a| holds(a, call, narrow));
    if repeated {
        holds.any(|h| h)
    } else {
        holds.all(|h| h)
    }
}

fn holds(condition: &LinuxSeccompArg, call: &Call, narrow: bool) -> bool {
    let bits = if narrow { 0xffff_ffff } else { u64::MAX };
    let (arg, value) = (call.args[condition.index()], condition.value());
    match condition.op() {
        Op::ScmpCmpNe => arg & bits != value & bits,
        Op::ScmpCmpLt => arg < value,
        Op::ScmpCmpLe => arg <= value,
        Op::ScmpCmpEq => arg & bits == value & bits,
        Op::ScmpCmpGe => arg >= value,
        Op::ScmpCmpGt => arg > value,
        Op::ScmpCmpMaskedEq => arg & value & bits == condition.value_two().unwrap_or(0) & value & bits,
    }
}

fn arg(index: usize, op: Op, value: u64, two: Option<u64>) -> LinuxSeccompArg {
    let mut arg = LinuxSeccompArgBuilder::default().index(index).op(op).value(value);
    if let Some(two) = two {
        arg = arg.value_two(two);
    }
    arg.build().unwrap()
}

fn entry(names: &[&str], action: Action, errno: Option<u32>, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let mut entry = LinuxSyscall::default();
    entry
        .set_names(names.iter().map(ToString::to_string).collect())
        .set_action(action)
        .set_errno_ret(errno);
    entry.set_args((!args.is_empty()).then_some(args));
    entry
}

fn profile(default: Action, entries: Vec<LinuxSyscall>) -> LinuxSeccomp {
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(default).set_syscalls(Some(entries));
    profile
}

fn verdict(filter: &Filter, call: Call) -> u32 {
    run(&filter.program, &call)
}

/// Names that exist everywhere, somewhere, nowhere, and those that are two calls on i386 or x32.
const NAMES: [&str; 16] = [
    "read",
    "write",
    "openat",
    "execve",
    "ioctl",
    "socket",
    "connect",
    "socketcall",
    "shmat",
    "semop",
    "ipc",
    "clone3",
    "clock_gettime64",
    "personality",
    "no_such_call",
    "io_setup",
];

fn values() -> impl Strategy<Value = u64> {
    let edges = [
        0,
        1,
        2,
        3,
        21,
        0x10015,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        1 << 32,
        (1 << 32) + 1,
        u64::MAX - 1,
        u64::MAX,
    ];
    prop_oneof![4 => prop::sample::select(edges.to_vec()), 1 => any::<u64>()]
}

fn arguments() -> impl Strategy<Value = LinuxSeccompArg> {
    use Op::*;
    let ops = [
        ScmpCmpNe,
        ScmpCmpLt,
        ScmpCmpLe,
        ScmpCmpEq,
        ScmpCmpGe,
        ScmpCmpGt,
        ScmpCmpMaskedEq,
    ];
    let index = prop_oneof![3 => Just(0_usize), 2 => 1_usize..6];
    let two = prop::option::of(values());
    (index, prop::sample::select(ops.to_vec()), values(), two).prop_map(|(i, op, v, two)| arg(i, op, v, two))
}

/// Actions but NOTIFY, which is not free to stand everywhere.
fn actions() -> impl Strategy<Value = (Action, Option<u32>)> {
    use Action::*;
    let plain = [
        ScmpActKill,
        ScmpActKillThread,
        ScmpActKillProcess,
        ScmpActTrap,
        ScmpActLog,
        ScmpActAllow,
    ];
    prop_oneof![
        2 => prop::sample::select(plain.to_vec()).prop_map(|a| (a, None)),
        1 => (prop::sample::select(vec![ScmpActErrno, ScmpActTrace]), prop::option::of(0..4096_u32)),
    ]
}

prop_compose! {
    fn entries()(
        names in prop::collection::vec(prop::sample::select(NAMES.to_vec()), 1..4),
        (action, errno) in actions(),
        args in prop::collection::vec(arguments(), 0..4),
    ) -> LinuxSyscall {
        entry(&names, action, errno, args)
    }
}

prop_compose! {
    fn profiles()(
        (default, errno) in actions(),
        entries in prop::collection::vec(entries(), 0..40),
        archs in prop::sample::subsequence(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32, Arch::ScmpArchMips], 0..=4),
    ) -> LinuxSeccomp {
        let mut profile = profile(default, entries);
        profile.set_default_errno_ret(errno).set_architectures(Some(archs));
        profile
    }
}

fn calls() -> impl Strategy<Value = Call> {
    let near = (
        prop::sample::select(NAMES.to_vec()),
        prop::sample::select(vec![Abi::X86_64, Abi::X86, Abi::X32]),
        -1..=1_i32,
    );
    let near = near.prop_map(|(name, abi, by)| {
        let number = calls_of(abi)
            .iter()
            .find(|(n, _)| *n == name)
            .map_or(abi::X32_BIT, |(_, n)| *n);
        (abi.audit(), number.saturating_add_signed(by))
    });
    let arch = prop::sample::select(vec![AMD64, I386, 0xc000_00b7, 0]);
    let far = (arch, prop_oneof![0..600_u32, any::<u32>(), Just(u32::MAX)]);
    let place = prop_oneof![4 => near, 1 => far];
    (place, prop::array::uniform6(values())).prop_map(|((arch, number), mut args)| {
        if arch == I386 {
            args.iter_mut().for_each(|a| *a &= 0xffff_ffff);
        }
        Call { number, arch, args }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_program_does_what_its_profile_means(profile in profiles(), calls in prop::collection::vec(calls(), 60)) {
        let filter = compile_for(Abi::X86_64, &profile).unwrap();
        for call in &calls {
            prop_assert_eq!(run(&filter.program, call), meaning(&profile, call), "{:?}", call);
        }
    }

    #[test]
    fn bytes_carry_a_filter(profile in profiles()) {
        let filter = compile(&profile).unwrap();
        prop_assert_eq!(Filter::from_bytes(&filter.to_bytes()).unwrap(), filter);
    }

    #[test]
    fn bytes_from_anywhere_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(filter) = Filter::from_bytes(&bytes) {
            prop_assert_eq!(filter.to_bytes(), bytes);
        }
    }
}

fn allow_list() -> LinuxSeccomp {
    serde_json::from_str(include_str!("../../tests/data/seccomp-allow-list.json")).unwrap()
}

#[test]
fn an_allow_list_of_the_common_kind_holds_for_every_number_on_three_abis() {
    let profile = allow_list();
    let filter = compile_for(Abi::X86_64, &profile).unwrap();
    for number in (0..600).chain(abi::X32_BIT..abi::X32_BIT + 600).chain([u32::MAX]) {
        for arch in [AMD64, I386] {
            for first in [40, 0x7e02_0000] {
                let call = Call::new(arch, number, first);
                assert_eq!(verdict(&filter, call), meaning(&profile, &call), "{call:?}");
            }
        }
    }
    // The size is what makes it cheap to install; a linear program would have well above a thousand.
    assert!(filter.len() < 500, "{} instructions", filter.len());
}

#[test]
fn far_targets_are_reached() {
    // More than 255 instructions between the search tree and every leaf, and returns out of reach.
    let some = |i: u64| {
        vec![
            arg(0, Op::ScmpCmpEq, i << 20, None),
            arg(1, Op::ScmpCmpGt, i, None),
        ]
    };
    let mut list: Vec<_> = (0..60)
        .map(|i| {
            entry(
                &["read", "openat"],
                Action::ScmpActErrno,
                Some(i),
                some(u64::from(i)),
            )
        })
        .collect();
    list.push(entry(&["execve"], Action::ScmpActErrno, Some(99), some(7)));
    let mut profile = profile(Action::ScmpActAllow, list);
    profile.set_architectures(Some(vec![Arch::ScmpArchX86, Arch::ScmpArchX32]));
    let filter = compile_for(Abi::X86_64, &profile).unwrap();
    assert!(filter.len() > 1000, "{}", filter.len());
    for number in [0, 1, 59, 257, 3, 11, 295] {
        for arch in [AMD64, I386] {
            for first in 0..61 {
                for second in [0, 100] {
                    let mut call = Call::new(arch, number, first << 20);
                    call.args[1] = second;
                    assert_eq!(verdict(&filter, call), meaning(&profile, &call), "{call:?}");
                }
            }
        }
    }
}

#[test]
fn too_long_a_program_is_the_users_fault() {
    let list = (0..2000).map(|i| {
        entry(
            &["read"],
            Action::ScmpActErrno,
            None,
            vec![arg(0, Op::ScmpCmpEq, i, None)],
        )
    });
    let error = compile(&profile(Action::ScmpActAllow, list.collect())).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
}

#[test]
fn what_cannot_be_expressed_is_named() {
    use Action::{
        ScmpActAllow as Allow, ScmpActErrno as Errno, ScmpActNotify as Notify, ScmpActTrace as Trace,
    };
    let fault = |profile: LinuxSeccomp| match compile(&profile) {
        Err(Error::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let one = |names: &[&str], action, errno, args| profile(Errno, vec![entry(names, action, errno, args)]);
    let index = vec![arg(6, Op::ScmpCmpEq, 0, None)];
    assert_eq!(
        fault(one(&["read"], Allow, None, index)),
        "linux.seccomp.syscalls[0].args.index"
    );
    assert_eq!(
        fault(one(&["read"], Allow, Some(1), vec![])),
        "linux.seccomp.syscalls[0].errnoRet"
    );
    assert_eq!(
        fault(one(&["read"], Errno, Some(4096), vec![])),
        "linux.seccomp.syscalls[0].errnoRet"
    );
    assert_eq!(
        fault(one(&["read"], Trace, Some(65536), vec![])),
        "linux.seccomp.syscalls[0].errnoRet"
    );
    assert_eq!(
        fault(one(&["read", ""], Allow, None, vec![])),
        "linux.seccomp.syscalls[0].names"
    );
    assert_eq!(
        fault(one(&["write"], Notify, None, vec![])),
        "linux.seccomp.syscalls[0].names"
    );
    assert_eq!(
        fault(one(&["mkdir"], Notify, None, vec![])),
        "linux.seccomp.listenerPath"
    );
    assert_eq!(fault(profile(Notify, vec![])), "linux.seccomp.defaultAction");
    let mut wrong = profile(Allow, vec![]);
    wrong.set_default_errno_ret(Some(1));
    assert_eq!(fault(wrong), "linux.seccomp.defaultErrnoRet");
    let mut wrong = profile(Allow, vec![]);
    wrong.set_listener_metadata(Some("for nobody".to_owned()));
    assert_eq!(fault(wrong), "linux.seccomp.listenerMetadata");
}

#[test]
fn names_nobody_knows_are_skipped_but_other_words_are_not() {
    let filter = compile(&profile(
        Action::ScmpActErrno,
        vec![entry(&["frobnicate"], Action::ScmpActAllow, None, vec![])],
    ));
    assert_eq!(verdict(&filter.unwrap(), Call::new(AMD64, 0, 0)), ERRNO | 1);
    for text in [
        r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_Z80"]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_NONE"]}"#,
    ] {
        assert!(serde_json::from_str::<LinuxSeccomp>(text).is_err(), "{text}");
    }
}

#[test]
fn a_listener_changes_the_flags() {
    let mut profile = profile(Action::ScmpActAllow, vec![]);
    profile.set_flags(Some(vec![
        Flag::SeccompFilterFlagTsync,
        Flag::SeccompFilterFlagLog,
        Flag::SeccompFilterFlagSpecAllow,
        Flag::SeccompFilterFlagWaitKillableRecv,
    ]));
    let quiet = compile(&profile).unwrap();
    assert_eq!((quiet.flags, quiet.wants_listener()), (0b00_0111, false));
    let flags_of = |flags| compile(LinuxSeccomp::default().set_flags(flags)).unwrap().flags;
    assert_eq!((flags_of(None), flags_of(Some(vec![]))), (0b00_0100, 0));
    assert_eq!(Listener::of(&profile), None);
    profile
        .set_syscalls(Some(vec![entry(&["mkdir"], Action::ScmpActNotify, None, vec![])]))
        .set_listener_path(Some("/run/agent.sock".into()))
        .set_listener_metadata(Some("blue".to_owned()));
    let loud = compile(&profile).unwrap();
    assert_eq!((loud.flags, loud.wants_listener()), (0b11_1111, true));
    assert_eq!(verdict(&loud, Call::new(AMD64, 83, 0)), NOTIFY);
    let listener = Listener::of(&profile).unwrap();
    assert_eq!(
        (listener.path.as_path(), listener.metadata.as_deref()),
        ("/run/agent.sock".as_ref(), Some("blue"))
    );
}

#[test]
fn the_profile_of_a_vps_keeps_its_promises() {
    let filter = compile_for(Abi::X86_64, &vps_profile(Concessions::default(), None)).unwrap();
    let at = |abi: Abi, name: &str, first| {
        let number = calls_of(abi).iter().find(|(n, _)| *n == name).unwrap().1;
        verdict(&filter, Call::new(abi.audit(), number, first))
    };
    for abi in [Abi::X86_64, Abi::X86] {
        for name in [
            "reboot",
            "mount",
            "unshare",
            "clone3",
            "ptrace",
            "adjtimex",
            "setns",
            "pivot_root",
            "seccomp",
            "chroot",
        ] {
            assert_eq!(at(abi, name, 0), ALLOW, "{name}");
        }
        for name in [
            "kexec_load",
            "init_module",
            "bpf",
            "open_by_handle_at",
            "swapon",
            "settimeofday",
            "perf_event_open",
            "syslog",
        ] {
            assert_eq!(at(abi, name, 0), ERRNO | 1, "{name}");
        }
        for name in ["io_uring_setup", "keyctl", "uselib", "modify_ldt"] {
            assert_eq!(at(abi, name, 0), ERRNO | 38, "{name}");
        }
        // INET6, vsock.
        for name in ["socket", "socketpair"] {
            assert_eq!((at(abi, name, 10), at(abi, name, 40)), (ALLOW, ERRNO | 97));
        }
    }
    // The kernel does not look above the low word either.
    assert_eq!(at(Abi::X86_64, "socket", (7 << 32) + 2), ALLOW);
    // Of socketcall's: socket, connect, socketpair, setsockopt, recvmsg, and what does not exist.
    let by_socketcall = [1, 3, 8, 14, 17, 99].map(|call| at(Abi::X86, "socketcall", call));
    let refused = ERRNO | 38;
    assert_eq!(by_socketcall, [refused, ALLOW, refused, refused, ALLOW, refused]);
    assert_eq!(at(Abi::X32, "read", 0), KILL);
    assert_eq!(verdict(&filter, Call::new(AMD64, 470, 0)), ERRNO | 38);
    let arm = compile_for(Abi::Aarch64, &vps_profile(Concessions::default(), None)).unwrap();
    let read = |abi: Abi| verdict(&arm, Call::new(abi.audit(), 63, 0));
    assert_eq!((read(Abi::Aarch64), read(Abi::X86_64)), (ALLOW, KILL));
}

#[test]
fn concessions_open_what_they_name() {
    let ring = |concessions: Concessions, abi: Abi, number, option| {
        let filter = compile_for(Abi::X86_64, &vps_profile(concessions, None)).unwrap();
        let mut call = Call::new(abi.audit(), number, 3);
        call.args[1] = (7 << 32) + 263;
        call.args[2] = option;
        if abi == Abi::X86 {
            call.args[1] = 263;
        }
        verdict(&filter, call)
    };
    let closed = Concessions::default();
    let open = Concessions {
        packet_rings: true,
        ..closed
    };
    for (abi, number) in [(Abi::X86_64, 54), (Abi::X86, 366)] {
        for option in [5, 13] {
            assert_eq!(ring(closed, abi, number, option), ERRNO | 1);
            assert_eq!(ring(open, abi, number, option), ALLOW);
        }
        assert_eq!(ring(closed, abi, number, 1), ALLOW);
    }
    let old = Concessions {
        socketcall: true,
        ..closed
    };
    let filter = compile_for(Abi::X86_64, &vps_profile(old, None)).unwrap();
    for call in [1, 3, 14] {
        assert_eq!(verdict(&filter, Call::new(I386, 102, call)), ALLOW, "{call}");
    }
}

#[test]
fn a_socketcall_gets_what_is_safe_without_its_arguments() {
    let i386 = |default, action| {
        let vsock = vec![arg(0, Op::ScmpCmpEq, 40, None)];
        let mut profile = profile(default, vec![entry(&["socket"], action, None, vsock)]);
        profile.set_architectures(Some(vec![Arch::ScmpArchX86]));
        verdict(
            &compile_for(Abi::X86_64, &profile).unwrap(),
            Call::new(I386, 102, 1),
        )
    };
    assert_eq!(i386(Action::ScmpActAllow, Action::ScmpActErrno), ERRNO | 1);
    assert_eq!(i386(Action::ScmpActErrno, Action::ScmpActAllow), ERRNO | 1);
}

#[test]
fn every_name_that_a_vps_is_denied_exists() {
    let known: Vec<&str> = [Abi::X86_64, Abi::X86, Abi::Aarch64]
        .iter()
        .flat_map(|a| a.calls())
        .map(|(n, _)| n)
        .collect();
    for name in vps::denied() {
        assert!(known.contains(&name), "{name}");
    }
}
