//! Random checks that come, overrun and leave: what must hold after each step, whoever asks.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// One thing that happens; numbers choose among what there is.
#[derive(Clone, Debug)]
enum Event {
    Waits { group: u64, urgency: Urgency },
    Overran(usize),
    Ends(usize),
    Withdrawn(usize),
    Closed,
}

fn event() -> impl Strategy<Value = Event> {
    let urgency =
        prop_oneof![Just(Urgency::Quick), Just(Urgency::New), Just(Urgency::Doubtful), Just(Urgency::Silent)];
    prop_oneof![
        5 => (0_u64..6, urgency).prop_map(|(group, urgency)| Event::Waits { group, urgency }),
        4 => any::<usize>().prop_map(Event::Overran),
        2 => any::<usize>().prop_map(Event::Ends),
        1 => any::<usize>().prop_map(Event::Withdrawn),
        1 => Just(Event::Closed),
    ]
}

/// What somebody sees from outside who follows every grant.
struct Watcher {
    sockets: Sockets,
    waits: BTreeMap<u64, (u64, Urgency)>,
    runs: BTreeMap<u64, (u64, Urgency)>,
    closing: usize,
    next: u64,
}

impl Watcher {
    fn happens(&mut self, event: &Event) {
        let nth =
            |all: &BTreeMap<u64, (u64, Urgency)>, n: usize| all.keys().nth(n % all.len().max(1)).copied();
        match event {
            Event::Waits { group, urgency } => {
                self.waits.insert(self.next, (*group, *urgency));
                self.sockets.wait(self.next, *group, *urgency);
                self.next += 1;
            }
            Event::Overran(n) => {
                if let Some(id) = nth(&self.runs, *n) {
                    self.sockets.overran(id);
                }
            }
            Event::Ends(n) => {
                if let Some(id) = nth(&self.runs, *n) {
                    self.sockets.leave(id);
                    self.runs.remove(&id);
                }
            }
            Event::Withdrawn(n) => {
                let all = self.runs.clone().into_iter().chain(self.waits.clone()).collect();
                if let Some(id) = nth(&all, *n) {
                    self.sockets.leave(id);
                    self.waits.remove(&id);
                    if self.runs.remove(&id).is_some() {
                        self.sockets.closing();
                        self.closing += 1;
                    }
                }
            }
            Event::Closed if self.closing > 0 => {
                self.sockets.closed();
                self.closing -= 1;
            }
            Event::Closed => {}
        }
    }

    /// Those whose socket is their own.
    fn owners(&self) -> BTreeSet<u64> {
        let owns = |state| matches!(state, State::Slice | State::Tenure);
        self.sockets.seats.iter().filter(|(_, seat)| owns(seat.state)).map(|(id, _)| *id).collect()
    }

    fn follow(&mut self, grant: Grant, owners: &BTreeSet<u64>) -> Result<(), TestCaseError> {
        if let Some(id) = grant.instead_of {
            prop_assert!(!owners.contains(&id), "{id} was broken off within its slice or tenure");
            let it = self.runs.remove(&id);
            prop_assert!(it.is_some(), "{id} was broken off and did not run");
            self.waits.extend(it.map(|it| (id, it)));
        }
        let it = self.waits.remove(&grant.begin);
        prop_assert!(it.is_some(), "{} begins and did not wait", grant.begin);
        self.runs.extend(it.map(|it| (grant.begin, it)));
        Ok(())
    }

