//! What will be done, before anything is done. The table of scopes is in the crate's documentation.
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::edit::{self, EditError, Paths};
use crate::{Ceiling, Kind, Offsets, PerKind, Scope, Scopes, Width};

/// Who decided, where nobody else did.
pub const REQUEST: &str = "request";

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
pub struct Plan {
    #[serde(flatten)]
    kinds: PerKind<Planned>,
    #[serde(default, skip_serializing_if = "Offsets::is_empty")]
    offsets: Offsets,
}

/// Why a plan is refused. Each names the kind, the scopes and who asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The table of scopes has no such entry.
    #[error("{kind}: {}: {reason}", asked(.by, .scope, .requested))]
    Impossible {
        /// The namespace's kind.
        kind: Kind,
        /// What containerd asked for.
        requested: Scope,
        /// What was assigned.
        scope: Scope,
        /// Who asked.
        by: String,
        /// Why it cannot be.
        reason: &'static str,
    },
    /// It would be wider than the handler's configuration allows.
    #[error(
        "{kind}: {}: above the ceiling {ceiling} of the handler's configuration",
        asked(.by, .scope, .requested)
    )]
    AboveCeiling {
        /// The namespace's kind.
        kind: Kind,
        /// What containerd asked for.
        requested: Scope,
        /// What was assigned, or what was requested.
        scope: Scope,
        /// Who asked.
        by: String,
        /// The widest scope allowed.
        ceiling: Width,
    },
    /// Two assignments to one kind.
    #[error(
        "{kind}: {first_by} asked for {first} and {second_by} for {second}; a namespace has one \
         scope, so one of the two must yield"
    )]
    Conflict {
        /// The namespace's kind.
        kind: Kind,
        /// What was assigned first.
        first: Scope,
        /// Who asked first.
        first_by: String,
        /// What was assigned next.
        second: Scope,
        /// Who asked next.
        second_by: String,
    },
}

fn asked(by: &str, scope: &Scope, requested: &Scope) -> String {
    if by == REQUEST {
        return format!("containerd asked for {requested}");
    }
    format!("{by} asked for {scope} where containerd asked for {requested}")
}

/// Who asked, as errors say it.
pub(crate) fn who(by: &str) -> &str {
    if by == REQUEST { "containerd" } else { by }
}

impl Plan {
    /// Applies the assignments to what was requested.
    ///
    /// # Errors
    /// A combination the table of scopes refuses, a scope above the ceiling, or two assignments
    /// that contradict each other.
    pub fn new(
        requested: &Scopes,
        assignments: &[Assignment],
        ceiling: &Ceiling,
    ) -> Result<Self, PlanError> {
        let kinds = PerKind::try_from_fn(|kind| {
            let asked = requested[kind].clone();
            match assignment(kind, assignments)? {
                Some(assigned) => {
                    possible(assigned, requested, ceiling)?;
                    Ok(Planned {
                        requested: asked,
                        scope: assigned.scope.clone(),
                        by: assigned.by.clone(),
                    })
                }
                None => {
                    request_possible(kind, &asked, ceiling)?;
                    Ok(Planned {
                        requested: asked.clone(),
                        scope: asked,
                        by: REQUEST.to_owned(),
                    })
                }
            }
        })?;
        within_user_namespace(&kinds)?;
        Ok(Self {
            kinds,
            offsets: Offsets::default(),
        })
    }

    /// The same plan with the clock offsets that an assigned time namespace of CONTAINER scope
    /// gets. Those of POD and GROUP belong to whoever makes the namespace.
    #[must_use]
    pub const fn with_offsets(mut self, offsets: Offsets) -> Self {
        self.offsets = offsets;
        self
    }

    /// The clock offsets of an assigned time namespace.
    #[must_use]
    pub const fn offsets(&self) -> &Offsets {
        &self.offsets
    }

    /// This kind's part.
    #[must_use]
    pub fn get(&self, kind: Kind) -> &Planned {
        &self.kinds[kind]
    }

    /// Every kind's part, in the order of [`Kind::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &Planned)> {
        self.kinds.iter()
    }

    /// Every kind's scope.
    #[must_use]
    pub fn scopes(&self) -> Scopes {
        let mut scopes = Scopes::all(&Scope::Node);
        for (kind, planned) in self.iter() {
            scopes[kind].clone_from(&planned.scope);
        }
        scopes
    }

    /// Whether the pid namespace is this container's alone, so that what is left in it when its
    /// init exits may be killed (contract 32). One that is joined by a path, POD, TARGET or GROUP,
    /// holds neighbours.
    #[must_use]
    pub fn owns_pid_namespace(&self) -> bool {
        self.kinds[Kind::Pid].scope == Scope::Container
    }

    /// Edits the spec so that it does what the plan says: namespaces, and whatever must change
    /// with them (host name, /dev/shm, cgroup mounts, time offsets). Editing twice is editing once.
    ///
    /// What is as requested stays as containerd sent it, except for what libcontainer would get
    /// wrong:
    ///
    /// * `/proc/0/ns/*`, which CRI writes for a sandbox without a process (contract 14), becomes
    ///   the path of the sandbox's namespace;
    /// * a path to the node's own namespace becomes no entry, which says the same, so that nothing
    ///   mistakes it for a namespace whose sysctls and host name may be set;
    /// * an empty path becomes none, and a host name without a UTS namespace is dropped;
    /// * `noNewPrivileges: false` becomes absent: libcontainer loads the seccomp profile late, when
    ///   it may lack the privilege, whenever the field is present;
    /// * /dev/shm becomes the sandbox's if `paths` knows it: with `sandboxer = "shim"` CRI does not
    ///   mount it (contract 15). A volume that the pod's author mounted there stays.
    ///
    /// The spec must be the one the plan was requested from. After an error it is half edited:
    /// throw it away.
    ///
    /// # Errors
    /// A spec that asks for what the plan rules out, such as a `net.*` sysctl with NODE, or a
    /// namespace that `paths` does not have.
    pub fn edit(&self, spec: &mut Spec, paths: &dyn Paths) -> Result<(), EditError> {
        edit::edit(self, spec, paths)
    }
}

