//! The pure core of the sweep: what becomes of an entry, from values alone.

use nlb_common::flow::{self, state};
use nlb_common::hash::Tuple;
use nlb_common::layout::{Client, Entry, Slot, UDP};
use nlb_common::tables::Table;

/// What one look at one entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its direction had a packet within its limit.
    Live,
    /// Silent for longer than its limit: over, unless the other direction is not.
    Silent,
    /// Its slot is another's by now, or nobody's.
    Stale,
}

/// Judges an entry of a table. `slot` is what its slot's number holds, read after the entry; times are jiffies.
pub fn verdict(table: Table, entry: &Entry, slot: Option<&Slot>, now: u32, second: u32) -> Verdict {
    let half = flow::HALF_OPEN_SECONDS * second;
    let age = flow::age(entry.life, now);
    if entry.life.state & state::DIRECT != 0 {
        return if age <= flow::DIRECT_SECONDS * second { Verdict::Live } else { Verdict::Silent };
    }
    let Some(slot) = slot.filter(|slot| slot.protocol != 0 && slot.generation == entry.generation) else {
        return Verdict::Stale;
    };
    let limit = match table {
        Table::Flows | Table::Replies => flow::limit(entry.life.state, slot.idle, second),
        Table::HalfFlows | Table::HalfReplies if slot.protocol == UDP => slot.idle,
        Table::HalfFlows | Table::HalfReplies => half,
    };
    if age <= limit { Verdict::Live } else { Verdict::Silent }
}

/// The table of the other direction.
pub fn other_direction(table: Table) -> Table {
    match table {
        Table::Flows => Table::Replies,
        Table::Replies => Table::Flows,
        Table::HalfFlows => Table::HalfReplies,
        Table::HalfReplies => Table::HalfFlows,
    }
}

/// The client's packets, as the client sends them.
pub fn client_tuple(client: &Client, slot: &Slot) -> Tuple {
    Tuple {
        source: client.address.words(),
        destination: slot.vip.words(),
        source_port: client.port,
        destination_port: slot.vip_port,
        protocol: slot.protocol,
        ipv4: client.address.is_ipv4(),
    }
}

/// The target's packets, as the target sends them to the port that it knows the client by.
pub fn reply_tuple(client: &Client, slot: &Slot, port: u16) -> Tuple {
    Tuple {
        source: slot.target.words(),
        destination: client.address.words(),
        source_port: slot.target_port,
        destination_port: port,
        protocol: slot.protocol,
        ipv4: client.address.is_ipv4(),
    }
}

/// The state with KEEP as it should be: set where today's ring gives another slot, or where the port was rewritten.
pub fn kept(state: u32, entry: &Entry, client: &Client, today: Option<u32>) -> u32 {
    if entry.port != client.port || today != Some(entry.slot) {
        state | state::KEEP
    } else {
        state & !state::KEEP
    }
}

/// How far a flow has come, in the words of `flows`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Both sides have not yet spoken.
    HalfOpen,
    /// Both have.
    Established,
    /// One of them has ended it.
    Closing,
}

impl Stage {
    /// The stage of an entry of this table.
    pub fn of(table: Table, state: u32) -> Self {
        let ended = state::BOTH_FIN | state::CLIENT_RST | state::TARGET_RST;
        match table {
            Table::HalfFlows | Table::HalfReplies => Self::HalfOpen,
            Table::Flows | Table::Replies if state & ended != 0 => Self::Closing,
            Table::Flows | Table::Replies => Self::Established,
        }
    }

    /// The word in `flows -o json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::HalfOpen => "half-open",
            Self::Established => "established",
            Self::Closing => "closing",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nlb_common::layout::{Life, NO_SLOT, TCP};
    use proptest::prelude::*;

    const TABLES: [Table; 4] = [Table::Flows, Table::Replies, Table::HalfFlows, Table::HalfReplies];

    fn slot(protocol: u8, generation: u32, idle: u32) -> Slot {
        Slot { protocol, generation, idle, ..Slot::default() }
    }

