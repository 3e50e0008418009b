//! Containers and their processes.
use std::collections::BTreeMap;

use super::{
    Action, Effect, Effects, Exit, ProcessId, Published, Reply, State, Status, Token, View,
};
use crate::failure::Failure;

mod beginning;
mod ending;
mod freezer;

use freezer::Freezer;

const SIGKILL: i32 = 9;

/// A container: its init and its further processes.
#[derive(Debug)]
pub(super) struct Container {
    init: Process,
    execs: BTreeMap<String, Process>,
    freezer: Freezer,
    shares_pids: bool,
    /// Init's end, kept back until the ends of all execs are told (contract 35).
    ending: Option<Exit>,
}

/// One process.
#[derive(Debug)]
struct Process {
    life: Life,
    pid: u32,
    /// An end that was seen before what it must follow (contract 34).
    early: Option<Exit>,
    /// Who asked for the step under way.
    asker: Option<Token>,
    waiters: Vec<Token>,
    deleters: Vec<Token>,
    cleaning: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// An exec, noted.
    Added,
    /// [`Effect::Make`] is under way.
    Making,
    /// An init that waits for Start.
    Created,
    /// [`Effect::Start`] is under way.
    Starting,
    /// Start failed: the process is ending.
    Failed,
    Running,
    Stopped(Exit),
}

impl Process {
    fn new(life: Life, asker: Option<Token>) -> Self {
        Self {
            life,
            pid: 0,
            early: None,
            asker,
            waiters: Vec::new(),
            deleters: Vec::new(),
            cleaning: false,
        }
    }

    /// Whether there is, or may soon be, a process.
    fn lives(&self) -> bool {
        !matches!(self.life, Life::Added | Life::Stopped(_))
    }

    fn exit(&self) -> Option<Exit> {
        match self.life {
            Life::Stopped(exit) => Some(exit),
            _ => None,
        }
    }

    fn stop(&mut self, exit: Exit, out: &mut Effects) {
        self.life = Life::Stopped(exit);
        let pid = self.pid;
        let reply = |token| Effect::Reply(token, Ok(Reply::Exited { pid, exit }));
        out.extend(self.waiters.drain(..).map(reply));
    }

    /// Begins to clean up for those who want it deleted.
    fn clean(&mut self, id: ProcessId, out: &mut Effects) {
        if !self.cleaning {
            self.cleaning = true;
            out.push(Effect::Clean(id));
        }
    }

    /// Answers all who still wait for a process that is no more.
    fn dismiss(self, id: &ProcessId, out: &mut Effects) {
        let exit = self.exit();
        for token in self.deleters {
            let reply = Reply::Exited {
                pid: self.pid,
                exit: exit.unwrap_or(Exit { code: 0, at_ms: 0 }),
            };
            out.push(Effect::Reply(token, Ok(reply)));
        }
        for token in self.waiters.into_iter().chain(self.asker) {
            out.push(Effect::Reply(
                token,
                Err(Failure::not_found(format!("{id} was deleted"))),
            ));
        }
    }

    fn view(&self, freezer: Freezer) -> View {
        let status = match (self.life, freezer) {
            (Life::Making, _) => Status::Creating,
            (Life::Added | Life::Created | Life::Starting | Life::Failed, _) => Status::Created,
            (Life::Running, Freezer::Thawed | Freezer::Thawing(_)) => Status::Running,
            (Life::Running, Freezer::Freezing(_)) => Status::Pausing,
            (Life::Running, Freezer::Frozen) => Status::Paused,
            (Life::Stopped(_), _) => Status::Stopped,
        };
        View {
            status,
            pid: self.pid,
            exit: self.exit(),
        }
    }
}

impl Container {
    fn new(asker: Token) -> Self {
        Self {
            init: Process::new(Life::Making, Some(asker)),
            execs: BTreeMap::new(),
            freezer: Freezer::default(),
            shares_pids: false,
            ending: None,
        }
    }

    pub(super) fn lives(&self) -> bool {
        self.init.lives()
    }

