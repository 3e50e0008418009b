//! What can go wrong between the engine and a shim.
use std::io;
use std::path::PathBuf;

use ttrpc::Code;

/// Why a shim could not be started, reached, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No shim of that name.
    #[error("no shim `{name}`: looked in {searched}; give a path with --shim, or install it there")]
    NoSuchShim {
        /// The name or path that was asked for.
        name: String,
        /// The directories looked into.
        searched: String,
    },
    /// The file system refused.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was being done, as a verb phrase.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The shim's `start` or `delete` command failed.
    #[error("`{shim} {command}` for {id} failed with {status}: {output}")]
    Command {
        /// The shim's binary.
        shim: PathBuf,
        /// `start` or `delete`.
        command: &'static str,
        /// The sandbox or container it was for.
        id: String,
        /// Its exit status.
        status: String,
        /// What it wrote.
        output: String,
    },
    /// The shim answered `start` with something that is not an address.
    #[error("shim {shim} answered start with {reply:?}: {problem}")]
    Reply {
        /// The shim's binary.
        shim: PathBuf,
        /// What it wrote on stdout and stderr (contract 5).
        reply: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The shim's socket cannot be reached.
    #[error("cannot connect to the shim at {address}: {source}; it may have exited")]
    Connect {
        /// The socket's address.
        address: String,
        /// What ttrpc or the kernel answered.
        source: Box<ttrpc::Error>,
    },
    /// The shim refused a call.
    #[error("{method} of {id}: {message}")]
    Refused {
        /// The RPC.
        method: &'static str,
        /// The sandbox, container or exec it was about.
        id: String,
        /// The status code.
        code: Code,
        /// The shim's words.
        message: String,
    },
    /// The connection broke, or there was no answer in time.
    #[error("{method} of {id}: no answer from the shim: {source}; it may have exited")]
    NoAnswer {
        /// The RPC.
        method: &'static str,
        /// The sandbox, container or exec it was about.
        id: String,
        /// What ttrpc answered.
        source: Box<ttrpc::Error>,
    },
    /// The events server cannot listen.
    #[error("cannot serve events at {address}: {source}")]
    Events {
        /// The socket's address.
        address: String,
        /// What ttrpc or the kernel answered.
        source: Box<ttrpc::Error>,
    },
}

impl Error {
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// Whether the shim does not have the service or the RPC.
    #[must_use]
    pub const fn is_unimplemented(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                code: Code::UNIMPLEMENTED,
                ..
            }
        )
    }

    /// Whether what was asked about is not there, or is over.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                code: Code::NOT_FOUND | Code::FAILED_PRECONDITION,
                ..
            } | Self::NoAnswer { .. }
                | Self::Connect { .. }
        )
    }
}
