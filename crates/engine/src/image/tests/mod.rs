//! Images made here, taken from a registry on the loopback and from files, down to the mounts.
//!
//! Root is needed: owners, devices and mounts are real.
mod build;
mod layers;
mod layouts;
mod pulls;
mod scratch;
mod server;
mod tree;
