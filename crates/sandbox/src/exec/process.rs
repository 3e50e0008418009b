//! The steps from a fork of the builder into the container, in their order.
use std::os::unix::net::UnixDatagram;

use nix::sched::{CloneFlags, setns};

use crate::birth::Birthplace;
use crate::cgroup::Cgroup;
use crate::console;
use crate::error::{Doing, JobError};
use crate::job::Stdio;
use crate::process::Pidfd;
use crate::program::{Program, become_root, limits, stdio};

/// A maker on its way into a container.
pub(super) struct Inside {
    pub(super) stdio: Stdio,
    pub(super) program: Program,
    pub(super) init: Pidfd,
    pub(super) namespaces: CloneFlags,
    /// Init's.
    pub(super) cgroup: Cgroup,
    pub(super) birthplace: Birthplace,
    pub(super) console: UnixDatagram,
}

impl Inside {
    /// Joins cgroups and namespaces and sets up the standard streams. All descriptors that this
    /// took are closed when it returns.
    pub(super) fn enter(self) -> Result<Program, JobError> {
        self.birthplace.move_into(&self.cgroup)?;
        let affinity = self.program.process.exec_cpu_affinity().as_ref();
        limits::set_affinity(affinity.and_then(|it| it.cpu_affinity_final().as_deref()))?;

        self.join_namespaces()?;
        self.set_up_stdio()
    }

    /// Joins all namespaces at once, so that the kernel sees to their order. The mount namespace
    /// brings its root directory along; the pid namespace is for what this process will fork.
    fn join_namespaces(&self) -> Result<(), JobError> {
        if !self.namespaces.contains(CloneFlags::CLONE_NEWNS) {
            return Err(JobError::invalid(format!(
                "process {} shares its mount namespace with the node: it is no container's init",
                self.init.pid
            )));
        }
        setns(&self.init.fd, self.namespaces)
            .doing(|| format!("join the namespaces of process {}", self.init.pid))?;
        if self.namespaces.contains(CloneFlags::CLONE_NEWUSER) {
            become_root()?;
        }
        Ok(())
    }

    fn set_up_stdio(self) -> Result<Program, JobError> {
        let process = &self.program.process;
        let user = process.user().uid();
        if process.terminal().unwrap_or(false) {
            stdio::take_terminal(process, user, &self.console)?;
        } else {
            console::own_stdio(&self.stdio, Some(user))?;
            stdio::take(self.stdio)?;
        }
        Ok(self.program)
    }
}
