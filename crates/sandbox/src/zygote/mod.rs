//! The process that makes processes.
//!
//! The shim forks the zygote while it is single-threaded; the zygote forks a *builder* for every
//! job, which does the work, reports and exits. What a builder leaves behind (a container's init)
//! is then reparented to the shim, the nearest subreaper.
mod builder;
mod error;
mod protocol;
mod serve;

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{ForkResult, fork};

pub use self::error::ZygoteError;
use crate::error::JobError;
use crate::job::{Done, Job};
use crate::process::Pidfd;

/// The shim's end of the zygote. Jobs run side by side; replies come in the order they finish.
#[derive(Debug)]
pub struct Zygote {
    socket: OwnedFd,
    process: Pidfd,
}

/// The id of a job, and what came of it.
pub type Finished = (u64, Result<Done, JobError>);

impl Zygote {
    /// Forks the zygote, which lives as long as the thread that calls this.
    ///
    /// The caller must be single-threaded, and a child subreaper by the time of the first job: the
    /// processes that jobs make are to become its children.
    ///
    /// # Errors
    /// More than one thread, or what socketpair(2) and fork(2) say.
    pub fn fork() -> Result<Self, ZygoteError> {
        let threads = fs::read_dir("/proc/self/task")
            .map_err(ZygoteError::Threads)?
            .count();
        if threads != 1 {
            return Err(ZygoteError::Threaded { threads });
        }
        let (ours, its) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(|errno| ZygoteError::Socket(errno.into()))?;
        let parent = std::process::id();
        // SAFETY: this process has one thread, so the child's memory is in no half-changed state.
        match unsafe { fork() }.map_err(|errno| ZygoteError::Fork(errno.into()))? {
            ForkResult::Child => serve::run(parent, its),
            ForkResult::Parent { child } => {
                let process = Pidfd::open(child.as_raw()).map_err(ZygoteError::Pidfd)?;
                Ok(Self {
                    socket: ours,
                    process,
                })
            }
        }
    }

    /// The zygote's process.
    #[must_use]
    pub fn process(&self) -> &Pidfd {
        &self.process
    }

    /// Hands a job over. `id` comes back with its result.
    ///
    /// # Errors
    /// The zygote is gone, or the request is larger than a message may be.
    pub fn send(&self, id: u64, mut job: Job) -> Result<(), ZygoteError> {
        let stdio = job.take_stdio();
        protocol::send_job(self.socket.as_raw_fd(), id, &job, &stdio).map_err(ZygoteError::Send)
    }

    /// Takes the next result; `None` when there is none yet. [`AsFd`] is readable when there is.
    ///
    /// # Errors
    /// The zygote is gone.
    pub fn receive(&self) -> Result<Option<Finished>, ZygoteError> {
        match protocol::receive_result(self.socket.as_raw_fd()) {
            Ok(result) => Ok(Some(result)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(ZygoteError::Receive(error)),
        }
    }
}

impl AsFd for Zygote {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
