//! What may be asked of a container that does not change its life.
use std::sync::Arc;

use husk_sandbox::job::{Job, Update};

use super::Pod;
use super::container::{Container, Process};
use super::state::{Action, ProcessId, Reply};
use crate::background::blocking;
use crate::failure::Failure;
use crate::sync::lock;

pub(super) async fn action(
    pod: &Arc<Pod>,
    id: &ProcessId,
    action: Action,
) -> Result<Reply, Failure> {
    let container = pod.existing(&id.container)?;
    match action {
        Action::Pids => pids(&container),
        Action::Stats => stats(&container).await,
        Action::Update(resources) => update(pod, &container, &resources).await,
        Action::Resize { width, height } => {
            let process = pod.process(id);
            let process = process.ok_or_else(|| Failure::not_found(format!("there is no {id}")))?;
            process.io.resize(width, height).map(|()| Reply::Done)
        }
        Action::CloseIo => {
            if let Some(process) = pod.process(id) {
                process.io.close_stdin();
            }
            Ok(Reply::Done)
        }
    }
}

/// Every pid in the container's cgroup, with the exec that it is, if it is one.
///
/// With none left it is init's: containerd, when it comes back, takes a shim whose task has no pids
/// for a leaked one and removes it, and the exit status that was to be read with it.
fn pids(container: &Container) -> Result<Reply, Failure> {
    let pids = match container.cgroup()?.pids() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        pids => pids.map_err(Failure::from)?,
    };
    if pids.is_empty() {
        let init = container.pid().map(|pid| (pid, None));
        return Ok(Reply::Pids(init.into_iter().collect()));
    }
    let execs = lock(&container.execs);
    let exec_of = |pid: i32| {
        let is = |process: &Process| process.pidfd().is_some_and(|pidfd| pidfd.pid == pid);
        let found = execs.iter().find(|(_, process)| is(process));
        found.map(|(id, _)| id.clone())
    };
    Ok(Reply::Pids(
        pids.into_iter().map(|pid| (pid, exec_of(pid))).collect(),
    ))
}

async fn stats(container: &Container) -> Result<Reply, Failure> {
    let cgroup = container.cgroup()?;
    let stats = blocking(move || cgroup.stats()).await?;
    Ok(Reply::Stats(Box::new(stats)))
}

async fn update(pod: &Pod, container: &Container, resources: &[u8]) -> Result<Reply, Failure> {
    let resources = husk_request::task::resources(&container.id, resources)?;
    let known = container.known()?;
    pod.admit_update(container, &resources).await?;
    pod.jobs
        .run(Job::Update(Update {
            id: container.id.clone(),
            cgroups_path: known.cgroups_path.clone(),
            driver: known.driver,
            resources,
        }))
        .await
        .map(|_| Reply::Done)
}
