//! One container of a pod that runs: made, started, waited for, removed; again if it should be.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use nix::sys::signal::Signal;
use protobuf::Message as _;
use protobuf::well_known_types::any::Any;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::journal::Journal;
use super::{Engine, Error, Notice, Observer, Status, Stop};
use crate::image::{Image, Store};
use crate::manifest::{Container, Pod, RestartPolicy};
use crate::shim::{self, Task};
use crate::spec;

/// Kubernetes' delays before a container is started again: the first, and the longest.
const FIRST_DELAY: Duration = Duration::from_secs(10);
const LONGEST_DELAY: Duration = Duration::from_secs(300);

/// After running for this long a container's delay is the first again.
const STEADY: Duration = Duration::from_secs(600);

const SIGKILL: u32 = 9;
const SIGTERM: u32 = 15;

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By itself, with this exit status, and it is not to be started again.
    Itself(u32),
    /// Because the pod is being stopped.
    Stopped,
}

/// A container whose image is in the store.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) container: Container,
    pub(super) image: Image,
}

/// What the containers of a pod have in common.
pub(super) struct Context {
    pub(super) engine: Engine,
    pub(super) pod: Pod,
    pub(super) journal: Arc<Journal>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) store: Store,
    pub(super) init_containers: Vec<Loaded>,
    pub(super) containers: Vec<Loaded>,
    pub(super) volumes: BTreeMap<String, PathBuf>,
    pub(super) sandbox: spec::Sandbox,
    pub(super) task: Task,
    /// The sandbox's address if each container must be announced by `start` (no Sandbox API).
    pub(super) announce_at: Option<String>,
    pub(super) events: String,
}

impl Context {
    /// Runs a container until it need not be started again or the pod stops; `started` is called
    /// each time that it runs.
    pub(super) async fn keep(
        &self,
        loaded: &Loaded,
        policy: RestartPolicy,
        mut stop: watch::Receiver<Stop>,
        started: impl Fn() + Send + Sync,
    ) -> Result<End, Error> {
        let name = &loaded.container.name;
        let mut delay = FIRST_DELAY;
        loop {
            if *stop.borrow_and_update() != Stop::Not {
                return Ok(End::Stopped);
            }
            let began = Instant::now();
            let code = self.once(loaded, &mut stop, &started).await?;
            if *stop.borrow() != Stop::Not {
                return Ok(End::Stopped);
            }
            let again = match policy {
                RestartPolicy::Always => true,
                RestartPolicy::OnFailure => code != 0,
                RestartPolicy::Never => false,
            };
            if !again {
                return Ok(End::Itself(code));
            }
            if began.elapsed() >= STEADY {
                delay = FIRST_DELAY;
            }
            self.observer.notice(&Notice::Restarting {
                container: name,
                after: delay,
            });
            tokio::select! {
                () = sleep(delay) => {}
                _ = stop.wait_for(|stop| *stop != Stop::Not) => return Ok(End::Stopped),
            }
            delay = (delay * 2).min(LONGEST_DELAY);
            self.journal.write(|record| {
                if let Some(container) = record.container_mut(name) {
                    container.restarts += 1;
                }
            })?;
        }
    }

    /// One life of a container. Returns its exit status.
    async fn once(
        &self,
        loaded: &Loaded,
        stop: &mut watch::Receiver<Stop>,
        started: &(impl Fn() + Send + Sync),
    ) -> Result<u32, Error> {
        let name = &loaded.container.name;
        let id = container_id(&self.sandbox.id, name);
        let root = self.write_bundle(loaded, &id).await?;
        self.announce(name, &id).await?;
        let bundle = self.bundle(&id);
        let (stdio, _input) = self.stdio(&loaded.container, &id)?;
        let created = self.task.create(&id, &bundle, root, &stdio, None).await;
        created.map_err(Error::container(name))?;

        let lived = self.live(loaded, &id, stop, started).await;
        if lived.is_err() {
            self.kill(&id, SIGKILL).await;
        }
        let killed = lived.as_ref().is_ok_and(|code| *code == 128 + SIGKILL);
        let out_of_memory = killed && self.ran_out_of_memory(&id).await;
        let deleted = self.task.delete(&id, "").await;
        let code = lived?;
        deleted.map_err(Error::container(name))?;
        self.journal.status(name, Status::Exited(code))?;
        self.observer.notice(&Notice::Exited {
            container: name,
            code,
            out_of_memory,
        });
        self.remove_layers(name)?;
        Ok(code)
    }

