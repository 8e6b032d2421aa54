//! Chains of changes, grace periods, crashes and restarts, watched by a packet that never gets lost.

mod cases;
mod strangers;

use super::*;
use crate::contents::MapDump;
use crate::model;
use proptest::prelude::*;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const AMPLE: Limits = Limits { listeners: 32, vips: 8, slots: 512, ring_words: 1 << 14, hz: 250 };
const TIGHT: Limits = Limits { listeners: 6, vips: 2, slots: 14, ring_words: 700, hz: 250 };

fn ip(number: u8) -> IpAddr {
    if number.is_multiple_of(2) {
        Ipv4Addr::new(10, 0, 0, number).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into()
    }
}

fn key(number: u8) -> ListenerKey {
    let protocol = if number.is_multiple_of(3) { 17 } else { 6 };
    ListenerKey { vip: ip(200 + number % 3).into(), port: 80 + u16::from(number), protocol, zero: 0 }
}

fn placed() -> impl Strategy<Value = Placed> {
    let uid = prop_oneof![Just(None), Just(Some("a")), Just(Some("b"))];
    (0..6_u8, 8080..8082_u16, uid, 0..2_u32, 0..4_u32).prop_map(|(host, port, uid, incarnation, share)| {
        Placed {
            key: model::TargetKey { ip: ip(host), port, uid: uid.map(str::to_owned) },
            incarnation,
            share,
        }
    })
}

fn forwarding(number: u8) -> impl Strategy<Value = Forwarding> {
    let targets = prop::collection::vec(placed(), 0..6);
    (targets, 0..4_u32, 1..3_u64).prop_map(move |(mut targets, more, idle)| {
        targets.sort_by(|a, b| a.key.cmp(&b.key));
        targets.dedup_by(|a, b| a.key == b.key);
        Forwarding {
            listener: key(number),
            node_vip: key(number).vip == ip(202).into(),
            idle_timeout: Duration::from_secs(100 * idle),
            registered: targets.len() as u32 + more,
            targets,
        }
    })
}

fn forwardings() -> impl Strategy<Value = Vec<Forwarding>> {
    (0..8_u8)
        .map(|number| prop::option::weighted(0.7, forwarding(number)))
        .collect::<Vec<_>>()
        .prop_map(|all| all.into_iter().flatten().collect())
}

/// What is asked for, time after time, and whether a grace period follows.
fn chain() -> impl Strategy<Value = Vec<(Vec<Forwarding>, bool)>> {
    // Half of the changes touch one listener only.
    let small = (forwardings(), forwarding(3));
    prop::collection::vec((small, any::<bool>(), any::<bool>()), 1..6).prop_map(|rounds| {
        let mut last: Vec<Forwarding> = Vec::new();
        let mut chain = Vec::new();
        for ((all, one), whole, grace) in rounds {
            if whole {
                last = all;
            } else {
                last.retain(|forwarding| forwarding.listener != one.listener);
                last.push(one);
            }
            chain.push((last.clone(), grace));
        }
        chain
    })
}

/// The maps, and all that a packet may still hold which set out after the last grace period began.
struct Kernel {
    maps: Contents,
    slots: BTreeSet<u32>,
    words: BTreeSet<u32>,
}

impl Kernel {
    fn new(maps: Contents) -> Self {
        let mut kernel = Self { maps, slots: BTreeSet::new(), words: BTreeSet::new() };
        kernel.look();
        kernel
    }

    /// Notes everything that a packet could reach right now.
    fn look(&mut self) {
        for listener in self.maps.listeners.values() {
            let choice = self.maps.choices[listener.id as usize];
            let Some(pick) = self.maps.pick(choice) else { continue };
            let members = choice as u32;
            self.words.extend(members..members + crate::contents::member_words(pick.slots.len()));
            let ring = pick.members.ring;
            self.words.extend(ring..ring + crate::contents::ring_words(pick.members.size));
            self.slots.extend(pick.slots);
        }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::WriteRegion { at, words } => {
                let touched = self.words.range(at..&(at + words.len() as u32)).next();
                assert_eq!(touched, None, "{step:?} writes where a packet may look");
            }
            Step::PutSlot { slot, .. } | Step::FreeSlot { slot, .. } => {
                assert!(!self.slots.contains(slot), "{step:?} while a packet may look there");
            }
            Step::SetIdle { slot, value } => {
                assert_eq!(Slot { idle: 0, ..*value }, Slot { idle: 0, ..self.maps.slots[*slot as usize] });
            }
            _ => {}
        }
        self.maps.run(step);
        assert_eq!(self.maps.incoherence(), None, "after {step:?}");
        self.look();
    }

    fn grace(&mut self) {
        self.slots.clear();
        self.words.clear();
        self.look();
    }
}

