//! What can go wrong with a cgroup.

use std::io;
use std::path::{Path, PathBuf};

/// Why something could not be done to a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was being done, as a verb.
        action: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// This node cannot do it; the text says what would help.
    #[error("{0}")]
    Unsupported(String),
    /// What was asked makes no sense; the text says what was expected.
    #[error("{0}")]
    Invalid(String),
    /// Processes are in the way.
    #[error("{0}")]
    Busy(String),
    /// The kernel did not do in time what it accepted.
    #[error("{0}")]
    TimedOut(String),
    /// systemd refused, or could not be asked.
    #[error("{0}")]
    Systemd(String),
}

/// The result of doing something to a cgroup.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }

    /// What kind of failure this is, in the terms of [`io::Error`]: `NotFound` for a cgroup that
    /// is gone.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            // A cgroup removed under an open file answers ENODEV, on its directory ENOENT.
            Self::File { source, .. } if source.raw_os_error() == Some(libc::ENODEV) => {
                io::ErrorKind::NotFound
            }
            Self::File { source, .. } => source.kind(),
            Self::Unsupported(_) => io::ErrorKind::Unsupported,
            Self::Invalid(_) => io::ErrorKind::InvalidInput,
            Self::Busy(_) => io::ErrorKind::ResourceBusy,
            Self::TimedOut(_) => io::ErrorKind::TimedOut,
            Self::Systemd(_) => io::ErrorKind::Other,
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.kind() == io::ErrorKind::NotFound
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}
