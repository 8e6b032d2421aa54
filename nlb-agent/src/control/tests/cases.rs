//! Single changes, step by step.

use super::*;

fn one(targets: &[(u8, u32)]) -> Forwarding {
    let placed = |(host, share): &(u8, u32)| Placed {
        key: model::TargetKey { ip: ip(*host), port: 8080, uid: None },
        incarnation: 0,
        share: *share,
    };
    let mut targets: Vec<Placed> = targets.iter().map(placed).collect();
    targets.sort_by(|a, b| a.key.cmp(&b.key));
    Forwarding {
        listener: key(1),
        node_vip: false,
        idle_timeout: Duration::from_secs(350),
        registered: targets.len() as u32,
        targets,
    }
}

#[test]
fn a_removed_target_is_freed_with_the_next_generation_and_waits() {
    let mut control = Control::new(AMPLE);
    control.apply(vec![one(&[(2, 1), (4, 1)])], Epoch(0));
    let slot = control.listener(&key(1)).unwrap().1[0].slot;
    let left = control.apply(vec![one(&[(4, 1)])], Epoch(0));
    assert!(left.waiting && !left.steps.iter().any(|step| matches!(step, Step::FreeSlot { .. })));
    let freed = control.change(Change::default(), left.epoch);
    assert!(freed.waiting && freed.steps.contains(&Step::FreeSlot { slot, generation: 2 }));
    let early = control.apply(vec![one(&[(4, 1), (6, 1)])], left.epoch);
    assert!(!control.listener(&key(1)).unwrap().1.iter().any(|occupant| occupant.slot == slot));
    let late = control.apply(vec![one(&[(4, 1), (6, 1), (8, 1)])], early.epoch);
    let put = late.steps.iter().find_map(|step| match step {
        Step::PutSlot { slot, value } => Some((*slot, value.generation)),
        _ => None,
    });
    assert_eq!(put, Some((slot, 2)));
}

#[test]
fn a_target_without_a_share_keeps_its_slot_but_not_its_entries() {
    let mut control = Control::new(AMPLE);
    control.apply(vec![one(&[(2, 1), (4, 1), (6, 1)])], Epoch(0));
    let before = occupants(&control);
    let slots = control.contents().slots.clone();
    let drained = control.apply(vec![one(&[(2, 0), (4, 1), (6, 1)])], Epoch(0));
    assert_eq!((occupants(&control), &control.contents().slots), (before, &slots));
    assert_eq!(drained.steps.len(), 3, "a ring, members and a choice: {:?}", drained.steps);
    let none = control.apply(vec![one(&[(2, 0), (4, 0), (6, 0)])], Epoch(0));
    assert_eq!(none.steps, [Step::SetChoice { listener: 0, at: 0 }]);
}

#[test]
fn listeners_with_the_same_targets_share_one_ring() {
    let mut control = Control::new(AMPLE);
    let first = one(&[(2, 1), (4, 2)]);
    let second = Forwarding { listener: key(2), ..one(&[(2, 3), (4, 6)]) };
    let planned = control.apply(vec![first, second], Epoch(0));
    let regions = planned.steps.iter().filter(|step| matches!(step, Step::WriteRegion { .. })).count();
    assert_eq!(regions, 3, "one ring and two lists of members");
}

#[test]
fn an_idle_timeout_changes_in_place() {
    let mut control = Control::new(AMPLE);
    control.apply(vec![one(&[(2, 1)])], Epoch(0));
    let longer = Forwarding { idle_timeout: Duration::from_secs(400), ..one(&[(2, 1)]) };
    let steps = control.apply(vec![longer], Epoch(0)).steps;
    let [Step::SetIdle { value, .. }] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!(value.idle, 400 * 250);
}

#[test]
fn more_targets_than_slots_are_left_out_and_come_in_when_there_is_room() {
    let limits = Limits { slots: 2, ..AMPLE };
    let mut control = Control::new(limits);
    let planned = control.apply(vec![one(&[(2, 1), (4, 1), (6, 1)])], Epoch(0));
    let listener = key(1);
    let expected = Shortfall { listener, limit: Limit::Slots, capacity: 2, targets: 1, passing: false };
    assert_eq!(planned.shortfalls, [expected]);
    let planned = control.apply(vec![one(&[(4, 1), (6, 1)])], planned.epoch);
    assert_eq!(planned.shortfalls, [Shortfall { passing: true, ..expected }]);
    let planned = control.change(Change::default(), planned.epoch);
    let planned = control.change(Change::default(), planned.epoch);
    assert_eq!(planned.shortfalls, []);
    assert_eq!(control.listener(&listener).unwrap().1.len(), 2);
}

#[test]
fn vips_and_listeners_beyond_the_maps_are_left_out() {
    let limits = Limits { vips: 1, listeners: 1, ..AMPLE };
    let mut control = Control::new(limits);
    let on = |number| Forwarding { listener: key(number), ..one(&[(2, 1)]) };
    let planned = control.apply(vec![on(0), on(1), on(3)], Epoch(0));
    let short: Vec<_> = planned.shortfalls.iter().map(|short| (short.listener, short.limit)).collect();
    let mut expected = [(key(1), Limit::Vips), (key(3), Limit::Listeners)];
    let served: Vec<_> = control.contents().listeners.keys().copied().collect();
    if served != [key(0)] {
        expected = [(key(0), Limit::Vips), (key(3), Limit::Vips)];
    }
    let mut short = short;
    short.sort();
    expected.sort();
    assert_eq!(short, expected);
}

#[test]
fn a_listener_keeps_what_it_had_when_rings_are_full() {
    let limits = Limits { ring_words: 70, ..AMPLE };
    let mut control = Control::new(limits);
    let planned = control.apply(vec![one(&[(2, 1)])], Epoch(0));
    let before = seen(control.contents());
    let planned = control.apply(vec![one(&[(4, 1)])], planned.epoch);
    assert_eq!(planned.shortfalls[0].limit, Limit::RingWords);
    assert_eq!(seen(control.contents()), before);
    assert_eq!(planned.steps, []);
}
