//! A small load balancer to test with: VIPs, listeners, targets and rings written into a [`Host`] as the agent would.

use crate::address::Address;
use crate::decide;
use crate::hash;
use crate::host::{Host, Memory, Sizes};
use crate::layout::{
    Listener, ListenerKey, Members, NO_SLOT, SHARERS, Sharers, Slot, TCP, TargetKey, UDP, Vip,
};
use crate::reasons::Reason;
use crate::tables::Table;
use crate::wire::Wire;
use std::net::{IpAddr, SocketAddr};
use std::vec::Vec;

/// Jiffies per second of every scene.
pub const HZ: u32 = 250;
/// The time of every scene, in jiffies: it stands still, and entries are aged instead, as the kernel's fixed clock demands.
pub const NOW: u32 = 1_000_000;
/// The flow tables' secret of every scene.
pub const SEED: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
/// Sizes of every scene: small, so that pressure is easily reached; more slots than a CPU has lines to count them in.
pub const SIZES: Sizes =
    Sizes { flow_buckets: 64, half_buckets: 32, slots: 1100, listeners: 32, ring_words: 4096 };
/// Entries of every scene's rings.
const RING: usize = 251;

/// The four flow tables, in the order of their maps.
pub const TABLES: [Table; 4] = [Table::Flows, Table::Replies, Table::HalfFlows, Table::HalfReplies];

/// The state of a load balancer under test.
#[derive(Clone, Debug)]
pub struct Scene {
    /// What the maps hold.
    pub host: Host,
    next_slot: u32,
    next_listener: u32,
    next_word: usize,
}

impl Default for Scene {
    fn default() -> Self {
        let host = Host { now: NOW, ..Host::new(SIZES, HZ, SEED) };
        Self { host, next_slot: 0, next_listener: 0, next_word: 1 }
    }
}

impl Scene {
    /// Makes an address a VIP.
    pub fn vip(&mut self, ip: IpAddr, node: bool) {
        let vip = Address::from(ip);
        set(&mut self.host.vip_filter, hash::vip_bit(vip.words()));
        self.host.vips.insert(vip, Vip { flags: if node { Vip::NODE } else { 0 } });
    }

    /// Adds a listener on a VIP whose ring gives each of these targets its share, and returns its id.
    pub fn listener(
        &mut self,
        at: SocketAddr,
        protocol: u8,
        idle_seconds: u32,
        targets: &[SocketAddr],
    ) -> u32 {
        let id = self.next_listener;
        self.next_listener += 1;
        let vip = Address::from(at.ip());
        let node = self.host.vips.get(&vip).is_some_and(|vip| vip.flags & Vip::NODE != 0);
        let key = ListenerKey { vip, port: at.port(), protocol, zero: 0 };
        self.host.listeners.insert(key, Listener { id, flags: if node { Listener::NODE } else { 0 } });
        let slots: Vec<u32> =
            targets.iter().map(|target| self.slot(at, protocol, idle_seconds, *target)).collect();
        self.aim(id, &slots);
        id
    }

    /// A slot for one target of a listener.
    fn slot(&mut self, at: SocketAddr, protocol: u8, idle_seconds: u32, target: SocketAddr) -> u32 {
        let number = self.next_slot;
        self.next_slot += 1;
        let (address, port) = (Address::from(target.ip()), target.port());
        self.host.slots[number as usize] = Slot {
            target: address,
            vip: Address::from(at.ip()),
            target_port: port,
            vip_port: at.port(),
            protocol,
            listener: self.next_listener - 1,
            generation: 1,
            idle: idle_seconds * HZ,
            ..Slot::default()
        };
        set(&mut self.host.target_filter, hash::target_bit(address.words(), port, protocol));
        let sharers = self
            .host
            .targets
            .entry(TargetKey { address, port, protocol, zero: 0 })
            .or_insert(Sharers { slots: [NO_SLOT; SHARERS] });
        if let Some(free) = sharers.slots.iter_mut().find(|slot| **slot == NO_SLOT) {
            *free = number;
        }
        number
    }

    /// Lets a listener's ring give these slots in turn; none: the listener has no target.
    pub fn aim(&mut self, listener: u32, slots: &[u32]) {
        if slots.is_empty() {
            self.host.choices[listener as usize] = 0;
            return;
        }
        let at = self.next_word;
        let ring = at + 1 + slots.len().div_ceil(2);
        self.next_word = ring + RING.div_ceil(4);
        let words = &mut self.host.rings;
        words[at] = Members { ring: ring as u32, size: RING as u32 }.word();
        for (i, slot) in slots.iter().enumerate() {
            words[at + 1 + i / 2] |= u64::from(*slot) << (i % 2 * 32);
        }
        for entry in 0..RING {
            words[ring + entry / 4] |= ((entry % slots.len()) as u64) << (entry % 4 * 16);
        }
        self.host.choices[listener as usize] = at as u64;
    }

    /// Frees a slot: flows of its present generation are stale from now on.
    pub fn free(&mut self, slot: u32) {
        self.host.slots[slot as usize].generation += 1;
    }

    /// Lets time pass by ageing every entry.
    pub fn age(&mut self, jiffies: u32) {
        for cell in self.host.tables.iter().flatten() {
            let mut bucket = cell.get();
            for entry in bucket.entries.iter_mut().filter(|entry| entry.tag > 1) {
                entry.life.seen = entry.life.seen.wrapping_sub(jiffies);
            }
            cell.set(bucket);
        }
    }

    /// Empties a flow table.
    pub fn lose(&self, table: Table) {
        for cell in &self.host.tables[table as usize] {
            cell.take();
        }
    }

    /// How often a reason was counted.
    pub fn counted(&self, reason: Reason) -> u64 {
        self.host.reasons.borrow()[reason as usize]
    }

    /// What becomes of a client's packet, and the packet afterwards.
    pub fn ingress(&self, frame: &[u8]) -> (Reason, Vec<u8>) {
        let mut frame = Memory(frame.to_vec());
        (decide::ingress(&mut frame, &&self.host), frame.0)
    }

    /// What becomes of a packet that leaves the node, and the packet afterwards.
    pub fn egress(&self, frame: &[u8]) -> (Reason, Vec<u8>) {
        let mut frame = Memory(frame.to_vec());
        (decide::egress(&mut frame, &&self.host), frame.0)
    }

    /// A socket of the node itself that would take this packet.
    pub fn socket(&mut self, wire: &Wire) {
        let (source, destination) = (wire.source, wire.destination);
        let protocol = if wire.protocol == UDP { UDP } else { TCP };
        self.host.sockets.insert((
            Address::from(source.ip()),
            source.port(),
            Address::from(destination.ip()),
            destination.port(),
            protocol,
        ));
    }
}

fn set(words: &mut [u64], bit: u32) {
    words[bit as usize / 64] |= 1 << (bit % 64);
}
