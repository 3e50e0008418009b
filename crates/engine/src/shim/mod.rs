//! One shim process: started, spoken to, and cleaned up as containerd does it.
//!
//! The wire is ttrpc (<https://github.com/containerd/ttrpc>), the services are containerd's
//! `containerd.task.v3.Task` (v2 for shims of containerd 1.x) and
//! `containerd.runtime.sandbox.v1.Sandbox`.
mod binary;
mod error;
mod events;
mod log;
mod options;
mod reply;
mod rpc;
mod sandbox;
mod start;
mod task;

pub use binary::Binary;
pub use error::Error;
pub use events::{Event, Events};
pub use options::{NamespaceMode, PodSandboxConfig, RuncOptions, RuntimeOptions};
pub use protobuf::well_known_types::any::Any;
pub use sandbox::Sandbox;
pub use start::{Answered, Shim, Start, Starting, address_of};
pub use task::{Exit, Stdio, Task};

/// The containerd namespace in which the engine's pods live, as `ctr -n NAMESPACE` has it.
pub const NAMESPACE: &str = "husk";