    proptest! {
        #[test]
        fn a_packet_just_now_keeps_an_entry_and_time_alone_ends_it(
            now: u32, table in prop::sample::select(TABLES.to_vec()), udp: bool, bits in 0_u32..512, second in 100_u32..=1000,
            idle_seconds in 1_u32..6000, generation in 1_u32..,
        ) {
            let slot = slot(if udp { UDP } else { TCP }, generation, idle_seconds * second);
            let entry = |age: u32| Entry {
                tag: 7, generation, life: Life { seen: now.wrapping_sub(age), state: bits }, ..Entry::default()
            };
            let at = |age| verdict(table, &entry(age), Some(&slot), now, second);
            prop_assert_eq!(at(0), Verdict::Live);
            let longest = idle_seconds.max(flow::HALF_OPEN_SECONDS) * second;
            prop_assert_eq!(at(longest + 1), Verdict::Silent);
            // A clock of another CPU that runs ahead is no age.
            prop_assert_eq!(at(0_u32.wrapping_sub(second)), Verdict::Live);
        }

        #[test]
        fn another_generation_is_stale_at_any_age(
            now: u32, seen: u32, bits in 0_u32..512, table in prop::sample::select(TABLES.to_vec()), generation in 1_u32..,
        ) {
            let slot = slot(TCP, generation.wrapping_add(1), u32::MAX / 4);
            let entry = Entry { generation, life: Life { seen, state: bits }, ..Entry::default() };
            prop_assert_eq!(verdict(table, &entry, Some(&slot), now, 250), Verdict::Stale);
            prop_assert_eq!(verdict(table, &entry, None, now, 250), Verdict::Stale);
        }

        #[test]
        fn ending_a_flow_never_prolongs_it(
            age in 0_u32..200_000, ended in 1_u32..16, idle in 1_u32..1_000_000,
        ) {
            let slot = slot(TCP, 1, idle);
            let look = |bits| {
                let entry = Entry { generation: 1, life: Life { seen: 0, state: bits }, ..Entry::default() };
                verdict(Table::Flows, &entry, Some(&slot), age, 250)
            };
            if look(ended) == Verdict::Live {
                prop_assert_eq!(look(0), Verdict::Live);
            }
        }

        #[test]
        fn keep_says_whether_the_ring_would_give_the_flow_again(
            bits in 0_u32..1024, slot in 0_u32..9, today in proptest::option::of(0_u32..9), port in 1_u16..4, client in 1_u16..4,
        ) {
            let entry = Entry { slot, port, ..Entry::default() };
            let client = Client { port: client, ..Client::default() };
            let state = kept(bits, &entry, &client, today);
            let again = today == Some(slot) && port == client.port;
            prop_assert_eq!(state & state::KEEP == 0, again);
            prop_assert_eq!(state | state::KEEP, bits | state::KEEP);
        }
    }

    #[test]
    fn a_pods_own_conversation_needs_no_slot() {
        let direct = |age| Entry {
            slot: NO_SLOT,
            life: Life { seen: 0_u32.wrapping_sub(age), state: state::DIRECT },
            ..Entry::default()
        };
        assert_eq!(verdict(Table::HalfReplies, &direct(6_000 * 250), None, 0, 250), Verdict::Live);
        assert_eq!(verdict(Table::HalfReplies, &direct(6_000 * 250 + 1), None, 0, 250), Verdict::Silent);
    }

    #[test]
    fn a_freed_slot_is_nobodys_even_in_its_new_generation() {
        let entry = Entry { generation: 4, ..Entry::default() };
        assert_eq!(verdict(Table::Flows, &entry, Some(&slot(0, 4, 9)), 0, 250), Verdict::Stale);
    }

    #[test]
    fn stages_are_told_by_table_and_marks() {
        assert_eq!(Stage::of(Table::HalfFlows, state::CLIENT_FIN), Stage::HalfOpen);
        assert_eq!(Stage::of(Table::Flows, state::HEARD | state::KEEP), Stage::Established);
        assert_eq!(Stage::of(Table::Flows, state::TARGET_FIN), Stage::Closing);
    }
}
