//! Ranges of user and group ids, of which each user namespace that husk makes has one to itself.
use serde::{Deserialize, Serialize};

/// The ids of a user namespace: 0 in it is `first` on the node, and so on. Users and groups alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// The first, on the node.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl Ids {
    /// Whether some id is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let end = |ids: Self| u64::from(ids.first) + u64::from(ids.count);
        u64::from(self.first) < end(other) && u64::from(other.first) < end(self)
    }
}

/// The ranges that a handler's containers may have.
///
/// The default is what nothing else takes: the kubelet's pods have the ids from 65536 on, systemd's
/// containers and its dynamic users those below 0x70000000, and the kernel and some file systems take
/// ids from 0x80000000 on for negative numbers (<https://systemd.io/UIDS-GIDS>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// The first id of the first range.
    pub first: u32,
    /// How many ids each has.
    pub count: u32,
    /// How many ranges there are.
    pub ranges: u32,
}

impl Default for Ranges {
    fn default() -> Self {
        Self {
            first: 0x7000_0000,
            count: 65_536,
            ranges: 4_096,
        }
    }
}

impl Ranges {
    /// All ranges, in order.
    pub fn iter(self) -> impl Iterator<Item = Ids> {
        let count = self.count;
        (0..self.ranges).filter_map(move |at| {
            let first = at.checked_mul(count)?.checked_add(self.first)?;
            Some(Ids { first, count })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_do_not_overlap() {
        let all: Vec<Ids> = Ranges::default().iter().collect();
        assert_eq!(all.len(), 4_096);
        assert_eq!(all.last().unwrap().first, 0x7fff_0000);
        for pair in all.windows(2) {
            assert!(!pair[0].overlaps(pair[1]) && pair[0].overlaps(pair[0]));
        }
        let last = Ids {
            first: u32::MAX - 1,
            count: 1,
        };
        assert!(last.overlaps(last));
    }
}
