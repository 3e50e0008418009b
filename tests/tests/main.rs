//! What husk does, one file for each behaviour; see the list below.
//!
//! These scenarios need a lab: `tests/run` makes one.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "tests fail by panicking; each is a sentence"
)]

mod bad_input;
mod delete_is_idempotent;
mod events_order;
mod exec;
mod io;
mod kill;
mod limits;
mod oom;
mod pause;
mod run_and_exit;
mod stats;
mod tty;
