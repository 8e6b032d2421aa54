//! What the maps shall hold, kept up to date listener by listener: forwardings in, steps out.
//!
//! The whole story is [`plan`] from the contents of now to those of the wanted forwardings. With
//! 100 000 targets that is too much work for one endpoint, so [`Control`] remembers who sits where and makes only the
//! edits of listeners that changed; the order of the steps is the same function.

mod adopt;
pub mod measure;
mod paths;
mod rings;
mod users;

use crate::capacity::{Limit, Limits, Shortfall};
use crate::contents::arena::Arena;
use crate::contents::bits::Bits;
use crate::contents::{Contents, free_slot, sharers, target_key};
use crate::model::{Forwarding, Placed};
use crate::plan::{Edits, Step, order, plan};
use crate::slots::{Epoch, Occupant, Placement, Pool, Saved, SavedSlot, place};
use nlb_common::address::Address;
use nlb_common::layout::{Choice, Listener, ListenerKey, Slot, TargetKey};
use nlb_common::ring::MAX_TARGETS_PER_SET;
use paths::{Path, members};
use rings::Rings;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// The state between two plans: what the maps hold, and who has which part of them.
#[derive(Clone, Debug)]
pub struct Control {
    limits: Limits,
    now: Contents,
    epoch: Epoch,
    elapsed: Epoch,
    slots: Pool,
    ids: Pool,
    arena: Arena,
    rings: Rings,
    seats: BTreeMap<ListenerKey, Seat>,
    /// The slots of each pod port, also those that are leaving.
    sharers: HashMap<TargetKey, Vec<u32>>,
    vips: BTreeMap<Address, Standing>,
    vip_bits: Bits,
    target_bits: Bits,
    wanted: BTreeMap<ListenerKey, Forwarding>,
    short: BTreeMap<ListenerKey, Vec<Shortfall>>,
    /// VIPs that this plan puts.
    new_vips: usize,
    /// The maps were adopted: the next plan compares all of them.
    adopted: bool,
}

/// What one listener has.
#[derive(Clone, Debug)]
struct Seat {
    id: u32,
    node_vip: bool,
    occupants: Vec<Occupant>,
    path: Option<Path>,
}

/// How many listeners stand on a VIP, and how many of them say that it is the node's own.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    listeners: u32,
    node: u32,
}

/// Forwardings that are new or changed, and listeners that are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Put in place of those with the same listener.
    pub put: Vec<Forwarding>,
    /// No longer wanted.
    pub removed: Vec<ListenerKey>,
    /// Slots that must go from listeners that nobody has named since they were adopted.
    pub evicted: Vec<(ListenerKey, Vec<u32>)>,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// To be run in this order. If one fails, the maps must be read and adopted again.
    pub steps: Vec<Step>,
    /// What does not fit, of all listeners.
    pub shortfalls: Vec<Shortfall>,
    /// What the grace period after these steps is called.
    pub epoch: Epoch,
    /// Whether a call after that grace period would find something to do or to use.
    pub waiting: bool,
}

impl Control {
    /// Control of maps in which nothing was ever written.
    pub fn new(limits: Limits) -> Self {
        Self { adopted: false, ..Self::adopt(limits, Contents::empty(&limits), &Saved::default()) }
    }

    /// What the maps hold once all planned steps have run.
    pub fn contents(&self) -> &Contents {
        &self.now
    }

    /// The id of a listener and its targets' slots, for counters and `status`; `None` where it is not served.
    pub fn listener(&self, key: &ListenerKey) -> Option<(u32, &[Occupant])> {
        self.seats.get(key).map(|seat| (seat.id, seat.occupants.as_slice()))
    }

    /// What a restarted agent needs beside the maps; worth writing after plans that put slots.
    pub fn saved(&self) -> Saved {
        let occupants = self.seats.values().flat_map(|seat| &seat.occupants);
        let saved = |occupant: &Occupant| {
            let known = occupant.known.clone()?;
            let generation = self.now.slots[occupant.slot as usize].generation;
            Some(SavedSlot {
                slot: occupant.slot,
                generation,
                uid: known.uid,
                incarnation: known.incarnation,
            })
        };
        Saved { slots: occupants.filter_map(saved).collect() }
    }

    /// The steps to these forwardings, which are all there are; `elapsed` is the last epoch whose steps have run and
    /// after which a grace period has passed.
    pub fn apply(&mut self, forwardings: Vec<Forwarding>, elapsed: Epoch) -> Planned {
        let wanted: BTreeMap<_, _> =
            forwardings.into_iter().map(|forwarding| (forwarding.listener, forwarding)).collect();
        let known: BTreeSet<_> = self.wanted.keys().chain(self.seats.keys()).copied().collect();
        let removed = known.into_iter().filter(|key| !wanted.contains_key(key)).collect();
        self.change(Change { put: self.changed(wanted.into_values()), removed, ..Change::default() }, elapsed)
    }

