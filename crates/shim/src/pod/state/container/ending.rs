//! How processes end, and how they are deleted.
use super::super::{Effect, Effects, Exit, NOBODY, ProcessId, Published, State, Token};
use super::{Life, kill_init};
use crate::failure::Failure;

impl State {
    pub(in crate::pod::state) fn exited(&mut self, id: &ProcessId, exit: Exit, out: &mut Effects) {
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

    pub(in crate::pod::state) fn delete(
        &mut self,
        token: Token,
        id: &ProcessId,
        out: &mut Effects,
    ) -> Result<(), Failure> {
        let process = self.process(id)?;
        match process.life {
            // containerd gives a create up by asking for this. Whoever asks waits for its end.
            Life::Making if id.exec.is_none() => {
                process.deleters.push(token);
                Ok(())
            }
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

    /// Deletes every container that was not started, one that is being made once it is made. Says
    /// whether there were no others.
    pub(in crate::pod::state) fn give_up_containers(&mut self, out: &mut Effects) -> bool {
        if self.containers.values().any(|found| found.has_started()) {
            return false;
        }
        let ids: Vec<_> = self.containers.keys().cloned().collect();
        for id in ids {
            // None of them runs, so none is refused.
            let _ = self.delete(NOBODY, &ProcessId::init(&id), out);
        }
        true
    }

    pub(in crate::pod::state) fn cleaned(
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
}
