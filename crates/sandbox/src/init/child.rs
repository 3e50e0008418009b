//! The steps from a clone of the builder to the program that was asked for, in their order.
//!
//! A pid namespace of its own is new, and nobody else is in it to look: the clone is init. Where it
//! is another's, the clone is a maker, which takes all steps that are of no use to whoever is there
//! already, and forks init last; see [`crate::birth`].
use std::convert::Infallible;
use std::fs::File;
use std::io::{PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sched::CloneFlags;
use nix::unistd::sethostname;
use oci_spec::runtime::{Linux, Process, Spec};

use super::namespaces::Wanted;
use super::request::{self, Asking, Request};
use super::root;
use crate::birth::{Birthplace, Maker};
use crate::cgroup::Cgroup;
use crate::error::{Doing, JobError};
use crate::hooks::Hooks;
use crate::job::Stdio;
use crate::process::my_pid;
use crate::program::{Program, become_root, stdio};
use crate::{loopback, sys, sysctl};

/// What a process ends with that could not execute, as a shell has it.
const NOT_EXECUTED: i32 = 127;

/// What surrounds the program: namespaces, cgroup, root, standard streams.
pub(super) struct Surroundings<'a> {
    pub(super) spec: &'a Spec,
    pub(super) linux: &'a Linux,
    pub(super) rootfs: &'a Path,
    pub(super) cgroup: &'a Cgroup,
    pub(super) birthplace: Birthplace,
    pub(super) wanted: Wanted,
    pub(super) loopback: bool,
    pub(super) stdio: Stdio,
    /// Where the terminal's master goes, if init has a terminal.
    pub(super) console: Option<UnixDatagram>,
    /// What the builder has made of mounts.
    pub(super) sources: root::Sources,
    /// The way to the builder, if there is something that only it may do.
    pub(super) asking: Option<Asking>,
    /// Those of the kind createContainer.
    pub(super) hooks: Option<Hooks>,
}

/// The program, and those who wait for it.
pub(super) struct Waiting {
    pub(super) program: Program,
    pub(super) outcome: PipeWriter,
    /// Those of the kind startContainer.
    pub(super) hooks: Option<Hooks>,
}

/// Becomes the program when there is something to read from `start`, or says why not. By `tether`
/// the zygote finds what a builder that died has left.
pub(super) fn live(
    surroundings: Surroundings<'_>,
    mut waiting: Waiting,
    start: File,
    tether: RawFd,
) -> ! {
    let kept = [start.as_raw_fd(), waiting.outcome.as_raw_fd(), tether];
    let ready = surroundings
        .enter(&waiting.program.process)
        .and_then(|()| close_all_but(kept))
        .and_then(|()| waiting.program.begin_session())
        .and_then(|()| waiting.program.become_user());
    let Err(error) = ready.and_then(|()| waiting.run(start));
    waiting.give_up(&error)
}

/// The same for a process that is not the first one of its pid namespace.
pub(super) fn make(
    surroundings: Surroundings<'_>,
    mut waiting: Waiting,
    start: File,
    tether: RawFd,
    maker: Maker,
) -> ! {
    let kept = [
        start.as_raw_fd(),
        waiting.outcome.as_raw_fd(),
        tether,
        maker.descriptor(),
    ];
    let ready = surroundings
        .make_in_joined_user_namespace()
        .and_then(|()| surroundings.enter(&waiting.program.process))
        .and_then(|()| close_all_but(kept))
        .and_then(|()| waiting.program.become_user());
    if let Err(error) = ready {
        maker.fail(error);
    }
    maker.fork(CloneFlags::empty());
    let Err(error) = waiting
        .program
        .begin_session()
        .and_then(|()| waiting.run(start));
    waiting.give_up(&error)
}

/// The same for a process in a user namespace that is another's: its namespaces belong to the user
/// namespace that they are made from.
pub(super) fn make_in_user_namespace(
    surroundings: Surroundings<'_>,
    waiting: Waiting,
    start: File,
    tether: RawFd,
    maker: Maker,
) -> ! {
    if let Err(error) = surroundings.join_user_namespace() {
        maker.fail(error);
    }
    maker.fork(surroundings.wanted.new);
    live(surroundings, waiting, start, tether)
}

