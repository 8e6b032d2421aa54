//! The maps behind [`Tables`], and the atomics behind [`Cells`].

use crate::counts::slot_line;
use crate::{clock, maps};
use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_CURRENT_NETNS, bpf_sock_tuple, xdp_md};
use aya_ebpf::helpers::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp};
use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_cxchg};
use core::ptr::{read_volatile, write_volatile};
use nlb_common::address::{Address, Words};
use nlb_common::hash::{self, Hash};
use nlb_common::layout::{
    Bucket, Client, Entry, Life, Listener, ListenerKey, Sharers, Slot, TargetKey, VIP_FILTER_BITS, Vip, WAYS,
};
use nlb_common::parse::Packet;
use nlb_common::reasons::Reason;
use nlb_common::table::{self, Found};
use nlb_common::tables::{Cells, Table, Tables};

/// The secret of the flow tables' hash.
#[unsafe(no_mangle)]
static SEED: Global<[u64; 2]> = Global::new([0, 0]);
/// Buckets of `flows` and `replies` less one.
#[unsafe(no_mangle)]
static FLOW_MASK: Global<u32> = Global::new((1 << 18) - 1);
/// Buckets of `half_flows` and `half_replies` less one.
#[unsafe(no_mangle)]
static HALF_MASK: Global<u32> = Global::new((1 << 16) - 1);

/// The maps, and the context for the one helper that wants it.
#[derive(Clone, Copy)]
pub struct Maps {
    ctx: *mut xdp_md,
}

impl Maps {
    /// The maps for a client's packet.
    #[inline(always)]
    pub fn ingress(ctx: *mut xdp_md) -> Self {
        Self { ctx }
    }

    /// The maps for a packet that leaves.
    #[inline(always)]
    pub fn egress() -> Self {
        Self { ctx: core::ptr::null_mut() }
    }
}

/// A bucket in the kernel's memory.
#[derive(Clone, Copy)]
pub struct Memory(*mut Bucket);

impl Memory {
    #[inline(always)]
    fn way(self, way: usize) -> *mut Entry {
        // SAFETY: the mask keeps `way` inside the bucket, which is a whole map element.
        unsafe { (&raw mut (*self.0).entries).cast::<Entry>().add(way & (WAYS - 1)) }
    }
}

#[inline(always)]
fn swap(at: *mut u64, from: u64, to: u64) -> bool {
    // SAFETY: `at` is an aligned word of a map element.
    unsafe { atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(at, from, to).1 }
}

impl Cells for Memory {
    #[inline(always)]
    fn tag(self, way: usize) -> u64 {
        // SAFETY: an aligned word of a map element; others may write it meanwhile, as a whole.
        unsafe { read_volatile(&raw const (*self.way(way)).tag) }
    }

    #[inline(always)]
    fn entry(self, way: usize) -> Entry {
        // SAFETY: as in `tag`; the caller compares the tag again.
        unsafe { read_volatile(self.way(way)) }
    }

    #[inline(always)]
    fn life(self, way: usize) -> Life {
        // SAFETY: as in `tag`.
        let word: u64 = unsafe { read_volatile((&raw const (*self.way(way)).life).cast()) };
        zerocopy::transmute!(word)
    }

    #[inline(always)]
    fn swap_tag(self, way: usize, from: u64, to: u64) -> bool {
        // SAFETY: a field of the entry.
        swap(unsafe { &raw mut (*self.way(way)).tag }, from, to)
    }

    #[inline(always)]
    fn fill(self, way: usize, entry: &Entry) {
        let at = self.way(way);
        let (life, last): (u64, u64) =
            (zerocopy::transmute!(entry.life), u64::from(entry.port) | u64::from(entry.expect) << 32);
        let names = u64::from(entry.slot) | u64::from(entry.generation) << 32;
        // SAFETY: the caller holds the way: its tag says so. Three aligned words after the tag.
        unsafe {
            let words = at.cast::<u64>();
            write_volatile(words.add(1), names);
            write_volatile(words.add(2), life);
            write_volatile(words.add(3), last);
        }
    }

    #[inline(always)]
    fn swap_life(self, way: usize, from: Life, to: Life) -> bool {
        // SAFETY: a field of the entry, eight bytes aligned to eight.
        swap(
            unsafe { (&raw mut (*self.way(way)).life).cast() },
            zerocopy::transmute!(from),
            zerocopy::transmute!(to),
        )
    }

    #[inline(always)]
    fn expect(self, way: usize, number: u32) {
        // SAFETY: an aligned half word of a map element.
        unsafe { write_volatile(&raw mut (*self.way(way)).expect, number) }
    }
}

/// Table and place in one argument: BPF functions take five words at most.
#[inline(always)]
fn packed(table: Table, hash: Hash) -> u64 {
    (table as u64) << 32 | u64::from(hash.place)
}

