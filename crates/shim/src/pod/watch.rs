//! Waits for the ends of processes and for the kernel's memory kills.
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use husk_sandbox::cgroup::OomWatch;
use husk_sandbox::process::{Ended, Pidfd};
use log::{debug, error};
use tokio::io::unix::AsyncFd;

use super::Pod;
use super::container::Container;
use super::ready::readable;
use super::state::{Event, Exit, ProcessId};
use crate::clock::now_ms;
use crate::sync::lock;

/// A pidfd as tokio wants to watch it.
struct Watched(Arc<Pidfd>);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.fd.as_raw_fd()
    }
}

/// Waits for a child's end and reaps it.
///
/// # Errors
/// It is not a child of this process, or epoll refuses the pidfd.
pub(crate) async fn ended(process: &Arc<Pidfd>) -> io::Result<Ended> {
    let watched = readable(Watched(Arc::clone(process)))?;
    loop {
        let mut ready = watched.readable().await?;
        match process.try_wait()? {
            Some(ended) => return Ok(ended),
            None => ready.clear_ready(),
        }
    }
}

/// Tells the pod when a container's process has ended.
pub(super) fn exit(pod: &Arc<Pod>, container: &Arc<Container>, id: ProcessId, pidfd: Arc<Pidfd>) {
    let (pod, container) = (Arc::clone(pod), Arc::clone(container));
    tokio::spawn(async move {
        let exit = exit_of(&pod, &id, &pidfd).await;
        // A memory kill is told before the exit that it caused.
        look_for_kills(&pod, &container);
        if let Some(process) = container.process(id.exec.as_deref()) {
            process.io.read_out().await;
        }
        let is_init = id.exec.is_none();
        pod.tell(Event::Exited(id, exit));
        if is_init {
            pod.links_changed();
        }
    });
}

/// Tells the pod when the sandbox's holder has ended.
pub(super) fn holder(pod: &Arc<Pod>, pidfd: Arc<Pidfd>) {
    let pod = Arc::clone(pod);
    tokio::spawn(async move {
        let id = ProcessId::init("the sandbox's holder");
        let exit = exit_of(&pod, &id, &pidfd).await;
        pod.tell(Event::HolderExited(exit));
    });
}

async fn exit_of(pod: &Pod, id: &ProcessId, pidfd: &Arc<Pidfd>) -> Exit {
    let code = match ended(pidfd).await {
        Ok(ended) => ended.code(),
        Err(error) => {
            error!("{id}, pid {}, cannot be waited for: {error}", pidfd.pid);
            // containerd's status for "nobody knows".
            255
        }
    };
    pod.children.release(pidfd.pid);
    Exit {
        code,
        at_ms: now_ms(),
    }
}

/// Tells the pod of each memory kill in the container, until its cgroup is gone.
pub(super) fn out_of_memory(pod: &Arc<Pod>, container: &Arc<Container>, watch: OomWatch) {
    let notices = match notices(&watch) {
        Ok(notices) => notices,
        Err(error) => {
            error!(
                "memory kills of container {} go unseen: {error}",
                container.id
            );
            return;
        }
    };
    *lock(&container.oom) = Some(watch);
    let (pod, container) = (Arc::downgrade(pod), Arc::downgrade(container));
    tokio::spawn(async move {
        while let Ok(mut ready) = notices.readable().await {
            ready.clear_ready();
            let (Some(pod), Some(container)) = (pod.upgrade(), container.upgrade()) else {
                return;
            };
            if !look_for_kills(&pod, &container) {
                return;
            }
        }
    });
}

fn notices(watch: &OomWatch) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = watch.as_fd().try_clone_to_owned()?;
    readable(fd)
}

/// Whether to go on looking.
fn look_for_kills(pod: &Arc<Pod>, container: &Container) -> bool {
    let mut watch = lock(&container.oom);
    let Some(found) = watch.as_mut() else {
        return false;
    };
    match found.fired() {
        Ok(true) => pod.tell(Event::OutOfMemory(container.id.clone())),
        Ok(false) => {}
        Err(error) => {
            debug!(
                "memory kills of container {} are no longer seen: {error}",
                container.id
            );
            *watch = None;
            return false;
        }
    }
    true
}

/// Reaps a holder of a group, whose end changes nothing in the pod's life.
pub(super) fn reap(pod: &Arc<Pod>, pidfd: Arc<Pidfd>) {
    let pod = Arc::clone(pod);
    tokio::spawn(async move {
        let id = ProcessId::init("the holder of a group");
        exit_of(&pod, &id, &pidfd).await;
    });
}
