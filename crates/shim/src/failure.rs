//! Why a request was not done.
use husk_request::Malformed;
use husk_sandbox::error::{JobError, JobErrorKind};

/// A request that was not done: what kind of reason, and the reason in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// What the caller's code is chosen by.
    pub(crate) kind: FailureKind,
    /// What was being done, to what, what was answered, what to do next.
    pub(crate) message: String,
}

/// The reasons that callers answer differently (contract 22).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// Something named in the request is not there.
    NotFound,
    /// The id is taken.
    AlreadyExists,
    /// Not in this state of the container or sandbox.
    FailedPrecondition,
    /// The request makes no sense.
    InvalidArgument,
    /// A policy refuses it.
    PermissionDenied,
    /// husk does not do this.
    Unimplemented,
    /// The kernel or a part of husk failed.
    Internal,
}

impl Failure {
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(FailureKind::NotFound, message)
    }

    pub(crate) fn already_exists(message: impl Into<String>) -> Self {
        Self::new(FailureKind::AlreadyExists, message)
    }

    pub(crate) fn precondition(message: impl Into<String>) -> Self {
        Self::new(FailureKind::FailedPrecondition, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(FailureKind::InvalidArgument, message)
    }

    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self::new(FailureKind::PermissionDenied, message)
    }

    pub(crate) fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Unimplemented, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Internal, message)
    }

    fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::invalid(malformed.0)
    }
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        let kind = match error.kind {
            JobErrorKind::NotFound => FailureKind::NotFound,
            JobErrorKind::Invalid => FailureKind::InvalidArgument,
            JobErrorKind::Failed => FailureKind::Internal,
        };
        Self::new(kind, error.message)
    }
}

impl From<husk_sandbox::cgroup::Error> for Failure {
    fn from(error: husk_sandbox::cgroup::Error) -> Self {
        Self::internal(with_causes(&error))
    }
}

/// An error with all its causes, on one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
