//! Which slot a target of a listener has, and when a slot that was freed may be used again.

use crate::model::{Placed, TargetKey};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

/// A moment between two plans: the plans are numbered, and a grace period after one covers all before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The next one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Indexes of an array map: in use, leaving (nothing leads there any more, but a packet may be on its way), or free.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    capacity: u32,
    /// From here on nothing was ever used.
    fresh: u32,
    /// Free ones, the longest free first, with the epoch in which they became so.
    free: VecDeque<(Epoch, u32)>,
    leaving: VecDeque<(Epoch, u32)>,
}

impl Pool {
    /// A pool below `capacity` in which these below `fresh` are in use, and the others below `fresh` long free.
    pub fn new(capacity: u32, fresh: u32, in_use: impl Fn(u32) -> bool) -> Self {
        let free =
            (0..fresh).filter(|index| !in_use(*index)).map(|index| (Epoch::default(), index)).collect();
        Self { capacity, fresh, free, leaving: VecDeque::new() }
    }

    /// The longest free index whose grace period has passed, or one that never was used.
    pub fn take(&mut self, elapsed: Epoch) -> Option<u32> {
        if let Some((epoch, index)) = self.free.front().copied()
            && epoch <= elapsed
        {
            self.free.pop_front();
            return Some(index);
        }
        let index = self.fresh;
        (index < self.capacity).then(|| self.fresh += 1).map(|()| index)
    }

    /// Undoes [`Pool::take`], for an index that no step has named.
    pub fn give_back(&mut self, index: u32) {
        self.free.push_front((Epoch::default(), index));
    }

    /// From `epoch` on nothing leads to the index.
    pub fn leave(&mut self, index: u32, epoch: Epoch) {
        self.leaving.push_back((epoch, index));
    }

    /// Frees, in `now`, the leaving ones whose grace period has passed, and names them.
    pub fn expire(&mut self, elapsed: Epoch, now: Epoch) -> Vec<u32> {
        let over = self.leaving.iter().take_while(|(epoch, _)| *epoch <= elapsed).count();
        let freed: Vec<u32> = self.leaving.drain(..over).map(|(_, index)| index).collect();
        self.free.extend(freed.iter().map(|index| (now, *index)));
        freed
    }

    /// Whether a grace period would change anything.
    pub fn is_waiting(&self, elapsed: Epoch) -> bool {
        !self.leaving.is_empty() || self.free.back().is_some_and(|(epoch, _)| *epoch > elapsed)
    }
}

/// Who sits in a slot of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// The pod's address.
    pub ip: IpAddr,
    /// The pod's port.
    pub port: u16,
    /// What the maps do not tell; `None` where they were adopted without a note of it.
    pub known: Option<Known>,
    /// The slot.
    pub slot: u32,
}

/// The part of a target's identity that is not in the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The pod's UID.
    pub uid: Option<String>,
    /// [`Placed::incarnation`].
    pub incarnation: u32,
}

impl Occupant {
    fn new(placed: &Placed, slot: u32) -> Self {
        let TargetKey { ip, port, uid } = placed.key.clone();
        Self { ip, port, known: Some(Known { uid, incarnation: placed.incarnation }), slot }
    }

    /// True if this is surely the same target in the same incarnation.
    fn is(&self, placed: &Placed) -> bool {
        self.known
            .as_ref()
            .is_some_and(|known| known.uid == placed.key.uid && known.incarnation == placed.incarnation)
    }
}

/// The seating of one listener's targets after a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Who sits where, in the order of the wanted targets; those without a slot are missing.
    pub occupants: Vec<Occupant>,
    /// For each wanted target its slot, `None` where there was none left.
    pub slots: Vec<Option<u32>>,
    /// Slots that are new.
    pub taken: Vec<u32>,
    /// Slots whose targets are no longer wanted.
    pub left: Vec<u32>,
}

/// Seats the wanted targets of a listener: who has a slot keeps it, the others take what `take` gives.
pub fn place(now: &[Occupant], wanted: &[Placed], mut take: impl FnMut() -> Option<u32>) -> Placement {
    let mut seated: HashMap<(IpAddr, u16), Vec<&Occupant>> = HashMap::with_capacity(now.len());
    for occupant in now {
        seated.entry((occupant.ip, occupant.port)).or_default().push(occupant);
    }
    let mut keep = |placed: &Placed, fits: &dyn Fn(&Occupant) -> bool| {
        let here = seated.get_mut(&(placed.key.ip, placed.key.port))?;
        let at = here.iter().position(|occupant| fits(occupant))?;
        Some(here.remove(at).slot)
    };
    let mut kept: Vec<Option<u32>> =
        wanted.iter().map(|placed| keep(placed, &|occupant| occupant.is(placed))).collect();
    // Unknown occupants come with those first that take new flows.
    for takes in [true, false] {
        for (placed, kept) in wanted.iter().zip(&mut kept).filter(|(placed, _)| (placed.share > 0) == takes) {
            *kept = kept.or_else(|| keep(placed, &|occupant| occupant.known.is_none()));
        }
    }
    let mut left: Vec<u32> = seated.into_values().flatten().map(|occupant| occupant.slot).collect();
    left.sort_unstable();
    let mut placement = Placement { left, ..Placement::default() };
    for (placed, kept) in wanted.iter().zip(kept) {
        let slot = kept.or_else(|| take().inspect(|slot| placement.taken.push(*slot)));
        placement.occupants.extend(slot.map(|slot| Occupant::new(placed, slot)));
        placement.slots.push(slot);
    }
    placement
}

/// What of the allocation is not in the maps: to be kept in a file over restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// One for each slot in use.
    pub slots: Vec<SavedSlot>,
}

/// The occupant of one slot, valid only for this generation of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSlot {
    /// The slot.
    pub slot: u32,
    /// The slot's generation at the time.
    pub generation: u32,
    /// The pod's UID.
    pub uid: Option<String>,
    /// [`Placed::incarnation`].
    pub incarnation: u32,
}

#[cfg(test)]
mod tests;
