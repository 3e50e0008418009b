//! What can go wrong with a pod.
use std::io;
use std::path::PathBuf;

use crate::image::ImageError;
use crate::network::NetworkError;
use crate::{shim, spec};

/// Why a pod could not be run, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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
    /// A pod of that name is there.
    #[error("there is a pod `{name}` already ({id}); remove it with `husk rm -f {name}`")]
    Exists {
        /// Its name.
        name: String,
        /// Its id.
        id: String,
    },
    /// No pod of that name.
    #[error("there is no pod `{0}`; `husk ps` lists those there are")]
    NoSuchPod(String),
    /// More than one pod.
    #[error("`{wanted}` is the beginning of more than one pod: {}", .names.join(", "))]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// The pods.
        names: Vec<String>,
    },
    /// No container of that name.
    #[error("pod {pod} has no container `{container}`; it has {}", .names.join(", "))]
    NoSuchContainer {
        /// The pod.
        pod: String,
        /// What was asked for.
        container: String,
        /// What there is.
        names: Vec<String>,
    },
    /// A running pod is not removed unasked.
    #[error("pod {0} is running; stop and remove it with `husk rm -f {0}`")]
    Running(String),
    /// An image.
    #[error("container {container}: {source}")]
    Image {
        /// The container.
        container: String,
        /// What is wrong.
        source: Box<ImageError>,
    },
    /// A spec that cannot be written.
    #[error("container {container}: {source}")]
    Spec {
        /// The container.
        container: String,
        /// What is wrong.
        source: spec::Error,
    },
    /// A volume that cannot be had.
    #[error("volume {volume}: {problem}")]
    Volume {
        /// The volume's name.
        volume: String,
        /// What is wrong.
        problem: String,
    },
    /// The pod's network namespace.
    #[error("cannot make the pod's network namespace {path}: {source}; husk run needs root")]
    Network {
        /// Where it was to be pinned.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// What leads out of the pod's network.
    #[error("the pod's network: {0}")]
    Lead(#[from] NetworkError),
    /// The pod's cgroup.
    #[error("cannot make or remove the pod's cgroup {path}: {source}")]
    Cgroup {
        /// The cgroup.
        path: String,
        /// The kernel's answer, with the file.
        source: io::Error,
    },
    /// A shim that starts a process of its own for each container of a pod.
    #[error(
        "the shim serves container {container} at {address}, not with its pod at {pod}: it does \
         not group by the annotation io.kubernetes.cri.sandbox-id"
    )]
    NotGrouped {
        /// The container.
        container: String,
        /// Where it would be served.
        address: String,
        /// Where the sandbox is.
        pod: String,
    },
    /// The shim, about the sandbox.
    #[error("the pod's sandbox: {0}")]
    Sandbox(#[source] shim::Error),
    /// The shim, about a container.
    #[error("container {container}: {source}")]
    Container {
        /// The container.
        container: String,
        /// What the shim said.
        source: Box<shim::Error>,
    },
    /// The shim itself.
    #[error(transparent)]
    Shim(#[from] shim::Error),
    /// A task of the engine's own ended by a panic.
    #[error("the engine's task for a container failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl Error {
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    pub(super) fn container(name: &str) -> impl FnOnce(shim::Error) -> Self {
        let container = name.to_owned();
        move |source| Self::Container {
            container,
            source: Box::new(source),
        }
    }
}
