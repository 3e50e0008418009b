//! Carries out what the state machine wants: one function per effect.
use std::sync::Arc;
use std::time::Duration;

use husk_plugin_host::subject::Question;
use husk_sandbox::cgroup::Cgroup;
use husk_sandbox::daemon::give_back_memory;
use log::{info, warn};
use nix::errno::Errno;

use super::container::Container;
use super::state::{Action, Effect, Event, ProcessId, Reply, Token, finished};
use super::{Life, Pod, create, exec, sandbox};
use crate::background::blocking;
use crate::clock::now_ms;
use crate::failure::Failure;
use crate::sync::lock;

impl Pod {
    /// Begins all effects, in order.
    pub(super) fn carry_out(self: &Arc<Self>, effects: Vec<Effect>, life: &mut Life) {
        for effect in effects {
            match effect {
                Effect::Reply(token, result) => life.answer(token, result),
                Effect::Publish(event) => {
                    self.tell_plugins_of(&event);
                    self.publish(event);
                }
                Effect::Save => self.save(&life.state),
                Effect::Make(process) => self.make(process),
                Effect::Start(container) => self.start(container),
                Effect::Signal {
                    token,
                    process,
                    signal,
                    all,
                } => self.signal(life, token, process, signal, all),
                Effect::KillRest(container) => self.kill_rest(container),
                Effect::Freeze(container) => self.freeze(container),
                Effect::Thaw(container) => self.thaw(container),
                Effect::Clean(process) => self.clean(process),
                Effect::Perform(token, process, action) => {
                    self.perform(life, token, process, action);
                }
                Effect::MakeSandbox => self.make_sandbox(),
                Effect::UndoSandbox => self.undo_sandbox(),
                Effect::Exit(callers) => self.exit(life, callers),
            }
        }
    }

    fn make(self: &Arc<Self>, process: ProcessId) {
        let pod = Arc::clone(self);
        tokio::spawn(async move {
            let result = match &process.exec {
                None => create::make(&pod, &process.container).await,
                Some(exec) => exec::make(&pod, &process.container, exec).await,
            };
            pod.tell(Event::Made(process, result));
        });
    }

    fn start(self: &Arc<Self>, container: String) {
        let pod = Arc::clone(self);
        tokio::spawn(async move {
            let result = create::start(&pod, &container).await;
            pod.tell(Event::Started(container, result));
        });
    }

    fn signal(
        self: &Arc<Self>,
        life: &mut Life,
        token: Option<Token>,
        process: ProcessId,
        signal: i32,
        all: bool,
    ) {
        let answer = token.and_then(|token| life.waiting.remove(&token));
        let pod = Arc::clone(self);
        // In its place among the effects, unless it is for a whole cgroup, which may take a while.
        if !all {
            let sent = pod.signal_one(&process, signal);
            answer.map(|answer| answer.send(sent.map(|()| Reply::Done)));
            return;
        }
        tokio::spawn(async move {
            let sent = pod.signal_all(&process, signal).await;
            answer.map(|answer| answer.send(sent.map(|()| Reply::Done)));
        });
    }

    fn signal_one(&self, id: &ProcessId, signal: i32) -> Result<(), Failure> {
        let process = self.process(id);
        let made = process.as_ref().and_then(|process| process.pidfd());
        let pidfd = made.ok_or_else(|| Failure::precondition(format!("{id} is not made yet")))?;
        pidfd.signal(signal).map_err(|error| {
            let message = format!("cannot send signal {signal} to {id}: {error}");
            match error.raw_os_error() {
                Some(ESRCH) => finished(id),
                Some(EINVAL) => Failure::invalid(message),
                _ => Failure::internal(message),
            }
        })
    }

    async fn signal_all(&self, id: &ProcessId, signal: i32) -> Result<(), Failure> {
        let container = self.existing(&id.container)?;
        let cgroup = container.cgroup()?;
        if signal == SIGKILL {
            return blocking(move || cgroup.kill()).await;
        }
        let pids = cgroup.pids().map_err(Failure::from)?;
        for pid in pids {
            // One that has ended since is no failure.
            if let Ok(pidfd) = husk_sandbox::process::Pidfd::open(pid) {
                let _ = pidfd.signal(signal);
            }
        }
        Ok(())
    }

