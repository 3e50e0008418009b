//! Why the zygote could not be made or reached.
use std::io;

/// Why the zygote could not be made or reached.
#[derive(Debug, thiserror::Error)]
pub enum ZygoteError {
    /// The threads of this process could not be counted.
    #[error("cannot count the threads of this process in /proc/self/task")]
    Threads(#[source] io::Error),
    /// A fork would copy locks that another thread holds.
    #[error("the zygote must be forked by a process with one thread, and this one has {threads}")]
    Threaded {
        /// How many there are.
        threads: usize,
    },
    /// socketpair(2) failed.
    #[error("cannot make the zygote's socket")]
    Socket(#[source] io::Error),
    /// fork(2) failed.
    #[error("cannot fork the zygote")]
    Fork(#[source] io::Error),
    /// pidfd_open(2) failed; Linux 5.3 is needed.
    #[error("cannot open a pidfd for the zygote")]
    Pidfd(#[source] io::Error),
    /// The zygote is gone.
    #[error("cannot hand a job to the zygote")]
    Send(#[source] io::Error),
    /// The zygote is gone.
    #[error("cannot take a result from the zygote")]
    Receive(#[source] io::Error),
}
