//! Whose namespace a container uses.
//!
//! A container's OCI spec *requests* a scope for every kind of namespace; a handler's
//! configuration and its policies *assign* others; the result is a [`Plan`]: what will be done,
//! before anything is done. [`Plan::edit`] then turns the spec into one that does it.
//!
//! This crate decides; it touches nothing. It does no I/O and holds no `unsafe`.
//!
//! ```
//! use husk_scope::config::Config;
//! use husk_scope::{Kind, Scope, Scopes};
//!
//! let config = Config::parse("config.toml", "[scopes]\nnetwork = 'container'")?;
//! let mut requested = Scopes::all(&Scope::Pod);
//! requested[Kind::Mount] = Scope::Container;
//!
//! let plan = config.plan("app", &requested)?;
//! assert_eq!(plan.get(Kind::Network).scope, Scope::Container);
//! assert_eq!(plan.get(Kind::Network).by, "configuration");
//! assert_eq!(plan.get(Kind::Ipc).scope, Scope::Pod);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The table of scopes
//!
//! What may be assigned, and what changes in the spec besides the namespace's entry. What
//! containerd requests is kept as it is, with one exception: a container always has its own mount
//! namespace.
//!
//! | kind | CONTAINER | POD | NODE | TARGET | GROUP | what else changes |
//! |---|---|---|---|---|---|---|
//! | network | yes | yes | yes | yes | yes | NODE: `net.*` sysctls and `netDevices` are refused |
//! | pid | yes | yes | yes | yes | yes | |
//! | ipc | yes | yes | yes | yes | yes | /dev/shm follows; NODE: its sysctls and `fs.mqueue.*` are refused |
//! | uts | yes | yes | yes | yes | yes | CONTAINER: starts with the pod's host name; else host and domain name are dropped |
//! | user | yes | as requested | as requested | as requested | yes | CONTAINER, GROUP: a range of ids of its own; the root and what is bound is id-mapped; NODE: id mappings are refused |
//! | mount | yes | no | no | no | no | |
//! | cgroup | yes | yes | yes | yes | no | the cgroup filesystem is read-only |
//! | time | yes | yes | yes | yes | yes | CONTAINER: the configured offsets; else offsets are refused |
//!
//! * **mount**: a container has its own root, and pivot_root(2) needs a mount namespace for it.
//! * **user**: CONTAINER and GROUP give containers ids that nobody else on the node has, see [`Ranges`].
//!   The pod stays in the node's user namespace, and what of it such a container joins belongs to that:
//!   it has no power over the pod's network, sees it by the node's sysfs, read-only, and cannot be in a
//!   pid or cgroup namespace that is not its own. A pod that has a user namespace (hostUsers: false)
//!   keeps it: its containers own their network only within it.
//! * **cgroup**: such a namespace is nothing but the cgroup that looks like the root (see
//!   cgroup_namespaces(7)). The containers of a group share no cgroup that the rest of the pod is
//!   not below too, so GROUP would be POD by another name. TARGET shows a container the limits of
//!   another, which is what a debugger wants.
//! * **pid** GROUP: the first process of a pid namespace must outlive its containers, so a group
//!   has a holder, as a POD-scoped pid namespace has.
//! * A container that **containerd** puts into a user namespace of its own or of its pod (user is not
//!   NODE) may be assigned nothing but CONTAINER for other kinds: a namespace that it joins must be owned
//!   by its user namespace (setns(2) asks for CAP_SYS_ADMIN there), and so must one whose filesystem it
//!   mounts: sysfs for network, proc for pid (contract 17).
//!
//! # The order of widths
//!
//! A [`Ceiling`] compares scopes by [`Width`]: CONTAINER, then GROUP, then POD and TARGET, then
//! NODE. It bounds what is assigned, by the configuration or by a policy; what containerd requests
//! it bounds for the kinds that the configuration lists.
#![forbid(unsafe_code)]

pub mod audit;
mod ceiling;
pub mod config;
mod edit;
mod ids;
mod kind;
pub mod links;
mod offsets;
mod per_kind;
mod plan;
pub mod record;
mod request;
mod scope;

pub use ceiling::Ceiling;
pub use edit::{EditError, Paths};
pub use ids::{Ids, Ranges};
pub use kind::Kind;
pub use offsets::{Offset, Offsets};
pub use per_kind::PerKind;
pub use plan::{Assignment, Plan, PlanError, Planned, REQUEST};
pub use request::{Known, RequestError, requested};
pub use scope::{Scope, Scopes, Width};