    /// The container's own cgroup holds its processes and no one else's, whatever pid namespace
    /// they are in: killing by it cannot reach a neighbour (contract 32).
    fn kill_rest(self: &Arc<Self>, id: String) {
        let container = self.container(&id);
        tokio::spawn(async move {
            if let Err(error) = on_cgroup(container.clone(), Cgroup::kill).await {
                warn!("cannot kill what is left of container {id}, only its init: {error}");
                if let Some(init) = container.as_ref().and_then(|found| found.init.pidfd()) {
                    // ESRCH: it has ended by itself.
                    let _ = init.signal(SIGKILL);
                }
            }
        });
    }

    fn freeze(self: &Arc<Self>, id: String) {
        let pod = Arc::clone(self);
        tokio::spawn(async move {
            let result = on_cgroup(pod.container(&id), Cgroup::freeze).await;
            pod.tell(Event::Frozen(id, result));
        });
    }

    fn thaw(self: &Arc<Self>, id: String) {
        let pod = Arc::clone(self);
        tokio::spawn(async move {
            let result = on_cgroup(pod.container(&id), Cgroup::thaw).await;
            pod.tell(Event::Thawed(id, result));
        });
    }

    fn clean(self: &Arc<Self>, process: ProcessId) {
        let pod = Arc::clone(self);
        tokio::spawn(async move {
            let result = super::clean::process(&pod, &process).await;
            pod.tell(Event::Cleaned(process, result));
        });
    }

    fn perform(
        self: &Arc<Self>,
        life: &mut Life,
        token: Token,
        process: ProcessId,
        action: Action,
    ) {
        let answer = life.waiting.remove(&token);
        let pod = Arc::clone(self);
        tokio::spawn(async move {
            let result = super::perform::action(&pod, &process, action).await;
            answer.map(|answer| answer.send(result));
        });
    }

    fn make_sandbox(self: &Arc<Self>) {
        let pod = Arc::clone(self);
        tokio::spawn(async move {
            let result = sandbox::make(&pod).await;
            pod.tell(Event::SandboxMade(result));
        });
    }

    fn undo_sandbox(self: &Arc<Self>) {
        let pod = Arc::clone(self);
        tokio::spawn(async move {
            let result = sandbox::undo(&pod).await;
            pod.tell_plugins_of_sandbox(Question::SandboxStopped).await;
            if result.is_ok() {
                // Nothing is made in a stopped sandbox, which may be kept for hours; but hooks run when
                // its containers are deleted.
                if !pod.has_poststop_hooks() {
                    pod.jobs.close().await;
                }
                give_back_memory();
            }
            pod.tell(Event::SandboxUndone(result, now_ms()));
        });
    }

    fn exit(self: &Arc<Self>, life: &mut Life, callers: Vec<Token>) {
        info!("pod {} is gone: the shim ends", self.id);
        let answers: Vec<_> = callers
            .iter()
            .filter_map(|token| life.waiting.remove(token))
            .collect();
        let pod = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = sandbox::undo(&pod).await {
                warn!("pod {} leaves something behind: {error}", pod.id);
            }
            if !lock(&pod.record).sandbox_api {
                pod.tell_plugins_of_sandbox(Question::SandboxStopped).await;
            }
            pod.plugins_are_told().await;
            pod.jobs.close().await;
            pod.publisher.flush(LAST_EVENTS).await;
            // So that whoever has asked can tell whether the shim ends.
            pod.record(|record| record.ending = true);
            for answer in answers {
                let _ = answer.send(Ok(Reply::Done));
            }
            pod.shutdown.request();
        });
    }
}

impl Pod {
    fn has_poststop_hooks(&self) -> bool {
        let containers = lock(&self.containers);
        let mut known = containers
            .values()
            .filter_map(|container| container.known.get());
        known.any(|known| known.poststop.is_some())
    }
}

impl Life {
    fn answer(&mut self, token: Token, result: Result<Reply, Failure>) {
        // A caller may have stopped waiting.
        if let Some(answer) = self.waiting.remove(&token) {
            let _ = answer.send(result);
        }
    }
}

const SIGKILL: i32 = 9;

/// How long the last events may take before Shutdown is answered.
const LAST_EVENTS: Duration = Duration::from_secs(1);

/// The errors of pidfd_send_signal(2) that have a code of their own.
const ESRCH: i32 = Errno::ESRCH as i32;
const EINVAL: i32 = Errno::EINVAL as i32;

async fn on_cgroup(
    container: Option<Arc<Container>>,
    act: fn(&Cgroup) -> husk_sandbox::cgroup::Result<()>,
) -> Result<(), Failure> {
    let container = container.ok_or_else(|| Failure::not_found("the container was deleted"))?;
    let cgroup = container.cgroup()?;
    blocking(move || act(&cgroup)).await
}
