//! The order in which a pod's containers run.
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::container::{Context, End, Loaded};
use super::{Error, Notice, Outcome, Stop};
use crate::manifest::RestartPolicy;

/// Runs init containers one by one, sidecars beside all that follows, then the containers.
pub(super) async fn run_containers(
    context: &Arc<Context>,
    stop: &watch::Sender<Stop>,
) -> Result<Outcome, Error> {
    let mut sidecars = Sidecars::default();
    let outcome = match inits(context, stop, &mut sidecars).await {
        Ok(None) => side_by_side(context, stop).await,
        Ok(Some(outcome)) => Ok(outcome),
        Err(error) => Err(error),
    };
    let grace = context.pod.grace;
    if *stop.borrow() == Stop::Not && !sidecars.running.is_empty() {
        context.observer.notice(&Notice::Stopping { grace });
    }
    let ended = sidecars.end(stop).await;
    let outcome = outcome?;
    ended?;
    Ok(outcome)
}

/// The outcome if the pod ends here: an init container failed, or the pod is being stopped.
async fn inits(
    context: &Arc<Context>,
    stop: &watch::Sender<Stop>,
    sidecars: &mut Sidecars,
) -> Result<Option<Outcome>, Error> {
    let policy = match context.pod.restart_policy {
        RestartPolicy::Never => RestartPolicy::Never,
        RestartPolicy::Always | RestartPolicy::OnFailure => RestartPolicy::OnFailure,
    };
    for loaded in &context.init_containers {
        if loaded.container.sidecar {
            sidecars.start(context, loaded).await?;
            continue;
        }
        match context
            .keep(loaded, policy, stop.subscribe(), || {})
            .await?
        {
            End::Itself(0) => {}
            End::Itself(code) => {
                return Ok(Some(Outcome {
                    failed: Some((loaded.container.name.clone(), code)),
                }));
            }
            End::Stopped => return Ok(Some(Outcome::default())),
        }
    }
    Ok(None)
}

/// Runs the pod's containers together, started in the manifest's order as the kubelet does: one may
/// take a namespace of another that is named before it. One that cannot be run takes the others with
/// it.
async fn side_by_side(
    context: &Arc<Context>,
    stop: &watch::Sender<Stop>,
) -> Result<Outcome, Error> {
    let policy = context.pod.restart_policy;
    let mut running = Running::new();
    let mut all = true;
    for loaded in &context.containers {
        all = start(&mut running, context, loaded, policy, stop.subscribe()).await;
        if !all {
            break;
        }
    }
    if all {
        let record = context.journal.record();
        context.observer.notice(&Notice::Ready { record: &record });
    }
    let mut outcome = Ok(Outcome::default());
    while let Some(joined) = running.join_next().await {
        let (name, end) = joined?;
        match (end, &mut outcome) {
            (
                Ok(End::Itself(code)),
                Ok(Outcome {
                    failed: failed @ None,
                }),
            ) if code != 0 => {
                *failed = Some((name, code));
            }
            (Err(error), Ok(_)) => {
                outcome = Err(error);
                stop.send_modify(|stop| *stop = (*stop).max(Stop::Gently));
            }
            _ => {}
        }
    }
    outcome
}

/// The containers that run, by name.
type Running = JoinSet<(String, Result<End, Error>)>;

/// Starts a container and waits until it runs. False if it never did; why, is the task's result.
async fn start(
    running: &mut Running,
    context: &Arc<Context>,
    loaded: &Loaded,
    policy: RestartPolicy,
    stop: watch::Receiver<Stop>,
) -> bool {
    let (sender, receiver) = oneshot::channel();
    let sender = Mutex::new(Some(sender));
    let (context, loaded) = (Arc::clone(context), loaded.clone());
    running.spawn(async move {
        let started = || {
            let sender = sender.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(sender) = sender {
                // Nobody waits any more once the pod is being stopped.
                let _ = sender.send(());
            }
        };
        let end = context.keep(&loaded, policy, stop, started).await;
        (loaded.container.name, end)
    });
    receiver.await.is_ok()
}

/// Init containers with `restartPolicy: Always`; Kubernetes stops them after all others.
#[derive(Default)]
struct Sidecars {
    running: Running,
    stop: watch::Sender<Stop>,
}

impl Sidecars {
    /// Starts one and waits until it runs.
    async fn start(&mut self, context: &Arc<Context>, loaded: &Loaded) -> Result<(), Error> {
        let policy = RestartPolicy::Always;
        let stop = self.stop.subscribe();
        if !start(&mut self.running, context, loaded, policy, stop).await {
            while let Some(ended) = self.running.join_next().await {
                ended?.1?;
            }
        }
        Ok(())
    }

    /// Stops them all; a further word to the pod is passed on.
    async fn end(mut self, pod: &watch::Sender<Stop>) -> Result<(), Error> {
        let mut pod = pod.subscribe();
        self.stop
            .send_replace((*pod.borrow_and_update()).max(Stop::Gently));
        loop {
            tokio::select! {
                ended = self.running.join_next() => match ended {
                    Some(ended) => { ended?.1?; }
                    None => return Ok(()),
                },
                Ok(()) = pod.changed() => { self.stop.send_replace(*pod.borrow()); }
            }
        }
    }
}
