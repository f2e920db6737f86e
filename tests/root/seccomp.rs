//! Filters in the kernel: what a program below one sees.

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, ensure};
use condo::seccomp::{Concessions, Listener, compile, vps_profile};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, Whence, lseek, mkdir};
use oci_spec::runtime::{ContainerProcessState, LinuxSeccomp, State};

use crate::harness::{self, Receiver};

tests![
    errno_and_conditions,
    each_action,
    privileges_are_left_alone,
    an_unprivileged_caller_is_refused,
    programs_of_32_bits,
    an_allow_list_runs_programs in guest,
    a_vps_can_do_its_work in guest,
    the_listener_is_handed_over,
    actions_that_the_kernel_knows,
];

fn profile(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).expect("a profile")
}

fn allow_list() -> LinuxSeccomp {
    profile(include_str!("../data/seccomp-allow-list.json"))
}

/// Runs `work` in a thread below the filter; what it starts is below it too, the rest of this process is not.
fn below<T: Send + 'static>(profile: &LinuxSeccomp, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let filter = compile(profile)?;
    let thread = std::thread::spawn(move || -> Result<T> {
        ensure!(filter.install()?.is_none(), "a listener nobody asked for");
        Ok(work())
    });
    thread.join().expect("the thread")
}

fn busybox(args: &'static [&str]) -> impl FnOnce() -> std::process::Output + Send + 'static {
    move || Command::new("busybox").args(args).output().expect("run busybox")
}

fn rule(action: &str) -> LinuxSeccomp {
    profile(&format!(
        r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["mkdir"],"action":"{action}"}}]}}"#
    ))
}

/// `mkdir("/")`: `EEXIST` if nobody interferes.
fn probe() -> Errno {
    mkdir("/", Mode::empty()).expect_err("a root")
}

fn no_core_files() -> Result<()> {
    Ok(nix::sys::resource::setrlimit(
        nix::sys::resource::Resource::RLIMIT_CORE,
        0,
        0,
    )?)
}

fn errno_and_conditions() -> Result<()> {
    needs!(root);
    let own = std::process::id();
    // SIGWINCH to this process, and offsets above 4 GiB, of which the low word alone would look small.
    let profile = profile(&format!(
        r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {{"names":["kill"],"action":"SCMP_ACT_ERRNO","errnoRet":77,"args":[
            {{"index":0,"value":{own},"op":"SCMP_CMP_EQ"}},{{"index":1,"value":28,"op":"SCMP_CMP_EQ"}}]}},
        {{"names":["lseek"],"action":"SCMP_ACT_ERRNO","errnoRet":33,"args":[
            {{"index":1,"value":4294967296,"op":"SCMP_CMP_GT"}}]}},
        {{"names":["lseek"],"action":"SCMP_ACT_ERRNO","errnoRet":34,"args":[
            {{"index":1,"value":240,"valueTwo":80,"op":"SCMP_CMP_MASKED_EQ"}}]}}]}}"#
    ));
    below(&profile, move || {
        let own = Pid::from_raw(own as i32);
        ensure!(kill(own, Signal::SIGWINCH).map_err(|e| e as i32) == Err(77));
        ensure!(kill(own, None) == Ok(()));
        let file = std::fs::File::open("/proc/self/exe")?;
        ensure!(lseek(&file, (1 << 32) + 1, Whence::SeekSet).map_err(|e| e as i32) == Err(33));
        ensure!(lseek(&file, 1 << 32, Whence::SeekSet) == Ok(1 << 32));
        ensure!(lseek(&file, 5, Whence::SeekSet) == Ok(5));
        // Of 0xf0 only 0x50.
        ensure!(lseek(&file, 0x753, Whence::SeekSet).map_err(|e| e as i32) == Err(34));
        ensure!(lseek(&file, 0x743, Whence::SeekSet) == Ok(0x743));
        Ok(())
    })?
}

fn each_action() -> Result<()> {
    needs!(root, busybox);
    no_core_files()?;
    for action in [
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_TRAP",
    ] {
        let status = below(&rule(action), busybox(&["mkdir", "/proc"]))?.status;
        ensure!(
            status.signal() == Some(Signal::SIGSYS as i32),
            "{action}: {status}"
        );
    }
    // Without a tracer TRACE is ENOSYS.
    let errors = [
        ("SCMP_ACT_ERRNO", Errno::EPERM),
        ("SCMP_ACT_TRACE", Errno::ENOSYS),
        ("SCMP_ACT_LOG", Errno::EEXIST),
        ("SCMP_ACT_ALLOW", Errno::EEXIST),
    ];
    for (action, expected) in errors {
        let seen = below(&rule(action), probe)?;
        ensure!(seen == expected, "{action}: {seen}");
    }
    ensure!(probe() == Errno::EEXIST, "a filter got out of its thread");
    let all_threads = profile(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_TSYNC","SECCOMP_FILTER_FLAG_LOG"],
        "syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}"#,
    );
    below(&all_threads, || ())?;
    ensure!(probe() == Errno::EPERM, "TSYNC did not reach the other thread");
    Ok(())
}

