//! Which check may have a socket now: fair between target groups, however few sockets and however many silent targets.
//!
//! A check that is likely to end soon (a quick or a new target's) asks for a *slice*: a socket that is its own for
//! [`super::urgency::SLICE`]. One that is likely to last asks for a *tenure*: a socket that is its own until the check
//! ends. A check whose slice is over waits for a tenure, and keeps its socket meanwhile unless another check needs it;
//! then it is broken off, which is no outcome, and begins anew when its tenure comes. Tenures take at most three
//! quarters of the sockets, so every other check finds one within a slice; and as nobody breaks off a tenure, every
//! check has its whole timeout in the end.

use super::pool::{Line, Pool};
use super::urgency::Urgency;
use std::collections::{BTreeSet, HashMap};

/// One part of so many sockets is never given away as tenures.
const PARTS: usize = 4;

/// A check that begins now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// The check.
    pub(super) begin: u64,
    /// The check that is broken off for it and waits from now on.
    pub(super) instead_of: Option<u64>,
    /// Whether it has a slice; if not, a tenure.
    pub(super) slice: bool,
}

/// Who has a socket, and who waits for one.
#[derive(Debug)]
pub(super) struct Sockets {
    total: usize,
    slices: Pool,
    tenures: Pool,
    /// Checks whose slice is over and that have no tenure: (place in the line for tenures, id) by group.
    overrun: HashMap<u64, BTreeSet<(u64, u64)>>,
    /// (how many, group) of those.
    overruns: BTreeSet<(usize, u64)>,
    overrunning: usize,
    /// Sockets of checks that were broken off for good and have not ended yet.
    ending: usize,
    seats: HashMap<u64, Seat>,
}

#[derive(Clone, Copy, Debug)]
struct Seat {
    group: u64,
    line: Line,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In line for a slice.
    WantsSlice { place: u64 },
    /// Has a slice.
    Slice,
    /// Its slice is over: has its socket until another check needs it, and is in line for a tenure.
    Overrun { place: u64 },
    /// In line for a tenure.
    WantsTenure { place: u64 },
    /// Has a tenure.
    Tenure,
}

impl Sockets {
    /// So many sockets, at least two.
    pub(super) fn new(total: usize) -> Self {
        Self {
            total: total.max(2),
            slices: Pool::default(),
            tenures: Pool::default(),
            overrun: HashMap::new(),
            overruns: BTreeSet::new(),
            overrunning: 0,
            ending: 0,
            seats: HashMap::new(),
        }
    }

    /// How many sockets there are.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// Puts a check in line that is in no line and has no socket.
    pub(super) fn wait(&mut self, id: u64, group: u64, urgency: Urgency) {
        let line = match urgency {
            Urgency::Quick | Urgency::Doubtful => Line::First,
            Urgency::New | Urgency::Silent => Line::Second,
        };
        let state = match urgency {
            Urgency::Quick | Urgency::New => State::WantsSlice { place: self.slices.join(group, line, id) },
            Urgency::Doubtful | Urgency::Silent => {
                State::WantsTenure { place: self.tenures.join(group, line, id) }
            }
        };
        self.seats.insert(id, Seat { group, line, state });
    }

    /// The slice of a check is over; nothing happens to one that has no slice.
    pub(super) fn overran(&mut self, id: u64) {
        let Some(seat) = self.seats.get_mut(&id).filter(|seat| matches!(seat.state, State::Slice)) else {
            return;
        };
        self.slices.free(seat.group, seat.line);
        let place = self.tenures.join(seat.group, seat.line, id);
        seat.state = State::Overrun { place };
        let group = seat.group;
        self.change_overruns(group, |ids| ids.insert((place, id)));
    }

