//! A client of containerd shims v2: starts any shim and drives it as containerd would.
//!
//! [`shim`] speaks to one shim process; [`manifest`] reads Kubernetes Pod manifests; [`spec`]
//! writes the OCI specs that CRI would write for them; [`pod`] runs the whole.
#![forbid(unsafe_code)]

pub mod manifest;
pub mod shim;
