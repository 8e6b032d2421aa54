//! Grace periods of indexes, and who keeps a seat.

use super::*;
use proptest::prelude::*;
use std::net::Ipv4Addr;

fn placed(host: u8, uid: Option<&str>, incarnation: u32) -> Placed {
    let key = TargetKey { ip: Ipv4Addr::new(10, 0, 0, host).into(), port: 80, uid: uid.map(str::to_owned) };
    Placed { key, incarnation, share: 1 }
}

#[test]
fn an_index_is_used_again_only_after_its_grace_period_and_the_longest_free_first() {
    let mut pool = Pool::new(3, 0, |_| false);
    let none = Epoch(0);
    assert_eq!(
        [pool.take(none), pool.take(none), pool.take(none), pool.take(none)],
        [Some(0), Some(1), Some(2), None]
    );
    pool.leave(2, Epoch(1));
    pool.leave(0, Epoch(2));
    assert_eq!(pool.expire(Epoch(1), Epoch(3)), [2]);
    assert_eq!(pool.take(Epoch(1)), None);
    assert_eq!(pool.expire(Epoch(3), Epoch(4)), [0]);
    assert_eq!(pool.take(Epoch(3)), Some(2));
    assert_eq!(pool.take(Epoch(3)), None);
    assert!(pool.is_waiting(Epoch(3)) && !pool.is_waiting(Epoch(4)));
    assert_eq!(pool.take(Epoch(4)), Some(0));
}

#[test]
fn what_is_given_back_unused_is_there_at_once() {
    let mut pool = Pool::new(1, 1, |_| false);
    let index = pool.take(Epoch(0)).unwrap();
    pool.give_back(index);
    assert_eq!(pool.take(Epoch(0)), Some(0));
}

#[test]
fn another_uid_or_incarnation_is_another_occupant() {
    let mut next = 10..;
    let first = place(&[], &[placed(1, Some("a"), 0)], || next.next());
    for other in [placed(1, Some("b"), 0), placed(1, Some("a"), 1), placed(1, None, 0)] {
        let second = place(&first.occupants, &[other], || Some(99));
        assert_eq!((second.taken, second.left), (vec![99], vec![10]));
    }
}

#[test]
fn an_unknown_occupant_is_the_first_that_asks() {
    let found = [Occupant { ip: Ipv4Addr::new(10, 0, 0, 1).into(), port: 80, known: None, slot: 5 }];
    let placement = place(&found, &[placed(1, Some("a"), 3), placed(1, Some("b"), 0)], || Some(6));
    assert_eq!((placement.slots, placement.left), (vec![Some(5), Some(6)], vec![]));
}

fn targets() -> impl Strategy<Value = Vec<Placed>> {
    let uid = prop_oneof![Just(None), Just(Some("a")), Just(Some("b"))];
    prop::collection::btree_map((0..8_u8, uid), 0..2_u32, 0..12).prop_map(|targets| {
        targets.into_iter().map(|((host, uid), incarnation)| placed(host, uid, incarnation)).collect()
    })
}

proptest! {
    #[test]
    fn who_stays_keeps_the_slot_and_no_slot_is_lost(before in targets(), after in targets(), room in 0..20_u32) {
        let mut slots = 0..;
        let first = place(&[], &before, || slots.next());
        let mut more = 100..100 + room;
        let second = place(&first.occupants, &after, || more.next());
        for (target, slot) in after.iter().zip(&second.slots) {
            let had = before.iter().position(|other| (&other.key, other.incarnation) == (&target.key, target.incarnation));
            if let Some(had) = had {
                prop_assert_eq!(*slot, first.slots[had]);
            }
        }
        let mut all: Vec<u32> = second.occupants.iter().map(|occupant| occupant.slot).chain(second.left.clone()).collect();
        all.sort_unstable();
        let mut expected: Vec<u32> = (0..before.len() as u32).chain(second.taken.clone()).collect();
        expected.sort_unstable();
        prop_assert_eq!(all, expected);
        let missing = second.slots.iter().filter(|slot| slot.is_none()).count();
        prop_assert!(missing == 0 || second.taken.len() == room as usize);
    }
}
