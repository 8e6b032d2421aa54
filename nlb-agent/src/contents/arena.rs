//! Room in the map `rings`: regions of words that are written once, published, retired, and used again after a grace period.

use crate::slots::Epoch;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A run of words in `rings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region {
    /// Index of the first word, never 0: a choice of 0 means "no target".
    pub at: u32,
    /// How many words.
    pub words: u32,
}

/// What of `rings` is free; neighbours are one region, the best fit is taken, the lowest of equals.
#[derive(Clone, Debug)]
pub struct Arena {
    free: BTreeMap<u32, u32>,
    by_size: BTreeSet<(u32, u32)>,
    retired: VecDeque<(Epoch, Region)>,
}

impl Arena {
    /// All of `words` but the first word is free.
    pub fn new(words: u32) -> Self {
        let mut arena = Self { free: BTreeMap::new(), by_size: BTreeSet::new(), retired: VecDeque::new() };
        if words > 1 {
            arena.insert(Region { at: 1, words: words - 1 });
        }
        arena
    }

    /// A free region of this many words; `None` where no free run is long enough.
    pub fn take(&mut self, words: u32) -> Option<Region> {
        let (free, at) = self.by_size.range((words, 0)..).next().copied()?;
        self.remove(Region { at, words: free });
        if free > words {
            self.insert(Region { at: at + words, words: free - words });
        }
        Some(Region { at, words })
    }

    /// Takes exactly this region; false, and nothing taken, where not all of it is free.
    pub fn reserve(&mut self, region: Region) -> bool {
        let Some((&at, &words)) = self.free.range(..=region.at).next_back() else { return false };
        let (end, free_end) =
            (u64::from(region.at) + u64::from(region.words), u64::from(at) + u64::from(words));
        if end > free_end || region.words == 0 {
            return false;
        }
        self.remove(Region { at, words });
        if region.at > at {
            self.insert(Region { at, words: region.at - at });
        }
        if end < free_end {
            self.insert(Region { at: end as u32, words: (free_end - end) as u32 });
        }
        true
    }

    /// From `epoch` on nothing leads to the region.
    pub fn retire(&mut self, region: Region, epoch: Epoch) {
        self.retired.push_back((epoch, region));
    }

    /// Frees the regions whose grace period has passed.
    pub fn expire(&mut self, elapsed: Epoch) {
        while let Some((epoch, region)) = self.retired.front().copied()
            && epoch <= elapsed
        {
            self.retired.pop_front();
            self.give_back(region);
        }
    }

    /// Frees a region at once: one whose grace period has passed, or that no step has named.
    pub fn give_back(&mut self, mut region: Region) {
        if let Some((&at, &words)) = self.free.range(..region.at).next_back()
            && at + words == region.at
        {
            self.remove(Region { at, words });
            region = Region { at, words: words + region.words };
        }
        if let Some(&words) = self.free.get(&(region.at + region.words)) {
            self.remove(Region { at: region.at + region.words, words });
            region.words += words;
        }
        self.insert(region);
    }

    /// Whether a grace period would free anything.
    pub fn is_waiting(&self) -> bool {
        !self.retired.is_empty()
    }

    /// Free words, those that wait for a grace period not counted.
    pub fn free_words(&self) -> u32 {
        self.free.values().sum()
    }

    fn insert(&mut self, region: Region) {
        self.free.insert(region.at, region.words);
        self.by_size.insert((region.words, region.at));
    }

    fn remove(&mut self, region: Region) {
        self.free.remove(&region.at);
        self.by_size.remove(&(region.words, region.at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn regions_never_overlap_and_all_room_comes_back(
            moves in prop::collection::vec((1..40_u32, any::<bool>(), any::<prop::sample::Index>()), 1..200),
        ) {
            let mut arena = Arena::new(400);
            let mut held: Vec<Region> = Vec::new();
            for (epoch, (words, retire, index)) in (1..).map(Epoch).zip(moves) {
                if retire && !held.is_empty() {
                    arena.retire(held.swap_remove(index.index(held.len())), epoch);
                } else if let Some(new) = arena.take(words) {
                    prop_assert!(new.at > 0 && new.at + new.words <= 400 && new.words == words);
                    for old in held.iter().chain(arena.retired.iter().map(|(_, region)| region)) {
                        prop_assert!(new.at + new.words <= old.at || old.at + old.words <= new.at);
                    }
                    held.push(new);
                }
                if epoch.0 % 5 == 0 {
                    arena.expire(Epoch(epoch.0 - 2));
                }
            }
            let mut again = Arena::new(400);
            for region in &held {
                prop_assert!(again.reserve(*region) && !again.reserve(*region));
            }
            arena.expire(Epoch(u64::MAX));
            prop_assert_eq!(&arena.free, &again.free);
            held.into_iter().for_each(|region| arena.give_back(region));
            prop_assert_eq!(arena.take(399), Some(Region { at: 1, words: 399 }));
        }
    }

    #[test]
    fn a_retired_region_waits_for_its_grace_period() {
        let mut arena = Arena::new(11);
        let region = arena.take(10).unwrap();
        arena.retire(region, Epoch(3));
        arena.expire(Epoch(2));
        assert_eq!(arena.take(1), None);
        assert!(arena.is_waiting());
        arena.expire(Epoch(3));
        assert_eq!(arena.take(10), Some(region));
    }
}
