//! The node's audit record: what plugins answered, for longer than the pod lives.
//!
//! One directory, closed to all but root, has one file that is written, `audit.jsonl`, and the earlier
//! ones, `audit-00000001.jsonl` and so on: the higher, the later. A line of JSON is one answer, see
//! [`husk_scope::audit::Line`].
//!
//! Every pod's shim writes to it. They take turns by a lock (flock(2)) of the directory: under it a line
//! is appended by one write(2), and a file that is full or old is renamed and a new one begun. A
//! writer that finds another file under the name, or none, opens what is there. A line that was begun
//! and not finished, because its writer was killed or the disk is full, is taken back or ended, so that
//! the next one begins on a line of its own; a reader passes over what is not a line and counts it.
//!
//! Beside it, where a handler asks for that, are the questions: [`Questions`].
//!
//! Nothing is synced to disk: a container's start does not wait for it, and what a node writes in its
//! last seconds before it loses power may be lost.
#![forbid(unsafe_code)]

mod clock;
mod files;
mod journal;
mod questions;
mod reader;
mod turn;
mod writer;

pub use clock::{parse, text};
pub use files::CURRENT;
pub use questions::{KeepError, Kept, Questions};
pub use reader::{Entry, Reader};
pub use writer::{AppendError, Writer};
