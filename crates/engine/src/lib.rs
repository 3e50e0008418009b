//! A client of containerd shims v2: starts any shim and drives it as containerd would.
//!
//! [`shim`] speaks to one shim process; [`manifest`] reads Kubernetes Pod manifests; [`image`]
//! brings their images; [`spec`] writes the OCI specs that CRI would write for them; [`pod`] runs
//! the whole; [`account`] counts what something costs.
#![forbid(unsafe_code)]

pub mod account;
mod cgroup;
pub mod image;
pub mod manifest;
pub mod netns;
pub mod network;
pub mod pod;
pub mod shim;
pub mod spec;
