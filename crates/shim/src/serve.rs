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
use tokio::time::{Instant, Sleep, sleep, timeout};
use ttrpc::asynchronous::Server;
use ttrpc::asynchronous::transport::Listener;

use crate::connections::{Connection, Connections};
use crate::context::{Context, Services};
use crate::daemon::Daemon;
use crate::pod::Pod;
use crate::publisher::Publisher;
use crate::service;
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

/// containerd connects as soon as it has read the address, and stays connected. An empty shim that
/// nobody is connected to for so long was started by a command that was killed before it could
/// answer, or was left when its client died: it would never be stopped.
const EMPTY_AND_ALONE: Duration = Duration::from_secs(60);

/// How soon to look whether a shim that nobody is connected to can still be found. Time enough for
/// whoever has just learned its address.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// How long to wait for the next look at most: containerd may be away for hours.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

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
    let connections = Connections::default();
    let peers = peers(daemon.listener, connections.clone());
    let listener = Listener::new(peers.context("listen on the socket")?);
    let socket = daemon.socket;
    let shutdown = Shutdown::new();
    let publisher = Publisher::new(&daemon.ttrpc_address, &daemon.record.namespace);
    let pod = Pod::new(Context {
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
    let mut services = service::services(pod);
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
        () = forgotten(&connections, &services, FIRST_LOOK, EMPTY_AND_ALONE) => {
            warn!("nobody has been connected for {EMPTY_AND_ALONE:?}: the empty shim ends");
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
    /// Runs after a failure, such as too many open files, which would only repeat itself.
    pause: Option<Pin<Box<Sleep>>>,
}

fn peers(
    listener: std::os::unix::net::UnixListener,
    connections: Connections,
) -> io::Result<Peers> {
    listener.set_nonblocking(true)?;
    Ok(Peers {
        listener: UnixListener::from_std(listener)?,
        connections,
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

/// Looks, while nobody is connected, whether the pod can still be found. Ends when it is empty and
/// nobody has been connected for `limit`.
async fn forgotten(
    connections: &Connections,
    services: &Services,
    first_look: Duration,
    limit: Duration,
) {
    loop {
        connections.all_closed().await;
        let alone = Instant::now();
        let mut pause = first_look;
        while !connections.made(pause).await {
            (services.forsake)();
            if alone.elapsed() >= limit && (services.idle)() {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Accepts what comes, as the server does.
    fn accepting(path: &std::path::Path) -> Connections {
        let connections = Connections::default();
        let listener = StdListener::bind(path).unwrap();
        let mut peers = peers(listener, connections.clone()).unwrap();
        tokio::spawn(async move {
            while std::future::poll_fn(|cx| Pin::new(&mut peers).poll_next(cx))
                .await
                .is_some()
            {}
        });
        connections
    }

    /// Services that count how often they are told that they may be forsaken.
    fn services(idle: bool) -> (Services, Arc<AtomicUsize>) {
        let looks = Arc::new(AtomicUsize::new(0));
        let looked = Arc::clone(&looks);
        let services = Services {
            map: std::collections::HashMap::new(),
            dump: Box::new(String::new),
            idle: Box::new(move || idle),
            forsake: Box::new(move || {
                looked.fetch_add(1, Ordering::Relaxed);
            }),
        };
        (services, looks)
    }

    const LOOK: Duration = Duration::from_millis(5);
    const LIMIT: Duration = Duration::from_millis(30);

    #[tokio::test]
    async fn an_empty_shim_that_nobody_finds_ends() {
        let directory = tempfile::tempdir().unwrap();
        let connections = accepting(&directory.path().join("s"));
        let (services, looks) = services(true);
        forgotten(&connections, &services, LOOK, LIMIT).await;
        assert!(looks.load(Ordering::Relaxed) > 1);
    }

    #[tokio::test]
    async fn a_shim_with_a_pod_does_not_end_for_want_of_company() {
        let directory = tempfile::tempdir().unwrap();
        let connections = accepting(&directory.path().join("s"));
        let (services, looks) = services(false);
        let ended = timeout(LIMIT * 5, forgotten(&connections, &services, LOOK, LIMIT));
        assert!(ended.await.is_err());
        assert!(looks.load(Ordering::Relaxed) > 1);
    }

    #[tokio::test]
    async fn a_shim_that_someone_is_connected_to_is_let_be() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let connections = accepting(&path);
        let (services, looks) = services(true);
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let _connection = connections.admit(ours);
        let ended = timeout(LIMIT * 5, forgotten(&connections, &services, LOOK, LIMIT));
        assert!(ended.await.is_err());
        assert_eq!(looks.load(Ordering::Relaxed), 0);
    }
}