#[inline(always)]
fn unpacked(table: u64, tag: u64) -> (Table, Hash) {
    let which = match table >> 32 {
        0 => Table::Flows,
        1 => Table::Replies,
        2 => Table::HalfFlows,
        _ => Table::HalfReplies,
    };
    (which, Hash { tag, place: table as u32 })
}

/// [`table::locate`] as a function that the verifier checks once, whoever calls it; `u64::MAX` for none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nlb_find(table: u64, tag: u64) -> u64 {
    let (table, hash) = unpacked(table, tag);
    table::locate(&Maps::egress(), table, hash).map_or(u64::MAX, u64::from)
}

/// [`table::put`] likewise; the entry as its words: slot and generation, life, port.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nlb_put(table: u64, tag: u64, names: u64, life: u64, port: u64) -> u64 {
    let (table, hash) = unpacked(table, tag);
    let entry = Entry {
        tag,
        slot: names as u32,
        generation: (names >> 32) as u32,
        life: zerocopy::transmute!(life),
        port: port as u16,
        zero: 0,
        expect: 0,
    };
    table::put(&Maps::egress(), table, hash, &entry).map_or(u64::MAX, u64::from)
}

#[inline(always)]
fn bit<const N: usize, const F: usize>(filter: &aya_ebpf::btf_maps::Array<u64, N, F>, bit: u32) -> bool {
    filter.get(bit >> 6).is_some_and(|word| word >> (bit & 63) & 1 != 0)
}

const _: () = assert!(VIP_FILTER_BITS.is_multiple_of(64));
const _: () = assert!(size_of::<Packet>() <= size_of::<[u64; 16]>() && align_of::<Packet>() <= 8);

impl Tables for Maps {
    type Cells = Memory;

    #[inline(always)]
    fn unknown(&self, number: u64) -> u64 {
        match maps::SCRATCH.get_ptr_mut(0) {
            // SAFETY: this CPU's own word, read back at once.
            Some(word) => unsafe {
                write_volatile(word, number);
                read_volatile(word)
            },
            None => number,
        }
    }

