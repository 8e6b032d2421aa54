//! Walks the flow tables: removes what is over, marks what the ring would not give again, counts what lives.
//!
//! A flow is over when both its directions are silent, or its slot is another's. The client's entry knows its client and so
//! finds the target's entry, but not the other way round: the target's direction is walked first and what is silent there is
//! in doubt until the walk of the client's direction has ended without anybody's having asked for it.

use super::maps::PinnedMaps;
use super::verdict::{Verdict, client_tuple, kept, other_direction, reply_tuple, verdict};
use nlb_common::flow::state;
use nlb_common::layout::{Client, Entry, Slot};
use nlb_common::tables::Table;
use std::collections::{HashMap, HashSet};

/// The order of the walk: each target's direction before its client's.
const ORDER: [Table; 4] = [Table::Replies, Table::Flows, Table::HalfReplies, Table::HalfFlows];

/// One walk in so many compares every flow with today's ring.
const COMPARE_ALL: u32 = 16;

/// Live flows of one slot or listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Both sides have spoken.
    pub established: u32,
    /// Not yet.
    pub half_open: u32,
}

impl Live {
    fn add(&mut self, table: Table) {
        match table {
            Table::Flows | Table::Replies => self.established += 1,
            Table::HalfFlows | Table::HalfReplies => self.half_open += 1,
        }
    }

    /// Both together.
    pub fn all(self) -> u32 {
        self.established + self.half_open
    }
}

/// What one whole walk has counted. Expired flows and pods' own conversations are not part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    slots: Vec<Live>,
    listeners: Vec<Live>,
    total: Live,
    removed: u32,
}

impl Tally {
    /// Live flows of a slot.
    pub fn slot(&self, number: u32) -> Live {
        self.slots.get(number as usize).copied().unwrap_or_default()
    }

    /// Live flows of a listener's id.
    pub fn listener(&self, id: u32) -> Live {
        self.listeners.get(id as usize).copied().unwrap_or_default()
    }

    /// Live flows of all listeners: how full the two pairs of tables are.
    pub fn total(&self) -> Live {
        self.total
    }

    /// Entries that this walk has removed, both directions counted.
    pub fn removed(&self) -> u32 {
        self.removed
    }

    fn add(&mut self, table: Table, entry: &Entry, slot: &Slot) {
        place(&mut self.slots, entry.slot).add(table);
        place(&mut self.listeners, slot.listener).add(table);
        self.total.add(table);
    }
}

fn place(all: &mut Vec<Live>, number: u32) -> &mut Live {
    let number = number as usize;
    if all.len() <= number {
        all.resize(number + 1, Live::default());
    }
    &mut all[number]
}

/// A walk that goes on from tick to tick.
#[derive(Debug, Default)]
pub struct Sweep {
    step: usize,
    next: u32,
    /// Silent entries of the target's direction, by tag.
    doubtful: HashMap<u64, u32>,
    doubtful_slots: HashSet<u32>,
    /// Those of them that the client's direction has left in doubt.
    condemned: Vec<(u64, u32)>,
    /// Where each listener's members were when this walk began.
    choices: Vec<u64>,
    /// True for listeners whose members have changed since the walk before.
    moved: Vec<bool>,
    walks: u32,
    counting: Tally,
    counted: Tally,
}

/// The circumstances of one tick.
struct Look<'a> {
    maps: &'a PinnedMaps,
    now: u32,
}

impl Look<'_> {
    fn judge(&self, table: Table, entry: &Entry) -> (Verdict, Option<Slot>) {
        let slot = self.maps.slot(entry.slot);
        (verdict(table, entry, slot.as_ref(), self.now, self.maps.config.hz), slot)
    }

    /// The target's entry of a client's entry, if it is this flow's.
    fn partner(&self, table: Table, entry: &Entry, client: &Client, slot: &Slot) -> Option<(u32, Entry)> {
        let hash = reply_tuple(client, slot, entry.port).place(self.maps.config.seed);
        let found = self.maps.table(other_direction(table)).find(hash);
        found.filter(|(_, reply)| reply.slot == entry.slot && reply.generation == entry.generation)
    }

    /// Sets or clears KEEP in both directions where today's ring differs from what the entry says.
    fn mark(&self, index: u32, entry: &Entry, client: &Client, slot: &Slot) {
        let tuple = client_tuple(client, slot);
        let state = kept(entry.life.state, entry, client, self.maps.pick(slot.listener, &tuple));
        // The client is written after the entry: until the tag agrees it is the last one's.
        let differs = state != entry.life.state && tuple.place(self.maps.config.seed).tag == entry.tag;
        if !differs || !self.maps.table(Table::Flows).swap_state(index, entry.life, state) {
            return;
        }
        let replies = self.maps.table(Table::Replies);
        for _ in 0..3 {
            let Some((index, reply)) = self.partner(Table::Flows, entry, client, slot) else { return };
            let both = (reply.life.state & !state::KEEP) | (state & state::KEEP);
            if reply.life.state == both || replies.swap_state(index, reply.life, both) {
                return;
            }
        }
    }
}