    /// Whether its program was let run, and has not ended.
    pub(super) fn has_started(&self) -> bool {
        self.ending.is_some() || matches!(self.init.life, Life::Starting | Life::Running)
    }

    pub(super) fn views(&self, id: &str) -> Vec<(ProcessId, View)> {
        let init = (ProcessId::init(id), self.init.view(self.freezer));
        let execs = self.execs.iter().map(|(exec, process)| {
            let view = process.view(Freezer::Thawed);
            // A noted exec is "created" for containerd, whether or not it is being made.
            let status = match view.status {
                Status::Creating => Status::Created,
                other => other,
            };
            (ProcessId::exec(id, exec), View { status, ..view })
        });
        std::iter::once(init).chain(execs).collect()
    }

    fn process(&mut self, id: &ProcessId) -> Option<&mut Process> {
        match &id.exec {
            None => Some(&mut self.init),
            Some(exec) => self.execs.get_mut(exec),
        }
    }

    /// Whether init runs and its end has not been seen.
    fn running(&self) -> bool {
        self.init.life == Life::Running && self.ending.is_none()
    }

    /// Tells init's end once no exec is left that could end after it (contract 35).
    fn conclude(&mut self, id: &str, out: &mut Effects) {
        let Some(exit) = self.ending else { return };
        if self.execs.values().any(Process::lives) {
            return;
        }
        self.ending = None;
        let process = ProcessId::init(id);
        let pid = self.init.pid;
        if let Freezer::Freezing(token) | Freezer::Thawing(token) = self.freezer {
            let failure = Failure::precondition(format!("{process} ended meanwhile"));
            out.push(Effect::Reply(token, Err(failure)));
        }
        self.freezer = Freezer::Thawed;
        self.init.life = Life::Stopped(exit);
        out.push(Effect::Save);
        out.push(Effect::Publish(Published::Exited {
            process: process.clone(),
            pid,
            exit,
        }));
        self.init.stop(exit, out);
        if !self.init.deleters.is_empty() {
            self.init.clean(process, out);
        }
    }
}

impl State {
    fn container(&mut self, id: &str) -> Result<&mut Container, Failure> {
        self.containers
            .get_mut(id)
            .ok_or_else(|| Failure::not_found(format!("there is no container {id} in this pod")))
    }

    fn process(&mut self, id: &ProcessId) -> Result<&mut Process, Failure> {
        self.container(&id.container)?
            .process(id)
            .ok_or_else(|| Failure::not_found(format!("there is no {id}")))
    }

    pub(super) fn kill(
        &mut self,
        token: Token,
        id: ProcessId,
        signal: i32,
        all: bool,
        out: &mut Effects,
    ) -> Result<(), Failure> {
        let container = self.container(&id.container)?;
        let ended = id.exec.is_none() && container.ending.is_some();
        let frozen = container.freezer == Freezer::Frozen;
        let life = self.process(&id)?.life;
        match life {
            Life::Stopped(_) => return Err(finished(&id)),
            _ if ended => return Err(finished(&id)),
            Life::Added | Life::Making => {
                return Err(Failure::precondition(format!("{id} is not made yet")));
            }
            Life::Created | Life::Starting | Life::Failed | Life::Running => {}
        }
        let container = id.container.clone();
        out.push(Effect::Signal {
            token: Some(token),
            all: all && id.exec.is_none(),
            process: id,
            signal,
        });
        // A frozen process of cgroup v1 does not die before it is thawed.
        if frozen && signal == SIGKILL {
            self.container(&container)?.freezer = Freezer::Thawed;
            out.push(Effect::Thaw(container));
        }
        Ok(())
    }

    pub(super) fn wait(
        &mut self,
        token: Token,
        id: &ProcessId,
        out: &mut Effects,
    ) -> Result<(), Failure> {
        let process = self.process(id)?;
        match process.exit() {
            None => process.waiters.push(token),
            Some(exit) => {
                let pid = process.pid;
                out.push(Effect::Reply(token, Ok(Reply::Exited { pid, exit })));
            }
        }
        Ok(())
    }

