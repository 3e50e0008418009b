//! Makes an exec.
use std::sync::Arc;

use husk_sandbox::job::{Exec, Job};

use super::Pod;
use super::container::{Container, Process};
use super::create::{keep, open_io};
use super::state::{Made, ProcessId};
use crate::failure::Failure;

/// Runs a further process in a container.
pub(super) async fn make(pod: &Arc<Pod>, id: &str, exec: &str) -> Result<Made, Failure> {
    let container = pod.existing(id)?;
    let process = container
        .process(Some(exec))
        .ok_or_else(|| Failure::not_found(format!("there is no exec {exec} of container {id}")))?;
    let made = run(pod, &container, &process, exec).await;
    if made.is_err() {
        process.io.abort().await;
    }
    made
}

async fn run(
    pod: &Arc<Pod>,
    container: &Arc<Container>,
    process: &Arc<Process>,
    exec: &str,
) -> Result<Made, Failure> {
    let id = ProcessId::exec(&container.id, exec);
    let init = container.pid();
    let init = init.ok_or_else(|| Failure::precondition(format!("{id}: there is no init yet")))?;
    let spec = process.spec.clone();
    let mut spec = spec.ok_or_else(|| Failure::internal(format!("{id}: its spec was lost")))?;
    if let Some(withheld) = container.withheld.get() {
        withheld.take_from(&mut spec);
    }
    pod.admit_exec(container, &spec).await?;
    let (stdio, ends) = open_io(pod, container, process).await?;
    let done = pod
        .jobs
        .run(Job::Exec(Exec {
            container: Box::new(container.known()?.inherited.clone()),
            init,
            process: spec,
            stdio,
        }))
        .await?;
    let console = done.console;
    let made = keep(&id, process, done.process, None)?;
    // From here on the process lives, and what fails must not leave it unwatched.
    super::watch::exit(pod, container, id.clone(), Arc::clone(&made.pidfd));
    if let Err(failure) = process.io.start(ends, console) {
        let _ = made.pidfd.signal(9);
        return Err(failure);
    }
    Ok(Made {
        pid: made.pidfd.pid.unsigned_abs(),
        shares_pids: false,
    })
}
