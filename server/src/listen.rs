//! Sockets, and one connection.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use axum::Router;
use axum::middleware::from_fn;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::args::Args;
use crate::routes;
use crate::server::Server;
use crate::trust::{self, Caller, Identity};

/// The first descriptor that systemd hands over (`sd_listen_fds(3)`).
const FIRST: i32 = 3;
/// How long a client may take for the head of a request. An idle connection counts from its last answer.
const HEAD: Duration = Duration::from_secs(30);
/// How long a client may take to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the socket of a server that was killed may be held by what it had begun to start.
const MOMENT: Duration = Duration::from_secs(1);
/// Bytes of a request's head, and lines in it.
const HEAD_BYTES: usize = 64 << 10;
const HEAD_LINES: usize = 100;
/// Connections at once; further ones wait to be accepted.
const CONNECTIONS: usize = 1024;
/// The group whose members may use the socket: they are as good as root on this host.
const GROUP: &str = "condo";

/// Listens until a signal ends it.
pub(crate) fn serve(args: Args) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start threads")?
        .block_on(listen(args))
}

async fn listen(args: Args) -> Result<()> {
    // Also says at once what would fail at every request.
    let (root, run) = open(args.root)?;
    let socket = args.socket.unwrap_or_else(|| run.join("api.socket"));
    let (listener, made) = match handed_over()? {
        Some(listener) => (listener, None),
        None => (bind(&socket)?, Some(socket)),
    };
    let server = Server::new(root.clone(), args.listen);
    server.events.follow(root);
    let router = routes::router(server.clone());
    let over_tls = async {
        match args.listen {
            Some(address) => accept_tls(address, server.clone(), router.clone()).await,
            None => std::future::pending().await,
        }
    };
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        result = accept(listener, guarded(&router, &server, Caller::Local)) => result?,
        result = over_tls => result?,
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    if let Some(path) = made {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Looks whether the condo can be served: its root, absolute, and where its run directory is.
fn open(root: Option<PathBuf>) -> Result<(Option<PathBuf>, PathBuf)> {
    let condo = condo::vps::record::instance::Condo::open(root.as_deref())?;
    let root = root.map(|root| std::path::absolute(&root)).transpose()?;
    Ok((root, condo.folders.run().to_owned()))
}

/// The socket that systemd listens at for us, if it does.
fn handed_over() -> Result<Option<UnixListener>> {
    let is_ours = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    let count = std::env::var("LISTEN_FDS").ok().filter(|_| is_ours);
    match count.as_deref() {
        None | Some("0") => Ok(None),
        Some("1") => {
            let fd: OwnedFd = condo::sys::fd::adopt(FIRST).context("take the socket that was handed over")?;
            rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
            rustix::net::sockopt::socket_acceptconn(&fd)
                .context("listen at the socket that was handed over")?;
            let listener = std::os::unix::net::UnixListener::from(fd);
            listener.set_nonblocking(true)?;
            Ok(Some(UnixListener::from_std(listener)?))
        }
        Some(other) => bail!("LISTEN_FDS: `{other}` sockets were handed over, and one is expected"),
    }
}

/// Whether somebody listens there, and goes on with it: an errand that a server which was killed had begun to start has its socket for a
/// moment, until it is a program of its own.
fn is_served(path: &Path) -> bool {
    let begin = Instant::now();
    while std::os::unix::net::UnixStream::connect(path).is_ok() {
        if begin.elapsed() > MOMENT {
            return true;
        }
        std::thread::sleep(MOMENT / 50);
    }
    false
}

/// A socket of our own, in the place of one that a server before us left.
fn bind(path: &Path) -> Result<UnixListener> {
    if is_served(path) {
        bail!(
            "--socket: `{}` is served by another condo-server already",
            path.display()
        );
    }
    let work = || -> Result<UnixListener> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        // Nobody gets through before it has its mode.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let listener = UnixListener::bind(path);
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        let listener = listener?;
        if let Some(gid) = group() {
            std::os::unix::fs::chown(path, None, Some(gid))?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        }
        Ok(listener)
    };
    work().with_context(|| format!("listen at `{}`", path.display()))
}

/// The number of the group, if there is one (`group(5)`).
fn group() -> Option<u32> {
    let text = std::fs::read_to_string("/etc/group").ok()?;
    text.lines()
        .find_map(|line| match line.split(':').collect::<Vec<_>>().as_slice() {
            [name, _, gid, ..] if *name == GROUP => gid.parse().ok(),
            _ => None,
        })
}

async fn accept(listener: UnixListener, router: Router) -> Result<()> {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = room.clone().acquire_owned().await?;
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    connection(stream, router).await;
                    drop(place);
                });
            }
            Err(e) => {
                // Out of descriptors, most likely: those who are there will go.
                log::warn!("accept a connection: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The API as one caller has it.
fn guarded(router: &Router, server: &Server, caller: Caller) -> Router {
    let server = server.clone();
    let guard = move |request, next| trust::guard(server.clone(), caller.clone(), request, next);
    router.clone().layer(from_fn(guard))
}

async fn accept_tls(address: SocketAddr, server: Server, router: Router) -> Result<()> {
    let identity = server
        .read(Identity::of)
        .await
        .map_err(|problem| anyhow!(problem.text))?;
    let acceptor = trust::acceptor(identity)?;
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("--listen: `{address}`"))?;
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = room.clone().acquire_owned().await?;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                log::warn!("accept a connection: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, router, server) = (acceptor.clone(), router.clone(), server.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let caller = Caller::Remote(trust::certificate_of(&stream));
                    connection(stream, guarded(&router, &server, caller)).await;
                }
                Ok(Err(e)) => log::debug!("a handshake: {e}"),
                Err(_) => log::debug!("a handshake took too long"),
            }
            drop(place);
        });
    }
}

/// Serves one connection until its end.
async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_LINES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades()
        .await;
    if let Err(e) = served {
        log::debug!("a connection: {e}");
    }
}
