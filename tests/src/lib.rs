//! The harness of the conformance suite: a private containerd, its two clients (`ctr` and CRI),
//! and the count of what is left behind.
//!
//! Every scenario runs inside a [`lab`]: mount and network namespaces of their own, with a
//! containerd that nothing else on the machine can see. `tests/run` enters one, and so does
//! `target/debug/lab COMMAND`.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a harness ends the test by panicking, and says why on stderr"
)]

pub mod audit;
pub mod cgroup;
pub mod command;
pub mod containerd;
pub mod cri;
pub mod ctr;
pub mod events;
pub mod image;
pub mod lab;
pub mod network;
pub mod node_file;
pub mod process;
pub mod race;
pub mod residue;
pub mod shim;
pub mod spec;
