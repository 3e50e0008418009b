//! Why a job failed, in words for whoever asked: what everything here answers with.
use std::fmt;
use std::io;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::cgroup;

/// Why a job failed: the step, what it was about, and what the kernel answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct JobError {
    /// What kind of failure it is, for the caller's error code.
    pub kind: JobErrorKind,
    /// What was being done, to what, what the kernel answered, and what to do next.
    pub message: String,
}

/// The failures a caller answers differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobErrorKind {
    /// Something named in the request is not there: rootfs, namespace, executable.
    NotFound,
    /// The request makes no sense: a broken spec, an executable that may not be executed.
    Invalid,
    /// The kernel refused.
    Failed,
}

impl JobError {
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self {
            kind: JobErrorKind::NotFound,
            message: message.into(),
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self {
            kind: JobErrorKind::Invalid,
            message: message.into(),
        }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self {
            kind: JobErrorKind::Failed,
            message: message.into(),
        }
    }

    /// The kernel's refusal to do `what`.
    pub(crate) fn from_errno(errno: Errno, what: impl fmt::Display) -> Self {
        let message = format!("cannot {what}: {}", errno.desc());
        match errno {
            Errno::ENOENT | Errno::ENOTDIR | Errno::ESRCH => Self::not_found(message),
            _ => Self::failed(message),
        }
    }
}

/// What could not be undone after a failure. It goes into the error: a builder has no log.
#[derive(Debug, Default)]
pub(crate) struct Leftovers(Vec<String>);

impl Leftovers {
    /// Notes a step of undoing if it failed; `what` completes "cannot …".
    pub(crate) fn note<T, E: fmt::Display, D: fmt::Display>(
        &mut self,
        step: Result<T, E>,
        what: impl FnOnce() -> D,
    ) {
        if let Err(error) = step {
            self.0.push(format!("cannot {}: {error}", what()));
        }
    }

    pub(crate) fn push(&mut self, leftover: String) {
        self.0.push(leftover);
    }

    pub(crate) fn into_vec(self) -> Vec<String> {
        self.0
    }
}

impl JobError {
    /// Adds what the failure has left behind.
    pub(crate) fn leaving(mut self, leftovers: Leftovers) -> Self {
        if !leftovers.0.is_empty() {
            self.message = format!("{} (left behind: {})", self.message, leftovers.0.join("; "));
        }
        self
    }
}

impl From<cgroup::Error> for JobError {
    fn from(error: cgroup::Error) -> Self {
        let message = error.to_string();
        match error.kind() {
            io::ErrorKind::NotFound => Self::not_found(message),
            io::ErrorKind::InvalidInput => Self::invalid(message),
            _ => Self::failed(message),
        }
    }
}

/// Says what was being done when the kernel refused.
pub(crate) trait Doing<T> {
    /// `what` completes "cannot …".
    fn doing<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T, JobError>;
}

impl<T> Doing<T> for Result<T, Errno> {
    fn doing<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T, JobError> {
        self.map_err(|errno| JobError::from_errno(errno, what()))
    }
}

impl<T> Doing<T> for io::Result<T> {
    fn doing<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T, JobError> {
        self.map_err(|error| match error.raw_os_error() {
            Some(errno) => JobError::from_errno(Errno::from_raw(errno), what()),
            None => JobError::failed(format!("cannot {}: {error}", what())),
        })
    }
}
