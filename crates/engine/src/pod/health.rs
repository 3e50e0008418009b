//! Hooks and probes: what is done in a container, or asked of it, while it lives.
use std::convert::Infallible;
use std::fs::File;
use std::future::pending;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::Notice;
use super::container::{Context, Loaded};
use super::exec::process_of;
use crate::manifest::{Action, Probe};
use crate::netns;
use crate::shim::{self, Stdio, Task};

/// How long a hook that asks for a page, or connects, may take.
const HOOK: Duration = Duration::from_secs(30);

/// The most that is read of an answer: the status is in its first line.
const LONGEST_ANSWER: u64 = 4096;

const SIGKILL: u32 = 9;

/// Why a container must end, and how long it may take if its probe says.
pub(super) struct Unwell {
    pub(super) reason: String,
    pub(super) grace: Option<Duration>,
}

impl Context {
    /// Watches over a container that runs: `started` is called once it counts as started. Returns
    /// only when it must end.
    pub(super) async fn watch_over(
        &self,
        loaded: &Loaded,
        id: &str,
        started: &(impl Fn() + Send + Sync),
    ) -> Unwell {
        let container = &loaded.container;
        if let Some(hook) = &container.post_start
            && let Err(reason) = self.act(loaded, id, hook, None).await
        {
            return Unwell {
                reason: format!("its postStart hook failed: {reason}"),
                grace: None,
            };
        }
        // What follows a sidecar waits until it is up; a container of the pod, nobody waits for.
        if !container.sidecar {
            started();
        }
        if let Some(probe) = &container.startup {
            sleep(probe.delay).await;
            if let Err(unwell) = self.until_up(loaded, id, probe).await {
                return unwell;
            }
        }
        if container.sidecar {
            started();
        }
        let alive = async {
            match &container.liveness {
                Some(probe) => {
                    sleep(probe.delay).await;
                    self.until_unwell(loaded, id, probe).await
                }
                None => pending().await,
            }
        };
        let ready = async {
            match &container.readiness {
                Some(probe) => self.tell_readiness(loaded, id, probe).await,
                None => pending::<Infallible>().await,
            }
        };
        tokio::select! {
            unwell = alive => unwell,
            never = ready => match never {},
        }
    }

    /// Tries until the container is up, or is not in time.
    async fn until_up(&self, loaded: &Loaded, id: &str, probe: &Probe) -> Result<(), Unwell> {
        let mut failures = 0;
        loop {
            match self
                .act(loaded, id, &probe.action, Some(probe.timeout))
                .await
            {
                Ok(()) => return Ok(()),
                Err(reason) => failures = self.failed(probe, "startup", failures, &reason)?,
            }
            sleep(probe.period).await;
        }
    }

    /// Tries for as long as the container is well.
    async fn until_unwell(&self, loaded: &Loaded, id: &str, probe: &Probe) -> Unwell {
        let mut failures = 0;
        loop {
            match self
                .act(loaded, id, &probe.action, Some(probe.timeout))
                .await
            {
                Ok(()) => failures = 0,
                Err(reason) => match self.failed(probe, "liveness", failures, &reason) {
                    Ok(count) => failures = count,
                    Err(unwell) => return unwell,
                },
            }
            sleep(probe.period).await;
        }
    }

    /// Counts a failure; too many are an error.
    fn failed(&self, probe: &Probe, which: &str, before: u32, reason: &str) -> Result<u32, Unwell> {
        let failures = before + 1;
        log::debug!(
            "{which} probe, failure {failures} of {}: {reason}",
            probe.failures
        );
        if failures < probe.failures {
            return Ok(failures);
        }
        Err(Unwell {
            reason: format!("its {which} probe failed {failures} times: {reason}"),
            grace: probe.grace,
        })
    }

    /// Tells each time that the container becomes ready, or is no longer.
    async fn tell_readiness(&self, loaded: &Loaded, id: &str, probe: &Probe) -> Infallible {
        let mut ready = false;
        let mut in_a_row = 0;
        sleep(probe.delay).await;
        loop {
            let answer = self
                .act(loaded, id, &probe.action, Some(probe.timeout))
                .await;
            in_a_row = if answer.is_ok() == ready {
                0
            } else {
                in_a_row + 1
            };
            let enough = if ready {
                probe.failures
            } else {
                probe.successes
            };
            if in_a_row >= enough {
                (ready, in_a_row) = (!ready, 0);
                self.observer.notice(&Notice::Readiness {
                    container: &loaded.container.name,
                    reason: answer.as_ref().err().map(String::as_str),
                });
            }
            sleep(probe.period).await;
        }
    }

