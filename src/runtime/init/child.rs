//! Init's side: what the new process does between its birth and its program.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::State;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use rustix::fs::{CWD, Mode};

use super::super::console;
use super::super::hooks::{self, Surroundings};
use super::super::lsm::{Label, Labels};
use super::super::plan::Plan;
use super::door::Door;
use super::link::{Born, Init, Reporter};
use crate::error::{During, Error, Result};
use crate::namespaces::Kind;
use crate::namespaces::enter::{self, Clocks};
use crate::namespaces::subordinate::Writer;
use crate::process::credentials::become_root;
use crate::process::program::Program;
use crate::process::{Process, environment, protect};
use crate::rootfs::{self, Assembled, Sources};
use crate::seccomp::{Agent, Filter};
use crate::sys;

/// What the parent prepared for init before the clone.
pub struct Setup<'a> {
    /// What is to be done.
    pub plan: &'a Plan,
    /// Mount sources, opened where the host's paths mean what they say; absent where only init has the privileges for it.
    pub sources: Option<Sources>,
    /// Where the terminal's master goes.
    pub console: Option<OwnedFd>,
    /// A byte from it is the order to start. Open for writing as well, so that it never ends.
    pub fifo: OwnedFd,
    /// Where it hands out its namespaces until the start, if it does.
    pub door: Option<OwnedFd>,
    /// Listening sockets from descriptor 3 on, see `sd_listen_fds(3)`.
    pub listen_fds: u32,
    /// Descriptors after those that the program inherits as well.
    pub preserve_fds: u32,
    /// Where a seccomp listener goes.
    pub agent: Option<Agent>,
    /// The OCI state as hooks read it, for a pid and a status.
    pub state: &'a dyn Fn(i32, &str) -> Vec<u8>,
}

/// Walks the whole way and never returns: the process becomes the program, or tells the parent why not and ends.
pub fn run(setup: Setup<'_>, link: Init<Born>) -> ! {
    let Ok(reporter) = link.reporter() else {
        sys::clone::exit(1)
    };
    sys::fd::outlast(reporter.as_fd());
    report_panics(&reporter);
    let error = match walk(setup, link) {
        Err(e) => e,
        Ok(never) => match never {},
    };
    fail(&reporter, &error)
}

/// Reports a failure to the parent, or to the log when the parent has gone, and ends the process. That it has gone is no
/// news of init's: the parent says itself why it gave up.
pub fn fail(reporter: &Reporter, error: &Error) -> ! {
    if !reporter.fail(error) && !matches!(error.root(), Error::Init(_)) {
        log::error!("{error}");
    }
    sys::clone::exit(1)
}

/// A panic must not unwind into the parent's frames; it is reported like any failure.
pub fn report_panics(reporter: &Reporter) {
    if let Ok(socket) = rustix::io::fcntl_dupfd_cloexec(reporter.as_fd(), 3) {
        sys::fd::outlast(socket.as_fd());
        let reporter = Reporter::from(socket);
        std::panic::set_hook(Box::new(move |info| {
            fail(&reporter, &Error::Corrupt(format!("init: {info}")))
        }));
    }
}

