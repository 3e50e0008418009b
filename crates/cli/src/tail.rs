//! Containers' logs, printed line by line as they grow.
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

/// How often a log is looked at; a file says nothing by itself.
const POLL: Duration = Duration::from_millis(50);

/// A log that is printed to stdout as it grows, each line after a prefix.
pub(crate) struct Tail {
    file: File,
    prefix: String,
    /// The beginning of a line whose end is not there yet.
    pending: Vec<u8>,
}

impl Tail {
    /// # Errors
    /// A log that cannot be opened.
    pub(crate) fn open(log: &Path, prefix: String) -> io::Result<Self> {
        let file = File::open(log)?;
        let pending = Vec::new();
        Ok(Self {
            file,
            prefix,
            pending,
        })
    }

    /// Prints what has come since; also a line that has no end, if it is the `last`.
    ///
    /// # Errors
    /// A log that cannot be read, a stdout that cannot be written.
    pub(crate) fn print(&mut self, last: bool) -> io::Result<()> {
        self.file.read_to_end(&mut self.pending)?;
        print_lines(&mut self.pending, &self.prefix, last)
    }
}

/// Prints a log until `over` and everything is printed.
///
/// # Errors
/// As [`Tail::print`].
pub(crate) async fn print(tail: &Mutex<Tail>, mut over: watch::Receiver<bool>) -> io::Result<()> {
    loop {
        // Seen before reading: what comes after was there when the reading began.
        let last = *over.borrow_and_update();
        lock(tail).print(last)?;
        if last {
            return Ok(());
        }
        tokio::select! {
            () = sleep(POLL) => {}
            _ = over.wait_for(|over| *over) => {}
        }
    }
}

/// A tail stays usable whoever panicked: at worst a line is printed twice.
pub(crate) fn lock(tail: &Mutex<Tail>) -> MutexGuard<'_, Tail> {
    tail.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prints the complete lines and keeps the rest, or prints that too if it is the `last`.
fn print_lines(pending: &mut Vec<u8>, prefix: &str, last: bool) -> io::Result<()> {
    let complete = match pending.iter().rposition(|byte| *byte == b'\n') {
        _ if last => pending.len(),
        Some(end) => end + 1,
        None => return Ok(()),
    };
    let lines: Vec<u8> = pending.drain(..complete).collect();
    if lines.is_empty() {
        return Ok(());
    }
    let mut stdout = io::stdout().lock();
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        stdout.write_all(prefix.as_bytes())?;
        stdout.write_all(line)?;
        if !line.ends_with(b"\n") && !prefix.is_empty() {
            stdout.write_all(b"\n")?;
        }
    }
    stdout.flush()
}
