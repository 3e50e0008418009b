//! What a container's init does at its end, in place of libcontainer's own executor: that one asks
//! for an executable by everyone, insists on PATH, and leaves signals as Rust set them.
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicI32, Ordering};

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};

use crate::sys;
use crate::workload::{self, Workload};
use crate::zygote::JobError;

/// Executes a [`Workload`] as a container's init.
#[derive(Clone)]
pub(crate) struct ContainerExecutor {
    workload: Rc<RefCell<Workload>>,
    /// Closed by execve(2); carries the reason when that fails.
    started: RawFd,
    /// Carries why there is nothing to execute.
    verdict: RawFd,
}

/// The `started` pipe of a process that was told to wait for its start; -1 elsewhere.
static WAITING: AtomicI32 = AtomicI32::new(-1);

impl ContainerExecutor {
    /// The pipes must stay open until libcontainer has forked.
    pub(crate) fn new(workload: Workload, started: &PipeWriter, verdict: &PipeWriter) -> Self {
        Self {
            workload: Rc::new(RefCell::new(workload)),
            started: started.as_raw_fd(),
            verdict: verdict.as_raw_fd(),
        }
    }
}

impl Executor for ContainerExecutor {
    /// Runs in the container as its user, before the start.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        let checked = self.workload.borrow().check();
        if let Err(error) = checked {
            let json = serde_json::to_vec(&error).unwrap_or_default();
            write_to(self.verdict, &json);
            return Err(ExecutorValidationError::ArgValidationError(error.message));
        }
        report_an_exit_before_exec(self.started);
        Ok(())
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The environment goes to execve(2) as it is: a map would lose its order.
        let user = nix::unistd::geteuid().as_raw();
        self.workload.borrow_mut().set_home(user);
        Ok(())
    }

    /// Does not return: what libcontainer would do with an error, nobody reads.
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        workload::reset_signals_of_zygote();
        let status = match self.workload.borrow().execute() {
            Ok(never) => match never {},
            Err(error) => {
                write_to(self.started, error.message.as_bytes());
                127
            }
        };
        sys::exit_now(status)
    }
}

/// Has the init say so when it exits between its start and execve(2): a startContainer hook has
/// failed. Without this, the closed pipe would look like a success.
fn report_an_exit_before_exec(started: RawFd) {
    extern "C" fn say() {
        let started = WAITING.load(Ordering::Relaxed);
        write_to(
            started,
            b"init exited before it executed: a startContainer hook failed",
        );
    }
    WAITING.store(started, Ordering::Relaxed);
    // SAFETY: `say` is a plain function that lives as long as the process.
    unsafe { libc::atexit(say) };
}

/// Writes to a descriptor that libcontainer's callbacks know by number only.
fn write_to(fd: RawFd, bytes: &[u8]) {
    // SAFETY: the builder opened `fd` before it forked this process and nobody here closes it.
    let file = std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
    // The process ends with an error either way.
    let _ = (&*file).write_all(bytes);
}

/// Why the executor refused, if it did; all writers must be closed or have ended by now.
pub(crate) fn read_verdict(verdict: PipeReader) -> Option<JobError> {
    let mut json = Vec::new();
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&verdict, flags).ok()?;
    // An init that still hangs holds the pipe open: what is there is all there is.
    let _ = File::from(std::os::fd::OwnedFd::from(verdict)).read_to_end(&mut json);
    serde_json::from_slice(&json).ok()
}
