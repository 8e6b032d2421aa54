//! What must hold of the maps after every single step, because packets are on their way all the time.

use super::{Contents, Pick, target_key};
use nlb_common::hash;
use nlb_common::layout::{Listener, ListenerKey, NO_SLOT, SHARERS, Sharers, TargetKey};
use std::collections::BTreeMap;

impl Contents {
    /// Whether no packet could be misled.
    pub fn is_coherent(&self) -> bool {
        self.incoherence().is_none()
    }

    /// The first thing that could mislead a packet, in words; `None` if there is nothing.
    ///
    /// Each listener has an id of its own and stands on a VIP; its choice is 0 or leads to a ring and to slots that are
    /// in use and its own; `targets` knows the target of each of these, and names slots in use only; and the filters
    /// deny no VIP and no target.
    pub fn incoherence(&self) -> Option<String> {
        let mut ids = BTreeMap::new();
        let listeners =
            self.listeners.iter().find_map(|(key, listener)| match ids.insert(listener.id, *key) {
                Some(other) => Some(format!("{key:?} and {other:?} have the id {}", listener.id)),
                None => self.misled_by(key, listener),
            });
        let vips = self.vips.keys().find(|vip| !is_set(&self.vip_filter, hash::vip_bit(vip.words())));
        listeners
            .or_else(|| vips.map(|vip| format!("the filter denies the VIP {}", vip.ip())))
            .or_else(|| self.targets.iter().find_map(|(key, sharers)| self.misled_by_target(key, sharers)))
    }

    fn misled_by(&self, key: &ListenerKey, listener: &Listener) -> Option<String> {
        if !self.vips.contains_key(&key.vip) {
            return Some(format!("{key:?} stands on no VIP"));
        }
        let Some(choice) = self.choices.get(listener.id as usize) else {
            return Some(format!("{key:?} has the id {} beyond the map", listener.id));
        };
        let Some(Pick { slots, .. }) = self.pick(*choice) else {
            return (*choice != 0).then(|| format!("the choice {choice} of {key:?} leads nowhere"));
        };
        slots.into_iter().find_map(|slot| self.misled_by_slot(key, listener.id, slot))
    }

    fn misled_by_slot(&self, key: &ListenerKey, id: u32, index: u32) -> Option<String> {
        let Some(slot) =
            self.slots.get(index as usize).filter(|slot| slot.protocol != 0 && slot.generation != 0)
        else {
            return Some(format!("{key:?} leads to the empty slot {index}"));
        };
        let owner = (slot.vip, slot.vip_port, slot.protocol, slot.listener);
        if owner != (key.vip, key.port, key.protocol, id) {
            return Some(format!("{key:?} leads to slot {index} of {owner:?}"));
        }
        let known = self
            .targets
            .get(&target_key(slot))
            .is_some_and(|sharers| sharers.slots.contains(&index) || sharers.slots[SHARERS - 1] != NO_SLOT);
        (!known).then(|| format!("the target of slot {index} of {key:?} is not in `targets`"))
    }

    fn misled_by_target(&self, key: &TargetKey, sharers: &Sharers) -> Option<String> {
        if !is_set(&self.target_filter, hash::target_bit(key.address.words(), key.port, key.protocol)) {
            return Some(format!("the filter denies {key:?}"));
        }
        let mut named = sharers.slots.iter().filter(|slot| **slot != NO_SLOT);
        let wrong = named.find(|slot| self.slots.get(**slot as usize).map(target_key) != Some(*key))?;
        Some(format!("{key:?} names slot {wrong}, which is another target or none"))
    }
}

fn is_set(words: &[u64], bit: u32) -> bool {
    words[bit as usize / 64] >> (bit % 64) & 1 == 1
}