    fn is_fair(&self) -> Result<(), TestCaseError> {
        let Sockets { total, slices, tenures, overrunning, .. } = &self.sockets;
        let (slices, tenures, most) = (slices.held(), tenures.held(), total - (total / PARTS).max(1));
        prop_assert_eq!(self.runs.len(), slices + tenures + overrunning);
        prop_assert!(self.runs.len() + self.closing <= *total && tenures <= most);
        let is_full = slices + tenures + self.closing == *total;
        let state = |id: &u64| self.sockets.seats[id].state;
        for (id, (group, urgency)) in &self.waits {
            let has = |wanted: fn(&State) -> bool| {
                let like = |seat: &&Seat| seat.group == *group && seat.line == Line::First;
                self.sockets.seats.values().filter(like).any(|seat| wanted(&seat.state))
            };
            match state(id) {
                State::WantsSlice { .. } if *urgency == Urgency::Quick => {
                    let has_slice = has(|state| matches!(state, State::Slice));
                    prop_assert!(is_full || has_slice, "a quick check waits, and there is a socket");
                }
                State::WantsTenure { .. } if *urgency != Urgency::Silent && *urgency != Urgency::New => {
                    let has_tenure = has(|state| matches!(state, State::Tenure));
                    prop_assert!(is_full || tenures == most || has_tenure, "a doubtful check waits");
                }
                _ => {}
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn sockets_are_never_too_many_and_never_idle(total in 2_usize..40, events in vec(event(), 1..400)) {
        let mut watcher = Watcher {
            sockets: Sockets::new(total),
            waits: BTreeMap::new(),
            runs: BTreeMap::new(),
            closing: 0,
            next: 0,
        };
        for event in &events {
            watcher.happens(event);
            let mut owners = watcher.owners();
            while let Some(grant) = watcher.sockets.next() {
                watcher.follow(grant, &owners)?;
                owners = watcher.owners();
            }
            watcher.is_fair()?;
        }
        for id in 0..watcher.next {
            watcher.sockets.leave(id);
        }
        prop_assert!(watcher.sockets.seats.is_empty() && watcher.sockets.overruns.is_empty());
        prop_assert_eq!(watcher.sockets.slices.held() + watcher.sockets.tenures.held(), 0);
    }
}

/// The groups of the checks that begin, in this order.
fn begun(sockets: &mut Sockets) -> Vec<u64> {
    let grants: Vec<Grant> = std::iter::from_fn(|| sockets.next()).collect();
    grants.iter().map(|grant| sockets.seats[&grant.begin].group).collect()
}

#[test]
fn a_greedy_group_leaves_room_and_groups_take_turns() {
    let mut sockets = Sockets::new(64);
    (0..100).for_each(|id| sockets.wait(id, 1, Urgency::New));
    let greedy = begun(&mut sockets).len();
    assert_eq!(greedy, 56, "an eighth is kept from new targets");
    (100..200).for_each(|id| sockets.wait(id, 2, Urgency::Quick));
    assert_eq!(begun(&mut sockets).len(), 7, "a group leaves the last socket to a group without any");
    sockets.wait(200, 3, Urgency::Quick);
    assert_eq!(begun(&mut sockets), [3]);
    (0..3).for_each(|id| sockets.leave(id));
    (201..210).for_each(|id| sockets.wait(id, 3, Urgency::Quick));
    (210..220).for_each(|id| sockets.wait(id, 4, Urgency::Quick));
    assert_eq!(begun(&mut sockets)[0], 4, "who has nothing comes first");
}

#[test]
fn a_check_that_overran_gives_way_keeps_its_place_and_ends_with_a_tenure() {
    let mut sockets = Sockets::new(4);
    (0..4).for_each(|id| sockets.wait(id, id, Urgency::Quick));
    assert_eq!(begun(&mut sockets), [0, 1, 2, 3]);
    (0..4).for_each(|id| sockets.overran(id));
    assert_eq!(sockets.next(), None, "three go on with a tenure, the fourth because nobody waits");
    sockets.wait(9, 9, Urgency::Quick);
    assert_eq!(sockets.next(), Some(Grant { begin: 9, instead_of: Some(3), slice: true }));
    sockets.wait(10, 10, Urgency::Doubtful);
    sockets.leave(9);
    assert_eq!(sockets.next(), None, "a free socket is no tenure");
    sockets.leave(0);
    assert_eq!(sockets.next(), Some(Grant { begin: 3, instead_of: None, slice: false }));
    sockets.wait(11, 11, Urgency::Quick);
    sockets.wait(12, 12, Urgency::Quick);
    assert_eq!(begun(&mut sockets), [11], "nobody breaks off a tenure");
}

#[test]
fn silent_targets_are_asked_although_doubtful_ones_wait() {
    let mut sockets = Sockets::new(4);
    (0..60).for_each(|id| sockets.wait(id, id, Urgency::Doubtful));
    (60..90).for_each(|id| sockets.wait(id, id, Urgency::Silent));
    let mut silent = 0;
    for _ in 0..20 {
        let grants: Vec<Grant> = std::iter::from_fn(|| sockets.next()).collect();
        silent += grants.iter().filter(|grant| grant.begin >= 60).count();
        grants.iter().for_each(|grant| sockets.leave(grant.begin));
    }
    assert_eq!(silent, 15, "of 60 tenures");
}
