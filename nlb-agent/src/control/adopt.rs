//! Takes over maps as another agent left them: what is coherent keeps its place, the next plan mends the rest.

use super::{Change, Control, Path, Planned, Seat, rings::Rings};
use crate::capacity::Limits;
use crate::contents::arena::{Arena, Region};
use crate::contents::bits::Bits;
use crate::contents::{Contents, member_words, target_key};
use crate::model::Forwarding;
use crate::plan::Edits;
use crate::ring::{Member, identity};
use crate::slots::{Epoch, Known, Occupant, Pool, Saved, SavedSlot};
use nlb_common::layout::{ListenerKey, Slot, TARGET_FILTER_BITS, VIP_FILTER_BITS, Vip};
use std::collections::{BTreeMap, HashMap, HashSet};

impl Control {
    /// Control of maps that were read back.
    ///
    /// Nobody else may write the maps any more, and a grace period must have passed since somebody did: then all that
    /// nothing leads to is free. UIDs and incarnations come from `saved`; a slot that it does not know keeps its flows
    /// for the first target with its address and port.
    pub fn adopt(limits: Limits, now: Contents, saved: &Saved) -> Self {
        let fresh =
            now.slots.iter().rposition(|slot| *slot != Slot::default()).map_or(0, |last| last as u32 + 1);
        let slots = Pool::new(limits.slots, fresh, |index| now.slots[index as usize].protocol != 0);
        let seats = seats(&now, saved);
        let ids: HashSet<u32> = seats.values().map(|seat| seat.id).collect();
        let fresh = ids.iter().max().map_or(0, |last| last + 1);
        let ids = Pool::new(limits.listeners, fresh, |id| ids.contains(&id));
        let mut control = Self {
            limits,
            now,
            epoch: Epoch(0),
            elapsed: Epoch(0),
            slots,
            ids,
            arena: Arena::new(limits.ring_words),
            rings: Rings::default(),
            seats,
            sharers: HashMap::new(),
            vips: BTreeMap::new(),
            vip_bits: Bits::new(VIP_FILTER_BITS),
            target_bits: Bits::new(TARGET_FILTER_BITS),
            wanted: BTreeMap::new(),
            short: BTreeMap::new(),
            new_vips: 0,
            adopted: true,
        };
        control.adopt_paths();
        control.adopt_users();
        control
    }

    /// As [`Control::apply`], but listeners that were adopted and never named since go on as they are, without those who are
    /// `strange` there: for a start at which not everything can be read.
    pub fn apply_keeping(
        &mut self,
        forwardings: Vec<Forwarding>,
        strange: &dyn Fn(&ListenerKey, &Occupant) -> bool,
        elapsed: Epoch,
    ) -> Planned {
        let named: HashSet<ListenerKey> = forwardings.iter().map(|it| it.listener).collect();
        let removed = self.wanted.keys().filter(|key| !named.contains(key)).copied().collect();
        let kept =
            self.seats.iter().filter(|(key, _)| !named.contains(key) && !self.wanted.contains_key(key));
        let evicted = kept.filter_map(|(key, seat)| {
            let slots: Vec<u32> =
                seat.occupants.iter().filter(|it| strange(key, it)).map(|it| it.slot).collect();
            (!slots.is_empty()).then_some((*key, slots))
        });
        let evicted = evicted.collect();
        self.change(Change { put: self.changed(forwardings), removed, evicted }, elapsed)
    }

    /// Lets these slots of an adopted listener go; new flows are shared among the others that took them.
    pub(super) fn evict(&mut self, key: &ListenerKey, slots: &[u32], edits: &mut Edits) {
        let Some(mut seat) = self.seats.remove(key) else { return };
        seat.occupants.retain(|it| !slots.contains(&it.slot));
        let pick = seat.path.and_then(|path| self.now.pick(path.members.at.into()));
        let before = seat.path;
        seat.path = pick.and_then(|pick| {
            let by_slot: HashMap<u32, &Occupant> = seat.occupants.iter().map(|it| (it.slot, it)).collect();
            let stay = pick.slots.iter().filter_map(|slot| by_slot.get(slot));
            // Every target weighs the same until its Service can be read.
            let member =
                |it: &&Occupant| (Member { identity: identity(it.ip.into(), it.port), share: 1 }, it.slot);
            let members: Vec<_> = stay.map(member).collect();
            // The ring keeps its size, which the registered targets gave it.
            let registered = pick.members.size / 100;
            self.path(before, registered, &members, edits).ok().flatten()
        });
        slots.iter().for_each(|slot| self.slots.leave(*slot, self.epoch));
        self.retire(before, seat.path);
        edits.choices.insert(seat.id, seat.path.map_or(0, |path| path.members.at.into()));
        self.seats.insert(*key, seat);
    }