    /// A check has ended or is not wanted any more: gives up its socket or its place in line.
    pub(super) fn leave(&mut self, id: u64) {
        let Some(Seat { group, line, state }) = self.seats.remove(&id) else { return };
        match state {
            State::WantsSlice { place } => self.slices.quit(group, line, place, id),
            State::Slice => self.slices.free(group, line),
            State::Overrun { place } => {
                self.change_overruns(group, |ids| ids.remove(&(place, id)));
                self.tenures.quit(group, line, place, id);
            }
            State::WantsTenure { place } => self.tenures.quit(group, line, place, id),
            State::Tenure => self.tenures.free(group, line),
        }
    }

    /// A check that has left was under way, and its socket is not closed yet.
    pub(super) fn closing(&mut self) {
        self.ending += 1;
    }

    /// The socket of such a check is closed.
    pub(super) fn closed(&mut self) {
        self.ending -= 1;
    }

    /// The next check that may begin; to be asked until there is none.
    pub(super) fn next(&mut self) -> Option<Grant> {
        loop {
            match self.next_tenure() {
                Some(Tenured::Goes(grant)) => return Some(grant),
                Some(Tenured::GoesOn) => {}
                None => return self.next_slice(),
            }
        }
    }

    fn next_tenure(&mut self) -> Option<Tenured> {
        let size = self.total - (self.total / PARTS).max(1);
        for id in self.tenures.next(size) {
            let Seat { group, line, state } = *self.seats.get(&id)?;
            let tenured = match state {
                State::Overrun { place } => {
                    self.change_overruns(group, |ids| ids.remove(&(place, id)));
                    self.tenures.take(group, line, place, id);
                    Tenured::GoesOn
                }
                State::WantsTenure { place } => {
                    let Some(instead_of) = self.make_room() else { continue };
                    self.tenures.take(group, line, place, id);
                    Tenured::Goes(Grant { begin: id, instead_of, slice: false })
                }
                State::WantsSlice { .. } | State::Slice | State::Tenure => {
                    unreachable!("it waits for a tenure")
                }
            };
            self.seats.insert(id, Seat { group, line, state: State::Tenure });
            return Some(tenured);
        }
        None
    }

    fn next_slice(&mut self) -> Option<Grant> {
        let size = self.total.saturating_sub(self.tenures.held() + self.ending);
        let id = self.slices.next(size).next()?;
        let Seat { group, line, state } = *self.seats.get(&id)?;
        let State::WantsSlice { place } = state else { unreachable!("it waits for a slice") };
        let instead_of = self.make_room()?;
        self.slices.take(group, line, place, id);
        self.seats.insert(id, Seat { group, line, state: State::Slice });
        Some(Grant { begin: id, instead_of, slice: true })
    }

    /// A socket that is free (`Some(None)`), or that of the check that overran last in the group with the most of them:
    /// the older ones have come closer to their verdict.
    fn make_room(&mut self) -> Option<Option<u64>> {
        if self.slices.held() + self.tenures.held() + self.overrunning + self.ending < self.total {
            return Some(None);
        }
        let (_, group) = *self.overruns.last()?;
        let (place, id) = *self.overrun.get(&group)?.last()?;
        self.change_overruns(group, |ids| ids.remove(&(place, id)));
        self.seats.get_mut(&id)?.state = State::WantsTenure { place };
        Some(Some(id))
    }

    fn change_overruns(&mut self, group: u64, change: impl FnOnce(&mut BTreeSet<(u64, u64)>) -> bool) {
        let ids = self.overrun.entry(group).or_default();
        let before = ids.len();
        self.overruns.remove(&(before, group));
        change(ids);
        let after = ids.len();
        if after > 0 {
            self.overruns.insert((after, group));
        } else {
            self.overrun.remove(&group);
        }
        self.overrunning = self.overrunning + after - before;
    }
}

/// A check that has a tenure from now on.
enum Tenured {
    /// It begins.
    Goes(Grant),
    /// It was under way and goes on.
    GoesOn,
}

#[cfg(test)]
#[path = "sockets_tests.rs"]
mod tests;
