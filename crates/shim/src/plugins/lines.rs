//! How much plugins may write to the shim's log: a call's lines are few, but calls may be many.
use std::time::{Duration, Instant};

/// What all plugins of a pod together may write in a period.
const LINES: u32 = 200;
const PERIOD: Duration = Duration::from_secs(60);

/// What is left of the period's lines.
#[derive(Debug)]
pub(super) struct Lines {
    since: Instant,
    written: u32,
    dropped: u64,
}

impl Lines {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            written: 0,
            dropped: 0,
        }
    }

    /// Whether a line may be written now, and how many were dropped before it and not told of yet.
    pub(super) fn admit(&mut self, now: Instant) -> (bool, u64) {
        let mut untold = 0;
        if now.duration_since(self.since) >= PERIOD {
            untold = self.dropped;
            *self = Self::new(now);
        }
        let admitted = self.written < LINES;
        if admitted {
            self.written = self.written.saturating_add(1);
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
        (admitted, untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_over_many_calls_is_cut_and_counted() {
        let start = Instant::now();
        let mut lines = Lines::new(start);
        let admitted = (0..1000).filter(|_| lines.admit(start).0).count();
        assert_eq!(admitted, 200);
        assert_eq!(lines.admit(start + PERIOD), (true, 800));
        assert_eq!(lines.admit(start + PERIOD), (true, 0));
    }
}
