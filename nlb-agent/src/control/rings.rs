//! The rings in use: one for each target set, shared by all listeners that have it.

use crate::contents::arena::{Arena, Region};
use crate::contents::{Contents, ring_words};
use crate::ring::{self, Member};
use crate::slots::Epoch;
use nlb_common::layout::Members;
use std::collections::HashMap;
use std::sync::Arc;

/// What a ring is a function of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Set {
    pub(super) size: u32,
    pub(super) members: Vec<Member>,
}

impl Set {
    /// The set in lowest terms: only the ratio of the shares counts.
    pub(super) fn new(size: u32, mut members: Vec<Member>) -> Self {
        let divisor = members.iter().fold(0, |divisor, member| greatest_common(divisor, member.share)).max(1);
        members.iter_mut().for_each(|member| member.share /= divisor);
        Self { size, members }
    }
}

#[derive(Clone, Debug)]
struct Ring {
    size: u32,
    users: u32,
    /// `None` for a ring found in the maps, until a listener turns out to want just this.
    set: Option<Arc<Set>>,
}

/// Rings by their first word.
#[derive(Clone, Debug, Default)]
pub(super) struct Rings {
    rings: HashMap<u32, Ring>,
    by_set: HashMap<Arc<Set>, u32>,
}

impl Rings {
    /// One more user for the ring of this set, which may be the one that the listener had (`before`); with its words where it is new.
    pub(super) fn take(
        &mut self,
        set: Set,
        before: Option<u32>,
        now: &Contents,
        arena: &mut Arena,
    ) -> Option<(u32, Option<Vec<u64>>)> {
        if let Some(&at) = self.by_set.get(&set) {
            self.rings.get_mut(&at).expect("a set names a ring").users += 1;
            return Some((at, None));
        }
        let (size, set) = (set.size, Arc::new(set));
        let words = ring::pack(&ring::build(&set.members, size));
        let found = before.filter(|at| {
            let adopted = &self.rings[at];
            adopted.set.is_none()
                && adopted.size == size
                && now.ring(Members { ring: *at, size }) == Some(&words)
        });
        let at = found.or_else(|| arena.take(words.len() as u32).map(|region| region.at))?;
        let ring = self.rings.entry(at).or_insert(Ring { size, users: 0, set: None });
        ring.users += 1;
        ring.set = Some(set.clone());
        self.by_set.insert(set, at);
        Some((at, found.is_none().then_some(words)))
    }

    /// One user fewer: the region that has none left, to be retired.
    pub(super) fn release(&mut self, at: u32) -> Option<Region> {
        let ring = self.rings.get_mut(&at).expect("a listener's ring is known");
        ring.users -= 1;
        if ring.users > 0 {
            return None;
        }
        let ring = self.rings.remove(&at)?;
        if let Some(set) = ring.set {
            self.by_set.remove(&set);
        }
        Some(Region { at, words: ring_words(ring.size) })
    }

    /// A user of a ring that is in the maps already; false where its words are somebody else's.
    pub(super) fn adopt(&mut self, members: Members, arena: &mut Arena) -> bool {
        let Members { ring: at, size } = members;
        let known = self.rings.get(&at).map(|ring| ring.size == size);
        let ours = known.unwrap_or_else(|| arena.reserve(Region { at, words: ring_words(size) }));
        if ours {
            self.rings.entry(at).or_insert(Ring { size, users: 0, set: None }).users += 1;
        }
        ours
    }

    /// Gives up a region at once (an undone take) or after the grace period.
    pub(super) fn retire(&mut self, at: u32, arena: &mut Arena, epoch: Option<Epoch>) {
        match (self.release(at), epoch) {
            (Some(region), Some(epoch)) => arena.retire(region, epoch),
            (Some(region), None) => arena.give_back(region),
            (None, _) => {}
        }
    }
}

fn greatest_common(mut a: u32, mut b: u32) -> u32 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}