impl Sweep {
    /// Goes on with the walk until about `budget` entries in use have been looked at or it has ended; true if it has.
    /// `now` is in jiffies.
    pub fn tick(&mut self, maps: &PinnedMaps, now: u32, budget: u32) -> bool {
        let look = Look { maps, now };
        let mut left = budget;
        if self.step == 0 && self.next == 0 {
            self.note_choices(maps);
        }
        while let Some(table) = ORDER.get(self.step).copied() {
            let entries = maps.table(table);
            while self.next < entries.capacity() {
                let index = self.next;
                self.next += 1;
                if entries.is_taken(index)
                    && let Some(entry) = entries.entry(index)
                {
                    self.look(&look, table, index, &entry);
                    left = left.saturating_sub(1);
                    if left == 0 {
                        return false;
                    }
                }
            }
            if matches!(table, Table::Flows | Table::HalfFlows) && !self.bury(&look, table, &mut left) {
                return false;
            }
            self.step += 1;
            self.next = 0;
        }
        self.step = 0;
        self.counted = std::mem::take(&mut self.counting);
        true
    }

    /// A whole walk at once.
    pub fn walk(&mut self, maps: &PinnedMaps, now: u32) -> &Tally {
        while !self.tick(maps, now, u32::MAX) {}
        self.tally()
    }

    /// What the last whole walk counted.
    pub fn tally(&self) -> &Tally {
        &self.counted
    }

    fn look(&mut self, look: &Look<'_>, table: Table, index: u32, entry: &Entry) {
        let (verdict, slot) = look.judge(table, entry);
        match (table, verdict, slot) {
            (_, Verdict::Stale, _) => self.remove(look.maps, table, index, entry),
            (Table::Replies | Table::HalfReplies, Verdict::Live, _) => {}
            (Table::Replies | Table::HalfReplies, Verdict::Silent, _) => {
                if entry.life.state & state::DIRECT != 0 {
                    self.remove(look.maps, table, index, entry);
                } else {
                    self.doubtful.insert(entry.tag, index);
                    self.doubtful_slots.insert(entry.slot);
                }
            }
            (Table::Flows | Table::HalfFlows, _, None) => self.remove(look.maps, table, index, entry),
            (Table::Flows | Table::HalfFlows, verdict, Some(slot)) => {
                self.client(look, table, index, entry, verdict, &slot);
            }
        }
    }

    /// An entry of the client's direction whose slot is its own.
    fn client(
        &mut self,
        look: &Look<'_>,
        table: Table,
        index: u32,
        entry: &Entry,
        found: Verdict,
        slot: &Slot,
    ) {
        let Some(client) = look.maps.table(table).client(index) else { return };
        if found == Verdict::Silent {
            let partner = look.partner(table, entry, &client, slot);
            let speaks = partner.is_some_and(|(_, reply)| {
                let (verdict, _) = look.judge(other_direction(table), &reply);
                verdict == Verdict::Live
            });
            if !speaks {
                return self.remove(look.maps, table, index, entry);
            }
        } else if !self.doubtful.is_empty() && self.doubtful_slots.contains(&entry.slot) {
            let hash = reply_tuple(&client, slot, entry.port).place(look.maps.config.seed);
            self.doubtful.remove(&hash.tag);
        }
        self.counting.add(table, entry, slot);
        if table == Table::Flows && self.moved.get(slot.listener as usize).copied().unwrap_or(true) {
            look.mark(index, entry, &client, slot);
        }
    }

    /// Removes those in doubt whom nobody has asked for and who are still silent; true if none is left.
    fn bury(&mut self, look: &Look<'_>, client: Table, left: &mut u32) -> bool {
        let table = other_direction(client);
        self.condemned.extend(self.doubtful.drain());
        self.doubtful_slots.clear();
        while let Some((tag, index)) = self.condemned.pop() {
            if let Some(entry) = look.maps.table(table).entry(index).filter(|entry| entry.tag == tag)
                && look.judge(table, &entry).0 == Verdict::Silent
            {
                self.remove(look.maps, table, index, &entry);
            }
            *left = left.saturating_sub(1);
            if *left == 0 {
                return false;
            }
        }
        true
    }

    /// Which listeners' flows are to be compared with today's ring: those whose members have moved since the last walk, and
    /// now and then all, for flows that were half-open meanwhile.
    fn note_choices(&mut self, maps: &PinnedMaps) {
        let choices = maps.choices();
        let all = self.walks.is_multiple_of(COMPARE_ALL);
        let before = |id: usize| self.choices.get(id);
        self.moved = choices.iter().enumerate().map(|(id, now)| all || before(id) != Some(now)).collect();
        self.choices = choices;
        self.walks = self.walks.wrapping_add(1);
    }

    fn remove(&mut self, maps: &PinnedMaps, table: Table, index: u32, entry: &Entry) {
        // A lost race means that a packet has come just now, or that the data path has removed it itself.
        self.counting.removed += u32::from(maps.table(table).clear(index, entry));
    }
}
