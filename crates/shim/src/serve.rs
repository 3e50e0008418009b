//! The serve loop: ttrpc on the socket that `start` has bound, until Shutdown.
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_core::Stream;
use husk_sandbox::zygote::Zygote;
use log::{debug, info, warn};
use nix::unistd::geteuid;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep, timeout};
use ttrpc::asynchronous::Server;
use ttrpc::asynchronous::transport::Listener;

use crate::connections::{Connection, Connections};
use crate::context::{Context, Services};
use crate::daemon::Daemon;
use crate::pod;
use crate::publisher::Publisher;
use crate::shutdown::Shutdown;

/// Blocking steps that may be under way at once, such as slow unmounts (contract 27). Their
/// threads are made when needed and end soon after, for the sake of memory.
const BLOCKING_THREADS: usize = 16;

/// How long an idle thread waits for the next blocking step.
const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// What containerd's own shims wait for their last events to be taken.
const FLUSH: Duration = Duration::from_secs(5);

/// How long those who are connected have to hang up at the end, as containerd does at once when its
/// Shutdown is answered.
const HANGING_UP: Duration = Duration::from_secs(2);

/// How long running requests, among them the Shutdown itself, have to be answered at the end. On a
/// node that starts hundreds of pods at once a second is not enough, and containerd takes a
/// connection that ends before the answer for a failure.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// containerd connects as soon as it has read the address. A shim that nobody has found by then
/// was started by a command that was killed before it could answer: it would never be stopped.
const FIRST_CONNECTION: Duration = Duration::from_secs(60);

/// How long to wait before accepting again after a failure.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the pod until its shutdown is requested and its last events are sent.
///
/// # Errors
/// The runtime, the signals or the server cannot be set up.
pub(crate) fn until_shutdown(daemon: Daemon, zygote: Zygote) -> Result<()> {
    runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .build()
        .context("start the runtime")?
        .block_on(serve(daemon, zygote))
}

async fn serve(daemon: Daemon, zygote: Zygote) -> Result<()> {
    let signals = Signals::new().context("listen for signals")?;
    let (found, first) = oneshot::channel();
    let connections = Connections::default();
    let peers = peers(daemon.listener, connections.clone(), found);
    let listener = Listener::new(peers.context("listen on the socket")?);
    let socket = daemon.socket;
    let shutdown = Shutdown::new();
    let publisher = Publisher::new(&daemon.opts.ttrpc_address, &daemon.record.namespace);
    let mut services = pod::services(Context {
        namespace: daemon.record.namespace.clone(),
        id: daemon.record.id.clone(),
        handler: daemon.handler,
        zygote,
        publisher: publisher.clone(),
        store: daemon.store,
        record: daemon.record,
        shutdown: shutdown.clone(),
    })
    .context("watch the zygote and its children")?;
    let mut server = Server::new()
        .add_listener(listener)
        .register_service(std::mem::take(&mut services.map));
    server.start().await.context("start the ttrpc server")?;
    info!(
        "pid {} serves the pod at {}",
        std::process::id(),
        socket.display()
    );

    tokio::select! {
        () = shutdown.requested() => info!("shutdown"),
        () = signals.handle(&services, &shutdown) => {}
        () = forgotten(first, FIRST_CONNECTION) => {
            warn!("nobody has connected for {FIRST_CONNECTION:?}: the shim ends");
        }
    }
    if !publisher.flush(FLUSH).await {
        warn!("containerd has not taken every event; the rest is lost");
    }
    if !connections.closed(HANGING_UP).await {
        debug!("someone is still connected");
    }
    // A client that never reads must not keep the shim alive.
    if timeout(LAST_ANSWERS, server.shutdown()).await.is_err() {
        debug!("connections were open at shutdown");
    }
    Ok(())
}

/// The connections of an accepting socket, those of other users left out (contract 6).
struct Peers {
    listener: UnixListener,
    connections: Connections,
    /// Tells of the first of them.
    found: Option<oneshot::Sender<()>>,
    /// Runs after a failure, such as too many open files, which would only repeat itself.
    pause: Option<Pin<Box<Sleep>>>,
}

fn peers(
    listener: std::os::unix::net::UnixListener,
    connections: Connections,
    found: oneshot::Sender<()>,
) -> io::Result<Peers> {
    listener.set_nonblocking(true)?;
    Ok(Peers {
        listener: UnixListener::from_std(listener)?,
        connections,
        found: Some(found),
        pause: None,
    })
}

impl Stream for Peers {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(cx)) {
                Ok((stream, _)) if is_own(&stream) => {
                    if let Some(found) = self.found.take() {
                        // At the end of the daemon nobody cares any more.
                        let _ = found.send(());
                    }
                    return Poll::Ready(Some(Ok(self.connections.admit(stream))));
                }
                Ok(_) => {}
                Err(error) => {
                    warn!("no connection can be accepted: {error}");
                    self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

/// Ends if nobody connects in time; else never.
async fn forgotten(first: oneshot::Receiver<()>, limit: Duration) {
    if timeout(limit, first).await.is_ok() {
        std::future::pending().await
    }
}

/// Whether this user's process is at the other end.
fn is_own(stream: &UnixStream) -> bool {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == geteuid().as_raw() => return true,
        Ok(peer) => warn!("a connection of user {} is refused", peer.uid()),
        Err(error) => warn!("a connection without credentials is refused: {error}"),
    }
    false
}

/// The signals that mean something to the daemon. SIGCHLD is the pod's.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    dump: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            dump: signal(SignalKind::user_defined1())?,
        })
    }

    /// Handles signals until one of them ends the daemon.
    ///
    /// SIGTERM and SIGINT end it only while nothing lives in the pod: without its shim a container
    /// could neither be stopped nor its exit be known. SIGUSR1 writes the pod's state to the log
    /// (contract 48).
    async fn handle(mut self, services: &Services, shutdown: &Shutdown) {
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.dump.recv() => {
                    for line in (services.dump)().lines() {
                        info!("{line}");
                    }
                    continue;
                }
            };
            if (services.idle)() {
                info!("{name}: the pod is empty, the shim ends");
                shutdown.request();
                return;
            }
            warn!("{name} is ignored: the pod lives; stop it through containerd");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as StdListener;

    use super::*;

    /// Accepts what comes, as the server does.
    fn accepting(path: &std::path::Path) -> oneshot::Receiver<()> {
        let (found, first) = oneshot::channel();
        let listener = StdListener::bind(path).unwrap();
        let mut peers = peers(listener, Connections::default(), found).unwrap();
        tokio::spawn(async move {
            while std::future::poll_fn(|cx| Pin::new(&mut peers).poll_next(cx))
                .await
                .is_some()
            {}
        });
        first
    }

    #[tokio::test]
    async fn a_shim_that_nobody_finds_ends() {
        let directory = tempfile::tempdir().unwrap();
        let first = accepting(&directory.path().join("s"));
        forgotten(first, Duration::from_millis(20)).await;
    }

    #[tokio::test]
    async fn a_shim_that_was_found_does_not_end_by_itself() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let first = accepting(&path);
        drop(UnixStream::connect(&path).await.unwrap());
        let ended = timeout(
            Duration::from_millis(100),
            forgotten(first, Duration::from_millis(20)),
        );
        assert!(ended.await.is_err());
    }
}
