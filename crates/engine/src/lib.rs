//! A client of containerd shims v2: starts any shim and drives it as containerd would.
#![forbid(unsafe_code)]

pub mod image;
