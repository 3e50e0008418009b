//! What the host holds plugins to, each file a behaviour.
//!
//! One program: each that links the compiler is 70 MB.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod a_bad_plugin_denies;
mod a_failure_says_why;
mod common;
mod hostile;
mod no_chain_widens_past_the_ceiling;
mod only_our_own_code_is_loaded;
mod plugins_answer_their_cases;
mod plugins_decide_links;
mod plugins_decide_together;
mod plugins_of_other_versions;
mod questions_are_asked_again;
mod the_wit_package_is_stable;
mod what_a_call_holds_is_bounded;