    /// Starts a container that was created, and waits for its end.
    async fn live(
        &self,
        loaded: &Loaded,
        id: &str,
        stop: &mut watch::Receiver<Stop>,
        started: &(impl Fn() + Send + Sync),
    ) -> Result<u32, Error> {
        let name = &loaded.container.name;
        let begun = self.task.start(id, "").await;
        begun.map_err(Error::container(name))?;
        self.journal.status(name, Status::Running)?;
        self.observer.notice(&Notice::Started {
            container: name,
            log: &self.log(name),
        });
        self.wait(loaded, id, stop, started)
            .await
            .map_err(Error::container(name))
    }

    /// Waits for the exit, and makes it come when the pod stops or the container is not well.
    async fn wait(
        &self,
        loaded: &Loaded,
        id: &str,
        stop: &mut watch::Receiver<Stop>,
        started: &(impl Fn() + Send + Sync),
    ) -> Result<u32, shim::Error> {
        let exit = self.task.wait(id, "");
        let unwell = self.watch_over(loaded, id, started);
        let stopping = async {
            self.before_stop(loaded, id).await;
            self.kill(id, stop_signal(&loaded.image)).await;
        };
        tokio::pin!(exit, unwell, stopping);
        let mut seen = Stop::Not;
        let mut asked = false;
        let mut deadline = None;
        loop {
            let mut grace = self.pod.grace;
            let expired = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                exit = &mut exit => return Ok(exit?.code),
                unwell = &mut unwell, if seen == Stop::Not => {
                    self.observer.notice(&Notice::Unwell {
                        container: &loaded.container.name,
                        reason: &unwell.reason,
                    });
                    grace = unwell.grace.unwrap_or(grace);
                    seen = Stop::Gently;
                }
                () = &mut stopping, if seen == Stop::Gently && !asked => {
                    asked = true;
                    continue;
                }
                Ok(now) = stop.wait_for(|now| *now > seen) => {
                    seen = *now;
                }
                () = expired => {
                    seen = Stop::Now;
                }
            }
            if seen == Stop::Gently {
                // One beyond all time never comes.
                deadline = Instant::now().checked_add(grace);
            } else {
                deadline = None;
                self.kill(id, SIGKILL).await;
            }
        }
    }

    /// Sends a signal to init; that it is over already is what the caller wants.
    async fn kill(&self, id: &str, signal: u32) {
        match self.task.kill(id, "", signal, false).await {
            Err(error) if !error.is_gone() => log::warn!("signal {signal} to {id}: {error}"),
            _ => {}
        }
    }

    /// Whether the kernel has killed a process of the container for its memory limit: its cgroup
    /// says so until it is deleted (contract 29).
    async fn ran_out_of_memory(&self, id: &str) -> bool {
        match self.task.stats(id).await {
            Ok(stats) => oom_kills(&stats) > 0,
            Err(error) => {
                log::debug!("why {id} was killed: {error}");
                false
            }
        }
    }
}

/// The number of processes killed for want of memory, from a cgroup's metrics (contract 30).
fn oom_kills(stats: &Any) -> u64 {
    let count = match stats.type_url.rsplit('/').next() {
        Some("io.containerd.cgroups.v2.Metrics") => v2::Metrics::parse_from_bytes(&stats.value)
            .map(|metrics| metrics.memory_events.oom_kill),
        Some("io.containerd.cgroups.v1.Metrics") => v1::Metrics::parse_from_bytes(&stats.value)
            .map(|metrics| metrics.memory_oom_control.oom_kill),
        _ => Ok(0),
    };
    count.unwrap_or_default()
}

/// A container's id at the shim; at most 76 characters, containerd's limit.
pub(super) fn container_id(pod: &str, name: &str) -> String {
    format!("{pod}-{name}")
}

/// What asks a container to end: the image says, or it is SIGTERM.
fn stop_signal(image: &Image) -> u32 {
    let named = image.config.stop_signal.as_deref();
    named.and_then(signal).unwrap_or(SIGTERM)
}

/// `SIGQUIT`, `QUIT` or `3`.
fn signal(name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let full = if name.starts_with("SIG") {
        name.to_owned()
    } else {
        format!("SIG{name}")
    };
    Signal::from_str(&full)
        .ok()
        .and_then(|signal| u32::try_from(signal as i32).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_by_name_and_number() {
        assert_eq!(signal("SIGQUIT"), Some(3));
        assert_eq!(signal("QUIT"), Some(3));
        assert_eq!(signal("28"), Some(28));
        assert_eq!(signal("SIGNOTHING"), None);
    }
}
