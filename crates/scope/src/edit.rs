//! The spec, edited to do what a plan says.
use std::path::PathBuf;

use crate::{Kind, Scope};

/// Where the shared things are that a plan refers to. The shim makes them first.
pub trait Paths {
    /// The namespace of this kind and scope (POD, TARGET or GROUP).
    fn namespace(&self, kind: Kind, scope: &Scope) -> Option<PathBuf>;
    /// The /dev/shm that goes with an IPC namespace of this scope: POD, GROUP or TARGET.
    fn shm(&self, scope: &Scope) -> Option<PathBuf>;
}

/// Why a spec cannot be made to do what the plan says.
#[derive(Debug, thiserror::Error)]
pub enum EditError {}
