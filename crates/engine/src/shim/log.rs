//! The shim's log: a fifo in its bundle that somebody must read (contract 7).
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use super::Error;

/// The name that every shim opens in its working directory.
const FIFO: &str = "log";

/// What is copied from a shim's log, until it is dropped.
pub(super) struct Drained(JoinHandle<()>);

impl Drop for Drained {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes the bundle's log fifo and copies what the shim writes there to `file`.
pub(super) fn drain(bundle: &Path, file: &Path) -> Result<Drained, Error> {
    let fifo = bundle.join(FIFO);
    if !fifo.exists() {
        mkfifo(&fifo, Mode::from_bits_truncate(0o600))
            .map_err(|errno| Error::io("make the fifo", &fifo)(errno.into()))?;
    }
    // Both ends: without a writer of our own, reading would end before the shim opens it.
    let mut receiver = pipe::OpenOptions::new()
        .read_write(true)
        .open_receiver(&fifo)
        .map_err(Error::io("open the fifo", &fifo))?;
    let mut log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .map_err(Error::io("open", file))?;
    Ok(Drained(tokio::spawn(async move {
        let mut buffer = [0; 8192];
        while let Ok(count) = receiver.read(&mut buffer).await {
            let Some(text) = buffer.get(..count).filter(|text| !text.is_empty()) else {
                break;
            };
            if log.write_all(text).is_err() {
                break;
            }
        }
    })))
}

/// The log's last lines, for an error message; at most 2 KiB.
pub(super) fn tail(file: &Path) -> String {
    const MOST: usize = 2048;
    let mut text = Vec::new();
    if let Ok(mut log) = std::fs::File::open(file) {
        // A log that cannot be read adds nothing to the error it would explain.
        let _ = log.read_to_end(&mut text);
    }
    let from = text.len().saturating_sub(MOST);
    String::from_utf8_lossy(text.get(from..).unwrap_or_default())
        .trim()
        .to_owned()
}
