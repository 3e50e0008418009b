//! The life of a pod, as a pure state machine.
//!
//! [`State::step`] takes one [`Event`] and answers with the [`Effect`]s to carry out, in order. It
//! does no I/O, reads no clock and never waits; whoever carries out the effects tells the outcome
//! as a further event. So the order rules of the contract (24, 28, 31 to 35) are decided in one
//! place, and tested with random interleavings, no root and no kernel.
//!
//! A request's [`Token`] is answered exactly once, by an [`Effect::Reply`] or by the runner of the
//! one other effect that carries it.
mod container;
mod sandbox;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use container::Container;
pub(crate) use container::finished;
use sandbox::Sandbox;
pub(crate) use sandbox::SandboxLife;

use husk_sandbox::cgroup::Stats;

use crate::failure::Failure;

/// Stands for a caller that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Token(pub(crate) u64);

/// Stands for no caller: the pod itself wants it, and the answer goes nowhere.
pub(crate) const NOBODY: Token = Token(0);

/// A container's init, or an exec.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ProcessId {
    /// The container's id.
    pub(crate) container: String,
    /// The exec's id; `None` is init.
    pub(crate) exec: Option<String>,
}

impl ProcessId {
    pub(crate) fn init(container: &str) -> Self {
        Self {
            container: container.to_owned(),
            exec: None,
        }
    }

    pub(crate) fn exec(container: &str, exec: &str) -> Self {
        Self {
            container: container.to_owned(),
            exec: Some(exec.to_owned()),
        }
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.exec {
            None => write!(f, "container {}", self.container),
            Some(exec) => write!(f, "exec {exec} of container {}", self.container),
        }
    }
}

/// How and when a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// 128 + signal when a signal ended it (contract 36).
    pub(crate) code: u32,
    /// Milliseconds since 1970.
    pub(crate) at_ms: u64,
}

/// What happened: a request, or the outcome of an effect.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Someone asks for something.
    Request(Token, Request),
    /// Nobody who knows this shim is left, nor can find it any more.
    Forsaken,
    /// Who waited for an end no longer does; other requests are answered all the same.
    Left(Token),
    /// The outcome of [`Effect::Make`].
    Made(ProcessId, Result<Made, Failure>),
    /// The outcome of [`Effect::Start`].
    Started(String, Result<(), Failure>),
    /// A process ended; may come before the outcome of what made it.
    Exited(ProcessId, Exit),
    /// The outcome of [`Effect::Freeze`].
    Frozen(String, Result<(), Failure>),
    /// The outcome of [`Effect::Thaw`].
    Thawed(String, Result<(), Failure>),
    /// The outcome of [`Effect::Clean`].
    Cleaned(ProcessId, Result<(), Failure>),
    /// The kernel killed a process of this container for want of memory.
    OutOfMemory(String),
    /// The outcome of [`Effect::MakeSandbox`]: the holder's pid, 0 without one.
    SandboxMade(Result<u32, Failure>),
    /// The sandbox's holder ended.
    HolderExited(Exit),
    /// The outcome of [`Effect::UndoSandbox`], and when.
    SandboxUndone(Result<(), Failure>, u64),
}

/// A process that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    /// As the node sees it.
    pub(crate) pid: u32,
    /// Its pid namespace is not its own: the kernel will not end the others with it.
    pub(crate) shares_pids: bool,
}

/// What is asked of the pod.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// Make a container.
    Create(String),
    /// Note a further process of a container; it is made by Start.
    Exec(String, String),
    /// Let init execute, or make the exec.
    Start(ProcessId),
    /// Forget an ended process and what belonged to it.
    Delete(ProcessId),
    /// Send a signal.
    Kill {
        /// To whom.
        process: ProcessId,
        /// The signal's number.
        signal: i32,
        /// To every process of the container.
        all: bool,
    },
    /// Freeze a container.
    Pause(String),
    /// Thaw it.
    Resume(String),
    /// Tell when the process has ended.
    Wait(ProcessId),
    /// Tell where the process is in its life.
    State(ProcessId),
    /// Do something that does not change the pod's life.
    Perform(ProcessId, Action),
    /// Exit, unless the pod lives (contract 24).
    Shutdown,
    /// Make the sandbox.
    CreateSandbox,
    /// Tell that it is ready.
    StartSandbox,
    /// End every process of the pod and give back what the sandbox holds.
    StopSandbox,
    /// Tell when the sandbox has stopped.
    WaitSandbox,
    /// Tell where the sandbox is in its life.
    SandboxStatus,
    /// Stop it, forget its containers, exit.
    ShutdownSandbox,
}