fn privileges_are_left_alone() -> Result<()> {
    needs!(root);
    let status = below(&rule("SCMP_ACT_ERRNO"), || {
        std::fs::read_to_string("/proc/thread-self/status")
    })??;
    let has = |line: &str| {
        status
            .lines()
            .any(|l| l.split_whitespace().eq(line.split_whitespace()))
    };
    ensure!(has("NoNewPrivs: 0") && has("Seccomp: 2"), "{status}");
    // What sudo, su and ping live by.
    let program = harness::tempdir().join("id");
    std::fs::copy("/usr/bin/id", &program)?;
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o4755))?;
    let output = below(&vps_profile(Concessions::default(), None), move || {
        Command::new(program).arg("-u").uid(65534).output()
    })??;
    ensure!(output.stdout == b"0\n", "{output:?}");
    Ok(())
}

fn an_unprivileged_caller_is_refused() -> Result<()> {
    needs!(root);
    // Were no-new-privs set behind the caller's back, the kernel would agree.
    let filter = compile(&rule("SCMP_ACT_ERRNO"))?;
    let user = nix::unistd::Uid::from_raw(65534);
    nix::unistd::setresuid(user, user, user)?;
    let error = filter
        .install()
        .err()
        .context("a filter without the right to have one")?;
    ensure!(error.errno() == Some(Errno::EACCES as i32), "{error}");
    Ok(())
}

/// A static i386 program: one system call by `int 0x80` with the address of `/` and two zeros as arguments; the exit status
/// is the negated result.
fn program_of_32_bits(number: u32) -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    const CODE: u32 = 28;
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend([2, 0, 3, 0]); // EXEC, i386
    // version, entry, program headers, no sections, flags
    elf.extend([1, BASE + HEADERS, 52, 0, 0].map(u32::to_le_bytes).as_flattened());
    elf.extend([52, 32, 1, 0, 0, 0].map(u16::to_le_bytes).as_flattened());
    let size = HEADERS + CODE + 2;
    // LOAD, offset, addresses, sizes, read and execute, alignment
    elf.extend(
        [1, 0, BASE, BASE, size, size, 5, 4096]
            .map(u32::to_le_bytes)
            .as_flattened(),
    );
    elf.push(0xb8); // mov eax, number
    elf.extend(number.to_le_bytes());
    elf.push(0xbb); // mov ebx, address
    elf.extend((BASE + HEADERS + CODE).to_le_bytes());
    elf.extend([0x31, 0xc9, 0x31, 0xd2, 0xcd, 0x80]); // xor ecx, ecx; xor edx, edx; int 0x80
    elf.extend([0x89, 0xc3, 0xf7, 0xdb]); // mov ebx, eax; neg ebx
    elf.extend([0xb8, 1, 0, 0, 0, 0xcd, 0x80, 0x90]); // mov eax, exit; int 0x80; nop
    elf.extend(*b"/\0");
    elf
}

fn programs_of_32_bits() -> Result<()> {
    needs!(root);
    no_core_files()?;
    let folder = harness::tempdir();
    let status = |profile: &LinuxSeccomp, number: u32| -> Result<ExitStatus> {
        let path = folder.join(number.to_string());
        if !path.exists() {
            std::fs::write(&path, program_of_32_bits(number))?;
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
        }
        Ok(below(profile, move || Command::new(&path).status_quietly())??)
    };
    let two = r#""architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"]"#;
    let deny = profile(&format!(
        r#"{{"defaultAction":"SCMP_ACT_ALLOW",{two},"syscalls":[
        {{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":55}},
        {{"names":["socket"],"action":"SCMP_ACT_ERRNO","errnoRet":56}}]}}"#
    ));
    // i386 numbers: mkdir 39 (getpid on x86-64), chdir 12 (brk there), keyctl 288, bpf 357, socketcall 102, unused 600.
    ensure!(
        status(&deny, 39)?.code() == Some(55),
        "mkdir by i386's own number"
    );
    ensure!(status(&deny, 12)?.code() == Some(0), "chdir is nobody's business");
    ensure!(status(&allow_list(), 39)?.code() == Some(Errno::EEXIST as i32));
    ensure!(status(&allow_list(), 288)?.code() == Some(Errno::EPERM as i32));
    ensure!(
        status(&allow_list(), 600)?.code() == Some(Errno::ENOSYS as i32),
        "newer than the profile"
    );
    let mut otherwise = allow_list();
    otherwise.set_default_errno_ret(Some(77));
    ensure!(
        status(&otherwise, 288)?.code() == Some(77),
        "the profile's own errno"
    );
    ensure!(status(&vps_profile(Concessions::default(), None), 39)?.code() == Some(Errno::EEXIST as i32));
    ensure!(status(&vps_profile(Concessions::default(), None), 357)?.code() == Some(Errno::EPERM as i32));
    let unlisted = status(&rule("SCMP_ACT_ERRNO"), 12)?;
    ensure!(unlisted.signal() == Some(Signal::SIGSYS as i32), "{unlisted}");
    Ok(())
}

