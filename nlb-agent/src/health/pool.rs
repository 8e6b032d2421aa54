//! A number of sockets that target groups share: who waits for one, and whose turn is next.

use std::collections::{BTreeSet, HashMap};

/// A line of a group may hold this many sockets for each other one that is left; the last one goes only to one without any.
const GREED: usize = 8;
/// One part of so many is kept from the second line.
const PARTS: usize = 8;
/// After this many turns of the first line in a row it is the second line's turn.
const TURNS: u32 = 3;

/// The two lines in which checks wait for a socket of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Served first.
    First,
    /// Served once after three of the first line, and whenever the first line is empty.
    Second,
}

/// Who holds and who waits. In each line the group that holds the fewest sockets of this line comes first, and among equals
/// the one whose last turn is the longest ago. Every operation costs the logarithm of what waits.
#[derive(Debug, Default)]
pub(super) struct Pool {
    groups: HashMap<u64, Group>,
    /// (sockets held, last turn, group) of the groups that wait, for each line.
    order: [BTreeSet<(usize, u64, u64)>; 2],
    held: [usize; 2],
    /// Turns of the first line in a row.
    firsts: u32,
    clock: u64,
}

/// What a group holds and who of it waits, for each line.
type Group = [Share; 2];

#[derive(Debug, Default)]
struct Share {
    held: usize,
    turn: u64,
    /// (place, id), the smallest place first.
    ids: BTreeSet<(u64, u64)>,
}

impl Pool {
    /// Sockets held.
    pub(super) fn held(&self) -> usize {
        self.held.iter().sum()
    }

    /// Puts an id at the end of its group's part of a line; the place there.
    pub(super) fn join(&mut self, group: u64, line: Line, id: u64) -> u64 {
        self.clock += 1;
        let place = self.clock;
        self.change(group, |it| {
            let share = &mut it[line as usize];
            if share.ids.is_empty() {
                share.turn = place;
            }
            share.ids.insert((place, id));
        });
        place
    }

    /// Takes an id out of a line.
    pub(super) fn quit(&mut self, group: u64, line: Line, place: u64, id: u64) {
        self.change(group, |it| {
            it[line as usize].ids.remove(&(place, id));
        });
    }

    /// Gives a socket to an id that waits.
    pub(super) fn take(&mut self, group: u64, line: Line, place: u64, id: u64) {
        self.clock += 1;
        let turn = self.clock;
        self.held[line as usize] += 1;
        self.firsts = if line == Line::First { self.firsts.saturating_add(1) } else { 0 };
        self.change(group, |it| {
            let share = &mut it[line as usize];
            share.held += 1;
            share.ids.remove(&(place, id));
            share.turn = turn;
        });
    }

    /// Takes back a socket that was given to an id of this line.
    pub(super) fn free(&mut self, group: u64, line: Line) {
        self.held[line as usize] -= 1;
        self.change(group, |it| it[line as usize].held -= 1);
    }

    /// The ids that may have a socket now if the pool has `size`, at most one of each line, the one whose turn it is first.
    pub(super) fn next(&self, size: usize) -> impl Iterator<Item = u64> + use<> {
        let room = size.saturating_sub(self.held());
        let second = self.held[Line::Second as usize] < size - size / PARTS;
        let first = self.head(Line::First, room);
        let second = self.head(Line::Second, room).filter(|_| second);
        let heads = if self.firsts < TURNS { [first, second] } else { [second, first] };
        heads.into_iter().flatten()
    }

    fn head(&self, line: Line, room: usize) -> Option<u64> {
        let (held, _, group) = self.order[line as usize].first()?;
        let is_allowed = room > 0 && (*held == 0 || *held < GREED * (room - 1));
        let share = &self.groups.get(group)?[line as usize];
        share.ids.first().filter(|_| is_allowed).map(|(_, id)| *id)
    }

    /// Changes a group and its places in the order, which depend on what it holds.
    fn change(&mut self, number: u64, change: impl FnOnce(&mut Group)) {
        let group = self.groups.entry(number).or_default();
        for (order, share) in self.order.iter_mut().zip(&*group) {
            order.remove(&(share.held, share.turn, number));
        }
        change(group);
        for (order, share) in self.order.iter_mut().zip(&*group) {
            if !share.ids.is_empty() {
                order.insert((share.held, share.turn, number));
            }
        }
        if group.iter().all(|share| share.held == 0 && share.ids.is_empty()) {
            self.groups.remove(&number);
        }
    }
}