/// What may be done to a process or its container without a change of its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// List the container's pids.
    Pids,
    /// Read its cgroup's numbers.
    Stats,
    /// Change its limits: OCI `LinuxResources` as JSON.
    Update(Vec<u8>),
    /// Resize its terminal.
    Resize {
        /// Columns.
        width: u16,
        /// Lines.
        height: u16,
    },
    /// Close its stdin.
    CloseIo,
}

/// What must now be done, in the order given.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// Answer a request.
    Reply(Token, Result<Reply, Failure>),
    /// Tell containerd.
    Publish(Published),
    /// Write the record: the pod is about to be, or has become, what [`State`] now says.
    Save,
    /// Make a process; undo everything on failure. Then [`Event::Made`].
    Make(ProcessId),
    /// Let the container's init execute. Then [`Event::Started`].
    Start(String),
    /// Send a signal and answer the token, if there is one.
    Signal {
        /// Who waits for the outcome.
        token: Option<Token>,
        /// To whom.
        process: ProcessId,
        /// The signal's number.
        signal: i32,
        /// To every process of the container.
        all: bool,
    },
    /// Kill whatever runs in the container's own cgroup.
    KillRest(String),
    /// Freeze the container. Then [`Event::Frozen`].
    Freeze(String),
    /// Thaw the container. Then [`Event::Thawed`].
    Thaw(String),
    /// Drain the process's output and give back what belonged to it: for init also the root
    /// filesystem, the cgroup and its directory. Then [`Event::Cleaned`].
    Clean(ProcessId),
    /// Do it and answer the token.
    Perform(Token, ProcessId, Action),
    /// Make the sandbox; undo everything on failure. Then [`Event::SandboxMade`].
    MakeSandbox,
    /// End the holder, unpin and unmount. Then [`Event::SandboxUndone`].
    UndoSandbox,
    /// Give back what the pod still holds, answer, end the shim. In this order: once answered,
    /// containerd calls `delete`, which ends what it finds of the shim.
    Exit(Vec<Token>),
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    /// It is done.
    Done,
    /// The pid of the process.
    Pid(u32),
    /// How the process ended.
    Exited {
        /// As the node saw it.
        pid: u32,
        /// How and when.
        exit: Exit,
    },
    /// Where the process is in its life.
    State(View),
    /// Where the sandbox is in its life.
    Sandbox(SandboxView),
    /// The container's pids, each with the exec that it is, if it is one.
    Pids(Vec<(i32, Option<String>)>),
    /// Its cgroup's numbers.
    Stats(Box<Stats>),
}

/// What containerd is told (contract 33). The runner adds what only it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// A container was made.
    Created {
        /// The container.
        container: String,
        /// Its init.
        pid: u32,
    },
    /// Its init runs.
    Started {
        /// The container.
        container: String,
        /// Its init.
        pid: u32,
    },
    /// A further process was noted.
    ExecAdded(ProcessId),
    /// It runs.
    ExecStarted {
        /// The exec.
        process: ProcessId,
        /// Its pid.
        pid: u32,
    },
    /// A process ended.
    Exited {
        /// Which.
        process: ProcessId,
        /// Its pid.
        pid: u32,
        /// How and when.
        exit: Exit,
    },
    /// The container was forgotten.
    Deleted {
        /// The container.
        container: String,
        /// Its init.
        pid: u32,
        /// How and when it ended.
        exit: Exit,
    },
    /// It is frozen.
    Paused(String),
    /// It is thawed.
    Resumed(String),
    /// The kernel killed one of its processes for want of memory.
    OutOfMemory(String),
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// As containerd names it.
    pub(crate) status: Status,
    /// 0 before it is made.
    pub(crate) pid: u32,
    /// Once it has ended.
    pub(crate) exit: Option<Exit>,
}

/// containerd's words for a process's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Being made; containerd has no word for it.
    Creating,
    /// Made, or noted, and not started.
    Created,
    /// Running.
    Running,
    /// Being frozen.
    Pausing,
    /// Frozen.
    Paused,
    /// Ended.
    Stopped,
}

/// Where the sandbox is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SandboxView {
    /// Its life.
    pub(crate) life: SandboxLife,
    /// The holder's pid; 0 without one.
    pub(crate) pid: u32,
}

/// A pod.
#[derive(Debug, Default)]
pub(crate) struct State {
    containers: BTreeMap<String, Container>,
    sandbox: Sandbox,
    /// Whether the shim ends as soon as the pod is empty.
    leaving: bool,
    /// Whether the shim ends, so that nothing may begin any more.
    ended: bool,
}

