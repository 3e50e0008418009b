//! One container of a pod that runs: made, started, waited for, removed; again if it should be.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::api::Mount;
use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use nix::sys::signal::Signal;
use protobuf::Message as _;
use protobuf::well_known_types::any::Any;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::journal::Journal;
use super::{Engine, Error, Notice, Observer, Status, Stop, sandbox, volumes};
use crate::image::{self, Image, Rootfs, RootfsMount, Store};
use crate::manifest::{Container, Pod, RestartPolicy};
use crate::shim::{Stdio, Task};
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

/// What the containers of a pod have in common.
pub(super) struct Context {
    pub(super) engine: Engine,
    pub(super) pod: Pod,
    pub(super) journal: Arc<Journal>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) store: Store,
    pub(super) images: BTreeMap<String, Image>,
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
        container: &Container,
        policy: RestartPolicy,
        mut stop: watch::Receiver<Stop>,
        started: impl Fn() + Send + Sync,
    ) -> Result<End, Error> {
        let mut delay = FIRST_DELAY;
        loop {
            if *stop.borrow_and_update() != Stop::Not {
                return Ok(End::Stopped);
            }
            let began = Instant::now();
            let code = self.once(container, &mut stop, &started).await?;
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
                container: &container.name,
                after: delay,
            });
            tokio::select! {
                () = sleep(delay) => {}
                _ = stop.wait_for(|stop| *stop != Stop::Not) => return Ok(End::Stopped),
            }
            delay = (delay * 2).min(LONGEST_DELAY);
            self.journal.write(|record| {
                if let Some(container) = record.container_mut(&container.name) {
                    container.restarts += 1;
                }
            })?;
        }
    }

    /// One life of a container. Returns its exit status.
    async fn once(
        &self,
        container: &Container,
        stop: &mut watch::Receiver<Stop>,
        started: &(impl Fn() + Send + Sync),
    ) -> Result<u32, Error> {
        let (paths, pod) = (&self.engine.paths, &self.sandbox.id);
        let id = container_id(pod, &container.name);
        let bundle = paths.bundle(pod, &id);
        let log = paths.log(pod, &container.name);
        let layers = paths.data_of(pod).join("layers").join(&container.name);
        let rootfs = self.bundle(container, &bundle, &layers).await?;
        self.announce(container, &id, &bundle).await?;

        let file = format!("file://{}", log.display());
        let stdio = Stdio {
            stdout: file.clone(),
            stderr: file,
            ..Stdio::default()
        };
        self.task
            .create(&id, &bundle, protobuf_mounts(rootfs), &stdio)
            .await
            .map_err(Error::container(&container.name))?;
        let lived = async {
            self.task
                .start(&id, "")
                .await
                .map_err(Error::container(&container.name))?;
            self.journal.status(&container.name, Status::Running)?;
            self.observer.notice(&Notice::Started {
                container: &container.name,
                log: &log,
            });
            started();
            self.wait(container, &id, stop).await
        };
        let lived = lived.await;
        if lived.is_err() {
            self.kill(&id, SIGKILL).await;
        }
        let killed = lived.as_ref().is_ok_and(|code| *code == 128 + SIGKILL);
        let out_of_memory = killed && self.ran_out_of_memory(&id).await;
        let deleted = self.task.delete(&id, "").await;
        let code = lived?;
        deleted.map_err(Error::container(&container.name))?;
        self.journal.status(&container.name, Status::Exited(code))?;
        self.observer.notice(&Notice::Exited {
            container: &container.name,
            code,
            out_of_memory,
        });
        fs::remove_dir_all(&layers).map_err(Error::io("remove", &layers))?;
        Ok(code)
    }

    /// Writes the bundle and answers with the mounts of its root.
    async fn bundle(
        &self,
        container: &Container,
        bundle: &Path,
        layers: &Path,
    ) -> Result<Vec<RootfsMount>, Error> {
        let name = &container.name;
        let about_image = |source| Error::Image {
            container: name.clone(),
            source: Box::new(source),
        };
        let about_spec = |source| Error::Spec {
            container: name.clone(),
            source,
        };
        let root = bundle.join("rootfs");
        fs::create_dir_all(&root).map_err(Error::io("make", &root))?;
        if layers.exists() {
            fs::remove_dir_all(layers).map_err(Error::io("remove", layers))?;
        }
        let Some(image) = self.images.get(&container.image) else {
            return Err(about_spec(spec::Error::NoCommand));
        };
        let rootfs = self
            .store
            .rootfs(image, layers)
            .await
            .map_err(about_image)?;
        let user = user(container, image, &rootfs).map_err(about_image)?;
        let held = bundle.join("volumes");
        let binds = volumes::binds(container, &self.volumes, &held, self.journal.as_ref())?;
        let spec = spec::container(&self.pod, container, image, &user, &self.sandbox, &binds)
            .map_err(about_spec)?;
        sandbox::write_spec(&spec, bundle)?;
        Ok(rootfs.mounts)
    }

    /// Without the Sandbox API, containerd runs `start` for every container and the shim answers
    /// with the address of the sandbox that the spec's annotation names (contract 25).
    async fn announce(&self, container: &Container, id: &str, bundle: &Path) -> Result<(), Error> {
        let Some(pod_address) = &self.announce_at else {
            return Ok(());
        };
        let start = sandbox::command(&self.engine, id, bundle.to_owned(), &self.events);
        let shim = start
            .run()
            .await
            .map_err(Error::container(&container.name))?;
        if shim.address() == pod_address {
            return Ok(());
        }
        let error = Error::NotGrouped {
            container: container.name.clone(),
            address: shim.address().to_owned(),
            pod: pod_address.clone(),
        };
        if let Err(undoing) = shim.task().shutdown(id).await {
            log::warn!(
                "stopping the shim of container {}: {undoing}",
                container.name
            );
        }
        Err(error)
    }

    /// Waits for the exit, and makes it come when the pod stops.
    async fn wait(
        &self,
        container: &Container,
        id: &str,
        stop: &mut watch::Receiver<Stop>,
    ) -> Result<u32, Error> {
        let exit = self.task.wait(id, "");
        tokio::pin!(exit);
        let mut seen = Stop::Not;
        let mut deadline = None;
        loop {
            let expired = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                exit = &mut exit => {
                    return exit.map(|exit| exit.code).map_err(Error::container(&container.name));
                }
                Ok(now) = stop.wait_for(|now| *now > seen) => {
                    seen = *now;
                }
                () = expired => {
                    seen = Stop::Now;
                }
            }
            if seen == Stop::Gently {
                deadline = Some(Instant::now() + self.pod.grace);
                self.kill(id, self.stop_signal(container)).await;
            } else {
                deadline = None;
                self.kill(id, SIGKILL).await;
            }
        }
    }

    fn stop_signal(&self, container: &Container) -> u32 {
        let named = self
            .images
            .get(&container.image)
            .and_then(|image| image.config.stop_signal.as_deref());
        named.and_then(signal).unwrap_or(SIGTERM)
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

/// The manifest's user and group before the image's.
fn user(
    container: &Container,
    image: &Image,
    rootfs: &Rootfs,
) -> Result<image::User, image::ImageError> {
    let security = &container.security;
    let mut user = match security.user {
        Some(uid) => rootfs.user(&uid.to_string())?,
        None => rootfs.user(&image.config.user)?,
    };
    if let Some(gid) = security.group {
        user.gid = gid;
    }
    Ok(user)
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

fn protobuf_mounts(mounts: Vec<RootfsMount>) -> Vec<Mount> {
    let one = |mount: RootfsMount| Mount {
        type_: mount.kind,
        source: mount.source,
        options: mount.options,
        ..Mount::default()
    };
    mounts.into_iter().map(one).collect()
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
