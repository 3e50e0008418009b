//! The sandbox of the Sandbox API (contract 11 to 21).
//!
//! In podsandbox mode, and for a plain container, there is none: it stays absent.
use super::{Effect, Effects, Exit, Reply, SandboxView, State, Token};
use crate::failure::Failure;

/// The exit status of a sandbox that was stopped.
const STOPPED: u32 = 0;

#[derive(Debug, Default)]
pub(super) struct Sandbox {
    life: SandboxLife,
    pid: u32,
    creator: Option<Token>,
    stoppers: Vec<Token>,
    waiters: Vec<Token>,
    removers: Vec<Token>,
    /// How the holder ended, when that is why the sandbox stops.
    holder: Option<Exit>,
    undoing: bool,
}

/// Where the sandbox is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SandboxLife {
    /// Never made by the Sandbox API.
    #[default]
    Absent,
    /// [`Effect::MakeSandbox`] is under way.
    Making,
    /// Made, waiting for Start.
    Created,
    /// Started.
    Ready,
    /// Its processes are ending.
    Stopping,
    /// Stopped; its record remains until Shutdown.
    Stopped(Exit),
}

impl Sandbox {
    pub(super) fn is_absent(&self) -> bool {
        self.life == SandboxLife::Absent
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.life == SandboxLife::Stopping
    }

    pub(super) fn admits_containers(&self) -> Result<(), Failure> {
        let reason = match self.life {
            _ if self.is_unwanted() => "being stopped",
            SandboxLife::Absent | SandboxLife::Created | SandboxLife::Ready => return Ok(()),
            SandboxLife::Making => "still being made",
            SandboxLife::Stopping => "being stopped",
            SandboxLife::Stopped(_) => "stopped",
        };
        Err(Failure::precondition(format!(
            "no container can be created: the sandbox is {reason}"
        )))
    }

    /// Someone wants it stopped, or its holder has ended already.
    fn is_unwanted(&self) -> bool {
        !self.stoppers.is_empty() || !self.removers.is_empty() || self.holder.is_some()
    }

    fn exists(&self) -> Result<(), Failure> {
        if self.is_absent() {
            return Err(Failure::not_found(
                "this shim has no sandbox: CreateSandbox was not called, or failed",
            ));
        }
        Ok(())
    }

    pub(super) fn forget_waiter(&mut self, token: Token) {
        self.waiters.retain(|waiter| *waiter != token);
    }

    fn stopped(&mut self, exit: Exit, out: &mut Effects) {
        self.life = SandboxLife::Stopped(exit);
        out.push(Effect::Save);
        let ended = Reply::Exited {
            pid: self.pid,
            exit,
        };
        for token in self.waiters.drain(..) {
            out.push(Effect::Reply(token, Ok(ended.clone())));
        }
        for token in self.stoppers.drain(..) {
            out.push(Effect::Reply(token, Ok(Reply::Done)));
        }
    }
}

impl State {
    /// Where the sandbox is in its life.
    pub(crate) fn sandbox(&self) -> SandboxView {
        SandboxView {
            life: self.sandbox.life,
            pid: self.sandbox.pid,
        }
    }

    pub(super) fn create_sandbox(
        &mut self,
        token: Token,
        out: &mut Effects,
    ) -> Result<(), Failure> {
        self.admits()?;
        if !self.sandbox.is_absent() || !self.containers.is_empty() {
            return Err(Failure::already_exists("this shim has a sandbox already"));
        }
        self.sandbox.life = SandboxLife::Making;
        self.sandbox.creator = Some(token);
        out.push(Effect::MakeSandbox);
        Ok(())
    }

    pub(super) fn sandbox_made(&mut self, result: Result<u32, Failure>, out: &mut Effects) {
        if self.sandbox.life != SandboxLife::Making {
            return;
        }
        let reply = match result {
            Ok(pid) => {
                self.sandbox.life = SandboxLife::Created;
                self.sandbox.pid = pid;
                out.push(Effect::Save);
                Ok(Reply::Done)
            }
            Err(failure) => {
                self.sandbox.life = SandboxLife::Absent;
                Err(failure)
            }
        };
        let creator = self.sandbox.creator.take();
        out.extend(creator.map(|token| Effect::Reply(token, reply)));
        if self.sandbox.is_absent() {
            self.dismiss_sandbox(out);
        } else if self.sandbox.is_unwanted() {
            self.begin_stop(out);
        }
    }

    /// Answers all who waited for a sandbox that never was.
    fn dismiss_sandbox(&mut self, out: &mut Effects) {
        for token in self.sandbox.stoppers.drain(..) {
            out.push(Effect::Reply(token, Ok(Reply::Done)));
        }
        for token in self.sandbox.waiters.drain(..) {
            let failure = Failure::not_found("the sandbox could not be made");
            out.push(Effect::Reply(token, Err(failure)));
        }
    }