impl Planned {
    /// Whether someone decided it, be it as requested; otherwise nobody was asked.
    #[must_use]
    pub fn is_assigned(&self) -> bool {
        self.by != REQUEST
    }

    /// Whether it differs from what was requested.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.scope != self.requested
    }
}

/// The assignment to this kind, unless two contradict each other.
fn assignment(kind: Kind, all: &[Assignment]) -> Result<Option<&Assignment>, PlanError> {
    let mut of_kind = all.iter().filter(|assignment| assignment.kind == kind);
    let Some(first) = of_kind.next() else {
        return Ok(None);
    };
    match of_kind.find(|other| other.scope != first.scope) {
        None => Ok(Some(first)),
        Some(second) => Err(PlanError::Conflict {
            kind,
            first: first.scope.clone(),
            first_by: first.by.clone(),
            second: second.scope.clone(),
            second_by: second.by.clone(),
        }),
    }
}

/// Checks an assignment against the table, the user namespace and the ceiling.
fn possible(assigned: &Assignment, requested: &Scopes, ceiling: &Ceiling) -> Result<(), PlanError> {
    let Assignment { kind, scope, by } = assigned;
    let asked = &requested[*kind];
    let reason = impossible(*kind, scope).or_else(|| {
        (scope != asked)
            .then(|| impossible_change(*kind, scope, requested))
            .flatten()
    });
    if let Some(reason) = reason {
        return Err(PlanError::Impossible {
            kind: *kind,
            requested: asked.clone(),
            scope: scope.clone(),
            by: by.clone(),
            reason,
        });
    }
    within(ceiling.exceeded_by(*kind, scope), *kind, asked, scope, by)
}

/// Checks what containerd requested, where nobody assigned anything.
fn request_possible(kind: Kind, asked: &Scope, ceiling: &Ceiling) -> Result<(), PlanError> {
    if let (Kind::Mount, Some(reason)) = (kind, impossible(kind, asked)) {
        return Err(PlanError::Impossible {
            kind,
            requested: asked.clone(),
            scope: asked.clone(),
            by: REQUEST.to_owned(),
            reason,
        });
    }
    let exceeded = ceiling.exceeded_by_request(kind, asked);
    within(exceeded, kind, asked, asked, REQUEST)
}

/// What a container with an assigned user namespace cannot enter from within it: a namespace that it
/// does not own. Others it is in before.
fn within_user_namespace(kinds: &PerKind<Planned>) -> Result<(), PlanError> {
    let user = &kinds[Kind::User];
    if !user.is_changed() {
        return Ok(());
    }
    for kind in [Kind::Pid, Kind::Cgroup] {
        let planned = &kinds[kind];
        let is_owned = match &planned.scope {
            Scope::Container => true,
            Scope::Node => kind == Kind::Cgroup,
            Scope::Group(_) => planned.scope == user.scope,
            _ => false,
        };
        if !is_owned {
            return Err(PlanError::Impossible {
                kind,
                requested: planned.requested.clone(),
                scope: planned.scope.clone(),
                by: planned.by.clone(),
                reason: "the container is assigned a user namespace, from which it could not enter this \
                         one; use CONTAINER for both, or the same GROUP",
            });
        }
    }
    Ok(())
}

fn within(
    exceeded: Option<Width>,
    kind: Kind,
    requested: &Scope,
    scope: &Scope,
    by: &str,
) -> Result<(), PlanError> {
    match exceeded {
        None => Ok(()),
        Some(ceiling) => Err(PlanError::AboveCeiling {
            kind,
            requested: requested.clone(),
            scope: scope.clone(),
            by: by.to_owned(),
            ceiling,
        }),
    }
}

/// Why this kind can never have this scope, whatever was requested.
pub(crate) fn impossible(kind: Kind, scope: &Scope) -> Option<&'static str> {
    match (kind, scope) {
        (_, Scope::Target(name) | Scope::Group(name)) if name.is_empty() => {
            Some("it has no name; say which container or group")
        }
        (Kind::Mount, Scope::Container) => None,
        (Kind::Mount, _) => Some(
            "a container has its own root filesystem and so its own mount namespace; share a \
             volume instead",
        ),
        (Kind::Cgroup, Scope::Group(_)) => Some(
            "a cgroup namespace is the cgroup that looks like the root, and a group has none of \
             its own; use POD",
        ),
        _ => None,
    }
}

/// Why this kind cannot get this scope, given that something else was requested.
fn impossible_change(kind: Kind, scope: &Scope, requested: &Scopes) -> Option<&'static str> {
    match (kind, scope) {
        (Kind::User, Scope::Container | Scope::Group(_))
            if requested[Kind::User] == Scope::Node =>
        {
            None
        }
        (Kind::User, Scope::Container | Scope::Group(_)) => Some(
            "the pod has a user namespace already, which owns what its containers share; leave it as \
             requested",
        ),
        (Kind::User, _) => Some(
            "who is in the pod's user namespace, or in the node's, is for the pod's specification to say \
             (hostUsers); use CONTAINER or GROUP",
        ),
        (_, Scope::Container) => None,
        _ if requested[Kind::User] != Scope::Node => Some(
            "the container is in a user namespace that does not own that namespace, so it could \
             neither join it nor mount its filesystems; use CONTAINER, or leave it as requested",
        ),
        _ => None,
    }
}
