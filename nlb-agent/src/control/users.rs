//! Who needs an element of `targets` or `vips`, and with it a bit of a filter.

use super::{Control, Standing};
use crate::contents::sharers;
use crate::plan::Edits;
use nlb_common::address::Address;
use nlb_common::hash;
use nlb_common::layout::{TargetKey, Vip};

impl Control {
    /// One more slot of this pod port.
    pub(super) fn share(&mut self, key: TargetKey, slot: u32, edits: &mut Edits) {
        let slots = self.sharers.entry(key).or_default();
        slots.push(slot);
        edits.targets.insert(key, Some(sharers(slots)));
        if slots.len() == 1 {
            let bit = hash::target_bit(key.address.words(), key.port, key.protocol);
            edits.target_filter.extend([self.target_bits.add(bit)]);
        }
    }

    /// One slot fewer of this pod port.
    pub(super) fn unshare(&mut self, key: TargetKey, slot: u32, edits: &mut Edits) {
        let slots = self.sharers.get_mut(&key).expect("a slot in use shares its target");
        slots.retain(|other| *other != slot);
        edits.targets.insert(key, (!slots.is_empty()).then(|| sharers(slots)));
        if slots.is_empty() {
            self.sharers.remove(&key);
            let bit = hash::target_bit(key.address.words(), key.port, key.protocol);
            edits.target_filter.extend([self.target_bits.remove(bit)]);
        }
    }

    /// One more listener on the VIP.
    pub(super) fn stand(&mut self, vip: Address, node: bool, edits: &mut Edits) {
        let standing = self.vips.entry(vip).or_default();
        standing.listeners += 1;
        standing.node += u32::from(node);
        edits.vips.insert(vip, Some(standing.vip()));
        if standing.listeners == 1 {
            edits.vip_filter.extend([self.vip_bits.add(hash::vip_bit(vip.words()))]);
            self.new_vips += usize::from(!self.now.vips.contains_key(&vip));
        }
    }

    /// One listener fewer on the VIP.
    pub(super) fn stand_down(&mut self, vip: Address, node: bool, edits: &mut Edits) {
        let standing = self.vips.get_mut(&vip).expect("a listener stands on its VIP");
        standing.listeners -= 1;
        standing.node -= u32::from(node);
        edits.vips.insert(vip, (standing.listeners > 0).then(|| standing.vip()));
        if standing.listeners == 0 {
            self.vips.remove(&vip);
            edits.vip_filter.extend([self.vip_bits.remove(hash::vip_bit(vip.words()))]);
        }
    }
}

impl Standing {
    /// What the map says of the VIP.
    pub(super) fn vip(self) -> Vip {
        Vip { flags: if self.node > 0 { Vip::NODE } else { 0 } }
    }
}
