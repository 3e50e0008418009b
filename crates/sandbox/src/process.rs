//! Processes seen through pidfds: wait, signal, reap.
use std::io;
use std::os::fd::OwnedFd;

/// A process by pidfd: never another one that came to have its pid.
#[derive(Debug)]
pub struct Pidfd {
    /// The pid as this process sees it.
    pub pid: i32,
    /// The pidfd; readable once the process has exited.
    pub fd: OwnedFd,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this status.
    Exited(i32),
    /// This signal killed it.
    Signaled(i32),
}

impl Ended {
    /// The exit code containerd expects: 128 + signal (contract 36).
    #[must_use]
    pub fn code(self) -> u32 {
        todo!()
    }
}

impl Pidfd {
    /// Opens a pidfd for a process that is known to live, or to be an unreaped child.
    ///
    /// # Errors
    /// `ESRCH` when there is no such process.
    pub fn open(_pid: i32) -> io::Result<Self> {
        todo!()
    }

    /// Reaps the process if it has ended; `None` while it lives. Only for children.
    ///
    /// # Errors
    /// `ECHILD` when it is not a child of this process.
    pub fn try_wait(&self) -> io::Result<Option<Ended>> {
        todo!()
    }

    /// Sends a signal; see pidfd_send_signal(2).
    ///
    /// # Errors
    /// `ESRCH` when it has ended and was reaped, `EINVAL` for a bad signal.
    pub fn signal(&self, _signal: i32) -> io::Result<()> {
        todo!()
    }
}

/// Reaps every ended child that `known` does not claim: orphans handed to the subreaper.
///
/// Call it only while no job of the zygote is under way: a process that the zygote has just made
/// is a child nobody claims yet.
///
/// # Errors
/// What waitid(2) says, `ECHILD` excepted.
pub fn reap_orphans(_known: &dyn Fn(i32) -> bool) -> io::Result<usize> {
    todo!()
}

/// The start time of a process, field 22 of `/proc/PID/stat`, clock ticks since boot.
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn start_time(_pid: i32) -> io::Result<u64> {
    todo!()
}