    /// As [`Control::apply`], for these listeners alone: all others go on as they are.
    pub fn apply_some(&mut self, forwardings: Vec<Forwarding>, elapsed: Epoch) -> Planned {
        self.change(Change { put: self.changed(forwardings), ..Change::default() }, elapsed)
    }

    fn changed(&self, forwardings: impl IntoIterator<Item = Forwarding>) -> Vec<Forwarding> {
        let differs = |forwarding: &Forwarding| self.wanted.get(&forwarding.listener) != Some(forwarding);
        forwardings.into_iter().filter(differs).collect()
    }

    /// The steps to a change of some forwardings, or, with none, to what a grace period has made possible.
    ///
    /// After an adoption the first call must be to [`Control::apply`], which alone knows what is gone, or to
    /// [`Control::apply_keeping`].
    pub fn change(&mut self, change: Change, elapsed: Epoch) -> Planned {
        self.elapsed = self.elapsed.max(elapsed);
        self.epoch = self.epoch.next();
        self.new_vips = 0;
        let mut edits = Edits::default();
        self.expire(&mut edits);
        for key in change.removed {
            self.wanted.remove(&key);
            self.short.remove(&key);
            self.unseat(&key, &mut edits);
        }
        for (key, slots) in change.evicted {
            self.evict(&key, &slots, &mut edits);
        }
        let mut todo: BTreeSet<ListenerKey> = self.short.keys().copied().collect();
        for forwarding in change.put {
            todo.insert(forwarding.listener);
            self.wanted.insert(forwarding.listener, forwarding);
        }
        for key in todo {
            self.seat(&key, &mut edits);
        }
        let steps = if std::mem::take(&mut self.adopted) {
            plan(&self.now, &self.image(&edits))
        } else {
            order(&self.now, &edits)
        };
        steps.iter().for_each(|step| self.now.run(step));
        let shortfalls = self.short.values().flatten().copied().collect();
        Planned { steps, shortfalls, epoch: self.epoch, waiting: self.is_waiting() }
    }

    fn is_waiting(&self) -> bool {
        self.slots.is_waiting(self.elapsed) || self.ids.is_waiting(self.elapsed) || self.arena.is_waiting()
    }

    /// Frees what nothing has led to since before the last grace period.
    fn expire(&mut self, edits: &mut Edits) {
        self.arena.expire(self.elapsed);
        self.ids.expire(self.elapsed, self.epoch);
        for slot in self.slots.expire(self.elapsed, self.epoch) {
            let before = self.now.slots[slot as usize];
            self.unshare(target_key(&before), slot, edits);
            edits.slots.insert(slot, free_slot(next_generation(before.generation)));
        }
    }

    fn unseat(&mut self, key: &ListenerKey, edits: &mut Edits) {
        let Some(seat) = self.seats.remove(key) else { return };
        seat.occupants.iter().for_each(|occupant| self.slots.leave(occupant.slot, self.epoch));
        self.retire(seat.path, None);
        self.ids.leave(seat.id, self.epoch);
        edits.choices.insert(seat.id, 0);
        edits.listeners.insert(*key, None);
        self.stand_down(key.vip, seat.node_vip, edits);
    }

    /// Gives a listener what its forwarding asks for, as far as there is room.
    fn seat(&mut self, key: &ListenerKey, edits: &mut Edits) {
        let forwarding = self.wanted.remove(key).expect("only wanted listeners are seated");
        let short = match self.seats.remove(key) {
            Some(seat) => self.furnish(seat, false, &forwarding, edits),
            None => match self.open(&forwarding) {
                Ok(seat) => self.furnish(seat, true, &forwarding, edits),
                Err(limit) => vec![self.shortfall(*key, limit, 0)],
            },
        };
        self.wanted.insert(*key, forwarding);
        if short.is_empty() {
            self.short.remove(key);
        } else {
            self.short.insert(*key, short);
        }
    }

    /// An empty seat with an id of its own.
    fn open(&mut self, forwarding: &Forwarding) -> Result<Seat, Limit> {
        // A VIP that this very plan removes still counts: it goes after the new one has come.
        let vips = self.now.vips.len() + self.new_vips;
        if !self.vips.contains_key(&forwarding.listener.vip) && vips >= self.limits.vips as usize {
            return Err(Limit::Vips);
        }
        let id = self.ids.take(self.elapsed).ok_or(Limit::Listeners)?;
        Ok(Seat { id, node_vip: forwarding.node_vip, occupants: Vec::new(), path: None })
    }