/// What a client finds, without the numbers of slots and words: for each listener its VIP's flags, and its ring as a hash.
fn seen(maps: &Contents) -> BTreeMap<ListenerKey, (u32, u64)> {
    let resolve = |(key, listener): (&ListenerKey, &Listener)| {
        let ring = maps.pick(maps.choices[listener.id as usize]).map_or(0, |pick| {
            let mut hasher = DefaultHasher::new();
            let words = maps.ring(pick.members).unwrap();
            let entry = |index| {
                let slot = maps.slots[pick.slots[usize::from(crate::ring::entry(words, index))] as usize];
                (slot.target, slot.target_port, slot.idle)
            };
            (0..pick.members.size as usize).for_each(|index| entry(index).hash(&mut hasher));
            hasher.finish()
        });
        (*key, (maps.vips[&key.vip].flags, ring))
    };
    maps.listeners.iter().map(resolve).collect()
}

fn occupants(control: &Control) -> Vec<(ListenerKey, Vec<Occupant>)> {
    let anonymous = |occupant: &Occupant| Occupant { slot: 0, ..occupant.clone() };
    control.seats.iter().map(|(key, seat)| (*key, seat.occupants.iter().map(anonymous).collect())).collect()
}

fn scratch(forwardings: &[Forwarding], limits: Limits) -> Control {
    let mut control = Control::new(limits);
    control.apply(forwardings.to_vec(), Epoch(0));
    control
}

/// Lets grace periods pass until nothing waits for one.
fn settle(control: &mut Control, kernel: &mut Kernel, mut planned: Planned) -> Planned {
    for _ in 0..4 {
        kernel.grace();
        planned = control.change(Change::default(), planned.epoch);
        planned.steps.iter().for_each(|step| kernel.run(step));
    }
    assert!(!planned.waiting && planned.steps.is_empty());
    planned
}

fn run_chain(chain: &[(Vec<Forwarding>, bool)], limits: Limits) -> (Control, Kernel, Planned) {
    let mut control = Control::new(limits);
    let mut kernel = Kernel::new(Contents::empty(&limits));
    let mut elapsed = Epoch(0);
    let mut last = control.change(Change::default(), elapsed);
    for (forwardings, grace) in chain {
        let before = kernel.maps.clone();
        last = control.apply(forwardings.clone(), elapsed);
        last.steps.iter().for_each(|step| kernel.run(step));
        assert!(kernel.maps == *control.contents());
        assert!(
            control.image(&Edits::default()) == kernel.maps,
            "incremental edits are the whole difference"
        );
        assert_eq!(run_plan(before, &kernel.maps), without_regions(&last.steps));
        if *grace {
            kernel.grace();
            elapsed = last.epoch;
        }
    }
    (control, kernel, last)
}

/// The plan between two whole images: coherent all the way, and ending there. A region may be written in several runs.
fn run_plan(mut now: Contents, wanted: &Contents) -> usize {
    let steps = plan(&now, wanted);
    for step in &steps {
        now.run(step);
        assert_eq!(now.incoherence(), None, "after {step:?}");
    }
    assert!(now == *wanted);
    without_regions(&steps)
}

