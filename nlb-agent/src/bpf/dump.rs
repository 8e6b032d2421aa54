//! Reads the maps back: whole, for an agent that takes over; counters, for people.

use super::maps::{Hash, PinnedMaps};
use super::memory::Mapped;
use super::pins::map_io;
use crate::contents::MapDump;
use aya::maps::MapError;
use nlb_common::address::Address;
use nlb_common::layout::{Choice, Counts, Listener, ListenerKey, SLOT_LINES, Slot, SlotCounts, Vip};
use nlb_common::reasons::Reason;
use nlb_common::tables::Table;
use std::io;
use std::sync::atomic::Ordering;
use zerocopy::{FromBytes, IntoBytes};

/// How full a flow table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Entries in use, expired ones that nobody has swept yet included.
    pub entries: u32,
    /// Entries that there are.
    pub capacity: u32,
}

fn words(map: &Mapped<u64>) -> Vec<u64> {
    (0..map.len()).map(|i| map.element(i)[0].load(Ordering::Acquire)).collect()
}

/// The pairs of a hash map. The agent is its only writer, so none moves meanwhile.
fn pairs<K, V>(map: &Hash<K, V>) -> io::Result<Vec<(K, V)>>
where
    K: FromBytes + IntoBytes + Copy + 'static,
    V: FromBytes + IntoBytes + Copy + 'static,
{
    map.iter()
        .filter_map(|pair| match pair {
            Ok((key, value)) => Some(Ok((key.0, value.0))),
            // Removed by an agent while the command line reads.
            Err(MapError::KeyNotFound) => None,
            Err(error) => Some(Err(map_io(error))),
        })
        .collect()
}

/// A free slot as its next user sees it: nothing but the generation.
fn tidy(slot: Slot) -> Slot {
    if slot.protocol == 0 { Slot { generation: slot.generation, ..Slot::default() } } else { slot }
}

impl PinnedMaps {
    /// Everything that the control plane writes.
    pub fn dump(&self) -> io::Result<MapDump> {
        Ok(MapDump {
            vips: pairs(&self.vips)?,
            vip_filter: words(&self.vip_filter),
            listeners: pairs(&self.listeners)?,
            choices: self.choices(),
            rings: words(&self.rings),
            slots: (0..self.slots.len()).map(|i| tidy(self.slots.read(i))).collect(),
            targets: pairs(&self.targets)?,
            target_filter: words(&self.target_filter),
        })
    }

    /// Where every listener's members begin, by listener id.
    pub fn choices(&self) -> Vec<Choice> {
        words(&self.choices)
    }

    /// The listeners alone, for the command line.
    pub fn listeners(&self) -> io::Result<Vec<(ListenerKey, Listener)>> {
        pairs(&self.listeners)
    }

    /// The VIPs alone, for the command line.
    pub fn vips(&self) -> io::Result<Vec<(Address, Vip)>> {
        pairs(&self.vips)
    }

    /// The slots in use and their numbers.
    pub fn used_slots(&self) -> Vec<(u32, Slot)> {
        (0..self.slots.len())
            .map(|i| (i, self.slots.read(i)))
            .filter(|(_, slot)| slot.protocol != 0)
            .collect()
    }

    /// Packets by reason, all CPUs together, in the order of [`Reason::ALL`].
    pub fn reasons(&self) -> io::Result<Vec<(Reason, u64)>> {
        let count = |reason: &Reason| -> io::Result<(Reason, u64)> {
            let values = self.reasons.get(&(*reason as u32), 0).map_err(map_io)?;
            Ok((*reason, values.iter().map(|value| value.0).sum()))
        };
        Reason::ALL.iter().map(count).collect()
    }

    /// The counters of a listener's id, all CPUs together.
    pub fn listener_counts(&self, id: u32) -> io::Result<Counts> {
        let mut total = Counts::default();
        for counts in self.listener_counts.get(&id, 0).map_err(map_io)?.iter().map(|counts| counts.0) {
            total.packets += counts.packets;
            total.bytes += counts.bytes;
            total.new_flows += counts.new_flows;
            total.drops.iter_mut().zip(counts.drops).for_each(|(total, drops)| *total += drops);
        }
        Ok(total)
    }

    /// The counters of a slot, all CPUs together. EINVAL: there is no such slot.
    pub fn slot_counts(&self, number: u32) -> io::Result<SlotCounts> {
        if number >= self.slot_counts.len() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // A CPU whose line goes to another slot between the two looks moves what it held to the shared element.
        const TRIES: usize = 4;
        let mut shared = self.slot_counts.read(number);
        for _ in 0..TRIES {
            let lines = self.slot_cpu_counts.get(&(number % SLOT_LINES), 0).map_err(map_io)?;
            let again = self.slot_counts.read(number);
            if again == shared {
                let lines = lines.iter().map(|line| line.0).filter(|it| it.is_of(number, shared.generation));
                return Ok(lines.fold(shared, |total, line| SlotCounts {
                    packets: total.packets + line.packets,
                    bytes: total.bytes + line.bytes,
                    new_flows: total.new_flows + line.new_flows,
                    ..total
                }));
            }
            shared = again;
        }
        Ok(shared)
    }

    /// How full a flow table is now; reads the whole table (a million entries: some 10 ms).
    pub fn fill(&self, table: Table) -> Fill {
        let table = self.table(table);
        let entries = (0..table.capacity()).filter(|index| table.is_taken(*index)).count() as u32;
        Fill { entries, capacity: table.capacity() }
    }
}
