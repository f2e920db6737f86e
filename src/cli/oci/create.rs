//! `create` and `run`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::args::{Create, Global, Run};
use super::{passed, root};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::runtime::bundle::Bundle;
use crate::runtime::console;
use crate::runtime::container;
use crate::runtime::foreground::{self, Flows, Signals};
use crate::runtime::id::Id;
use crate::runtime::init::parent::{self, Created, Request};
use crate::runtime::notify::{self, Relay};
use crate::runtime::plan::Choices;
use crate::vps::run::adopt::{self, Adopted};

/// `create`: the container's standard streams are ours, and its program waits for `start`.
pub(super) fn create(host: &Host, root: &Path, global: &Global, args: &Create) -> Result<u8> {
    let id = Id::new(&args.id)?;
    let bundle = Bundle::load(&args.bundle)?;
    check_console(args.console_socket.as_deref(), wants_terminal(&bundle), true)?;
    let console = args.console_socket.as_deref().map(console::connect).transpose()?;
    make(
        host,
        global,
        args,
        Prepared {
            root,
            id: &id,
            bundle: &bundle,
            console,
        },
    )?;
    Ok(0)
}

/// `run`: create, start, and unless detached wait, pass signals and the terminal on, and delete.
pub(super) fn run(host: &Host, root: &Path, global: &Global, args: &Run) -> Result<u8> {
    let id = Id::new(&args.create.id)?;
    let bundle = Bundle::load(&args.create.bundle)?;
    let terminal = wants_terminal(&bundle);
    check_console(args.create.console_socket.as_deref(), terminal, args.detach)?;
    let signals = if args.detach { None } else { Some(Signals::take()?) };
    let (console, master) = receivers(args.create.console_socket.as_deref(), terminal)?;
    let made = make(
        host,
        global,
        &args.create,
        Prepared {
            root,
            id: &id,
            bundle: &bundle,
            console,
        },
    )?;
    let status = attend(host, made, master, signals);
    if args.detach && status.is_ok() || args.keep {
        return status;
    }
    let cleared = container::delete(host, root, &id, true);
    status.and_then(|status| cleared.map(|()| status))
}

/// Where the terminal's master goes, and where it comes out if that is with us.
pub(super) fn receivers(socket: Option<&Path>, terminal: bool) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    match socket.map(console::connect).transpose()? {
        Some(socket) => Ok((Some(socket), None)),
        None if terminal => console::pair().map(|(ours, theirs)| (Some(theirs), Some(ours))),
        None => Ok((None, None)),
    }
}

fn attend(host: &Host, made: Created, master: Option<OwnedFd>, signals: Option<Signals>) -> Result<u8> {
    let master = master.map(|ours| console::receive_fd(ours.as_fd())).transpose()?;
    // Before the program can ask for its size, or write.
    if let Some(master) = &master {
        foreground::copy_size(master);
        console::keep_newlines(master.as_fd())?;
    }
    let relay = Relay::open(&made.container)?;
    made.container.start(host)?;
    made.link.wait_for_exec()?;
    match (signals, relay) {
        (Some(signals), relay) => {
            // It ends with this process.
            relay.map(|relay| std::thread::spawn(move || relay.run(false)));
            foreground::wait(&made.init, Flows::of(master), &signals)
        }
        (None, Some(relay)) => relay.run(true).map(|()| 0),
        (None, None) => Ok(0),
    }
}

struct Prepared<'a> {
    root: &'a Path,
    id: &'a Id,
    bundle: &'a Bundle,
    console: Option<OwnedFd>,
}

fn make(host: &Host, global: &Global, args: &Create, prepared: Prepared<'_>) -> Result<Created> {
    root::prepare(prepared.root, std::env::var_os("XDG_RUNTIME_DIR").as_deref())?;
    let (root, id) = (prepared.root, prepared.id);
    let adopts = adopt::is_asked(std::env::args_os().next().as_deref(), &prepared.bundle.spec);
    let adopt = || adopt::adopt(host, (root, id), prepared.bundle, global.manager());
    let adopted = adopts.then(adopt).transpose()?;
    let (bundle, provided, heard) = match adopted {
        Some(Adopted {
            bundle,
            provided,
            heard,
        }) => (Some(bundle), provided, heard),
        None => Default::default(),
    };
    let request = Request {
        root,
        id,
        bundle: bundle.as_ref().unwrap_or(prepared.bundle),
        console: prepared.console,
        pid_file: args.pid_file.as_deref(),
        pidfd_socket: args.pidfd_socket.as_deref(),
        listen_fds: passed::listening(),
        preserve_fds: args.preserve_fds,
        provided,
        choices: Choices {
            own_account: adopts,
            no_pivot: args.no_pivot,
            no_new_keyring: args.no_new_keyring,
            cgroup_manager: global.manager(),
            rootless: global.rootless(&host.caller),
            notify: notify::is_awaited(),
            ..Choices::default()
        },
    };
    let made = parent::create(host, request, &|_, _| Ok(()))?;
    if adopts && let Err(e) = adopt::guard(host, &made.container) {
        container::delete(host, root, id, true)?;
        return Err(e);
    }
    if adopts && adopt::processors::are_ours(host, &made.container) {
        adopt::processors::fit(host, &made.container);
    }
    adopt::figures::tend(root, &made.container, heard.as_ref());
    Ok(made)
}

pub(super) fn wants_terminal(bundle: &Bundle) -> bool {
    bundle
        .spec
        .process()
        .as_ref()
        .and_then(|p| p.terminal())
        .unwrap_or(false)
}

pub(super) fn check_console(socket: Option<&Path>, terminal: bool, detached: bool) -> Result<()> {
    match (socket, terminal) {
        (None, true) if detached => {
            let text = "cannot allocate tty if runc will detach without setting console socket";
            Err(Error::Status(text.into()))
        }
        (Some(socket), false) => {
            let problem = "cannot be used: the process has no terminal (`process.terminal`)";
            Err(Error::invalid("--console-socket", socket.display(), problem))
        }
        _ => Ok(()),
    }
}
