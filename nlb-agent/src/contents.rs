//! An image of the maps as plain data: what the kernel's half would find there.

pub mod arena;
pub mod bits;
mod coherence;

use crate::capacity::Limits;
use crate::plan::Step;
use crate::ring;
use nlb_common::address::Address;
use nlb_common::layout::{
    Choice, Listener, ListenerKey, Members, NO_SLOT, SHARERS, Sharers, Slot, TARGET_FILTER_BITS, TargetKey,
    VIP_FILTER_BITS, Vip,
};
use nlb_common::ring::RING_SIZES;
use std::collections::BTreeMap;

/// The maps; the arrays have their full length. Counters and flows are not part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The map `vips`.
    pub vips: BTreeMap<Address, Vip>,
    /// The map `vip_filter`: bit `b` is bit `b % 64` of word `b / 64`.
    pub vip_filter: Vec<u64>,
    /// The map `listeners`.
    pub listeners: BTreeMap<ListenerKey, Listener>,
    /// The map `choices`.
    pub choices: Vec<Choice>,
    /// The map `rings`: rings and members in regions of their own; word 0 is nobody's.
    pub rings: Vec<u64>,
    /// The map `slots`; one whose protocol is 0 is free.
    pub slots: Vec<Slot>,
    /// The map `targets`.
    pub targets: BTreeMap<TargetKey, Sharers>,
    /// The map `target_filter`, as `vip_filter`.
    pub target_filter: Vec<u64>,
}

/// What was read from the maps: hashes as pairs in any order, arrays whole.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the maps' names")]
pub struct MapDump {
    pub vips: Vec<(Address, Vip)>,
    pub vip_filter: Vec<u64>,
    pub listeners: Vec<(ListenerKey, Listener)>,
    pub choices: Vec<Choice>,
    pub rings: Vec<u64>,
    pub slots: Vec<Slot>,
    pub targets: Vec<(TargetKey, Sharers)>,
    pub target_filter: Vec<u64>,
}

/// A map that has not the size that it should have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the map `{map}` has {found} elements, not {expected}")]
pub struct WrongSize {
    /// The map.
    pub map: &'static str,
    /// Its elements.
    pub found: usize,
    /// What the limits say.
    pub expected: usize,
}

/// Where a listener's choice leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// The head.
    pub members: Members,
    /// The members' slots, as many as the ring names.
    pub slots: Vec<u32>,
}

impl Contents {
    /// Maps in which nothing was ever written.
    pub fn empty(limits: &Limits) -> Self {
        Self {
            vips: BTreeMap::new(),
            vip_filter: vec![0; VIP_FILTER_BITS as usize / 64],
            listeners: BTreeMap::new(),
            choices: vec![0; limits.listeners as usize],
            rings: vec![0; limits.ring_words as usize],
            slots: vec![Slot::default(); limits.slots as usize],
            targets: BTreeMap::new(),
            target_filter: vec![0; TARGET_FILTER_BITS as usize / 64],
        }
    }

    /// The image of maps that were read, whatever they hold.
    ///
    /// # Errors
    /// [`WrongSize`] if an array has not the length that the limits give it.
    pub fn read(dump: MapDump, limits: &Limits) -> Result<Self, WrongSize> {
        let sizes = [
            ("vip_filter", dump.vip_filter.len(), VIP_FILTER_BITS / 64),
            ("choices", dump.choices.len(), limits.listeners),
            ("rings", dump.rings.len(), limits.ring_words),
            ("slots", dump.slots.len(), limits.slots),
            ("target_filter", dump.target_filter.len(), TARGET_FILTER_BITS / 64),
        ];
        if let Some((map, found, expected)) =
            sizes.into_iter().find(|(_, found, size)| *found != *size as usize)
        {
            return Err(WrongSize { map, found, expected: expected as usize });
        }
        Ok(Self {
            vips: dump.vips.into_iter().collect(),
            vip_filter: dump.vip_filter,
            listeners: dump.listeners.into_iter().collect(),
            choices: dump.choices,
            rings: dump.rings,
            slots: dump.slots,
            targets: dump.targets.into_iter().collect(),
            target_filter: dump.target_filter,
        })
    }

