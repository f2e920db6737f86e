//! Memory on its way: sent to a page server, fetched when it is needed.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};

use super::{Saved, write_count};
use crate::harness;
use crate::runtime::{ensure_eq, until};

tests![
    pages_go_to_a_page_server in guest: 300,
    pages_are_fetched_late in guest: 300,
    while_pages_are_served_it_can_be_deleted in guest: 300,
];

/// Where a page server listens. One number is above the half of all: CRIU keeps them with a sign.
const EARLY: u16 = 40001;
const LATE: u16 = 5000;

/// Keeps in its memory what is nowhere else, and tells it when it is asked for. It counts as well.
pub const KEEPER: &str = concat!(
    "secret=$(head -c 150000 /dev/urandom | busybox base64)
    i=0; while :; do i=$((i+1)); ",
    write_count!(),
    "
    if test -e /ask; then echo \"$secret\" > /told.new; rm /ask; mv /told.new /told; fi; sleep 0.05; done"
);

/// A container that keeps a secret, and the secret.
fn keeper() -> Result<(Saved, String)> {
    let s = Saved::new(KEEPER)?;
    s.c.up()?;
    let secret = tell(&s)?;
    ensure!(secret.len() > 200_000, "told {} bytes", secret.len());
    Ok((s, secret))
}

fn tell(s: &Saved) -> Result<String> {
    fs::write(s.file("ask"), "")?;
    until("it tells", || Ok(s.file("told").exists()))?;
    let told = fs::read_to_string(s.file("told"))?;
    fs::remove_file(s.file("told"))?;
    Ok(told)
}

/// Bytes of memory in those files of a directory of images whose names begin like this, as they take room on the disk.
pub fn held(images: &Path, prefix: &str) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(images)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            sum += entry.metadata()?.blocks() * 512;
        }
    }
    Ok(sum)
}

/// A network of this test's own, with a loopback interface.
pub fn own_network() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    harness::run(Command::new("ip").args(["link", "set", "lo", "up"])).map(drop)
}

/// Whether something listens at a port; a try would be taken for the one caller that CRIU expects.
fn listens(port: u16) -> Result<bool> {
    let table = fs::read_to_string("/proc/self/net/tcp")?;
    let mut lines = table.lines().map(str::split_whitespace);
    Ok(lines.any(|mut fields| {
        let here = fields
            .nth(1)
            .is_some_and(|here| here.ends_with(&format!(":{port:04X}")));
        here && fields.nth(1) == Some("0A")
    }))
}

/// A process that has to end by itself, and does not outlive the test.
pub struct Helper(pub Child);

impl Helper {
    /// One of CRIU's daemons.
    fn criu(mode: &str, args: &[&str], images: &Path, work: &Path, port: u16) -> Result<Self> {
        let mut criu = Command::new(harness::program("criu").context("no criu")?);
        criu.arg(mode).args(args).arg("--images-dir").arg(images);
        criu.arg("--work-dir").arg(work);
        criu.args([
            "--address",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "-v4",
            "--log-file",
            "log",
        ]);
        Ok(Self(criu.stdin(Stdio::null()).spawn()?))
    }

