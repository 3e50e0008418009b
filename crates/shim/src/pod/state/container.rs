//! Containers and their processes.
use std::collections::BTreeMap;

use super::{
    Action, Effect, Effects, Exit, Made, ProcessId, Published, Reply, State, Status, Token, View,
};
use crate::failure::Failure;

/// containerd's exit status for "nobody knows": that of an exec that could not be made.
const UNKNOWN_EXIT: u32 = 255;

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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Freezer {
    #[default]
    Thawed,
    Freezing(Token),
    Frozen,
    Thawing(Token),
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

    pub(super) fn create(
        &mut self,
        token: Token,
        id: String,
        out: &mut Effects,
    ) -> Result<(), Failure> {
        self.sandbox.admits_containers()?;
        if self.containers.contains_key(&id) {
            return Err(Failure::already_exists(format!(
                "container {id} exists already in this pod"
            )));
        }
        out.push(Effect::Make(ProcessId::init(&id)));
        self.containers.insert(id, Container::new(token));
        Ok(())
    }

    pub(super) fn add_exec(
        &mut self,
        token: Token,
        id: &str,
        exec: &str,
        out: &mut Effects,
    ) -> Result<(), Failure> {
        let process = ProcessId::exec(id, exec);
        let container = self.container(id)?;
        if container.execs.contains_key(exec) {
            return Err(Failure::already_exists(format!("{process} exists already")));
        }
        container.admits_exec(&process)?;
        let added = Process::new(Life::Added, None);
        container.execs.insert(exec.to_owned(), added);
        out.push(Effect::Save);
        out.push(Effect::Publish(Published::ExecAdded(process)));
        out.push(Effect::Reply(token, Ok(Reply::Done)));
        Ok(())
    }

    pub(super) fn start(
        &mut self,
        token: Token,
        id: &ProcessId,
        out: &mut Effects,
    ) -> Result<(), Failure> {
        if id.exec.is_some() {
            self.start_exec(token, id, out)
        } else {
            self.start_init(token, id, out)
        }
    }

    fn start_init(
        &mut self,
        token: Token,
        id: &ProcessId,
        out: &mut Effects,
    ) -> Result<(), Failure> {
        let container = self.container(&id.container)?;
        match container.init.life {
            Life::Created if container.ending.is_none() && container.init.deleters.is_empty() => {}
            _ => {
                let status = container.init.view(container.freezer).status;
                return Err(Failure::precondition(format!(
                    "{id} cannot be started: it is {status}, not created"
                )));
            }
        }
        container.init.life = Life::Starting;
        container.init.asker = Some(token);
        out.push(Effect::Start(id.container.clone()));
        Ok(())
    }

    fn start_exec(
        &mut self,
        token: Token,
        id: &ProcessId,
        out: &mut Effects,
    ) -> Result<(), Failure> {
        let life = self.process(id)?.life;
        self.container(&id.container)?.admits_exec(id)?;
        if life != Life::Added {
            return Err(Failure::precondition(format!("{id} was started already")));
        }
        let process = self.process(id)?;
        process.life = Life::Making;
        process.asker = Some(token);
        out.push(Effect::Save);
        out.push(Effect::Make(id.clone()));
        Ok(())
    }

    pub(super) fn made(
        &mut self,
        id: &ProcessId,
        result: Result<Made, Failure>,
        out: &mut Effects,
    ) {
        let Ok(process) = self.process(id) else {
            return;
        };
        if process.life != Life::Making {
            return;
        }
        match (result, id.exec.is_some()) {
            (Ok(made), false) => self.init_made(id, made, out),
            (Ok(made), true) => self.exec_made(id, made, out),
            (Err(failure), false) => self.init_not_made(id, failure, out),
            (Err(failure), true) => self.exec_not_made(id, failure, out),
        }
    }

    fn init_made(&mut self, id: &ProcessId, made: Made, out: &mut Effects) {
        let doomed = self.sandbox.is_stopping();
        let Ok(container) = self.container(&id.container) else {
            return;
        };
        container.shares_pids = made.shares_pids;
        let init = &mut container.init;
        init.life = Life::Created;
        init.pid = made.pid;
        out.push(Effect::Save);
        out.push(Effect::Publish(Published::Created {
            container: id.container.clone(),
            pid: made.pid,
        }));
        if let Some(token) = init.asker.take() {
            out.push(Effect::Reply(token, Ok(Reply::Pid(made.pid))));
        }
        let early = init.early.take();
        if doomed {
            out.push(Effect::KillRest(id.container.clone()));
        }
        if let Some(exit) = early {
            self.exited(id, exit, out);
        }
    }

    fn exec_made(&mut self, id: &ProcessId, made: Made, out: &mut Effects) {
        let doomed = self.sandbox.is_stopping();
        let Ok(container) = self.container(&id.container) else {
            return;
        };
        let kill = doomed || (container.ending.is_some() && container.shares_pids);
        let Some(process) = container.process(id) else {
            return;
        };
        process.life = Life::Running;
        process.pid = made.pid;
        out.push(Effect::Save);
        out.push(Effect::Publish(Published::ExecStarted {
            process: id.clone(),
            pid: made.pid,
        }));
        if let Some(token) = process.asker.take() {
            out.push(Effect::Reply(token, Ok(Reply::Pid(made.pid))));
        }
        let early = process.early.take();
        if kill {
            out.push(Effect::KillRest(id.container.clone()));
        }
        if let Some(exit) = early {
            self.exited(id, exit, out);
        }
    }

    fn init_not_made(&mut self, id: &ProcessId, failure: Failure, out: &mut Effects) {
        let Some(mut container) = self.containers.remove(&id.container) else {
            return;
        };
        out.push(Effect::Save);
        if let Some(token) = container.init.asker.take() {
            out.push(Effect::Reply(token, Err(failure)));
        }
        container.init.dismiss(id, out);
    }

    /// Nothing was started, so nothing is told; Delete still answers.
    fn exec_not_made(&mut self, id: &ProcessId, failure: Failure, out: &mut Effects) {
        let Ok(container) = self.container(&id.container) else {
            return;
        };
        if let Some(process) = container.process(id) {
            if let Some(token) = process.asker.take() {
                out.push(Effect::Reply(token, Err(failure)));
            }
            let exit = process.early.take().unwrap_or(Exit {
                code: UNKNOWN_EXIT,
                at_ms: 0,
            });
            process.stop(exit, out);
        }
        out.push(Effect::Save);
        container.conclude(&id.container, out);
    }

    pub(super) fn started(&mut self, id: &str, result: Result<(), Failure>, out: &mut Effects) {
        let Ok(container) = self.container(id) else {
            return;
        };
        let init = &mut container.init;
        if init.life != Life::Starting {
            return;
        }
        let token = init.asker.take();
        let process = ProcessId::init(id);
        let reply = match result {
            Ok(()) => {
                init.life = Life::Running;
                out.push(Effect::Save);
                out.push(Effect::Publish(Published::Started {
                    container: id.to_owned(),
                    pid: init.pid,
                }));
                Ok(Reply::Pid(init.pid))
            }
            Err(failure) => {
                init.life = Life::Failed;
                out.push(kill_init(&process));
                Err(failure)
            }
        };
        out.extend(token.map(|token| Effect::Reply(token, reply)));
        if let Some(exit) = init.early.take() {
            self.exited(&process, exit, out);
        }
    }

    pub(super) fn exited(&mut self, id: &ProcessId, exit: Exit, out: &mut Effects) {
        let Ok(process) = self.process(id) else {
            return;
        };
        match process.life {
            Life::Making | Life::Starting => process.early = Some(exit),
            Life::Added | Life::Stopped(_) => {}
            Life::Created | Life::Failed | Life::Running if id.exec.is_none() => {
                self.init_exited(&id.container, exit, out);
            }
            Life::Created | Life::Failed | Life::Running => self.exec_exited(id, exit, out),
        }
    }

    /// The kernel ends every process of a pid namespace with its init; where the namespace is not
    /// the container's own, its own cgroup says who is left (contract 32).
    fn init_exited(&mut self, id: &str, exit: Exit, out: &mut Effects) {
        let Ok(container) = self.container(id) else {
            return;
        };
        if container.ending.is_some() {
            return;
        }
        container.ending = Some(exit);
        if container.shares_pids {
            out.push(Effect::KillRest(id.to_owned()));
        }
        container.conclude(id, out);
    }

    fn exec_exited(&mut self, id: &ProcessId, exit: Exit, out: &mut Effects) {
        let Ok(container) = self.container(&id.container) else {
            return;
        };
        if let Some(process) = container.process(id) {
            process.life = Life::Stopped(exit);
            out.push(Effect::Save);
            out.push(Effect::Publish(Published::Exited {
                process: id.clone(),
                pid: process.pid,
                exit,
            }));
            process.stop(exit, out);
        }
        container.conclude(&id.container, out);
    }

    pub(super) fn delete(
        &mut self,
        token: Token,
        id: &ProcessId,
        out: &mut Effects,
    ) -> Result<(), Failure> {
        let process = self.process(id)?;
        match process.life {
            Life::Making | Life::Starting | Life::Running => Err(Failure::precondition(format!(
                "{id} cannot be deleted while it runs: kill it first"
            ))),
            // What never ran has ended well.
            Life::Added => {
                process.stop(Exit { code: 0, at_ms: 0 }, out);
                process.deleters.push(token);
                process.clean(id.clone(), out);
                Ok(())
            }
            Life::Created | Life::Failed => {
                process.deleters.push(token);
                out.push(kill_init(id));
                Ok(())
            }
            // A retry while an unmount is slow waits for the same end (contract 26).
            Life::Stopped(_) => {
                process.deleters.push(token);
                process.clean(id.clone(), out);
                Ok(())
            }
        }
    }

    pub(super) fn cleaned(
        &mut self,
        id: &ProcessId,
        result: Result<(), Failure>,
        out: &mut Effects,
    ) {
        let Ok(process) = self.process(id) else {
            return;
        };
        if !process.cleaning {
            return;
        }
        process.cleaning = false;
        match result {
            Err(failure) => {
                for token in std::mem::take(&mut process.deleters) {
                    out.push(Effect::Reply(token, Err(failure.clone())));
                }
                self.sandbox_not_removed(&failure, out);
            }
            Ok(()) if id.exec.is_some() => self.forget_exec(id, out),
            Ok(()) => self.forget_container(&id.container, out),
        }
    }

    fn forget_exec(&mut self, id: &ProcessId, out: &mut Effects) {
        let (Ok(container), Some(exec)) = (self.container(&id.container), &id.exec) else {
            return;
        };
        if let Some(process) = container.execs.remove(exec) {
            out.push(Effect::Save);
            process.dismiss(id, out);
        }
    }

    /// TaskDelete is for init alone (contract 33).
    fn forget_container(&mut self, id: &str, out: &mut Effects) {
        let Some(container) = self.containers.remove(id) else {
            return;
        };
        out.push(Effect::Save);
        if let Some(exit) = container.init.exit() {
            out.push(Effect::Publish(Published::Deleted {
                container: id.to_owned(),
                pid: container.init.pid,
                exit,
            }));
        }
        for (exec, process) in container.execs {
            process.dismiss(&ProcessId::exec(id, &exec), out);
        }
        container.init.dismiss(&ProcessId::init(id), out);
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

    pub(super) fn pause(
        &mut self,
        token: Token,
        id: &str,
        out: &mut Effects,
    ) -> Result<(), Failure> {
        let container = self.container(id)?;
        if !container.running() || container.freezer != Freezer::Thawed {
            let status = container.init.view(container.freezer).status;
            return Err(Failure::precondition(format!(
                "container {id} cannot be paused: it is {status}, not running"
            )));
        }
        container.freezer = Freezer::Freezing(token);
        out.push(Effect::Freeze(id.to_owned()));
        Ok(())
    }

    pub(super) fn resume(
        &mut self,
        token: Token,
        id: &str,
        out: &mut Effects,
    ) -> Result<(), Failure> {
        let container = self.container(id)?;
        if !container.running() || container.freezer != Freezer::Frozen {
            let status = container.init.view(container.freezer).status;
            return Err(Failure::precondition(format!(
                "container {id} cannot be resumed: it is {status}, not paused"
            )));
        }
        container.freezer = Freezer::Thawing(token);
        out.push(Effect::Thaw(id.to_owned()));
        Ok(())
    }

    pub(super) fn frozen(&mut self, id: &str, result: Result<(), Failure>, out: &mut Effects) {
        let Ok(container) = self.container(id) else {
            return;
        };
        if let Freezer::Freezing(token) = container.freezer {
            let ends = (Freezer::Thawed, Freezer::Frozen);
            container.settle(token, ends, Published::Paused(id.to_owned()), result, out);
        }
    }

    pub(super) fn thawed(&mut self, id: &str, result: Result<(), Failure>, out: &mut Effects) {
        let Ok(container) = self.container(id) else {
            return;
        };
        if let Freezer::Thawing(token) = container.freezer {
            let ends = (Freezer::Frozen, Freezer::Thawed);
            container.settle(token, ends, Published::Resumed(id.to_owned()), result, out);
        }
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
    /// Ends what `token` asked of the freezer: at the second of `ends`, or back at the first.
    fn settle(
        &mut self,
        token: Token,
        ends: (Freezer, Freezer),
        event: Published,
        result: Result<(), Failure>,
        out: &mut Effects,
    ) {
        self.freezer = if result.is_ok() { ends.1 } else { ends.0 };
        if result.is_ok() {
            out.push(Effect::Save);
            out.push(Effect::Publish(event));
        }
        out.push(Effect::Reply(token, result.map(|()| Reply::Done)));
    }

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
