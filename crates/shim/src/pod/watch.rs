//! Waits for the ends of processes and for the kernel's memory kills.
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use husk_sandbox::cgroup::OomWatch;
use husk_sandbox::process::Pidfd;
use log::{debug, error};
use tokio::io::unix::AsyncFd;

use super::Pod;
use super::container::Container;
use super::state::{Event, Exit, ProcessId};
use crate::children::ended;
use crate::clock::now_ms;
use crate::ready::readable;
use crate::sync::lock;

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