/// The way from birth to program, each step with the reason for its place:
///
///  1. Open what only a process that is not hidden may. Hide from the container's processes, before there are any. Where the maps are written without privileges, only after
///     the next step, because the files of a hidden process belong to root: nobody else is in the new user namespace yet.
///  2. **Born**: wait for id maps and limits; without maps nothing below would be allowed. (It entered its cgroup before.)
///  3. Without privileges, open the mount sources, while still the caller with all its groups. Then a session of its own, and
///     root of the user namespace: all that follows is checked against it.
///  4. The namespaces that depend on who makes them: [`crate::namespaces::Namespaces::late`].
///  5. Keyring, loopback, host name: only need their namespaces.
///  6. Assemble the root filesystem. The host's tree is still there, reached only by descriptors opened before. Make the working
///     directory, while the root can still be written to.
///  7. **Mounted**: prestart and createRuntime hooks see complete namespaces; the filter comes back.
///  8. createContainer hooks: the container's namespaces, the host's files.
///  9. Kernel parameters, through the container's procfs where it has one, and label files, through the host's: no image can fake either.
/// 10. Console: allocated from the container's own devpts while it is known by descriptor.
/// 11. Change the root; mask and protect paths. From here on paths are the container's: nothing of the host stays open by
///     which one could lead out, nor the lock of the container's state.
/// 12. Find the program, as the user who is to run it; take on memory policy and personality: `create` and not `start` reports what is missing.
///     A seccomp agent hears from init now, as its authors know it, unless no-new-privileges puts the filter off to the last moment.
/// 13. **Ready**: the parent writes state and pid file and returns to its caller.
/// 14. Wait for the order to start, or for a signal that ends it all. An ordinary user's `exec` is let in meanwhile.
/// 15. Close what is not the program's, give up privileges, filter system calls.
/// 16. startContainer hooks. Their programs are the image's, so they run as who the container's program will be, never as more.
/// 17. Become the program.
fn walk(setup: Setup<'_>, link: Init<Born>) -> Result<std::convert::Infallible> {
    let plan = setup.plan;
    let clocks = Clocks::open(&plan.namespaces)?;
    let watched = plan.maps.as_ref().is_some_and(|writer| *writer != Writer::Caller);
    if !watched {
        protect::hide()?;
    }
    let (pid, link) = link.arrive()?;
    protect::hide()?;
    let pid = own_pid(&pid)?;
    let sources = setup.sources.map_or_else(|| plan.rootfs.open_sources(), Ok)?;
    let labels = Labels::of(&plan.process)?;
    settle(plan, &labels, clocks)?;
    let assembled = rootfs::assemble(&plan.rootfs, sources, &mut |index, tree| link.map(index, tree))?;
    assembled.make_directory(&plan.process.cwd);
    let (filter, link) = link.arrive()?;
    let mut filter = received(&filter)?;
    run_before_entry(plan, &assembled, &(setup.state)(pid, "creating"))?;
    if !plan.sysctls.is_empty() {
        plan.sysctls.apply(assembled.procfs().as_ref())?;
    }
    let labels = labels.open()?;
    if plan.process.terminal {
        take_console(plan, &assembled, setup.console.as_ref())?;
    }
    drop(setup.console);
    let door = setup
        .door
        .and_then(|socket| Door::of_self(socket, &plan.namespaces.own()));
    assembled.enter()?;
    let inherited = setup.listen_fds.saturating_add(setup.preserve_fds);
    let mut needed = vec![link.as_fd(), setup.fifo.as_fd()];
    needed.extend(setup.agent.as_ref().map(AsFd::as_fd));
    needed.extend(door.iter().flat_map(Door::fds));
    forget_host(inherited, needed, &labels)?;
    enter_directory(&plan.process)?;
    let env = environment_of(&plan.process, setup.listen_fds);
    let program = plan.process.as_user(|| Program::find(&plan.process.args, &env))?;
    plan.process.acclimatise()?;
    let state = (setup.state)(pid, "creating");
    let mut seccomp = || install_once(&mut filter, setup.agent.as_ref(), pid, &state);
    if setup.agent.is_some() && !plan.process.no_new_privileges {
        seccomp()?;
    }
    heed_signals()?;
    let (_, _done) = link.arrive()?;
    wait_for_start(&setup.fifo, door)?;
    let own = i32::try_from(std::process::id()).unwrap_or(1);
    let state = (setup.state)(own, "created");
    let hooks = hooks::Ready::make("startContainer", &plan.hooks.start_container, &state)?;
    become_process(&plan.process, &labels, inherited, &mut seccomp)?;
    let around = Surroundings {
        dir: None,
        env: Some(&env),
    };
    // `start` waits at the fifo; the parent, if it is still there, hears of it as well.
    hooks.run(around).inspect_err(|e| {
        let _ = rustix::io::write(&setup.fifo, e.to_string().as_bytes());
    })?;
    end_as_program(&program.exec())
}

/// The status of a container whose program the kernel would not execute, as runc's.
const NOT_EXECUTED: i32 = 255;