    /// Does what the container's preStop hook says; that it fails stops nobody.
    pub(super) async fn before_stop(&self, loaded: &Loaded, id: &str) {
        let Some(hook) = &loaded.container.pre_stop else {
            return;
        };
        if let Err(reason) = self.act(loaded, id, hook, None).await {
            self.observer.notice(&Notice::HookFailed {
                container: &loaded.container.name,
                reason: &reason,
            });
        }
    }

    /// Does one thing; the error says how it failed.
    async fn act(
        &self,
        loaded: &Loaded,
        id: &str,
        action: &Action,
        limit: Option<Duration>,
    ) -> Result<(), String> {
        match action {
            Action::Sleep(time) => {
                sleep(*time).await;
                Ok(())
            }
            Action::Exec(command) => self.exec(loaded, id, command, limit).await,
            Action::Http {
                host,
                port,
                path,
                headers,
            } => {
                let request = request(host.as_deref(), *port, path, headers);
                let target = (host.clone(), *port);
                self.connect(id, target, Some(request), limit.unwrap_or(HOOK))
                    .await
            }
            Action::Tcp { host, port } => {
                let target = (host.clone(), *port);
                self.connect(id, target, None, limit.unwrap_or(HOOK)).await
            }
        }
    }

    /// Runs a command in the container; any status but 0 is a failure.
    async fn exec(
        &self,
        loaded: &Loaded,
        id: &str,
        command: &[String],
        limit: Option<Duration>,
    ) -> Result<(), String> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let bundle = self.bundle(id);
        let process = process_of(&bundle, command, false).map_err(|error| error.to_string())?;
        let exec = Exec {
            task: self.task.clone(),
            container: id.to_owned(),
            id: format!("probe-{}", COUNT.fetch_add(1, Ordering::Relaxed)),
        };
        // A task of its own, which ends what it began also when the container has ended meanwhile
        // and nobody waits for the answer.
        let ran = tokio::spawn(async move { exec.run(process, limit).await }).await;
        match ran.map_err(|error| error.to_string())? {
            Ok(Some(0)) => Ok(()),
            Ok(Some(code)) => Err(format!("`{}` exited with {code}", command.join(" "))),
            Ok(None) => Err(format!(
                "`{}` took longer than {limit:?}",
                command.join(" ")
            )),
            Err(error) => Err(format!("{}: {error}", loaded.container.name)),
        }
    }

    /// Connects from the network of a container, which need not be the pod's, and asks if there is
    /// something to ask. A link that leads to it would take the connection whether or not somebody
    /// listens.
    async fn connect(
        &self,
        id: &str,
        target: (Option<String>, u16),
        request: Option<String>,
        limit: Duration,
    ) -> Result<(), String> {
        let network = self.network_of(id).await?;
        let (sender, receiver) = oneshot::channel();
        // A thread of its own, as it changes its network.
        thread::spawn(move || {
            let asked = ask(network, &target, request.as_deref(), limit);
            // Nobody waits for it any more when the container has ended.
            let _ = sender.send(asked);
        });
        receiver
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the thread that asks panicked")))
            .map_err(|error| error.to_string())
    }

    /// The network namespace of a container's init.
    async fn network_of(&self, id: &str) -> Result<File, String> {
        let state = async || {
            self.task
                .state(id, "")
                .await
                .map_err(|error| error.to_string())
        };
        let before = state().await?;
        let path = format!("/proc/{}/ns/net", before.pid);
        let network = File::open(&path).map_err(|error| format!("{path}: {error}"))?;
        // If it still runs, its number was its own when the file was opened.
        if before.pid == 0 || state().await? != before {
            return Err(String::from("the container has ended"));
        }
        Ok(network)
    }
}

/// A command that runs in a container.
struct Exec {
    task: Task,
    container: String,
    id: String,
}

