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

mod run_and_exit;
