//! Values by number, where a number that was given back is told from its next use.

/// Numbers wrap here: they are a part of an epoll event's 64 bits.
const GENERATIONS: u32 = 1 << 24;

/// A value's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    generation: u32,
    used: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            generation: 0,
            used: 0,
        }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, value: T) -> Key {
        // Of the whole slab, not of the place: places are forgotten, and events may come late.
        self.generation = (self.generation + 1) % GENERATIONS;
        let generation = self.generation;
        self.used += 1;
        let entry = (generation, Some(value));
        if let Some(index) = self.free.pop()
            && let Some(place) = self.entries.get_mut(index as usize)
        {
            *place = entry;
            return Key { index, generation };
        }
        // Each value is a descriptor at least, and those are numbered by less than 32 bits.
        let index = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.entries.push(entry);
        Key { index, generation }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        match self.entries.get(key.index as usize) {
            Some((generation, value)) if *generation == key.generation => value.as_ref(),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.entries.get_mut(key.index as usize) {
            Some((generation, value)) if *generation == key.generation => value.as_mut(),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let (_, place) = self.entries.get_mut(key.index as usize)?;
        let value = place.take();
        self.used -= 1;
        if self.used == 0 {
            // What a flood has left behind.
            (self.entries, self.free) = (Vec::new(), Vec::new());
        } else {
            self.free.push(key.index);
        }
        value
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        let keyed = |(index, (generation, value)): (u32, &'_ (u32, Option<T>))| {
            let key = Key {
                index,
                generation: *generation,
            };
            value.is_some().then_some(key)
        };
        (0..)
            .zip(&self.entries)
            .filter_map(move |(index, entry)| Some((keyed((index, entry))?, entry.1.as_ref()?)))
    }

    /// The keys of the values that are like this.
    pub(crate) fn keys(&self, mut like: impl FnMut(&T) -> bool) -> Vec<Key> {
        let keys = self.iter().filter(|(_, value)| like(value));
        keys.map(|(key, _)| key).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_means_one_value(steps in prop::collection::vec(any::<(bool, u8)>(), 0..200)) {
            let mut slab = Slab::default();
            let mut live: Vec<(Key, u32)> = Vec::new();
            let mut dead = Vec::new();
            for (value, (insert, which)) in (0u32..).zip(steps) {
                if insert || live.is_empty() {
                    live.push((slab.insert(value), value));
                } else {
                    let (key, value) = live.swap_remove(which as usize % live.len());
                    prop_assert_eq!(slab.remove(key), Some(value));
                    dead.push(key);
                }
                prop_assert_eq!(slab.len(), live.len());
                for (key, value) in &live {
                    prop_assert_eq!(slab.get(*key), Some(value));
                }
                for key in &dead {
                    prop_assert_eq!(slab.get(*key), None);
                }
                let listed: HashMap<_, _> = slab.iter().map(|(key, value)| (key, *value)).collect();
                prop_assert_eq!(listed, live.iter().copied().collect::<HashMap<_, _>>());
            }
        }
    }
}
