//! The node as it is read: each fact of Linux in one place, for whoever needs it. Nothing is changed
//! here, and nothing is unsafe.
#![forbid(unsafe_code)]

pub mod process;
