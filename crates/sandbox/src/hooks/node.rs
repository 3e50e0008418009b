//! The hooks that run on the node while a container is made.
//!
//! The builder joins the container's namespaces before it clones init: a child that it has forked
//! before that stays on the node, and runs them once there is an init to tell them of.
use std::io::{self, PipeReader, PipeWriter, Read, Write};

use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, fork};

use super::Hooks;
use crate::error::{Doing, JobError};
use crate::process::Pidfd;
use crate::sys;

/// The process that stays on the node. It ends when its work is done, or its builder.
pub(crate) struct OnNode {
    process: Pidfd,
    /// Where the pid of init goes.
    go: PipeWriter,
    outcome: PipeReader,
}

impl OnNode {
    /// Forks it. The process must have one thread.
    pub(crate) fn fork(hooks: &[Hooks]) -> Result<Self, JobError> {
        let what = || "fork the process that runs hooks on the node";
        let (mut its_go, go) = io::pipe().doing(what)?;
        let (outcome, mut its_outcome) = io::pipe().doing(what)?;
        let builder = std::process::id();
        // SAFETY: a builder has one thread, so the child's memory is in no half-changed state.
        match unsafe { fork() }.doing(what)? {
            ForkResult::Parent { child } => Ok(Self {
                process: Pidfd::open(child.as_raw()).doing(what)?,
                go,
                outcome,
            }),
            ForkResult::Child => {
                drop((go, outcome));
                let mut pid = [0; size_of::<i32>()];
                let alive = sys::die_with_parent(builder, Signal::SIGKILL);
                // An end of file: the builder has failed, or died.
                if alive.is_err() || its_go.read_exact(&mut pid).is_err() {
                    sys::exit_now(0);
                }
                let pid = i32::from_ne_bytes(pid);
                let ran = hooks
                    .iter()
                    .try_for_each(|hooks| hooks.clone().with_pid(pid).run());
                let json = serde_json::to_vec(&ran).unwrap_or_default();
                let written = its_outcome.write_all(&json);
                sys::exit_now(i32::from(written.is_err()))
            }
        }
    }

    /// Has the hooks run, for this init, and waits for their end.
    ///
    /// # Errors
    /// The first that failed.
    pub(crate) fn run(&mut self, pid: i32) -> Result<(), JobError> {
        self.go
            .write_all(&pid.to_ne_bytes())
            .doing(|| "have the hooks run on the node")?;
        let mut json = Vec::new();
        self.outcome
            .read_to_end(&mut json)
            .doing(|| "hear how the hooks on the node ended")?;
        let ended = self
            .process
            .wait()
            .doing(|| "wait for the process that runs hooks on the node")?;
        serde_json::from_slice(&json).unwrap_or_else(|_| {
            Err(JobError::failed(format!(
                "the process that runs hooks on the node {ended} and did not say why"
            )))
        })
    }
}
