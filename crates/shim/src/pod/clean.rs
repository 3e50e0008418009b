//! Gives back what belonged to an ended process.
use std::io;
use std::path::Path;
use std::sync::Arc;

use husk_sandbox::job::Job;
use husk_sandbox::rootfs::unmount_all;
use husk_scope::Ids;
use log::warn;

use super::Pod;
use super::container::Container;
use super::state::ProcessId;
use crate::background::blocking;
use crate::background::in_background;
use crate::failure::Failure;
use crate::sync::lock;

/// Drains the process's output; of init also unmounts, removes the cgroup and the directory. May
/// be done again after a failure.
pub(super) async fn process(pod: &Arc<Pod>, id: &ProcessId) -> Result<(), Failure> {
    let Some(container) = pod.container(&id.container) else {
        return Ok(());
    };
    let Some(exec) = &id.exec else {
        container.init.io.drain().await;
        self::container(pod, &container).await?;
        lock(&pod.containers).remove(&id.container);
        return Ok(());
    };
    let process = container.process(Some(exec));
    if let Some(process) = process {
        process.io.drain().await;
    }
    lock(&container.execs).remove(exec);
    Ok(())
}

/// Gives back what a container holds. A slow step holds up nothing else (contract 26, 27).
async fn container(pod: &Pod, container: &Container) -> Result<(), Failure> {
    let failed = |what: String| {
        let id = container.id.clone();
        move |error: io::Error| Failure::internal(format!("container {id}: cannot {what}: {error}"))
    };
    // What the shim did not mount is not the shim's to unmount.
    if let Some(known) = container
        .known
        .get()
        .filter(|_| !container.mounts.is_empty())
    {
        let rootfs = known.rootfs.clone();
        let what = format!("unmount {}", rootfs.display());
        in_background(move || unmount_all(&rootfs))
            .await
            .map_err(failed(what))?;
    }
    // No more kills to look for: the watch would only see the cgroup go.
    lock(&container.oom).take();
    if let Ok(cgroup) = container.cgroup() {
        blocking(move || cgroup.remove()).await?;
    }
    pod.give_back_ids(recorded_ids(pod, &container.id));
    run_poststop(pod, container).await;
    remove_dir(&container.dir).map_err(failed(format!("remove {}", container.dir.display())))
}

/// Of a create that failed early, nothing else knows.
fn recorded_ids(pod: &Pod, id: &str) -> Option<Ids> {
    let record = lock(&pod.record);
    let mut containers = record.containers.iter();
    containers.find(|found| found.id == id)?.ids
}

/// Runs the hooks that come when nothing is left of a container. Their failures hold nothing up.
/// Without the container's directory the command `delete` was here before, and has run them.
async fn run_poststop(pod: &Pod, container: &Container) {
    let hooks = container
        .known
        .get()
        .and_then(|known| known.poststop.as_ref());
    if let Some(hooks) = hooks.filter(|_| container.dir.exists())
        && let Err(failure) = pod.jobs.run(Job::Hooks(hooks.clone())).await
    {
        warn!("{failure}");
    }
}

/// Undoes a create that failed. The zygote has undone its own part, unless it is gone.
pub(super) async fn failed_create(pod: &Arc<Pod>, container: &Arc<Container>) {
    container.init.io.abort().await;
    if let Some(pidfd) = container.init.pidfd() {
        // ESRCH: it has ended by itself.
        let _ = pidfd.signal(9);
        let _ = crate::children::ended(pidfd).await;
        pod.children.release(pidfd.pid);
    } else if pod.jobs.are_broken()
        && let Err(error) = end_orphans(pod, container).await
    {
        warn!("a create that the zygote did not end leaves something behind: {error}");
    }
    if let Err(error) = self::container(pod, container).await {
        warn!("a failed create leaves something behind: {error}");
    }
    lock(&pod.containers).remove(&container.id);
    pod.links_changed();
}

/// Ends an init that the dead zygote has made and that nobody knows, and removes the cgroup by which
/// it is found. What else is in the cgroup is another container's, whose name was asked for twice.
async fn end_orphans(pod: &Arc<Pod>, container: &Container) -> Result<(), Failure> {
    let known = container.known.get();
    let Some(cgroup) = known.and_then(|known| known.named_cgroup.clone()) else {
        return Ok(());
    };
    let children = Arc::clone(&pod.children);
    blocking(move || {
        // One that is not there yet has none.
        let pids = cgroup.pids().unwrap_or_default();
        if let Err(error) = children.end_unwatched(&pids) {
            warn!("an orphan stays: {error}");
        }
        cgroup.remove()
    })
    .await
}

/// Removes a directory and what is in it; gone already is no error.
pub(super) fn remove_dir(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
