//! What wasmtime generates from `husk:plugin`.
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "generated from the WIT package, documented there"
)]

wasmtime::component::bindgen!({
    path: "../../wit/0.1.1",
    world: "plugin-with-links",
    imports: { default: trappable },
});

pub use exports::husk::plugin::{configurable, lifecycle, linking, scoping};
