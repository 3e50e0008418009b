//! From a process that is in its container to the program that was asked for: the same steps, in the
//! same order, for a container's init and for a further process.
mod cwd;
mod identity;
pub(crate) mod limits;
pub(crate) mod stdio;

use std::convert::Infallible;

use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, setsid};
use oci_spec::runtime::{LinuxSeccomp, Process};

pub(crate) use self::identity::become_root;
use crate::seccomp::Filter;
use crate::workload::{self, Workload};
use crate::zygote::{Doing, JobError};

/// A program, and who it is to run as. It is made outside of the container, where all that may be
/// refused is.
pub(crate) struct Program {
    pub(crate) process: Process,
    filter: Option<Filter>,
    workload: Workload,
}

impl Program {
    /// # Errors
    /// `Invalid`: a process or a seccomp profile that makes no sense.
    pub(crate) fn new(
        process: Process,
        workload: Workload,
        seccomp: Option<&LinuxSeccomp>,
    ) -> Result<Self, JobError> {
        let label = process.selinux_label().as_deref().unwrap_or_default();
        if !label.is_empty() {
            return Err(JobError::invalid(format!(
                "process.selinuxLabel {label:?} is not supported: leave it empty"
            )));
        }
        Ok(Self {
            filter: seccomp.map(Filter::of).transpose()?,
            process,
            workload,
        })
    }

    /// Becomes the user, gives up what the spec does not grant, and sees that there is something to
    /// execute. Nothing but a fork, [`Program::begin_session`] and [`Program::execute`] may come
    /// after it.
    pub(crate) fn become_user(&mut self) -> Result<(), JobError> {
        let process = &self.process;
        limits::set(process)?;
        if let Some(profile) = process.apparmor_profile() {
            libcontainer::apparmor::apply_profile(profile).map_err(|error| {
                JobError::failed(format!(
                    "cannot set the AppArmor profile {profile}: {error}"
                ))
            })?;
        }
        umask(Mode::from_bits_truncate(
            process.user().umask().unwrap_or(0o022),
        ));
        let entered = chdir(process.cwd());
        if process.no_new_privileges() == Some(true) {
            nix::sys::prctl::set_no_new_privs().doing(|| "set no_new_privs")?;
        }
        identity::become_user(process)?;
        if let Some(filter) = self.filter.as_ref().filter(|_| !self.filters_late()) {
            filter.load()?;
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

    /// Executes; returns only when that failed.
    pub(crate) fn execute(&self) -> Result<Infallible, JobError> {
        limits::set_processes(&self.process)?;
        if let Some(filter) = self.filter.as_ref().filter(|_| self.filters_late()) {
            filter.load()?;
        }
        self.workload.execute()
    }

    /// A filter binds what comes after it: with no_new_privs it is loaded as late as can be;
    /// without, loading it takes a capability that the process may have to give up.
    fn filters_late(&self) -> bool {
        self.process.no_new_privileges() == Some(true)
    }
}