/// The container has started: what ends it is said where its program would say it, and its status is the container's. This is
/// what callers know from runc, which has told them by then that the start succeeded.
fn end_as_program(error: &Error) -> ! {
    let _ = rustix::io::write(rustix::stdio::stderr(), format!("{error}\n").as_bytes());
    sys::clone::exit(NOT_EXECUTED)
}

/// Step 8, with the container's root as working directory.
fn run_before_entry(plan: &Plan, root: &Assembled, state: &[u8]) -> Result<()> {
    if plan.hooks.create_container.is_empty() {
        return Ok(());
    }
    rustix::process::fchdir(root).during(|| "change to the container's root")?;
    let around = Surroundings {
        dir: None,
        env: Some(&plan.process.env),
    };
    hooks::run("createContainer", &plan.hooks.create_container, state, around)
}

/// Closes all that is not needed any more before the first path of the container's is looked up (CVE-2024-21626).
pub fn forget_host<'a>(inherited: u32, mut needed: Vec<BorrowedFd<'a>>, labels: &'a [Label]) -> Result<()> {
    needed.extend(labels.iter().map(Label::as_fd));
    sys::fd::close_others(first_own(inherited), &needed).during(|| "close the host's descriptors")
}

/// The first descriptor after the standard streams and those the program inherits.
fn first_own(inherited: u32) -> i32 {
    i32::try_from(inherited).unwrap_or(i32::MAX).saturating_add(3)
}

/// The filter, out of the parent's grant.
pub fn received(grant: &[u8]) -> Result<Option<Filter>> {
    (!grant.is_empty()).then(|| Filter::from_bytes(grant)).transpose()
}

/// The pid that the parent knows this process by, out of its grant.
pub fn own_pid(grant: &[u8]) -> Result<i32> {
    let bytes = grant
        .try_into()
        .map_err(|_| Error::Corrupt("a malformed grant".into()))?;
    Ok(i32::from_ne_bytes(bytes))
}

/// The environment inside, in which listening sockets are announced to the process they are for, by its own pid.
pub fn environment_of(process: &Process, listen_fds: u32) -> Vec<OsString> {
    let mut env = process.env.clone();
    environment::add_home(&mut env, process.credentials.uid);
    if listen_fds > 0 {
        env.push(format!("LISTEN_FDS={listen_fds}").into());
        env.push(format!("LISTEN_PID={}", std::process::id()).into());
    }
    environment::each_once(&env)
}

/// Steps 3 to 5.
fn settle(plan: &Plan, labels: &Labels, clocks: Option<Clocks>) -> Result<()> {
    let namespaces = &plan.namespaces;
    rustix::process::setsid().during(|| "start a session")?;
    if namespaces.has(Kind::User) {
        become_root()?;
    }
    if let Some(path) = namespaces.joined(Kind::Mount) {
        enter::join(Kind::Mount, path)?;
    }
    for kind in namespaces.late().filter(|kind| *kind != Kind::Time) {
        enter::unshare(kind)?;
    }
    clocks.map_or(Ok(()), |clocks| clocks.enter(&plan.time_offsets))?;
    if !plan.choices.no_new_keyring {
        new_keyring(labels)?;
    }
    if namespaces.is_new(Kind::Network) {
        sys::interface::set_loopback_up().during(|| "bring up the loopback interface")?;
    }
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).during(|| format!("set the host name `{name}`"))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).during(|| format!("set the domain name `{name}`"))?;
    }
    Ok(())
}

/// A session keyring that does not show the caller's keys; kernels without keyrings have none to show.
pub(super) fn new_keyring(labels: &Labels) -> Result<()> {
    labels.label_keys()?;
    match sys::keyring::join_session(c"_condo") {
        Err(e) if e.raw_os_error() == Some(nix::errno::Errno::ENOSYS as i32) => Ok(()),
        other => other
            .map(drop)
            .during(|| "make a session keyring (--no-new-keyring goes without)"),
    }
}

