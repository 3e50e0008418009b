//! Whose namespace a container uses.
//!
//! A container's OCI spec *requests* a scope for every kind of namespace; a handler's
//! configuration and its policies *assign* others; the result is a [`Plan`]: what will be done,
//! before anything is done. [`Plan::edit`] then turns the spec into one that does it.
//!
//! This crate decides; it touches nothing. It does no I/O and holds no `unsafe`.
#![forbid(unsafe_code)]

mod ceiling;
pub mod config;
mod edit;
mod kind;
mod offsets;
mod per_kind;
mod plan;
pub mod record;
mod request;
mod scope;

pub use ceiling::Ceiling;
pub use edit::{EditError, Paths};
pub use kind::Kind;
pub use offsets::{Offset, Offsets};
pub use per_kind::PerKind;
pub use plan::{Assignment, Plan, PlanError, Planned, REQUEST};
pub use request::{Known, RequestError, requested};
pub use scope::{Scope, Scopes, Width};