trait Quietly {
    fn status_quietly(&mut self) -> std::io::Result<ExitStatus>;
}

impl Quietly for Command {
    fn status_quietly(&mut self) -> std::io::Result<ExitStatus> {
        self.output().map(|output| output.status)
    }
}

fn an_allow_list_runs_programs() -> Result<()> {
    needs!(root, busybox);
    let output = below(
        &allow_list(),
        busybox(&["sh", "-c", "echo $(busybox id -u) | busybox cat"]),
    )?;
    ensure!(output.status.success() && output.stdout == b"0\n", "{output:?}");
    // Namespaces and mounts are not on the list.
    let output = below(&allow_list(), busybox(&["unshare", "-m", "true"]))?;
    ensure!(!output.status.success(), "{output:?}");
    let output = below(&allow_list(), busybox(&["hostname", "changed"]))?;
    ensure!(!output.status.success(), "{output:?}");
    Ok(())
}

fn a_vps_can_do_its_work() -> Result<()> {
    needs!(root, busybox, unshare);
    // Nested namespaces, a mount, a network of its own, ping.
    let script = "mount -t tmpfs none /mnt && ip link set lo up && ping -c1 -W2 127.0.0.1 && hostname nested";
    let nested = move || {
        let args = ["-Urmnuipf", "--mount-proc", "busybox", "sh", "-ec", script];
        Command::new("unshare").args(args).output().expect("run unshare")
    };
    let output = below(&vps_profile(Concessions::default(), None), nested)?;
    ensure!(output.status.success(), "{output:?}");
    // Root itself does not set the clock (to what it is), read the host's log, or talk to the hypervisor.
    below(&vps_profile(Concessions::default(), None), || {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
        let clock = rustix::time::ClockId::Realtime;
        let set = rustix::time::clock_settime(clock, rustix::time::clock_gettime(clock));
        ensure!(set == Err(rustix::io::Errno::PERM), "{set:?}");
        let vsock = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::empty(), None);
        ensure!(matches!(vsock, Err(Errno::EAFNOSUPPORT)), "{vsock:?}");
        socket(AddressFamily::Inet6, SockType::Stream, SockFlag::empty(), None)?;
        let log = Command::new("busybox").arg("dmesg").output()?;
        ensure!(
            String::from_utf8_lossy(&log.stderr).contains("not permitted"),
            "{log:?}"
        );
        Ok(())
    })?
}

/// An agent's socket, and a client of it that is below a filter.
fn the_listener_is_handed_over() -> Result<()> {
    needs!(root);
    let agent = Receiver::new()?;
    let mut profile = rule("SCMP_ACT_NOTIFY");
    profile
        .set_listener_path(Some(agent.path().into()))
        .set_listener_metadata(Some("blue".to_owned()));
    let caller = std::thread::spawn(move || -> Result<Errno> {
        let to = Listener::of(&profile).context("an agent")?.connect()?;
        let fd = compile(&profile)?.install()?.context("a listener")?;
        let mut state = State::default();
        state.set_id("web".to_owned());
        to.send(&state, 7, fd.as_fd())?;
        drop(fd);
        Ok(probe())
    });
    let (state, fd): (ContainerProcessState, _) = agent.described()?;
    ensure!(state.metadata().as_deref() == Some("blue"), "{state:?}");
    ensure!(*state.pid() == 7 && state.state().id() == "web", "{state:?}");
    ensure!(state.fds().as_slice() == ["seccompFd"], "{state:?}");
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::try_from(10_000)?)?;
    ensure!(
        fds[0].revents() == Some(PollFlags::POLLIN),
        "no call was reported: {fds:?}"
    );
    // With the last copy of the listener gone, the call in hand fails.
    drop(fd);
    let seen = caller.join().expect("the caller")?;
    ensure!(seen == Errno::ENOSYS, "{seen}");
    Ok(())
}

fn actions_that_the_kernel_knows() -> Result<()> {
    use condo::sys::seccomp::action_available;
    ensure!(action_available(0x7fff_0000)? && action_available(0x0005_0026)?);
    ensure!(!action_available(0x1234_0000)?);
    Ok(())
}