    #[inline(always)]
    fn desk<'a>(&self, _local: &'a mut Packet) -> Option<&'a mut Packet> {
        // SAFETY: this CPU's own element, large enough (see below): no other packet is worked on here before this one is done.
        maps::DESK.get_ptr_mut(0).map(|at| unsafe { &mut *at.cast::<Packet>() })
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        clock::now()
    }

    #[inline(always)]
    fn second(&self) -> u32 {
        clock::second()
    }

    #[inline(always)]
    fn seed(&self) -> [u64; 2] {
        SEED.load()
    }

    #[inline(always)]
    fn may_be_vip(&self, address: Words) -> bool {
        bit(&maps::VIP_FILTER, hash::vip_bit(address))
    }

    #[inline(always)]
    fn vip(&self, address: &Address) -> Option<Vip> {
        // SAFETY: a small value, copied at once; the agent replaces elements as a whole.
        unsafe { maps::VIPS.get(address) }.copied()
    }

    #[inline(always)]
    fn listener(&self, key: &ListenerKey) -> Option<Listener> {
        // SAFETY: as in `vip`.
        unsafe { maps::LISTENERS.get(key) }.copied()
    }

    #[inline(always)]
    fn choice(&self, id: u32) -> u64 {
        // SAFETY: an aligned word of a map element, which the agent writes as a whole.
        maps::CHOICES.get_ptr(id).map_or(0, |at| unsafe { read_volatile(at) })
    }

    #[inline(always)]
    fn ring_word(&self, at: u32) -> Option<u64> {
        maps::RINGS.get(at).copied()
    }

    #[inline(always)]
    fn slot(&self, number: u32) -> Option<&Slot> {
        maps::SLOTS.get(number)
    }

    #[inline(always)]
    fn may_be_target(&self, address: Words, port: u16, protocol: u8) -> bool {
        bit(&maps::TARGET_FILTER, hash::target_bit(address, port, protocol))
    }

    #[inline(always)]
    fn sharers(&self, key: &TargetKey) -> Option<&Sharers> {
        // SAFETY: the element outlives this run of the program: it is freed after a grace period.
        unsafe { maps::TARGETS.get(key) }
    }

    #[inline(always)]
    fn mask(&self, table: Table) -> u32 {
        match table {
            Table::Flows | Table::Replies => FLOW_MASK.load(),
            Table::HalfFlows | Table::HalfReplies => HALF_MASK.load(),
        }
    }

    #[inline(always)]
    fn cells(&self, table: Table, number: u32) -> Option<Memory> {
        match table {
            Table::Flows => maps::FLOWS.get_ptr_mut(number),
            Table::Replies => maps::REPLIES.get_ptr_mut(number),
            Table::HalfFlows => maps::HALF_FLOWS.get_ptr_mut(number),
            Table::HalfReplies => maps::HALF_REPLIES.get_ptr_mut(number),
        }
        .map(Memory)
    }

    #[inline(always)]
    fn find(&self, table: Table, hash: Hash) -> Found {
        let index = nlb_find(packed(table, hash), hash.tag);
        if index >> 32 != 0 { table::nothing(table) } else { table::at(self, table, index as u32, hash.tag) }
    }

    #[inline(always)]
    fn put(&self, table: Table, hash: Hash, entry: &Entry) -> Option<u32> {
        let names = u64::from(entry.slot) | u64::from(entry.generation) << 32;
        let index = nlb_put(
            packed(table, hash),
            hash.tag,
            names,
            zerocopy::transmute!(entry.life),
            u64::from(entry.port),
        );
        if index >> 32 != 0 { None } else { Some(index as u32) }
    }

    #[inline(always)]
    fn note_client(&self, table: Table, index: u32, client: &Client) {
        let at = match table {
            Table::Flows => maps::FLOW_CLIENTS.get_ptr_mut(index),
            Table::HalfFlows => maps::HALF_CLIENTS.get_ptr_mut(index),
            Table::Replies | Table::HalfReplies => None,
        };
        if let Some(at) = at {
            // SAFETY: a map element; only people read it, and a torn one is gone with the next look.
            unsafe { *at = *client };
        }
    }

    #[inline(always)]
    fn local_socket(&self, packet: &Packet) -> bool {
        let words = |address: Words| address;
        let (source, destination) = (words(packet.network.source), words(packet.network.destination));
        let ports = u32::from(packet.source_port.to_be()) | u32::from(packet.destination_port.to_be()) << 16;
        // A bpf_sock_tuple: addresses, then ports, in network byte order; its size tells the family.
        let mut tuple = [0u32; 9];
        let size = if packet.network.ipv4 {
            tuple[0] = source[3];
            tuple[1] = destination[3];
            tuple[2] = ports;
            12
        } else {
            tuple[0] = source[0];
            tuple[1] = source[1];
            tuple[2] = source[2];
            tuple[3] = source[3];
            tuple[4] = destination[0];
            tuple[5] = destination[1];
            tuple[6] = destination[2];
            tuple[7] = destination[3];
            tuple[8] = ports;
            36
        };
        let tuple = (&raw mut tuple).cast::<bpf_sock_tuple>();
        let ctx = self.ctx.cast::<c_void>();
        let namespace = BPF_F_CURRENT_NETNS as i64 as u64;
        // SAFETY: the tuple lives on the stack and `size` bytes of it are set; a socket found is released at once.
        unsafe {
            let socket = if packet.is_udp() {
                bpf_sk_lookup_udp(ctx, tuple, size, namespace, 0)
            } else {
                bpf_skc_lookup_tcp(ctx, tuple, size, namespace, 0)
            };
            if socket.is_null() {
                return false;
            }
            bpf_sk_release(socket.cast());
        }
        true
    }

    #[inline(always)]
    fn count(&self, reason: Reason) {
        if let Some(counter) = maps::REASONS.get_ptr_mut(reason as u32) {
            // SAFETY: this CPU's own counter.
            unsafe { *counter += 1 };
        }
    }

    #[inline(always)]
    fn count_traffic(&self, number: u32, slot: &Slot, packets: u32, bytes: u32) {
        if let Some(counts) = slot_line(number, slot.generation) {
            // SAFETY: this CPU's own counters.
            unsafe {
                (*counts).packets += u64::from(packets);
                (*counts).bytes += u64::from(bytes);
            }
        }
        if let Some(counts) = maps::LISTENER_COUNTS.get_ptr_mut(slot.listener) {
            // SAFETY: this CPU's own counters.
            unsafe {
                (*counts).packets += u64::from(packets);
                (*counts).bytes += u64::from(bytes);
            }
        }
    }

    #[inline(always)]
    fn count_flow(&self, number: u32, slot: &Slot) {
        if let Some(counts) = slot_line(number, slot.generation) {
            // SAFETY: this CPU's own counters.
            unsafe { (*counts).new_flows += 1 };
        }
        if let Some(counts) = maps::LISTENER_COUNTS.get_ptr_mut(slot.listener) {
            // SAFETY: this CPU's own counters.
            unsafe { (*counts).new_flows += 1 };
        }
    }

    #[inline(always)]
    fn count_drop(&self, listener: u32, reason: Reason) {
        if let Some(counts) = maps::LISTENER_COUNTS.get_ptr_mut(listener) {
            // SAFETY: this CPU's own counters.
            unsafe { (*counts).drops[reason.of_listener()] += 1 };
        }
    }
}
