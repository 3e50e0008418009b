//! What one call may make the host hold: the sum of it, whatever it is held for.
//!
//! A component may have many core instances, each with memories and tables of its own; it may also
//! make the host hold what it passes and answers. One number bounds all of it: the `memory` of the
//! plugin's configuration. It counts the memories and tables of every instance, and of what crosses
//! to the host the links and the edits (the container keeps them, so they have limits of their own too).
//! What is small and fixed is bounded beside it and not counted: what is copied in one call of a
//! function ([`CROSSING`], given back when that returns), a call's log ([`crate::guest_log`]),
//! handles ([`HANDLES`]) and the instances' own records, which [`crate::admission`] adds up before
//! a component is compiled.
use std::fmt;

use wasmtime::{ResourceLimiter, Result};

/// How much of what a plugin passes to one function of the host, or answers, is copied, in bytes.
pub(crate) const CROSSING: usize = 1024 * 1024;

/// How much the edits of one call may come to, in bytes. As long as the kernel lets one argument of
/// execve(2) be; the pod's shim keeps them as long as it keeps the container.
pub(crate) const EDITS: usize = 128 * 1024;

/// What an edit takes beside its words, in bytes: an entry of the spec, and one of the audit record.
const EDIT: usize = 256;

/// What a link takes beside its words, in bytes: an entry of the container's links, and one of its
/// relay's.
const LINK: usize = 512;

/// What each word takes beside its bytes: a `String` and what the allocator adds, twice.
const WORD: usize = 96;

/// How many handles of resources may be open at once. husk's own interfaces have none; a guest's
/// libraries open a few of WASI's.
pub(crate) const HANDLES: usize = 1000;

/// How many core instances a component may have. Python's has some forty.
const INSTANCES: usize = 100;

/// What wasmtime keeps for an element of a table, in bytes.
const ELEMENT: usize = size_of::<usize>();

/// A limit that a call went over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OverLimit(String);

impl OverLimit {
    /// More than [`CROSSING`] was to be copied.
    pub(crate) fn crossing() -> Self {
        Self(format!(
            "the limit of {} for what one call passes or answers",
            Size(CROSSING)
        ))
    }
}

impl fmt::Display for OverLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OverLimit {}

/// What a call may hold, and how much of it is held.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    held: usize,
    edits: usize,
}

impl Budget {
    /// A budget of this many bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            held: 0,
            edits: 0,
        }
    }

    /// How much is held, in bytes.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    fn hold(&mut self, bytes: usize, what: &str) -> Result<(), OverLimit> {
        let held = self.held.saturating_add(bytes);
        if held > self.limit {
            return Err(OverLimit(format!(
                "the memory limit of {} ({} held, {} more for {what})",
                Size(self.limit),
                Size(self.held),
                Size(bytes),
            )));
        }
        self.held = held;
        Ok(())
    }

    /// Makes room for a link with this word. How many there may be is bounded beside this.
    ///
    /// # Errors
    /// All that is held would be more than is allowed.
    pub(crate) fn hold_link(&mut self, word: &str) -> Result<(), OverLimit> {
        let bytes = LINK.saturating_add(WORD).saturating_add(word.len());
        self.hold(bytes, "a link")
    }

    /// Makes room for an edit of these words.
    ///
    /// # Errors
    /// The edits, or all that is held, would be more than is allowed.
    pub(crate) fn hold_edit(&mut self, words: &[&str]) -> Result<(), OverLimit> {
        let bytes = words.iter().fold(EDIT, |sum, word| {
            sum.saturating_add(WORD).saturating_add(word.len())
        });
        let edits = self.edits.saturating_add(bytes);
        if edits > EDITS {
            return Err(OverLimit(format!(
                "the limit of {} for all edits of a container",
                Size(EDITS)
            )));
        }
        self.hold(bytes, "an edit")?;
        self.edits = edits;
        Ok(())
    }
}

/// What goes over a limit traps: a guest that is told that it gets no memory fails later, in words
/// of its own that do not name the limit.
impl ResourceLimiter for Budget {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.hold(desired.saturating_sub(current), "a memory")?;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> Result<()> {
        Err(error)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let more = desired.saturating_sub(current);
        self.hold(more.saturating_mul(ELEMENT), "a table")?;
        Ok(true)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> Result<()> {
        Err(error)
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn tables(&self) -> usize {
        INSTANCES
    }

    fn memories(&self) -> usize {
        INSTANCES
    }
}

/// A number of bytes, for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size(pub(crate) usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        let units = [("GiB", 1_usize << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        // The largest unit that loses nothing, and one that says enough for what has none.
        let exact = units
            .iter()
            .find(|(_, unit)| bytes >= *unit && bytes % unit == 0);
        match exact {
            Some((name, unit)) => write!(f, "{} {name}", bytes / unit),
            None if bytes >= 1 << 20 => write!(f, "{} KiB", bytes >> 10),
            None => write!(f, "{bytes} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_size_is_told_in_the_largest_unit_that_fits() {
        for (bytes, words) in [
            (64 << 20, "64 MiB"),
            (4 << 30, "4 GiB"),
            (128 << 10, "128 KiB"),
            (1000, "1000 bytes"),
            ((64 << 20) + 8, "65536 KiB"),
            (0, "0 bytes"),
        ] {
            assert_eq!(Size(bytes).to_string(), words);
        }
    }

    #[test]
    fn what_the_guest_itself_forbids_is_no_limit_of_ours() {
        let mut budget = Budget::new(1 << 20);
        assert!(!budget.memory_growing(0, 2 << 16, Some(1 << 16)).unwrap());
        assert!(!budget.table_growing(0, 10, Some(5)).unwrap());
        assert_eq!(budget.held(), 0);
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_in_whatever_order_the_sum_stays_below_the_limit(
            asked in prop::collection::vec((0_usize..3, 0_usize..1 << 22), 0..200),
            limit in 0_u64..1 << 24,
        ) {
            let mut budget = Budget::new(limit);
            let mut sum = 0;
            for (what, bytes) in asked {
                let admitted = match what {
                    0 => budget.memory_growing(0, bytes, None).is_ok().then_some(bytes),
                    1 => budget.table_growing(0, bytes, None).is_ok().then_some(bytes * ELEMENT),
                    _ => {
                        let word = "x".repeat(bytes >> 8);
                        let edit = budget.hold_edit(&[&word]);
                        edit.is_ok().then_some(EDIT + WORD + word.len())
                    }
                };
                sum += admitted.unwrap_or(0);
                prop_assert_eq!(budget.held(), sum);
                prop_assert!(sum as u64 <= limit);
            }
        }
    }
}