    pub(super) fn start_sandbox(&mut self, token: Token, out: &mut Effects) -> Result<(), Failure> {
        self.sandbox.exists()?;
        if self.sandbox.life != SandboxLife::Created {
            return Err(Failure::precondition(
                "the sandbox cannot be started: it was started or stopped already",
            ));
        }
        self.sandbox.life = SandboxLife::Ready;
        out.push(Effect::Save);
        out.push(Effect::Reply(token, Ok(Reply::Pid(self.sandbox.pid))));
        Ok(())
    }

    /// Idempotent (contract 19).
    pub(super) fn stop_sandbox(&mut self, token: Token, out: &mut Effects) -> Result<(), Failure> {
        match self.sandbox.life {
            SandboxLife::Absent | SandboxLife::Stopped(_) => {
                out.push(Effect::Reply(token, Ok(Reply::Done)));
            }
            SandboxLife::Making | SandboxLife::Stopping => self.sandbox.stoppers.push(token),
            SandboxLife::Created | SandboxLife::Ready => {
                self.sandbox.stoppers.push(token);
                self.begin_stop(out);
            }
        }
        Ok(())
    }

    fn begin_stop(&mut self, out: &mut Effects) {
        self.sandbox.life = SandboxLife::Stopping;
        out.push(Effect::Save);
        self.kill_containers(out);
    }

    pub(super) fn holder_exited(&mut self, exit: Exit, out: &mut Effects) {
        self.sandbox.holder = Some(exit);
        if matches!(self.sandbox.life, SandboxLife::Created | SandboxLife::Ready) {
            self.begin_stop(out);
        }
    }

    /// Takes the steps that wait for the containers' ends and deletions.
    pub(super) fn settle_sandbox(&mut self, out: &mut Effects) {
        let living = self.containers.values().any(super::Container::lives);
        match self.sandbox.life {
            SandboxLife::Stopping if !living && !self.sandbox.undoing => {
                self.sandbox.undoing = true;
                out.push(Effect::UndoSandbox);
            }
            SandboxLife::Absent | SandboxLife::Stopped(_) if !self.sandbox.removers.is_empty() => {
                if self.containers.is_empty() {
                    self.remove_sandbox(out);
                } else {
                    self.clean_containers(out);
                }
            }
            _ => {}
        }
    }

    pub(super) fn sandbox_undone(
        &mut self,
        result: Result<(), Failure>,
        at_ms: u64,
        out: &mut Effects,
    ) {
        if !std::mem::take(&mut self.sandbox.undoing) {
            return;
        }
        let stopped = Exit {
            code: STOPPED,
            at_ms,
        };
        match result {
            Ok(()) => {
                let exit = match self.sandbox.holder {
                    Some(exit) if self.sandbox.stoppers.is_empty() => exit,
                    _ => stopped,
                };
                self.sandbox.stopped(exit, out);
            }
            // Back to where another Stop tries again.
            Err(failure) => {
                self.sandbox.life = SandboxLife::Ready;
                for token in self.sandbox.stoppers.drain(..) {
                    out.push(Effect::Reply(token, Err(failure.clone())));
                }
                self.sandbox_not_removed(&failure, out);
            }
        }
    }

    pub(super) fn wait_sandbox(&mut self, token: Token, out: &mut Effects) -> Result<(), Failure> {
        self.sandbox.exists()?;
        match self.sandbox.life {
            SandboxLife::Stopped(exit) => {
                let pid = self.sandbox.pid;
                out.push(Effect::Reply(token, Ok(Reply::Exited { pid, exit })));
            }
            _ => self.sandbox.waiters.push(token),
        }
        Ok(())
    }

    pub(super) fn sandbox_status(
        &mut self,
        token: Token,
        out: &mut Effects,
    ) -> Result<(), Failure> {
        self.sandbox.exists()?;
        let reply = Reply::Sandbox(self.sandbox());
        out.push(Effect::Reply(token, Ok(reply)));
        Ok(())
    }

    /// Idempotent; after a failed CreateSandbox it is what ends the shim (contract 21).
    pub(super) fn shutdown_sandbox(
        &mut self,
        token: Token,
        out: &mut Effects,
    ) -> Result<(), Failure> {
        if self.sandbox.is_absent() && !self.containers.is_empty() {
            return Err(Failure::precondition(
                "this shim's containers were not made in a sandbox of the Sandbox API",
            ));
        }
        self.remove_with_sandbox(token, out);
        Ok(())
    }

    /// Begins to stop the sandbox, to forget its containers, and to exit.
    pub(super) fn remove_with_sandbox(&mut self, token: Token, out: &mut Effects) {
        self.sandbox.removers.push(token);
        if matches!(self.sandbox.life, SandboxLife::Created | SandboxLife::Ready) {
            self.begin_stop(out);
        }
    }

    fn remove_sandbox(&mut self, out: &mut Effects) {
        self.sandbox.life = SandboxLife::Absent;
        let removers = std::mem::take(&mut self.sandbox.removers);
        self.exit(removers, out);
    }

    pub(super) fn sandbox_not_removed(&mut self, failure: &Failure, out: &mut Effects) {
        for token in self.sandbox.removers.drain(..) {
            out.push(Effect::Reply(token, Err(failure.clone())));
        }
    }
}
