//! What wasmtime generates from `husk:plugin`.
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "generated from the WIT package, documented there"
)]

wasmtime::component::bindgen!({
    path: "../../wit/0.1.0",
    world: "plugin",
    imports: { default: trappable },
});

pub use exports::husk::plugin::{configurable, lifecycle, scoping};
