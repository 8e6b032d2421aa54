//! The flow tables: what is put is found, once; what must go is worth least.

use crate::flow::{self, state};
use crate::hash::Hash;
use crate::host::Host;
use crate::layout::{Bucket, Entry, Life, WAYS};
use crate::reasons::Reason;
use crate::scene::{HZ, Scene};
use crate::table::{self, BUSY};
use crate::tables::{Table, Tables as _};
use proptest::prelude::*;
use std::vec::Vec;

fn put(host: &Host, table: Table, hash: Hash, life: Life) -> Option<u32> {
    (&host).put(table, hash, &Entry { slot: hash.place, generation: 1, life, ..Entry::default() })
}

fn state() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(state::KEEP), Just(state::BOTH_FIN), Just(state::KEEP | state::TARGET_RST)]
}

/// Entries with two buckets in common: the pressure of a table of two.
fn entries() -> impl Strategy<Value = Vec<(u64, u32, u32)>> {
    prop::collection::vec((2..40_u64, state(), 0..400 * HZ), 1..60)
}

fn small() -> Host {
    let mut host = Scene::default().host;
    for table in &mut host.tables {
        table.truncate(2);
    }
    host
}

proptest! {
    #[test]
    fn what_was_put_is_found_and_nothing_is_there_twice(entries in entries()) {
        let host = small();
        for (tag, state, age) in entries {
            let (hash, life) = (Hash { tag, place: tag as u32 }, Life { seen: host.now - age, state });
            let index = put(&host, Table::Flows, hash, life).expect("a place");
            let found = table::find(&&host, Table::Flows, hash);
            prop_assert_eq!((found.index, found.entry.life, found.entry.slot), (index, life, hash.place));
            let mut tags: Vec<u64> = host.entries(Table::Flows).iter().map(|entry| entry.tag).collect();
            tags.sort_unstable();
            tags.dedup();
            prop_assert_eq!(tags.len(), host.entries(Table::Flows).len());
        }
        prop_assert!(host.entries(Table::Replies).is_empty());
    }

    #[test]
    fn the_least_valuable_goes_and_a_precious_one_only_among_its_like(entries in entries(), next in 40..99_u64) {
        let host = small();
        for (tag, state, age) in entries {
            put(&host, Table::Flows, Hash { tag, place: 0 }, Life { seen: host.now - age, state });
        }
        let (before, lost) = (host.entries(Table::Flows), lost(&host));
        put(&host, Table::Flows, Hash { tag: next, place: 0 }, Life { seen: host.now, state: 0 }).expect("a place");
        let after = host.entries(Table::Flows);
        let gone: Vec<&Entry> = before.iter().filter(|e| !after.iter().any(|other| other.tag == e.tag)).collect();
        prop_assert_eq!(gone.len(), usize::from(before.len() == 2 * WAYS));
        for gone in gone {
            let worth = |entry: &Entry| flow::value(entry.life, host.now);
            prop_assert!(before.iter().all(|entry| worth(entry) >= worth(gone)));
            let all_precious = before.iter().all(|entry| worth(entry).is_precious());
            prop_assert_eq!(worth(gone).is_precious(), all_precious);
            prop_assert_eq!(super::table::lost(&host) - lost, u64::from(all_precious));
        }
    }

    #[test]
    fn an_entry_that_others_write_is_never_taken(tag in 2..u64::MAX, ways in prop::collection::vec(any::<bool>(), 8)) {
        let host = small();
        for (number, cell) in host.tables[0].iter().enumerate() {
            let mut bucket = Bucket::default();
            for (way, entry) in bucket.entries.iter_mut().enumerate() {
                entry.tag = if ways[number * WAYS + way] { BUSY } else { 7 + way as u64 };
            }
            cell.set(bucket);
        }
        let placed = put(&host, Table::Flows, Hash { tag, place: 0 }, Life { seen: host.now, state: 0 });
        prop_assert_eq!(placed.is_none(), ways.iter().all(|busy| *busy));
        let busy = host.tables[0].iter().flat_map(|cell| cell.get().entries).filter(|e| e.tag == BUSY).count();
        prop_assert_eq!(busy, ways.iter().filter(|busy| **busy).count());
    }
}

fn lost(host: &Host) -> u64 {
    host.reasons.borrow()[Reason::FlowLost as usize]
}

#[test]
fn both_buckets_of_a_flow_differ() {
    for tag in [2, 3, 1 << 40, u64::MAX, 0x1234_5678_9abc_def0] {
        for mask in [1, 31, 255] {
            let hash = Hash { tag, place: 5 };
            assert_ne!(table::second_bucket(hash, mask), hash.place & mask);
        }
    }
}

#[test]
fn a_life_that_changed_meanwhile_is_left_alone() {
    let host = small();
    let hash = Hash { tag: 9, place: 0 };
    put(&host, Table::Flows, hash, Life { seen: 1, state: 0 });
    let found = table::find(&&host, Table::Flows, hash);
    found.live(&&host, Life { seen: 2, state: 0 });
    found.live(&&host, Life { seen: 3, state: 0 });
    assert_eq!(table::find(&&host, Table::Flows, hash).entry.life.seen, 2);
    found.forget(&&host);
    assert!(!table::find(&&host, Table::Flows, hash).exists());
}