impl Exec {
    /// Its status; `None` for one that was killed because it took too long.
    async fn run(
        &self,
        process: Vec<u8>,
        limit: Option<Duration>,
    ) -> Result<Option<u32>, shim::Error> {
        let (container, id) = (self.container.as_str(), self.id.as_str());
        self.task
            .exec(container, id, process, &Stdio::default())
            .await?;
        let run = async {
            self.task.start(container, id).await?;
            self.task.wait(container, id).await
        };
        let ended = match limit {
            None => Some(run.await),
            Some(limit) => timeout(limit, run).await.ok(),
        };
        if ended.is_none() {
            // What it has started ends with the container.
            self.settle(self.task.kill(container, id, SIGKILL, false).await);
            self.settle(self.task.wait(container, id).await.map(drop));
        }
        self.settle(self.task.delete(container, id).await.map(drop));
        Ok(ended.transpose()?.map(|exit| exit.code))
    }

    /// That it is over already is what was wanted.
    fn settle(&self, step: Result<(), shim::Error>) {
        if let Err(error) = step {
            log::debug!("ending {} of {}: {error}", self.id, self.container);
        }
    }
}

fn ask(
    network: File,
    (host, port): &(Option<String>, u16),
    request: Option<&str>,
    limit: Duration,
) -> io::Result<()> {
    let deadline = Instant::now() + limit;
    let address = match host {
        None => SocketAddr::from((Ipv4Addr::LOCALHOST, *port)),
        Some(host) => (host.as_str(), *port)
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| io::Error::other(format!("{host} has no address")))?,
    };
    netns::enter(network)?;
    let failed = |error: io::Error| {
        io::Error::other(match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("{address}: no answer in {limit:?}")
            }
            _ => format!("{address}: {error}"),
        })
    };
    let left = || {
        deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1))
    };
    let mut stream = TcpStream::connect_timeout(&address, left()).map_err(failed)?;
    let Some(request) = request else {
        return Ok(());
    };
    stream.set_write_timeout(Some(left()))?;
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    // Read by read, so that an answer that comes byte by byte does not take for ever.
    let mut part = [0; 512];
    while !answer.contains(&b'\n') && (answer.len() as u64) < LONGEST_ANSWER {
        if Instant::now() >= deadline {
            return Err(failed(io::ErrorKind::TimedOut.into()));
        }
        stream.set_read_timeout(Some(left()))?;
        match stream.read(&mut part).map_err(failed)? {
            0 => break,
            count => answer.extend_from_slice(part.get(..count).unwrap_or_default()),
        }
    }
    match status(&answer) {
        Some(200..=399) => Ok(()),
        Some(status) => Err(io::Error::other(format!("{address} answered {status}"))),
        None => Err(io::Error::other(format!(
            "{address} answered what is no HTTP"
        ))),
    }
}

/// The request of a GET; a header that the manifest sets wins.
fn request(host: Option<&str>, port: u16, path: &str, headers: &[(String, String)]) -> String {
    let own = [
        ("Host", format!("{}:{port}", host.unwrap_or("127.0.0.1"))),
        ("User-Agent", format!("husk/{}", env!("CARGO_PKG_VERSION"))),
        ("Accept", String::from("*/*")),
        ("Connection", String::from("close")),
    ];
    let set = |name: &str| {
        headers
            .iter()
            .any(|(set, _)| set.eq_ignore_ascii_case(name))
    };
    let own = own.iter().filter(|(name, _)| !set(name));
    let own = own.map(|(name, value)| (*name, value.as_str()));
    let theirs = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let lines: String = own
        .chain(theirs)
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!("GET {path} HTTP/1.1\r\n{lines}\r\n")
}

/// The status of an answer's first line, `HTTP/1.1 200 OK`.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.strip_prefix("HTTP/")?.split_ascii_whitespace();
    words.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_in_the_first_line() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\nA: b\r\n"), Some(204));
        assert_eq!(status(b"HTTP/1.0 200"), Some(200));
        for answer in [
            &b""[..],
            b"SSH-2.0-x\r\n",
            b"HTTP/1.1\r\n200 OK",
            b"\xff\xff",
        ] {
            assert_eq!(status(answer), None);
        }
    }

    #[test]
    fn a_request_has_the_headers_of_the_manifest() {
        let headers = [("host".to_owned(), "example.org".to_owned())];
        let text = request(None, 80, "/x", &headers);
        assert!(
            text.starts_with("GET /x HTTP/1.1\r\nUser-Agent: husk/"),
            "{text}"
        );
        assert!(text.ends_with("host: example.org\r\n\r\n"), "{text}");
        assert!(!text.contains("127.0.0.1"), "{text}");
    }
}
