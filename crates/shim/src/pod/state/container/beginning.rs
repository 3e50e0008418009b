//! How containers and execs are made and started.
use super::super::{Effect, Effects, Exit, Made, ProcessId, Published, Reply, State, Token};
use super::{Container, Life, Process, kill_init};
use crate::failure::Failure;

/// containerd's exit status for "nobody knows": that of an exec that could not be made.
const UNKNOWN_EXIT: u32 = 255;

impl State {
    pub(in crate::pod::state) fn create(
        &mut self,
        token: Token,
        id: String,
        out: &mut Effects,
    ) -> Result<(), Failure> {
        self.admits()?;
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

    pub(in crate::pod::state) fn add_exec(
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

    pub(in crate::pod::state) fn start(
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

    pub(in crate::pod::state) fn made(
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
        let stopping = self.sandbox.is_stopping();
        let Ok(container) = self.container(&id.container) else {
            return;
        };
        container.shares_pids = made.shares_pids;
        let init = &mut container.init;
        let doomed = stopping || !init.deleters.is_empty();
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

    pub(in crate::pod::state) fn started(
        &mut self,
        id: &str,
        result: Result<(), Failure>,
        out: &mut Effects,
    ) {
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
}