    fn ends_with(&mut self, code: i32) -> Result<()> {
        let mut status = None;
        until("the helper ends", || {
            status = self.0.try_wait()?;
            Ok(status.is_some())
        })?;
        ensure_eq!(status.and_then(|status| status.code()), Some(code));
        Ok(())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pages_go_to_a_page_server() -> Result<()> {
    needs!(root, criu, program: ip);
    own_network()?;
    let (s, secret) = keeper()?;
    let arrived = harness::tempdir();
    let address = format!("127.0.0.1:{EARLY}");
    let refused = s.try_save(&["--page-server", &address])?.fault()?;
    ensure!(
        refused.contains("connect to server") && refused.contains(&address),
        "{refused}"
    );
    let mut server = Helper::criu("page-server", &[], &arrived, &arrived, EARLY)?;
    until("the page server listens", || listens(EARLY))?;
    s.save(&["--page-server", &address])?;
    s.c.nothing_left()?;
    server.ends_with(0)?;
    ensure_eq!(held(&s.images, "pages-")?, 0);
    ensure!(
        held(&arrived, "pages-")? > secret.len() as u64,
        "not all of it arrived"
    );
    let before = s.count()?;
    for entry in fs::read_dir(&arrived)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("page") {
            fs::rename(entry.path(), s.images.join(entry.file_name()))?;
        }
    }
    s.bring_back(&[])?;
    ensure!(tell(&s)? == secret, "its memory is not the same");
    ensure!(s.count()? > before, "it began anew");
    s.end()
}

/// A checkpoint that serves pages at a port, when it does.
fn serve(s: &Saved) -> Result<Helper> {
    let images = s.images.to_str().context("a path")?;
    let server = format!("127.0.0.1:{LATE}");
    let save = s.c.command(&[
        "checkpoint",
        "--image-path",
        images,
        "--lazy-pages",
        "--page-server",
        &server,
        "--status-fd",
        "7",
        "--manage-cgroups-mode",
        "ignore",
        "@",
    ]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" 7>&1 >/dev/null", "sh"]);
    shell.arg(save.get_program()).args(save.get_args());
    let mut helper = Helper(shell.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
    let mut status = helper.0.stdout.take().context("a pipe")?;
    ensure_eq!(said(&mut status)?, [0]);
    ensure!(listens(LATE)?, "does not listen");
    Ok(helper)
}

/// All that is written to a pipe until it is closed.
fn said(pipe: &mut ChildStdout) -> Result<Vec<u8>> {
    rustix::io::ioctl_fionbio(&*pipe, true)?;
    let mut bytes = Vec::new();
    until("all is said", || match pipe.read_to_end(&mut bytes) {
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(false),
        other => Ok(other.map(|_| true)?),
    })?;
    Ok(bytes)
}

fn pages_are_fetched_late() -> Result<()> {
    needs!(root, criu, lazy_pages, cgroup2, program: ip, program: nsenter);
    own_network()?;
    let (s, secret) = keeper()?;
    given_up(&s)?;
    let before = s.count()?;
    let mut save = serve(&s)?;
    ensure!(
        held(&s.images, "pages-")? < secret.len() as u64,
        "its memory was saved at once"
    );
    let work = harness::tempdir();
    let mut fetch = Helper::criu("lazy-pages", &["--page-server"], &s.images, &work, LATE)?;
    until("the pages are fetched", || {
        Ok(work.join("lazy-pages.socket").exists())
    })?;
    // It is there until its last page has gone: on the same machine it comes back by another name, in another cgroup.
    let mut there = Saved::new(KEEPER)?;
    there.images.clone_from(&s.images);
    let root = s.c.bundle.rootfs();
    there
        .c
        .set("/root/path", root.to_str().context("a path")?.into())?;
    let work_path = work.to_str().context("a path")?;
    there.bring_back(&[
        "--lazy-pages",
        "--work-path",
        work_path,
        "--manage-cgroups-mode",
        "ignore",
    ])?;
    ensure!(tell(&s)? == secret, "its memory is not the same");
    ensure!(s.count()? > before, "it began anew");
    save.ends_with(0)?;
    fetch.ends_with(0)?;
    s.c.nothing_left()?;
    there.end()
}

fn while_pages_are_served_it_can_be_deleted() -> Result<()> {
    needs!(root, criu, lazy_pages, cgroup2, program: ip);
    own_network()?;
    let (s, _) = keeper()?;
    let mut save = serve(&s)?;
    s.c.call(&["delete", "--force", "@"])?.ok()?;
    save.ends_with(1)?;
    s.c.nothing_left()
}

/// Nobody fetches the pages: a signal ends the wait, and the container goes on with its network.
fn given_up(s: &Saved) -> Result<()> {
    let mut save = serve(s)?;
    let before = s.count()?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(save.0.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM)?;
    save.ends_with(1)?;
    until("it counts on", || Ok(s.count()? > before))?;
    ensure_eq!(s.c.status()?, "running");
    let pid = s.c.pid()?.to_string();
    let rules = harness::run(Command::new("nsenter").args(["-t", &pid, "-n", "iptables", "-S"]))?;
    ensure!(!rules.contains("-j CRIU"), "{rules}");
    Ok(())
}
