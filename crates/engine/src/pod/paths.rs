//! Where pods and images are on disk.
use std::path::PathBuf;

/// The engine's directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Records, sockets and bundles; on a tmpfs, as nothing in it outlives the node's boot.
    pub state: PathBuf,
    /// Images, logs, volumes and what containers write; on a disk.
    pub data: PathBuf,
}

impl Paths {
    /// The store of images.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// The data of all pods, a directory for each.
    #[must_use]
    pub fn pods(&self) -> PathBuf {
        self.data.join("pods")
    }

    /// A pod's state.
    #[must_use]
    pub fn state_of(&self, pod: &str) -> PathBuf {
        self.state.join(pod)
    }

    /// A pod's data.
    #[must_use]
    pub fn data_of(&self, pod: &str) -> PathBuf {
        self.pods().join(pod)
    }

    /// The bundle of a container, or of the sandbox, whose id is the pod's. As in containerd's
    /// state its name is the id and it is beside the others: runc's shim counts on both.
    #[must_use]
    pub fn bundle(&self, pod: &str, id: &str) -> PathBuf {
        self.state_of(pod).join("bundles").join(id)
    }

    /// The file with all that a container wrote to stdout and stderr.
    #[must_use]
    pub fn log(&self, pod: &str, container: &str) -> PathBuf {
        self.data_of(pod)
            .join("logs")
            .join(format!("{container}.log"))
    }
}
