//! What containerd asked for, read from the spec it sent.
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespace, Spec};

use crate::{Kind, Scope, Scopes};

/// What the reader of a spec must know to tell POD, TARGET and NODE paths apart.
///
/// The shim implements it with the pod's record and `stat`; tests with a table. A path is asked
/// about in this order: the node's, the sandbox's, a container's. So with a sandbox in the node's
/// network, a container that joins the sandbox's network is NODE, not POD.
pub trait Known {
    /// Is this the sandbox's namespace (by path or by inode)? `/proc/0/ns/*` and the paths of a
    /// sandbox's pid count as the sandbox's (contract 14).
    fn is_sandbox(&self, kind: Kind, path: &Path) -> bool;
    /// The name of the container of this pod whose namespace it is.
    fn container(&self, kind: Kind, path: &Path) -> Option<String>;
    /// Is it the node's own? For `/proc/0/ns/*`: does the sandbox use the node's?
    fn is_node(&self, kind: Kind, path: &Path) -> bool;
}

/// Why a spec's namespaces make no sense.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The spec has no `linux` section.
    #[error("the OCI spec has no linux section: husk runs Linux containers only")]
    NotLinux,
    /// Two entries of one kind, which the OCI spec forbids.
    #[error("the OCI spec names the {kind} namespace twice; keep one of the two")]
    Twice {
        /// The namespace's kind.
        kind: Kind,
    },
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
/// A spec without `linux`, two entries of one kind, or a path that `known` cannot place.
pub fn requested(spec: &Spec, known: &dyn Known) -> Result<Scopes, RequestError> {
    let linux = spec.linux().as_ref().ok_or(RequestError::NotLinux)?;
    let entries = linux.namespaces().as_deref().unwrap_or_default();
    Scopes::try_from_fn(|kind| {
        let mut of_kind = entries.iter().filter(|entry| entry.typ() == kind.oci());
        match (of_kind.next(), of_kind.next()) {
            (None, _) => Ok(Scope::Node),
            (Some(entry), None) => scope_of(kind, entry, known),
            (Some(_), Some(_)) => Err(RequestError::Twice { kind }),
        }
    })
}

fn scope_of(kind: Kind, entry: &LinuxNamespace, known: &dyn Known) -> Result<Scope, RequestError> {
    let Some(path) = joined_path(entry) else {
        return Ok(Scope::Container);
    };
    if known.is_node(kind, path) {
        return Ok(Scope::Node);
    }
    if known.is_sandbox(kind, path) {
        return Ok(Scope::Pod);
    }
    let name = known.container(kind, path);
    name.map(Scope::Target)
        .ok_or_else(|| RequestError::Unknown {
            kind,
            path: path.to_owned(),
        })
}

/// The path of the namespace to join; an empty one means what an absent one does.
pub(crate) fn joined_path(entry: &LinuxNamespace) -> Option<&Path> {
    entry
        .path()
        .as_deref()
        .filter(|path| !path.as_os_str().is_empty())
}