    /// What the maps hold after this step; counters are not part of the image.
    pub fn run(&mut self, step: &Step) {
        match step {
            Step::ResetSlotCounts { .. } | Step::ResetListenerCounts { .. } => {}
            Step::SetTargetFilterWord { word, bits } => self.target_filter[*word as usize] = *bits,
            Step::PutSlot { slot, value } | Step::SetIdle { slot, value } => {
                self.slots[*slot as usize] = *value;
            }
            Step::PutTarget { key, sharers } => drop(self.targets.insert(*key, *sharers)),
            Step::WriteRegion { at, words } => {
                self.rings[*at as usize..*at as usize + words.len()].copy_from_slice(words);
            }
            Step::SetChoice { listener, at } => self.choices[*listener as usize] = *at,
            Step::SetVipFilterWord { word, bits } => self.vip_filter[*word as usize] = *bits,
            Step::PutVip { address, vip } => drop(self.vips.insert(*address, *vip)),
            Step::PutListener { key, listener } => drop(self.listeners.insert(*key, *listener)),
            Step::RemoveListener { key } => drop(self.listeners.remove(key)),
            Step::ClearChoice { listener } => self.choices[*listener as usize] = 0,
            Step::RemoveVip { address } => drop(self.vips.remove(address)),
            Step::RemoveTarget { key } => drop(self.targets.remove(key)),
            Step::FreeSlot { slot, generation } => self.slots[*slot as usize] = free_slot(*generation),
        }
    }

    /// Where a choice leads; `None` for 0, and for what cannot be a listener's members and ring.
    pub fn pick(&self, choice: Choice) -> Option<Pick> {
        let head = usize::try_from(choice).ok().filter(|at| *at > 0)?;
        let members = Members::from_word(*self.rings.get(head)?);
        let ring = self.ring(members)?;
        let count = (0..members.size as usize).map(|index| ring::entry(ring, index)).max()? as usize + 1;
        let words = self.rings.get(head + 1..head + member_words(count) as usize)?;
        let slots = (0..count).map(|member| (words[member / 2] >> (member % 2 * 32)) as u32).collect();
        Some(Pick { members, slots })
    }

    /// The words of a ring; `None` where the head names none.
    pub fn ring(&self, members: Members) -> Option<&[u64]> {
        let (at, words) = (members.ring as usize, ring_words(members.size) as usize);
        (at > 0 && RING_SIZES.contains(&members.size)).then(|| self.rings.get(at..at + words)).flatten()
    }
}

/// A slot that nobody has.
pub fn free_slot(generation: u32) -> Slot {
    Slot { generation, ..Slot::default() }
}

/// What a reply from this slot's target looks like.
pub fn target_key(slot: &Slot) -> TargetKey {
    TargetKey { address: slot.target, port: slot.target_port, protocol: slot.protocol, zero: 0 }
}

/// Words of a ring of this many entries.
pub fn ring_words(size: u32) -> u32 {
    size.div_ceil(4)
}

/// Words of the head and this many members.
pub fn member_words(count: usize) -> u32 {
    1 + count.div_ceil(2) as u32
}

/// The head and the slots of a listener's members as they stand in `rings`; an odd last half names no slot.
pub fn pack_members(head: Members, slots: &[u32]) -> Vec<u64> {
    let word = |pair: &[u32]| u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or(NO_SLOT)) << 32;
    std::iter::once(head.word()).chain(slots.chunks(2).map(word)).collect()
}

/// The lowest of these slots as the map `targets` holds them.
pub fn sharers(slots: &[u32]) -> Sharers {
    let mut sorted: Vec<u32> = slots.iter().copied().filter(|slot| *slot != NO_SLOT).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut sharers = [NO_SLOT; SHARERS];
    sharers.iter_mut().zip(sorted).for_each(|(place, slot)| *place = slot);
    Sharers { slots: sharers }
}

#[cfg(test)]
mod tests;