    /// Keeps the rings and members that listeners are led to, where these are sound.
    fn adopt_paths(&mut self) {
        for seat in self.seats.values_mut() {
            let choice = self.now.choices[seat.id as usize];
            let Some(pick) = self.now.pick(choice) else { continue };
            let place: HashMap<u32, usize> =
                pick.slots.iter().enumerate().map(|(at, slot)| (*slot, at)).collect();
            let mine = seat.occupants.iter().filter(|occupant| place.contains_key(&occupant.slot)).count();
            let members = Region { at: choice as u32, words: member_words(pick.slots.len()) };
            if mine != pick.slots.len() || !self.arena.reserve(members) {
                continue;
            }
            if !self.rings.adopt(pick.members, &mut self.arena) {
                self.arena.give_back(members);
                continue;
            }
            // Of two slots of one target, the one that takes the new flows is the one to keep.
            seat.occupants.sort_by_key(|occupant| place.get(&occupant.slot).copied().unwrap_or(usize::MAX));
            seat.path = Some(Path { members, ring: pick.members.ring });
        }
    }

    /// Counts who needs a VIP, a target and the bits of the filters; slots without a listener are on their way out.
    fn adopt_users(&mut self) {
        // The next plan compares everything, so these edits are not needed.
        let mut edits = Edits::default();
        let stands: Vec<_> = self.seats.iter().map(|(key, seat)| (key.vip, seat.node_vip)).collect();
        stands.into_iter().for_each(|(vip, node)| self.stand(vip, node, &mut edits));
        let owned: HashSet<u32> =
            self.seats.values().flat_map(|seat| &seat.occupants).map(|occupant| occupant.slot).collect();
        for (index, slot) in (0..).zip(self.now.slots.clone()).filter(|(_, slot)| slot.protocol != 0) {
            self.share(target_key(&slot), index, &mut edits);
            if !owned.contains(&index) {
                self.slots.leave(index, self.epoch.next());
            }
        }
    }
}

/// The listeners with an id of their own, and who sits in their slots.
fn seats(now: &Contents, saved: &Saved) -> BTreeMap<ListenerKey, Seat> {
    let mut by_id: HashMap<u32, ListenerKey> = HashMap::new();
    let mut seats = BTreeMap::new();
    for (key, listener) in &now.listeners {
        if (listener.id as usize) < now.choices.len() && !by_id.contains_key(&listener.id) {
            by_id.insert(listener.id, *key);
            let node_vip = now.vips.get(&key.vip).is_some_and(|vip| vip.flags & Vip::NODE != 0);
            seats.insert(*key, Seat { id: listener.id, node_vip, occupants: Vec::new(), path: None });
        }
    }
    let mut notes: HashMap<(u32, u32), &SavedSlot> =
        saved.slots.iter().map(|saved| ((saved.slot, saved.generation), saved)).collect();
    for (index, slot) in (0..).zip(&now.slots).filter(|(_, slot)| slot.protocol != 0 && slot.generation != 0)
    {
        let owner = slot.listener_key();
        if by_id.get(&slot.listener) != Some(&owner) {
            continue;
        }
        let known = notes.remove(&(index, slot.generation));
        let known = known.map(|saved| Known { uid: saved.uid.clone(), incarnation: saved.incarnation });
        let occupant = Occupant { ip: slot.target.ip(), port: slot.target_port, known, slot: index };
        seats.get_mut(&owner).expect("ids name seats").occupants.push(occupant);
    }
    seats
}
