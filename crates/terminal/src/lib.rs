//! How husk's commands speak to people: text in columns, colours where they are wanted, messages on
//! stderr.
#![forbid(unsafe_code)]

pub mod messages;
pub mod page;
mod terminal;

pub use terminal::{Raw, coloured, size, wants_colour};
