//! The packet path's surroundings in plain memory: frames in a vector, maps in collections, a clock that stands where it was put.

use crate::address::{Address, Words};
use crate::frame::{self, Bytes, Frame, Readdress};
use crate::hash;
use crate::layout::{
    Bucket, Choice, Client, Counts, Entry, Life, Listener, ListenerKey, Sharers, Slot, SlotCounts,
    TARGET_FILTER_BITS, TargetKey, VIP_FILTER_BITS, Vip, WAYS,
};
use crate::parse::Packet;
use crate::reasons::Reason;
use crate::tables::{Cells, Table, Tables};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::vec;
use std::vec::Vec;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A frame in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory(pub Vec<u8>);

impl Frame for Memory {
    fn read<T: FromBytes + Immutable>(&self, offset: usize) -> Option<T> {
        if offset > frame::FARTHEST {
            return None;
        }
        T::read_from_bytes(self.0.get(offset..offset + size_of::<T>())?).ok()
    }

    fn readdress(&mut self, packet: &Packet, change: &Readdress) -> Option<()> {
        frame::readdress(self, packet, change)
    }

    fn segments(&self) -> u32 {
        1
    }
}

impl Bytes for Memory {
    fn write<T: IntoBytes + Immutable + Copy>(&mut self, offset: usize, value: T) -> Option<()> {
        self.0.get_mut(offset..offset + size_of::<T>())?.copy_from_slice(value.as_bytes());
        Some(())
    }
}

/// Everything that the maps hold.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Jiffies.
    pub now: u32,
    /// Jiffies per second.
    pub hz: u32,
    /// The flow tables' secret.
    pub seed: [u64; 2],
    /// VIPs.
    pub vips: BTreeMap<Address, Vip>,
    /// Words of the VIPs' filter.
    pub vip_filter: Vec<u64>,
    /// Listeners.
    pub listeners: BTreeMap<ListenerKey, Listener>,
    /// Where each listener's members begin.
    pub choices: Vec<Choice>,
    /// Rings and members.
    pub rings: Vec<u64>,
    /// Slots.
    pub slots: Vec<Slot>,
    /// Slots by pod port.
    pub targets: BTreeMap<TargetKey, Sharers>,
    /// Words of the targets' filter.
    pub target_filter: Vec<u64>,
    /// `flows`, `replies`, `half_flows`, `half_replies`.
    pub tables: [Vec<Cell<Bucket>>; 4],
    /// `flow_clients` and `half_clients`.
    pub clients: [RefCell<Vec<Client>>; 2],
    /// 5-tuples (source, destination, ports, protocol) for which the node has a socket.
    pub sockets: BTreeSet<(Address, u16, Address, u16, u8)>,
    /// Ports and protocols at which the node has a socket for every address.
    pub bound: BTreeSet<(u16, u8)>,
    /// Counters by reason.
    pub reasons: RefCell<Vec<u64>>,
    /// Counters by listener id.
    pub listener_counts: RefCell<Vec<Counts>>,
    /// Counters by slot.
    pub slot_counts: RefCell<Vec<SlotCounts>>,
}

/// How large the collections of a [`Host`] are; each as the kernel's `max_entries`.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Buckets of `flows` and `replies`, a power of two.
    pub flow_buckets: usize,
    /// Buckets of `half_flows` and `half_replies`, a power of two.
    pub half_buckets: usize,
    /// Slots.
    pub slots: usize,
    /// Listener ids.
    pub listeners: usize,
    /// Words of `rings`.
    pub ring_words: usize,
}

impl Host {
    /// Empty maps.
    pub fn new(sizes: Sizes, hz: u32, seed: [u64; 2]) -> Self {
        let buckets = |count| vec![Cell::new(Bucket::default()); count];
        let clients = |count| RefCell::new(vec![Client::default(); count * WAYS]);
        Self {
            now: 1000 * hz,
            hz,
            seed,
            vip_filter: vec![0; VIP_FILTER_BITS as usize / 64],
            target_filter: vec![0; TARGET_FILTER_BITS as usize / 64],
            choices: vec![0; sizes.listeners],
            rings: vec![0; sizes.ring_words],
            slots: vec![Slot::default(); sizes.slots],
            tables: [
                buckets(sizes.flow_buckets),
                buckets(sizes.flow_buckets),
                buckets(sizes.half_buckets),
                buckets(sizes.half_buckets),
            ],
            clients: [clients(sizes.flow_buckets), clients(sizes.half_buckets)],
            reasons: RefCell::new(vec![0; Reason::COUNT]),
            listener_counts: RefCell::new(vec![Counts::default(); sizes.listeners]),
            slot_counts: RefCell::new(vec![SlotCounts::default(); sizes.slots]),
            ..Self::default()
        }
    }

    /// The entries of a table that hold something.
    pub fn entries(&self, table: Table) -> Vec<Entry> {
        self.tables[table as usize].iter().flat_map(|b| b.get().entries).filter(|e| e.tag > 1).collect()
    }

    fn bit(words: &[u64], bit: u32) -> bool {
        words[bit as usize / 64] >> (bit % 64) & 1 != 0
    }
}