fn take_console(plan: &Plan, assembled: &Assembled, receiver: Option<&OwnedFd>) -> Result<()> {
    let receiver =
        receiver.ok_or_else(|| Error::invalid("process.terminal", true, "needs --console-socket"))?;
    let master = assembled.open_ptmx()?;
    let slave = rootfs::open_peer(master.as_fd())?;
    assembled.attach_console(slave.as_fd())?;
    console::send_master(receiver.as_fd(), &master)?;
    console::adopt(slave.as_fd(), plan.process.console_size, !plan.choices.console)
}

/// Goes to the working directory and makes sure it is inside (CVE-2024-21626).
pub fn enter_directory(process: &Process) -> Result<()> {
    let cwd = &process.cwd;
    let work = || -> Result<()> {
        match rustix::process::chdir(cwd) {
            // Root may be the one who may not: without its capabilities, or on a file system of the network.
            Err(rustix::io::Errno::ACCESS) => process.as_user(|| Ok(rustix::process::chdir(cwd)?))?,
            other => other?,
        }
        let here = rustix::process::getcwd(Vec::new())?;
        // The kernel writes "(unreachable)" before a directory outside of the root.
        if here.as_bytes().starts_with(b"/") {
            Ok(())
        } else {
            Err(rustix::io::Errno::XDEV.into())
        }
    };
    work().during(|| format!("process.cwd: change to `{}`", cwd.display()))
}

/// Whoever does not want to start the container after all ends it by a signal. The kernel would keep that from the first process
/// of a pid namespace, and the caller may have blocked it.
fn heed_signals() -> Result<()> {
    let ending = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];
    for signal in ending {
        sys::signal::end_on(signal as i32).during(|| "heed signals")?;
    }
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&ending.into_iter().collect()), None)?;
    Ok(())
}

fn wait_for_start(fifo: &OwnedFd, door: Option<Door>) -> Result<()> {
    door.map_or(Ok(()), |door| door.keep(fifo.as_fd()))?;
    loop {
        match rustix::io::read(fifo, &mut [0u8; 1]) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map(drop).during(|| "wait for start"),
        }
    }
}

/// Step 15. The filter is installed by `seccomp` at the moment that [`Process::lower`] chooses.
pub fn become_process(
    process: &Process,
    labels: &[Label],
    preserve_fds: u32,
    seccomp: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    console::own_streams(process.credentials.uid);
    default_signals()?;
    for label in labels {
        label.apply()?;
    }
    sys::fd::close_on_exec_from(first_own(preserve_fds)).during(|| "close inherited descriptors")?;
    log::debug!("init: becomes {:?}", process.args);
    process.limits.complete()?;
    process.lower(seccomp)
}

/// Rust's start-up ignores SIGPIPE, and the caller may have blocked or ignored more; a program expects the defaults.
fn default_signals() -> Result<()> {
    for signal in (1..=64).filter(|s| ![Signal::SIGKILL as i32, Signal::SIGSTOP as i32].contains(s)) {
        sys::signal::set_default(signal).during(|| "reset signals")?;
    }
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

/// Installs the filter unless that is done already.
fn install_once(filter: &mut Option<Filter>, agent: Option<&Agent>, pid: i32, state: &[u8]) -> Result<()> {
    match filter.take() {
        Some(filter) => install(&filter, agent, pid, state),
        None => Ok(()),
    }
}

/// Installs the filter of the process `pid` of a container in this OCI state, and hands its listener over.
pub fn install(filter: &Filter, agent: Option<&Agent>, pid: i32, state: &[u8]) -> Result<()> {
    let state: State = serde_json::from_slice(state)?;
    match (filter.install()?, agent) {
        (Some(listener), Some(agent)) => agent.send(&state, pid, listener.as_fd()),
        _ => Ok(()),
    }
}

/// A fresh fifo that nobody but the owner reaches, open for both sides.
pub fn make_fifo(path: &std::path::Path) -> Result<OwnedFd> {
    let work = || -> Result<OwnedFd> {
        rustix::fs::mknodat(
            CWD,
            path,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )?;
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
        Ok(rustix::fs::open(path, flags, Mode::empty())?)
    };
    work().during(|| format!("make fifo `{}`", path.display()))
}
