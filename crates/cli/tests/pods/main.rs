//! `husk run` and its companions, against real shims: each test runs under husk's own shim and,
//! to prove the engine by a shim it was not written with, under containerd's runc shim.
//!
//! `tests/run` sets what they need: root, and `HUSK_LAB`, the directory that `tests/lab/get` fills.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod agent;
mod audit;
mod containers;
mod detached;
mod examples;
mod failures;
mod health;
mod limits;
mod namespaces;
mod network;
mod node;
mod output;
mod pictures;
mod scopes;
mod security;
mod stop;
mod volumes;

/// Makes two tests of each function, one for each shim.
#[macro_export]
macro_rules! under_each_shim {
    ($($name:ident),+ $(,)?) => {
        mod husk {
            $(#[test] fn $name() { super::$name(&$crate::node::Node::new($crate::node::Shim::Husk)); })+
        }
        mod runc {
            $(#[test] fn $name() { super::$name(&$crate::node::Node::new($crate::node::Shim::Runc)); })+
        }
    };
}
