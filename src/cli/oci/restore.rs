//! `restore`.

use std::os::fd::AsFd;
use std::path::Path;

use super::args::{Global, Restore as Args};
use super::checkpoint::common;
use super::create::{check_console, receivers, wants_terminal};
use crate::error::Result;
use crate::host::Host;
use crate::runtime::bundle::Bundle;
use crate::runtime::checkpoint::options::Restore;
use crate::runtime::checkpoint::restore::{self, Comeback};
use crate::runtime::console;
use crate::runtime::container;
use crate::runtime::foreground::{self, Flows, Signals};
use crate::runtime::id::Id;
use crate::runtime::plan::Choices;

/// `restore`: the container as it was saved, with our standard streams; unless detached wait for its end and delete it.
pub(super) fn restore(host: &Host, root: &Path, global: &Global, args: &Args) -> Result<u8> {
    let id = Id::new(&args.id)?;
    let bundle = Bundle::load(&args.bundle)?;
    let terminal = wants_terminal(&bundle);
    check_console(args.console_socket.as_deref(), terminal, args.detach)?;
    let signals = if args.detach { None } else { Some(Signals::take()?) };
    let (console, master) = receivers(args.console_socket.as_deref(), terminal)?;
    let options = Restore {
        common: common(&args.images)?,
        tcp_close: args.tcp_close,
        lsm_profile: args.lsm_profile.clone(),
        lsm_mount_context: args.lsm_mount_context.clone(),
    };
    let request = Comeback {
        root,
        id: &id,
        bundle: &bundle,
        console,
        pid_file: args.pid_file.as_deref(),
        preserve_fds: args.preserve_fds,
        choices: Choices {
            no_pivot: args.no_pivot,
            no_new_keyring: false,
            cgroup_manager: global.manager(),
            rootless: global.rootless(&host.caller),
            notify: false,
            ..Choices::default()
        },
        options: &options,
    };
    let restored = restore::restore(host, &request)?;
    drop(request);
    let Some(signals) = signals else { return Ok(0) };
    let master = master.map(|ours| console::receive_fd(ours.as_fd())).transpose()?;
    let status = foreground::wait(&restored.init, Flows::of(master), &signals);
    let cleared = container::delete(host, root, &id, true);
    status.and_then(|status| cleared.map(|()| status))
}