    /// Seats the targets and leads the listener to them; where `rings` has no room, nothing changes.
    fn furnish(
        &mut self,
        seat: Seat,
        new: bool,
        forwarding: &Forwarding,
        edits: &mut Edits,
    ) -> Vec<Shortfall> {
        let key = forwarding.listener;
        let placement = place(&seat.occupants, &forwarding.targets, || self.slots.take(self.elapsed));
        let (members, beyond) = members(&forwarding.targets, &placement.slots);
        let Ok(path) = self.path(seat.path, forwarding.registered, &members, edits) else {
            placement.taken.iter().rev().for_each(|slot| self.slots.give_back(*slot));
            if new {
                self.ids.give_back(seat.id);
            } else {
                self.seats.insert(key, seat);
            }
            return vec![self.shortfall(key, Limit::RingWords, 0)];
        };
        self.fill(seat.id, forwarding, &placement, edits);
        placement.left.iter().for_each(|slot| self.slots.leave(*slot, self.epoch));
        self.retire(seat.path, path);
        edits.choices.insert(seat.id, path.map_or(0, |path| Choice::from(path.members.at)));
        edits.listeners.insert(key, Some(listener(seat.id, forwarding.node_vip)));
        self.stand(key.vip, forwarding.node_vip, edits);
        if !new {
            self.stand_down(key.vip, seat.node_vip, edits);
        }
        let missing = placement.slots.iter().filter(|slot| slot.is_none()).count() as u32;
        let occupants = placement.occupants;
        self.seats.insert(key, Seat { id: seat.id, node_vip: forwarding.node_vip, occupants, path });
        let short = [(Limit::Slots, missing), (Limit::TargetsPerSet, beyond)];
        let short = short.into_iter().filter(|(_, targets)| *targets > 0);
        short.map(|(limit, targets)| self.shortfall(key, limit, targets)).collect()
    }

    /// The slots of a listener's targets: new ones whole, the others' idle timeout.
    fn fill(&mut self, id: u32, forwarding: &Forwarding, placement: &Placement, edits: &mut Edits) {
        let idle = jiffies(forwarding.idle_timeout, self.limits.hz);
        let ListenerKey { vip, port, protocol, .. } = forwarding.listener;
        for (Placed { key, .. }, slot) in forwarding.targets.iter().zip(&placement.slots) {
            let Some(slot) = *slot else { continue };
            let before = self.now.slots[slot as usize];
            if before.protocol != 0 {
                if before.idle != idle {
                    edits.slots.insert(slot, Slot { idle, ..before });
                }
                continue;
            }
            let value = Slot {
                target: key.ip.into(),
                vip,
                target_port: key.port,
                vip_port: port,
                protocol,
                listener: id,
                generation: before.generation.max(1),
                idle,
                ..Slot::default()
            };
            edits.slots.insert(slot, value);
            self.share(target_key(&value), slot, edits);
        }
    }

    fn shortfall(&self, listener: ListenerKey, limit: Limit, targets: u32) -> Shortfall {
        let (capacity, passing) = match limit {
            Limit::Listeners => (self.limits.listeners, self.ids.is_waiting(self.elapsed)),
            Limit::Vips => (self.limits.vips, self.vips.len() < self.limits.vips as usize),
            Limit::Slots => (self.limits.slots, self.slots.is_waiting(self.elapsed)),
            Limit::RingWords => (self.limits.ring_words, self.arena.is_waiting()),
            Limit::TargetsPerSet => (MAX_TARGETS_PER_SET, false),
        };
        Shortfall { listener, limit, capacity, targets, passing }
    }

    /// The maps as they shall be, from who has what alone; arrays' unused parts as they are.
    fn image(&self, edits: &Edits) -> Contents {
        let mut image = self.now.clone();
        edits.make(&mut image);
        image.vips = self.vips.iter().map(|(vip, standing)| (*vip, standing.vip())).collect();
        image.vip_filter = self.vip_bits.words().to_vec();
        image.target_filter = self.target_bits.words().to_vec();
        image.targets = self.sharers.iter().map(|(key, slots)| (*key, sharers(slots))).collect();
        image.listeners =
            self.seats.iter().map(|(key, seat)| (*key, listener(seat.id, seat.node_vip))).collect();
        image.choices.fill(0);
        for seat in self.seats.values() {
            image.choices[seat.id as usize] = seat.path.map_or(0, |path| path.members.at.into());
        }
        image
    }
}

/// A duration in jiffies, at least one.
fn jiffies(duration: Duration, hz: u32) -> u32 {
    let jiffies = duration.as_millis().saturating_mul(hz.into()) / 1_000;
    u32::try_from(jiffies).unwrap_or(u32::MAX).max(1)
}

/// The generation after this one: never 0, which is nobody's.
fn next_generation(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

/// What the map says of a listener.
fn listener(id: u32, node_vip: bool) -> Listener {
    Listener { id, flags: if node_vip { Listener::NODE } else { 0 } }
}

#[cfg(test)]
mod tests;