    pub(super) fn view(
        &mut self,
        token: Token,
        id: &ProcessId,
        out: &mut Effects,
    ) -> Result<(), Failure> {
        let views = self.container(&id.container)?.views(&id.container);
        let view = views
            .into_iter()
            .find_map(|(found, view)| (found == *id).then_some(view))
            .ok_or_else(|| Failure::not_found(format!("there is no {id}")))?;
        out.push(Effect::Reply(token, Ok(Reply::State(view))));
        Ok(())
    }

    pub(super) fn perform(
        &mut self,
        token: Token,
        id: ProcessId,
        action: Action,
        out: &mut Effects,
    ) -> Result<(), Failure> {
        let life = self.process(&id)?.life;
        match (&action, life) {
            (Action::CloseIo, _) => {}
            // containerd asks all its containers for their numbers, and logs any other answer.
            (Action::Stats, Life::Making) => {
                return Err(Failure::not_found(format!("{id} is not made yet")));
            }
            (_, Life::Making) => {
                return Err(Failure::precondition(format!("{id} is not made yet")));
            }
            // The cgroup is kept until Delete, so its numbers can be read (contract 29).
            (Action::Pids | Action::Stats, _) => {}
            (Action::Resize { .. }, Life::Added) => {
                return Err(Failure::precondition(format!("{id} is not made yet")));
            }
            (Action::Update(_) | Action::Resize { .. }, Life::Stopped(_)) => {
                return Err(Failure::precondition(format!("{id} has ended")));
            }
            (Action::Update(_) | Action::Resize { .. }, _) => {}
        }
        out.push(Effect::Perform(token, id, action));
        Ok(())
    }

    pub(super) fn out_of_memory(&mut self, id: String, out: &mut Effects) {
        if self
            .container(&id)
            .is_ok_and(|found| found.init.life != Life::Making)
        {
            out.push(Effect::Publish(Published::OutOfMemory(id)));
        }
    }

    /// Forgets someone who waited for the end of a process.
    pub(super) fn forget_waiter(&mut self, token: Token) {
        for container in self.containers.values_mut() {
            let processes = container.execs.values_mut().chain([&mut container.init]);
            for process in processes {
                process.waiters.retain(|waiter| *waiter != token);
            }
        }
    }

    /// Ends every process of the pod.
    pub(super) fn kill_containers(&mut self, out: &mut Effects) {
        for (id, container) in &mut self.containers {
            let made = container.lives() && container.init.life != Life::Making;
            if made && container.ending.is_none() {
                out.push(Effect::KillRest(id.clone()));
                if container.freezer == Freezer::Frozen {
                    container.freezer = Freezer::Thawed;
                    out.push(Effect::Thaw(id.clone()));
                }
            }
        }
    }

    /// Begins to delete every container; all have ended.
    pub(super) fn clean_containers(&mut self, out: &mut Effects) {
        for (id, container) in &mut self.containers {
            container.init.clean(ProcessId::init(id), out);
        }
    }
}

impl Container {
    /// No exec starts after init's exit (contract 28), nor in a frozen container, where it would
    /// hang.
    fn admits_exec(&self, id: &ProcessId) -> Result<(), Failure> {
        if self.running() && matches!(self.freezer, Freezer::Thawed) {
            return Ok(());
        }
        let status = match self.ending {
            Some(_) => Status::Stopped,
            None => self.init.view(self.freezer).status,
        };
        Err(Failure::precondition(format!(
            "{id} cannot run: the container is {status}, not running"
        )))
    }
}

fn kill_init(process: &ProcessId) -> Effect {
    Effect::Signal {
        token: None,
        process: process.clone(),
        signal: SIGKILL,
        all: false,
    }
}

/// runc's words: containerd's clients look for them.
pub(crate) fn finished(id: &ProcessId) -> Failure {
    Failure::not_found(format!("{id}: process already finished: not found"))
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Creating => "being created",
            Self::Created => "created",
            Self::Running => "running",
            Self::Pausing => "being paused",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}
