//! A client of containerd shims v2: starts any shim and drives it as containerd would.
//!
//! [`shim`] speaks to one shim process; [`manifest`] reads Kubernetes Pod manifests; [`image`]
//! brings their images.
#![forbid(unsafe_code)]

pub mod image;
pub mod manifest;
pub mod shim;
