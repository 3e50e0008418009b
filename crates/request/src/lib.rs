//! What containerd says to a shim, decoded: from bytes to what the shim acts on.
//!
//! Nothing is done here, so that whatever bytes arrive can be tried on it: [`bootstrap`] is what
//! `start` gets, [`cri`] the pod that the Sandbox API is asked for, [`task`] what requests about
//! containers hold beside names.
#![forbid(unsafe_code)]

pub mod bootstrap;
pub mod cri;
pub mod task;

/// A message that is not what its type says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);
