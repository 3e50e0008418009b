//! Runs husk's plugins.
//!
//! A plugin is a WebAssembly component that exports interfaces of the WIT package `husk:plugin`. This
//! crate loads its machine code (compiled ahead, never here unless the feature `compile` is on),
//! gives every call a fresh instance with a deadline and limits, answers what the plugin asks about
//! the pod, and merges what a chain of plugins decides. Whatever goes wrong in a plugin denies,
//! unless its configuration says otherwise: plugins fail closed.
//!
//! It knows nothing of Linux: what a pod is, it is told in [`subject`].

#![deny(unsafe_code)]

pub mod adjust;
#[cfg(feature = "compile")]
mod admission;
pub mod artifact;
mod bindings;
mod canonical;
#[cfg(feature = "cases")]
pub mod case;
pub mod chain;
pub mod decide;
mod engine;
mod guest_log;
mod imports;
mod limits;
pub mod plugin;
pub mod recorded;
mod seccomp;
mod state;
pub mod subject;
mod wasi;

pub use chain::{Chain, Decision, Denied, Outcome};
pub use engine::{Clock, Host, HostError, TICK};
pub use guest_log::Level;
pub use plugin::{Plugin, PluginError, Settings};
pub use seccomp::{ProfileError, seccomp_profiles};
pub use wasmtime::component::Component;
