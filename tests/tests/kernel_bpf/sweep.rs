//! The sweep over flow tables in the kernel's memory.

use super::{in_namespace, slot};
use anyhow::Context;
use nlb_agent::bpf::PinnedMaps;
use nlb_agent::bpf::flows::FlowFilter;
use nlb_agent::bpf::sweep::Sweep;
use nlb_agent::bpf::verdict::{Stage, client_tuple, reply_tuple};
use nlb_common::flow::state;
use nlb_common::layout::{Client, Entry, Life, Members, NO_SLOT, Slot};
use nlb_common::tables::Table;
use std::net::Ipv4Addr;

/// A flow in both directions as the data path would have written it, `silent` jiffies ago in each.
fn put_flow(
    maps: &PinnedMaps,
    tables: [Table; 2],
    at: (u32, Slot),
    client: Client,
    port: u16,
    silent: [Option<u32>; 2],
) {
    let now = maps.clock.now().unwrap();
    let (slot, seed) = (at.1, maps.config.seed);
    let entry = |age: u32, port| Entry {
        slot: at.0,
        generation: slot.generation,
        life: Life { seen: now.wrapping_sub(age), state: 0 },
        port,
        ..Entry::default()
    };
    if let Some(age) = silent[0] {
        let hash = client_tuple(&client, &slot).place(seed);
        maps.table(tables[0]).insert(hash, &entry(age, port), Some(client)).unwrap();
    }
    if let Some(age) = silent[1] {
        let hash = reply_tuple(&client, &slot, port).place(seed);
        maps.table(tables[1]).insert(hash, &entry(age, client.port), None).unwrap();
    }
}

fn client(port: u16) -> Client {
    Client { address: Ipv4Addr::new(198, 51, 100, 7).into(), port, zero: [0; 6] }
}

const FULL: [Table; 2] = [Table::Flows, Table::Replies];
const HALF: [Table; 2] = [Table::HalfFlows, Table::HalfReplies];

#[test]
fn the_sweep_removes_what_is_over_in_both_directions_and_counts_the_rest() {
    in_namespace(|place| {
        let mut data_path = place.open()?;
        let hz = data_path.maps.config.hz;
        let five = (5, Slot { idle: 350 * hz, ..slot(1, 9) });
        data_path.maps.put_slot(5, &five.1)?;
        let maps = &data_path.maps;
        let put = |tables, port, silent| put_flow(maps, tables, five, client(port), port, silent);
        let old = 351 * hz;
        put(FULL, 1, [Some(0), Some(0)]);
        put(FULL, 2, [Some(0), Some(old)]);
        put(FULL, 3, [Some(old), Some(0)]);
        put(FULL, 4, [Some(old), Some(old)]);
        put(FULL, 5, [Some(old), None]);
        put(FULL, 6, [None, Some(old)]);
        put(FULL, 7, [None, Some(0)]);
        put(HALF, 8, [Some(0), Some(0)]);
        put(HALF, 9, [Some(61 * hz), Some(61 * hz)]);
        let stale = (5, Slot { generation: 8, ..five.1 });
        put_flow(maps, FULL, stale, client(10), 10, [Some(0), Some(0)]);
        let direct = Entry {
            slot: NO_SLOT,
            life: Life { seen: maps.clock.now()?.wrapping_sub(6_001 * hz), state: state::DIRECT },
            ..Entry::default()
        };
        let hash = reply_tuple(&client(11), &five.1, 11).place(maps.config.seed);
        maps.table(Table::HalfReplies).insert(hash, &direct, None).context("room")?;

        let mut sweep = Sweep::default();
        let now = maps.clock.now()?;
        let mut ticks = 1;
        while !sweep.tick(maps, now, 3) {
            ticks += 1;
        }
        assert!(ticks > 3, "the work is bounded");
        let tally = sweep.tally();
        assert_eq!((tally.total().established, tally.total().half_open), (3, 1));
        assert_eq!((tally.slot(5).all(), tally.listener(2).all(), tally.slot(6).all()), (4, 4, 0));
        // 4: two, 5: one, 6: one, 9: two, the stale one: two, the direct one: one.
        assert_eq!(tally.removed(), 9);
        let entries = |table| maps.fill(table).entries;
        assert_eq!(FULL.map(entries), [3, 4]);
        assert_eq!(HALF.map(entries), [1, 1]);

        let list = maps.flows(&FlowFilter { listener: None, client: None, limit: 2 })?;
        assert_eq!((list.total, list.flows.len()), (4, 2));
        assert_eq!(list.flows[0].stage, Stage::Established);
        assert_eq!(list.flows[0].client.ip(), Ipv4Addr::new(198, 51, 100, 7));
        assert!(list.flows.iter().all(|flow| flow.idle_seconds == 0));
        let other = Some(Ipv4Addr::new(198, 51, 100, 8).into());
        assert_eq!(maps.flows(&FlowFilter { listener: None, client: other, limit: 9 })?.total, 0);
        Ok(())
    });
}

#[test]
fn the_sweep_keeps_what_todays_ring_would_not_give_again() {
    in_namespace(|place| {
        let mut data_path = place.open()?;
        data_path.maps.put_slot(5, &slot(1, 9))?;
        data_path.maps.put_slot(6, &slot(2, 9))?;
        // A ring of 251 entries that all lead to member 0, slot 6.
        data_path.maps.write_ring_words(100, &[0; 63])?;
        data_path.maps.write_ring_words(1, &[Members { ring: 100, size: 251 }.word(), 6])?;
        data_path.maps.set_choice(2, 1)?;
        let maps = &data_path.maps;
        put_flow(maps, FULL, (5, slot(1, 9)), client(1), 1, [Some(0), Some(0)]);
        put_flow(maps, FULL, (6, slot(2, 9)), client(2), 2, [Some(0), Some(0)]);
        put_flow(maps, FULL, (6, slot(2, 9)), client(3), 3333, [Some(0), Some(0)]);
        let mut sweep = Sweep::default();
        let now = maps.clock.now()?;
        sweep.walk(maps, now);
        let kept = |at: Slot, port, rewritten| -> [bool; 2] {
            let seed = maps.config.seed;
            let keep = |table, hash| {
                let (_, entry) = maps.table(table).find(hash).unwrap();
                entry.life.state & state::KEEP != 0
            };
            [
                keep(Table::Flows, client_tuple(&client(port), &at).place(seed)),
                keep(Table::Replies, reply_tuple(&client(port), &at, rewritten).place(seed)),
            ]
        };
        assert_eq!(kept(slot(1, 9), 1, 1), [true, true], "the ring has moved");
        assert_eq!(kept(slot(2, 9), 2, 2), [false, false], "the ring gives it again");
        assert_eq!(kept(slot(2, 9), 3, 3333), [true, true], "its port was rewritten");
        // The ring moves back.
        data_path.maps.write_ring_words(50, &[Members { ring: 100, size: 251 }.word(), 5])?;
        data_path.maps.set_choice(2, 50)?;
        let maps = &data_path.maps;
        sweep.walk(maps, now);
        let (_, entry) = maps
            .table(Table::Replies)
            .find(reply_tuple(&client(1), &slot(1, 9), 1).place(maps.config.seed))
            .context("there")?;
        assert_eq!(entry.life.state & state::KEEP, 0);
        Ok(())
    });
}
