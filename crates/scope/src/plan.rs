//! What will be done, before anything is done.
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::edit::{EditError, Paths};
use crate::{Kind, Scope, Scopes};

/// One decision: this kind of namespace gets this scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The kind of namespace.
    pub kind: Kind,
    /// Whose it shall be.
    pub scope: Scope,
    /// Who asked: `configuration`, or `policy NAME`.
    pub by: String,
}

/// The most that any assignment may grant, kind by kind; set by the handler's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ceiling {}

/// One kind's part of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// What containerd asked for.
    pub requested: Scope,
    /// What it will be.
    pub scope: Scope,
    /// Who decided: `request`, `configuration`, or `policy NAME`.
    pub by: String,
}

/// The scope that each kind of namespace of one container will have, and who decided it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {}

/// Why a plan is refused. Each names the kind, the scopes and who asked.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {}

impl Plan {
    /// Applies the assignments to what was requested.
    ///
    /// # Errors
    /// A combination the table of scopes refuses, a scope above the ceiling, or two assignments
    /// that contradict each other.
    pub fn new(
        _requested: &Scopes,
        _assignments: &[Assignment],
        _ceiling: &Ceiling,
    ) -> Result<Self, PlanError> {
        todo!()
    }

    /// This kind's part.
    #[must_use]
    pub fn get(&self, _kind: Kind) -> &Planned {
        todo!()
    }

    /// Edits the spec so that it does what the plan says: namespaces, and whatever must change
    /// with them (hostname, sysctls, /dev/shm, mqueue, cgroup mounts, time offsets).
    ///
    /// # Errors
    /// A spec that asks for what the plan rules out, such as a `net.*` sysctl with NODE.
    pub fn edit(&self, _spec: &mut Spec, _paths: &dyn Paths) -> Result<(), EditError> {
        todo!()
    }
}
