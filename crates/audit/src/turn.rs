//! Turns: who may write to a directory, of all processes that do.
use std::fs::{File, TryLockError};
use std::io;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long others are waited for: each holds the lock for some microseconds, unless it was stopped.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// How long is waited before it is tried again, at first and at most.
const PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

/// The right to write, until dropped.
pub(crate) struct Turn(Arc<File>);

impl Turn {
    /// Waits for it; none where others do not give it back. `asked` is when the waiting began.
    pub(crate) fn take(dir: &Arc<File>, asked: Instant) -> io::Result<Option<Self>> {
        let mut pause = PAUSE;
        loop {
            match dir.try_lock() {
                Ok(()) => return Ok(Some(Self(Arc::clone(dir)))),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if asked.elapsed() >= PATIENCE => return Ok(None),
                Err(TryLockError::WouldBlock) => sleep(pause),
            }
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // It could fail only for want of a lock.
        let _ = self.0.unlock();
    }
}
