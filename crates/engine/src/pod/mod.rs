//! Pods without containerd: from a manifest to running containers, and back to nothing.
//!
//! Two ways lead to a sandbox. A shim with the Sandbox API is told of the pod and makes it
//! (contract 11 to 21); for any other a pause container stands for the sandbox, as CRI's
//! podsandbox mode has it (contract 25). The containers' specs are the same either way.
mod bundle;
mod container;
mod error;
mod exec;
mod files;
mod health;
mod journal;
mod load;
mod order;
mod paths;
mod preview;
mod record;
mod remove;
mod run;
mod sandbox;
mod volumes;

use std::path::PathBuf;
use std::time::Duration;

pub use error::Error;
pub use exec::{Control, Exec, Request};
pub use paths::Paths;
pub use preview::{Preview, preview};
pub use record::{ContainerRecord, Record, Status};
pub use remove::remove;
pub use run::run;

use crate::image::Step;
use crate::network::Chosen;
use crate::shim::Binary;

/// Where pods are kept, and what runs them.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Where pods and images are kept.
    pub paths: Paths,
    /// The directory below which an image's relative path is: that of the manifest.
    pub manifests: PathBuf,
    /// The shim.
    pub shim: Binary,
    /// A handler's configuration for the shim.
    pub config: Option<PathBuf>,
    /// The network of a pod that is to be run.
    pub network: Chosen,
    /// A program that waits for ever when called with the argument [`PAUSE`]: the pause container
    /// of shims without the Sandbox API.
    pub pause: PathBuf,
    /// Whether the shim logs at debug level.
    pub debug: bool,
}

/// See [`Engine::pause`].
pub const PAUSE: &str = "__pause";

/// What to do with a pod that runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Let it run.
    #[default]
    Not,
    /// Send each container its stop signal, and SIGKILL after the grace period.
    Gently,
    /// Send SIGKILL.
    Now,
}

/// How a pod ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The first container that failed, and its exit status.
    pub failed: Option<(String, u32)>,
}

/// Told what happens to a pod.
pub trait Observer: Send + Sync {
    /// Something happened; called often while images arrive, so do little.
    fn notice(&self, notice: &Notice<'_>);
}

/// Something that happened to a pod.
#[derive(Clone, Copy, Debug)]
pub enum Notice<'a> {
    /// An image moved on.
    Image {
        /// The image, as the manifest names it.
        image: &'a str,
        /// How far it is.
        step: &'a Step<'a>,
    },
    /// The sandbox runs.
    Sandbox {
        /// The pod's record.
        record: &'a Record,
    },
    /// A container runs.
    Started {
        /// Its name.
        container: &'a str,
        /// What it writes goes here.
        log: &'a std::path::Path,
    },
    /// A container is over.
    Exited {
        /// Its name.
        container: &'a str,
        /// Its exit status.
        code: u32,
        /// Whether the kernel killed it for its memory limit.
        out_of_memory: bool,
    },
    /// A container's readiness probe says something new.
    Readiness {
        /// Its name.
        container: &'a str,
        /// Why it is not ready, or `None` if it is.
        reason: Option<&'a str>,
    },
    /// A container must end: a hook or a probe of it failed.
    Unwell {
        /// Its name.
        container: &'a str,
        /// What failed, and how.
        reason: &'a str,
    },
    /// A container's preStop hook failed.
    HookFailed {
        /// Its name.
        container: &'a str,
        /// How.
        reason: &'a str,
    },
    /// A container will be started again.
    Restarting {
        /// Its name.
        container: &'a str,
        /// After this time.
        after: Duration,
    },
    /// Every container has been started.
    Ready {
        /// The pod's record.
        record: &'a Record,
    },
    /// The pod is being stopped.
    Stopping {
        /// How long containers may take.
        grace: Duration,
    },
}