impl Cells for &Cell<Bucket> {
    fn tag(self, way: usize) -> u64 {
        self.get().entries[way].tag
    }

    fn entry(self, way: usize) -> Entry {
        self.get().entries[way]
    }

    fn life(self, way: usize) -> Life {
        self.get().entries[way].life
    }

    fn swap_tag(self, way: usize, from: u64, to: u64) -> bool {
        let mut bucket = self.get();
        let swapped = bucket.entries[way].tag == from;
        if swapped {
            bucket.entries[way].tag = to;
            self.set(bucket);
        }
        swapped
    }

    fn fill(self, way: usize, entry: &Entry) {
        let mut bucket = self.get();
        bucket.entries[way] = Entry { tag: bucket.entries[way].tag, ..*entry };
        self.set(bucket);
    }

    fn swap_life(self, way: usize, from: Life, to: Life) -> bool {
        let mut bucket = self.get();
        let swapped = bucket.entries[way].life == from;
        if swapped {
            bucket.entries[way].life = to;
            self.set(bucket);
        }
        swapped
    }

    fn expect(self, way: usize, number: u32) {
        let mut bucket = self.get();
        bucket.entries[way].expect = number;
        self.set(bucket);
    }
}

impl<'a> Tables for &'a Host {
    type Cells = &'a Cell<Bucket>;

    fn now(&self) -> u32 {
        self.now
    }

    fn second(&self) -> u32 {
        self.hz
    }

    fn seed(&self) -> [u64; 2] {
        self.seed
    }

    fn may_be_vip(&self, address: Words) -> bool {
        Host::bit(&self.vip_filter, hash::vip_bit(address))
    }

    fn vip(&self, address: &Address) -> Option<Vip> {
        self.vips.get(address).copied()
    }

    fn listener(&self, key: &ListenerKey) -> Option<Listener> {
        self.listeners.get(key).copied()
    }

    fn choice(&self, id: u32) -> u64 {
        self.choices.get(id as usize).copied().unwrap_or(0)
    }

    fn ring_word(&self, at: u32) -> Option<u64> {
        self.rings.get(at as usize).copied()
    }

    fn slot(&self, number: u32) -> Option<&Slot> {
        self.slots.get(number as usize)
    }

    fn may_be_target(&self, address: Words, port: u16, protocol: u8) -> bool {
        Host::bit(&self.target_filter, hash::target_bit(address, port, protocol))
    }

    fn sharers(&self, key: &TargetKey) -> Option<&Sharers> {
        self.targets.get(key)
    }

    fn mask(&self, table: Table) -> u32 {
        self.tables[table as usize].len() as u32 - 1
    }

    fn cells(&self, table: Table, number: u32) -> Option<&'a Cell<Bucket>> {
        let host: &'a Host = self;
        host.tables[table as usize].get(number as usize)
    }

    fn note_client(&self, table: Table, index: u32, client: &Client) {
        let clients = match table {
            Table::Flows => &self.clients[0],
            Table::HalfFlows => &self.clients[1],
            Table::Replies | Table::HalfReplies => return,
        };
        clients.borrow_mut()[index as usize] = *client;
    }

    fn local_socket(&self, packet: &Packet) -> bool {
        let source = Address::from_words(packet.network.source);
        let destination = Address::from_words(packet.network.destination);
        let five = (source, packet.source_port, destination, packet.destination_port, packet.protocol);
        self.sockets.contains(&five) || self.bound.contains(&(packet.destination_port, packet.protocol))
    }

    fn count(&self, reason: Reason) {
        self.reasons.borrow_mut()[reason as usize] += 1;
    }

    fn count_traffic(&self, number: u32, slot: &Slot, packets: u32, bytes: u32) {
        if let Some(counts) = self.slot_counts.borrow_mut().get_mut(number as usize) {
            begin(counts, number, slot.generation);
            counts.packets += u64::from(packets);
            counts.bytes += u64::from(bytes);
        }
        if let Some(counts) = self.listener_counts.borrow_mut().get_mut(slot.listener as usize) {
            counts.packets += u64::from(packets);
            counts.bytes += u64::from(bytes);
        }
    }

    fn count_flow(&self, number: u32, slot: &Slot) {
        if let Some(counts) = self.slot_counts.borrow_mut().get_mut(number as usize) {
            begin(counts, number, slot.generation);
            counts.new_flows += 1;
        }
        if let Some(counts) = self.listener_counts.borrow_mut().get_mut(slot.listener as usize) {
            counts.new_flows += 1;
        }
    }

    fn count_drop(&self, listener: u32, reason: Reason) {
        if let Some(counts) = self.listener_counts.borrow_mut().get_mut(listener as usize) {
            counts.drops[reason.of_listener()] += 1;
        }
    }
}

/// The counters of another generation are another target's.
fn begin(counts: &mut SlotCounts, slot: u32, generation: u32) {
    if !counts.is_of(slot, generation) {
        *counts = SlotCounts { slot, generation, ..SlotCounts::default() };
    }
}
