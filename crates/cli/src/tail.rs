//! Containers' logs, printed line by line as they grow.
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

/// How often a log is looked at; a file says nothing by itself.
const POLL: Duration = Duration::from_millis(50);

/// Prints a log to stdout, each line after `prefix`, until `over` and everything is printed.
///
/// # Errors
/// A log that cannot be read, a stdout that cannot be written.
pub(crate) async fn print(
    log: &Path,
    prefix: &str,
    mut over: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut file = File::open(log)?;
    let mut pending = Vec::new();
    loop {
        // Seen before reading: what comes after was there when the reading began.
        let last = *over.borrow_and_update();
        file.read_to_end(&mut pending)?;
        print_lines(&mut pending, prefix, last)?;
        if last {
            return Ok(());
        }
        tokio::select! {
            () = sleep(POLL) => {}
            _ = over.wait_for(|over| *over) => {}
        }
    }
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