fn without_regions(steps: &[Step]) -> usize {
    steps.iter().filter(|step| !matches!(step, Step::WriteRegion { .. })).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_prefix_is_coherent_and_the_end_is_as_from_scratch(chain in chain()) {
        let (mut control, mut kernel, last) = run_chain(&chain, AMPLE);
        prop_assert_eq!(&last.shortfalls, &[]);
        let wanted = scratch(&chain.last().unwrap().0, AMPLE);
        prop_assert_eq!(seen(&kernel.maps), seen(wanted.contents()));
        prop_assert_eq!(occupants(&control), occupants(&wanted));
        settle(&mut control, &mut kernel, last);
        // Nothing leaks: the whole arena but what is in use is free again, and so are slots and filters.
        prop_assert_eq!(control.arena.free_words(), wanted.arena.free_words());
        let used = |maps: &Contents| maps.slots.iter().filter(|slot| slot.protocol != 0).count();
        prop_assert_eq!(used(&kernel.maps), used(wanted.contents()));
        prop_assert_eq!(&kernel.maps.target_filter, &wanted.contents().target_filter);
        prop_assert_eq!(&kernel.maps.vip_filter, &wanted.contents().vip_filter);
        prop_assert_eq!(kernel.maps.targets.len(), wanted.contents().targets.len());
    }

    #[test]
    fn in_tight_maps_nothing_that_was_placed_is_disturbed(chain in chain()) {
        let mut control = Control::new(TIGHT);
        let mut kernel = Kernel::new(Contents::empty(&TIGHT));
        let mut elapsed = Epoch(0);
        let mut before: (Vec<Forwarding>, _) = (Vec::new(), seen(&kernel.maps));
        let mut was_short = BTreeSet::new();
        for (forwardings, grace) in chain {
            let planned = control.apply(forwardings.clone(), elapsed);
            planned.steps.iter().for_each(|step| kernel.run(step));
            let after = seen(&kernel.maps);
            for key in before.1.keys() {
                let same = |all: &[Forwarding]| all.iter().find(|forwarding| forwarding.listener == *key).cloned();
                // With less than wanted before, more may have come in.
                if same(&before.0) == same(&forwardings) && !was_short.contains(key) {
                    prop_assert_eq!(after.get(key), Some(&before.1[key]));
                }
            }
            was_short = planned.shortfalls.iter().map(|short| short.listener).collect();
            let served = forwardings.iter().filter(|forwarding| after.contains_key(&forwarding.listener)).count();
            prop_assert!(served + was_short.len() >= forwardings.len());
            if grace {
                kernel.grace();
                elapsed = planned.epoch;
            }
            before = (forwardings, after);
        }
    }

    #[test]
    fn a_restart_changes_nothing(chain in chain(), noted in any::<bool>()) {
        let (mut control, mut kernel, last) = run_chain(&chain, AMPLE);
        let saved = if noted {
            control.saved()
        } else {
            // Two slots of one target, one of them leaving, cannot be told apart without a note.
            settle(&mut control, &mut kernel, last);
            Saved::default()
        };
        let saved: Saved = serde_json::from_str(&serde_json::to_string(&saved).unwrap()).unwrap();
        let mut again = Control::adopt(AMPLE, read_back(&kernel.maps, AMPLE), &saved);
        let forwardings = &chain.last().unwrap().0;
        let planned = again.apply(forwardings.clone(), Epoch(0));
        prop_assert_eq!(&planned.steps, &[]);
        prop_assert_eq!(occupants(&again), occupants(&control));
        let mut kernel = Kernel::new(kernel.maps);
        settle(&mut again, &mut kernel, planned);
        prop_assert_eq!(again.arena.free_words(), scratch(forwardings, AMPLE).arena.free_words());
    }

    #[test]
    fn a_restart_that_cannot_read_everything_keeps_the_rest(chain in chain(), seen in any::<prop::sample::Index>()) {
        let (mut control, mut kernel, last) = run_chain(&chain, AMPLE);
        settle(&mut control, &mut kernel, last);
        let all = chain.last().unwrap().0.clone();
        let some: Vec<_> = all[..seen.index(all.len() + 1)].to_vec();
        let mut again = Control::adopt(AMPLE, read_back(&kernel.maps, AMPLE), &control.saved());
        let planned = again.apply_keeping(some.clone(), &|_, _| false, Epoch(0));
        prop_assert_eq!(&planned.steps, &[]);
        // Nobody has said in which order those that were not seen stand.
        let sorted = |control: &Control| {
            let mut all = occupants(control);
            all.iter_mut().for_each(|(_, it)| it.sort_by_key(|it| (it.ip, it.port, format!("{:?}", it.known))));
            all
        };
        prop_assert_eq!(sorted(&again), sorted(&control));
        // What was named since and is no longer goes at once.
        let fewer = some[..some.len() / 2].to_vec();
        again.apply_keeping(fewer.clone(), &|_, _| false, Epoch(0));
        let left = |it: &Forwarding| !some.contains(it) || fewer.contains(it);
        prop_assert!(all.iter().all(|it| again.listener(&it.listener).is_some() == left(it)));
        // Once everything can be read, what is gone goes.
        let planned = again.apply(some.clone(), Epoch(0));
        let mut kernel = Kernel::new(kernel.maps);
        planned.steps.iter().for_each(|step| kernel.run(step));
        settle(&mut again, &mut kernel, planned);
        prop_assert_eq!(again.arena.free_words(), scratch(&some, AMPLE).arena.free_words());
    }

    #[test]
    fn listener_by_listener_comes_to_what_all_at_once_comes_to(chain in chain(), next in forwardings()) {
        let (mut control, _, last) = run_chain(&chain, AMPLE);
        let mut whole = control.clone();
        let mut wanted: BTreeMap<_, _> =
            chain.last().unwrap().0.iter().map(|it| (it.listener, it.clone())).collect();
        for forwarding in next {
            wanted.insert(forwarding.listener, forwarding.clone());
            control.apply_some(vec![forwarding], last.epoch);
        }
        whole.apply(wanted.into_values().collect(), last.epoch);
        let listeners = |control: &Control| control.contents().listeners.keys().copied().collect::<Vec<_>>();
        prop_assert_eq!(listeners(&control), listeners(&whole));
        prop_assert_eq!(seen(control.contents()), seen(whole.contents()));
    }

    #[test]
    fn a_crash_between_two_steps_is_mended(chain in chain(), next in forwardings(), at in any::<prop::sample::Index>()) {
        let (mut control, mut kernel, last) = run_chain(&chain, AMPLE);
        let saved = control.saved();
        let planned = control.apply(next.clone(), last.epoch);
        kernel.grace();
        planned.steps[..at.index(planned.steps.len() + 1)].iter().for_each(|step| kernel.run(step));
        let mut again = Control::adopt(AMPLE, read_back(&kernel.maps, AMPLE), &saved);
        kernel.grace();
        let planned = again.apply(next.clone(), Epoch(0));
        planned.steps.iter().for_each(|step| kernel.run(step));
        prop_assert_eq!(seen(&kernel.maps), seen(scratch(&next, AMPLE).contents()));
        settle(&mut again, &mut kernel, planned);
        prop_assert!(again.image(&Edits::default()) == kernel.maps);
    }

    #[test]
    fn whatever_the_maps_hold_the_end_is_right(
        forwardings in forwardings(), damage in prop::collection::vec((0..6_u8, any::<prop::sample::Index>(), 0..600_u64), 0..8),
    ) {
        let mut maps = scratch(&forwardings, AMPLE).contents().clone();
        damage.iter().for_each(|(map, index, value)| spoil(&mut maps, *map, *index, *value));
        let mut control = Control::adopt(AMPLE, read_back(&maps, AMPLE), &Saved::default());
        let mut elapsed = Epoch(0);
        for _ in 0..4 {
            let planned = control.apply(forwardings.clone(), elapsed);
            planned.steps.iter().for_each(|step| maps.run(step));
            elapsed = planned.epoch;
        }
        prop_assert_eq!(maps.incoherence(), None);
        prop_assert_eq!(seen(&maps), seen(scratch(&forwardings, AMPLE).contents()));
    }
}

fn spoil(maps: &mut Contents, map: u8, index: prop::sample::Index, value: u64) {
    match map {
        0 => maps.choices[index.index(16)] = value,
        1 => maps.rings[index.index(600)] = value << (index.index(7) * 8),
        2 => maps.slots[index.index(40)].listener = value as u32,
        3 => maps.slots[index.index(40)].protocol = value as u8 % 3 * 6,
        4 => maps.target_filter.fill(value),
        _ => maps.listeners.values_mut().for_each(|listener| listener.id = listener.id.max(value as u32)),
    }
}

fn read_back(maps: &Contents, limits: Limits) -> Contents {
    let maps = maps.clone();
    let dump = MapDump {
        vips: maps.vips.into_iter().rev().collect(),
        vip_filter: maps.vip_filter,
        listeners: maps.listeners.into_iter().rev().collect(),
        choices: maps.choices,
        rings: maps.rings,
        slots: maps.slots,
        targets: maps.targets.into_iter().rev().collect(),
        target_filter: maps.target_filter,
    };
    Contents::read(dump, &limits).unwrap()
}
