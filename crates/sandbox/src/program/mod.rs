//! From a process that is in its container to the program that was asked for: the same steps, in the
//! same order, for a container's init and for a further process.
mod cwd;
mod identity;
mod inherited;
mod keyring;
pub(crate) mod limits;
pub(crate) mod stdio;

use std::convert::Infallible;
use std::io::{Read, Write};
use std::sync::Arc;

use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, setsid};
use oci_spec::runtime::Process;

pub(crate) use self::identity::{become_root, own_capabilities};
pub(crate) use self::inherited::{check_memory_policy, check_personality};
use crate::error::{Doing, JobError};
use crate::hooks::{Confine, Hooks};
use crate::job::Inherited;
use crate::lsm;
use crate::process::Pidfd;
use crate::seccomp::{self, Filter, Listener};
use crate::workload::{self, Workload};

/// A program, and who it is to run as. It is made outside of the container, where all that may be
/// refused is.
pub(crate) struct Program {
    pub(crate) process: Process,
    container: Inherited,
    in_user_namespace: bool,
    filter: Option<Arc<Filter>>,
    listener: Option<Listener>,
    workload: Workload,
}

impl Program {
    /// `status` is that of the container, for whoever listens to its system calls.
    ///
    /// # Errors
    /// `Invalid`: a process or a seccomp profile that makes no sense.
    pub(crate) fn new(
        process: Process,
        workload: Workload,
        container: Inherited,
        in_user_namespace: bool,
        status: &str,
    ) -> Result<Self, JobError> {
        lsm::check(&process)?;
        let profile = container.seccomp.as_ref();
        let is_early = process.no_new_privileges() != Some(true);
        let listener =
            profile.map(|profile| Listener::connect(&container, profile, status, is_early));
        Ok(Self {
            filter: profile.map(Filter::of).transpose()?.map(Arc::new),
            listener: listener.transpose()?.flatten(),
            container,
            in_user_namespace,
            process,
            workload,
        })
    }

    /// Becomes the user, gives up what the spec does not grant, and sees that there is something to
    /// execute. Nothing but a fork, [`Program::begin_session`] and [`Program::execute`] may come
    /// after it.
    pub(crate) fn become_user(&mut self) -> Result<(), JobError> {
        let process = &self.process;
        lsm::label_keys(process)?;
        keyring::join(&self.container.id, self.in_user_namespace);
        lsm::confine_at_exec(process)?;
        self.container.set()?;
        limits::set(process)?;
        umask(Mode::from_bits_truncate(
            process.user().umask().unwrap_or(0o022),
        ));
        let entered = chdir(process.cwd());
        if process.no_new_privileges() == Some(true) {
            nix::sys::prctl::set_no_new_privs().doing(|| "set no_new_privs")?;
        }
        identity::become_user(process)?;
        if !self.filters_late() {
            self.load_filter()?;
        }
        identity::drop_capabilities(process)?;
        if let Err(errno) = entered {
            // Root may have been refused, by a network filesystem, where the user is not.
            chdir(process.cwd()).map_err(|_| cwd::error(process.cwd(), errno))?;
        }
        cwd::see_that_it_is_inside(process.cwd())?;
        self.workload.set_home(process.user().uid());
        self.workload.check()?;
        workload::reset_signals_of_zygote();
        Ok(())
    }

    /// Makes this process the leader of a session, whose terminal is its standard input if it has
    /// one. It takes no privilege, but the process that is to execute must do it itself.
    pub(crate) fn begin_session(&self) -> Result<(), JobError> {
        setsid().doing(|| "start a session")?;
        match self.process.terminal() {
            Some(true) => stdio::take_control(),
            _ => Ok(()),
        }
    }

    /// Runs hooks in the container, bound by all that will bind the program. Their files are the
    /// image's.
    pub(crate) fn run_hooks(&self, hooks: &Hooks) -> Result<(), JobError> {
        limits::set_processes(&self.process)?;
        // Where there is a listener, it is in force already.
        let is_late = self.filters_late() && self.listener.is_none();
        let late = self.filter.clone().filter(|_| is_late);
        // In the hook alone: this process does what the profile need not allow.
        let confine: Confine =
            Arc::new(move || late.as_ref().map_or(Ok(()), |filter| filter.bind()));
        hooks.run_confined(&confine)
    }

    /// Executes; returns only when that failed.
    pub(crate) fn execute(&self) -> Result<Infallible, JobError> {
        limits::set_processes(&self.process)?;
        if self.filters_late() && self.listener.is_none() {
            self.load_filter()?;
        }
        self.workload.execute()
    }

    /// Asks the listener from now on, if there is one, and waits until the builder has handed it over:
    /// `outcome` leads to it, and it must call [`Program::hand_over_listener`] when it reads
    /// [`LISTENING`](seccomp::LISTENING).
    pub(crate) fn listen(&self, outcome: &mut impl Write) -> Result<(), JobError> {
        if self.listener.is_none() {
            return Ok(());
        }
        if self.filters_late() {
            self.load_filter()?;
        }
        seccomp::announce(outcome).doing(|| "say that the filter is loaded")
    }

    fn load_filter(&self) -> Result<(), JobError> {
        self.filter.as_ref().map_or(Ok(()), |filter| filter.load())
    }

    /// In the builder, which has read [`LISTENING`](seccomp::LISTENING) from a process: sends its
    /// listener, and lets it go on. `init` is that of its container.
    pub(crate) fn hand_over_listener(
        &self,
        process: &Pidfd,
        init: i32,
        outcome: &mut impl Read,
    ) -> Result<(), JobError> {
        if let Some(listener) = &self.listener {
            listener.hand_over(process, init)?;
        }
        seccomp::release(outcome).doing(|| "hear from a process that loaded its filter")
    }

    /// A filter binds what comes after it: with no_new_privs it is loaded as late as can be;
    /// without, loading it takes a capability that the process may have to give up.
    fn filters_late(&self) -> bool {
        self.process.no_new_privileges() == Some(true)
    }
}
