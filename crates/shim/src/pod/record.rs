//! Keeps the record on disk in step with the pod.
use husk_scope::record::{Container as Recorded, Exit, Process, Status};

use super::Pod;
use super::state::{self, ProcessId, SandboxLife, State, View};

impl Pod {
    /// Writes down where every container is in its life. Containers enter the record when they are
    /// planned; they leave it here, once the state has forgotten them.
    pub(super) fn save(&self, state: &State) {
        let life = state.sandbox().life;
        self.record(|record| {
            record
                .containers
                .retain(|container| state.containers().any(|id| id == container.id));
            for container in &mut record.containers {
                self.update(container, &state.processes(&container.id));
            }
            record.sandbox_api = life != SandboxLife::Absent;
        });
    }

    fn update(&self, container: &mut Recorded, processes: &[(ProcessId, View)]) {
        container.execs.clear();
        for (id, view) in processes {
            let process = self.recorded(id);
            match &id.exec {
                Some(exec) => {
                    // One that has ended is no process that could be left behind.
                    let process = process.filter(|_| view.exit.is_none());
                    container.execs.insert(exec.clone(), process);
                }
                None => {
                    container.init = process;
                    container.status = status(view.status);
                    container.exit = view.exit.map(|exit| Exit {
                        code: exit.code,
                        at_ms: exit.at_ms,
                    });
                }
            }
        }
        if let Some(found) = self.container(&container.id)
            && let Ok(cgroup) = found.cgroup()
        {
            container.cgroups = cgroup.paths();
        }
    }

    fn recorded(&self, id: &ProcessId) -> Option<Process> {
        let process = self.process(id)?;
        let made = process.made.get()?;
        Some(Process {
            pid: made.pidfd.pid,
            start_time: made.start_time,
        })
    }
}

fn status(status: state::Status) -> Status {
    match status {
        state::Status::Creating => Status::Creating,
        state::Status::Created => Status::Created,
        state::Status::Running | state::Status::Pausing => Status::Running,
        state::Status::Paused => Status::Paused,
        state::Status::Stopped => Status::Stopped,
    }
}