/// What is open could be reached by the program, or lead out of the container (CVE-2024-21626):
/// nothing but what is needed stays, and that is closed by execve(2).
fn close_all_but<const N: usize>(kept: [RawFd; N]) -> Result<(), JobError> {
    sys::close_all_but(kept).doing(|| "close descriptors")
}

impl Waiting {
    fn run(&mut self, mut start: File) -> Result<Infallible, JobError> {
        self.program.listen(&mut self.outcome)?;
        request::say_ready(&self.outcome)?;
        start.read_exact(&mut [0]).doing(|| "wait for the start")?;
        // There is nobody left to start.
        drop(start);
        if let Some(hooks) = self.hooks.take() {
            self.program.run_hooks(&hooks.with_pid(my_pid()))?;
        }
        self.program.execute()
    }

    fn give_up(&self, error: &JobError) -> ! {
        let json = serde_json::to_vec(error).unwrap_or_default();
        // The builder reads it, or the shim: if both are gone, so is whoever asked.
        let _ = (&self.outcome).write_all(&json);
        sys::exit_now(NOT_EXECUTED)
    }
}

impl Surroundings<'_> {
    /// Joins the user namespace that is another's, from within the container's cgroup: that is the
    /// node's to give.
    fn join_user_namespace(&self) -> Result<(), JobError> {
        self.birthplace.move_into(self.cgroup)?;
        self.wanted.join_user_namespace()
    }

    /// The same, if there is one, and makes what a clone could not make as part of it.
    fn make_in_joined_user_namespace(&self) -> Result<(), JobError> {
        if !self.wanted.joins_user_namespace() {
            return Ok(());
        }
        self.join_user_namespace()?;
        self.wanted.make_new()
    }

    /// Enters the container. All descriptors that this took are closed when it returns.
    fn enter(self, process: &Process) -> Result<(), JobError> {
        let (mut asking, hooks) = (self.asking, self.hooks);
        if self.wanted.new.contains(CloneFlags::CLONE_NEWUSER) {
            if let Some(asking) = &mut asking {
                asking.ask(Request::Identity)?;
            }
            become_root()?;
        } else if !self.wanted.joins_user_namespace() {
            self.birthplace.move_into(self.cgroup)?;
        }
        self.wanted.enter_cgroup_namespace()?;
        // Also of one that was joined, as with other runtimes.
        if self.wanted.not_the_nodes.contains(&"uts") {
            set_names(self.spec)?;
        }
        if self.loopback {
            loopback::up().doing(|| "bring lo up")?;
        }
        // With the node's /proc: the container's could be anything (CVE-2025-52881).
        for (name, value) in self.linux.sysctl().iter().flatten() {
            sysctl::write(name, value, &self.wanted.not_the_nodes)?;
        }
        root::make_and_enter(
            self.spec,
            self.linux,
            self.rootfs,
            self.cgroup,
            &self.wanted,
            self.sources,
            || {
                if let Some(asking) = &mut asking {
                    asking.ask(Request::Hooks)?;
                }
                match hooks {
                    Some(hooks) => hooks.with_pid(my_pid()).run(),
                    None => Ok(()),
                }
            },
        )?;
        match self.console {
            Some(master) => {
                let terminal = stdio::take_terminal(process, process.user().uid(), &master)?;
                root::bind_console(&terminal)?;
            }
            None => stdio::take(self.stdio)?,
        }
        // Last: what is forked before is none of that namespace's business.
        self.wanted.join_pid_namespace()
    }
}

fn set_names(spec: &Spec) -> Result<(), JobError> {
    let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    if let Some(name) = given(spec.hostname()) {
        sethostname(&name).doing(|| format!("set the host name to {name:?}"))?;
    }
    if let Some(name) = given(spec.domainname()) {
        sys::set_domain_name(&name).doing(|| format!("set the domain name to {name:?}"))?;
    }
    Ok(())
}