/// The effects of one step.
type Effects = Vec<Effect>;

impl State {
    /// Takes one event and says what must now be done.
    pub(crate) fn step(&mut self, event: Event) -> Effects {
        let mut effects = Effects::new();
        let out = &mut effects;
        match event {
            Event::Request(token, request) => self.request(token, request, out),
            Event::Forsaken => self.forsaken(out),
            Event::Left(token) => {
                self.forget_waiter(token);
                self.sandbox.forget_waiter(token);
            }
            Event::Made(process, result) => self.made(&process, result, out),
            Event::Started(container, result) => self.started(&container, result, out),
            Event::Exited(process, exit) => self.exited(&process, exit, out),
            Event::Frozen(container, result) => self.frozen(&container, result, out),
            Event::Thawed(container, result) => self.thawed(&container, result, out),
            Event::Cleaned(process, result) => self.cleaned(&process, result, out),
            Event::OutOfMemory(container) => self.out_of_memory(container, out),
            Event::SandboxMade(result) => self.sandbox_made(result, out),
            Event::HolderExited(exit) => self.holder_exited(exit, out),
            Event::SandboxUndone(result, at_ms) => self.sandbox_undone(result, at_ms, out),
        }
        self.settle_sandbox(out);
        if self.leaving && self.is_idle() {
            self.exit(vec![NOBODY], out);
        }
        effects
    }

    /// The container's processes: init first, then the execs by id.
    pub(crate) fn processes(&self, container: &str) -> Vec<(ProcessId, View)> {
        self.containers
            .get(container)
            .map(|found| found.views(container))
            .unwrap_or_default()
    }

    /// Whether nothing lives in the pod (contract 24).
    pub(crate) fn is_idle(&self) -> bool {
        self.containers.is_empty() && self.sandbox.is_absent()
    }

    /// The containers' ids.
    pub(crate) fn containers(&self) -> impl Iterator<Item = &str> {
        self.containers.keys().map(String::as_str)
    }

    fn request(&mut self, token: Token, request: Request, out: &mut Effects) {
        let refused = match request {
            Request::Create(id) => self.create(token, id, out),
            Request::Exec(id, exec) => self.add_exec(token, &id, &exec, out),
            Request::Start(process) => self.start(token, &process, out),
            Request::Delete(process) => self.delete(token, &process, out),
            Request::Kill {
                process,
                signal,
                all,
            } => self.kill(token, process, signal, all, out),
            Request::Pause(id) => self.pause(token, &id, out),
            Request::Resume(id) => self.resume(token, &id, out),
            Request::Wait(process) => self.wait(token, &process, out),
            Request::State(process) => self.view(token, &process, out),
            Request::Perform(process, action) => self.perform(token, process, action, out),
            Request::Shutdown => self.shutdown(token, out),
            Request::CreateSandbox => self.create_sandbox(token, out),
            Request::StartSandbox => self.start_sandbox(token, out),
            Request::StopSandbox => self.stop_sandbox(token, out),
            Request::WaitSandbox => self.wait_sandbox(token, out),
            Request::SandboxStatus => self.sandbox_status(token, out),
            Request::ShutdownSandbox => self.shutdown_sandbox(token, out),
        };
        if let Err(failure) = refused {
            out.push(Effect::Reply(token, Err(failure)));
        }
    }

    /// `Shutdown` comes after every task's delete; it is ignored while the pod lives (contract 24).
    fn shutdown(&mut self, token: Token, out: &mut Effects) -> Result<(), Failure> {
        if self.is_idle() {
            self.exit(vec![token], out);
        } else {
            out.push(Effect::Reply(token, Ok(Reply::Done)));
        }
        Ok(())
    }

    fn exit(&mut self, callers: Vec<Token>, out: &mut Effects) {
        self.leaving = false;
        self.ended = true;
        out.push(Effect::Exit(callers));
    }

    /// Whether anything may begin: a request that its client gave up may come after the Shutdown
    /// that the client sent next.
    fn admits(&self) -> Result<(), Failure> {
        if self.ended || self.leaving {
            return Err(Failure::precondition("the pod is gone: its shim ends"));
        }
        Ok(())
    }

    /// Ends a pod that nobody can ask for any more, unless a program of it runs: a container that
    /// was made for a client which died before it could start it, a sandbox without containers.
    fn forsaken(&mut self, out: &mut Effects) {
        if self.ended || !self.give_up_containers(out) {
            return;
        }
        self.leaving = true;
        if !self.sandbox.is_absent() {
            self.remove_with_sandbox(NOBODY, out);
        }
    }
}
