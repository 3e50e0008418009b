//! What containerd asked for, read from the spec it sent.
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use crate::{Kind, Scopes};

/// What the reader of a spec must know to tell POD, TARGET and NODE paths apart.
///
/// The shim implements it with the pod's record and `stat`; tests with a table.
pub trait Known {
    /// Is this the sandbox's namespace (by path or by inode)? `/proc/0/ns/*` and the paths of a
    /// sandbox's pid count as the sandbox's (contract 14).
    fn is_sandbox(&self, kind: Kind, path: &Path) -> bool;
    /// The name of the container of this pod whose namespace it is.
    fn container(&self, kind: Kind, path: &Path) -> Option<String>;
    /// Is it the node's own?
    fn is_node(&self, kind: Kind, path: &Path) -> bool;
}

/// Why a spec's namespaces make no sense.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The spec has no `linux` section.
    #[error("the OCI spec has no linux section: husk runs Linux containers only")]
    NotLinux,
    /// A path that is neither the sandbox's, nor a container's, nor the node's.
    #[error(
        "the {kind} namespace {path} belongs to no container of this pod; it may be gone with the \
         process that held it"
    )]
    Unknown {
        /// The namespace's kind.
        kind: Kind,
        /// The path in the spec.
        path: PathBuf,
    },
}

/// Reads the requested scope of every kind: no entry is NODE, an entry without a path is
/// CONTAINER, a path to the sandbox's namespace is POD, to another container's TARGET.
///
/// # Errors
/// A spec without `linux`, or a path that `known` cannot place.
pub fn requested(_spec: &Spec, _known: &dyn Known) -> Result<Scopes, RequestError> {
    todo!()
}
