//! What the maps hold: every type that the kernel's half and the agent share, with its size asserted.

use crate::address::Address;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The version of everything in this file. Whoever changes a map raises it: pins of another version are never reused, but
/// replaced where the operator says so.
const VERSION: u16 = 2;

/// What tells these maps from every other version's: the version, and a mark in the upper half for the build that tests
/// replace.
pub const LAYOUT: u32 = VERSION as u32 | (cfg!(feature = "other-layout") as u32) << 16;

/// IP protocol number of TCP (RFC 9293).
pub const TCP: u8 = 6;
/// IP protocol number of UDP (RFC 768).
pub const UDP: u8 = 17;

/// The mark that the agent's own sockets carry (`SO_MARK`), so that the hooks leave its health checks alone.
pub const PROBE_MARK: u32 = 0x6e6c_6221;

/// What a restarted agent must find as it was: the one element of the map `config`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Config {
    /// [`LAYOUT`] of the agent that made the maps.
    pub layout: u32,
    /// Jiffies per second of this kernel: 100 to 1000.
    pub hz: u32,
    /// The secret of the flow tables' hash, so that nobody outside can aim at a bucket.
    pub seed: [u64; 2],
}
const _: () = assert!(size_of::<Config>() == 24);

/// Key of the map `listeners`: (VIP, protocol, port).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct ListenerKey {
    /// The VIP.
    pub vip: Address,
    /// The port in host byte order, 1 to 65535.
    pub port: u16,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Always 0.
    pub zero: u8,
}
const _: () = assert!(size_of::<ListenerKey>() == 20);

/// Value of the map `listeners`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Listener {
    /// Index into `choices` and `listener_counts`; one listener's for as long as it lives.
    pub id: u32,
    /// [`Listener::NODE`] or 0.
    pub flags: u32,
}
const _: () = assert!(size_of::<Listener>() == 8);

impl Listener {
    /// The VIP is an address of the node itself: its own sockets come first.
    pub const NODE: u32 = 1;
}

/// Value of the map `vips`, whose key is an [`Address`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Vip {
    /// [`Vip::NODE`] or 0.
    pub flags: u32,
}

impl Vip {
    /// The VIP is an address of the node itself: what no listener takes is the node's own business.
    pub const NODE: u32 = 1;
}

/// One element of `choices`, by listener id: the word index in `rings` where its [`Members`] begin; 0 = no target.
pub type Choice = u64;

/// The head of a listener's members in `rings`: one word, then two slots a word, low half first.
///
/// `ring << 32 | size`: where the ring of this target set begins in `rings`, in words, and how many entries it has.
/// Ring entries are `u16` positions among the members, four a word, lowest bits first; several listeners with the
/// same target set share a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Word index of the ring in `rings`.
    pub ring: u32,
    /// Entries of the ring, a prime of [`RING_SIZES`](crate::ring::RING_SIZES).
    pub size: u32,
}

impl Members {
    /// The word as it stands in the map.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        (self.ring as u64) << 32 | self.size as u64
    }

    /// The head that this word holds.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { ring: (word >> 32) as u32, size: word as u32 }
    }
}

/// One element of the map `slots`: a target of a listener. Written only while no listener's members name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Slot {
    /// The pod's address.
    pub target: Address,
    /// The VIP to put back into replies.
    pub vip: Address,
    /// The pod's port, host byte order.
    pub target_port: u16,
    /// The listener's port, host byte order.
    pub vip_port: u16,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Always 0.
    pub zero: [u8; 3],
    /// The listener's id.
    pub listener: u32,
    /// Rises by one when the slot is freed; a flow of another generation is stale. Begins at 1: a flow of generation 0 is nobody's.
    pub generation: u32,
    /// Idle timeout of the listener's flows, in jiffies.
    pub idle: u32,
    /// Always 0.
    pub spare: [u32; 3],
}
const _: () = assert!(size_of::<Slot>() == 64);

impl Slot {
    /// The listener whose target this is; of a slot in use.
    pub fn listener_key(&self) -> ListenerKey {
        ListenerKey { vip: self.vip, port: self.vip_port, protocol: self.protocol, zero: 0 }
    }
}

/// Key of the map `targets`: what a reply's source looks like.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct TargetKey {
    /// The pod's address.
    pub address: Address,
    /// The pod's port, host byte order.
    pub port: u16,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Always 0.
    pub zero: u8,
}
const _: () = assert!(size_of::<TargetKey>() == 20);

/// How many listeners may share one pod port and still have a lost reply entry rebuilt.
pub const SHARERS: usize = 8;

/// Value of the map `targets`: the slots that are this pod port, [`NO_SLOT`] where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sharers {
    /// Slots, lowest first.
    pub slots: [u32; SHARERS],
}

/// No slot.
pub const NO_SLOT: u32 = u32::MAX;

/// Bits of the one bitmap in the map `vip_filter`: a clear bit says "surely no VIP".
pub const VIP_FILTER_BITS: u32 = 1 << 16;
/// Bits of the bitmap in the map `target_filter`: a clear bit says "surely no target".
pub const TARGET_FILTER_BITS: u32 = 1 << 20;

/// Entries of a bucket of a flow table.
pub const WAYS: usize = 4;

/// One flow in one direction, as a flow table holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Entry {
    /// Hash of the 5-tuple as this direction's packets carry it; 0 = empty, 1 = being written.
    pub tag: u64,
    /// The target's slot.
    pub slot: u32,
    /// The slot's generation when the flow was given it.
    pub generation: u32,
    /// What changes during the flow's life.
    pub life: Life,
    /// The client's port after (`flows`) or before (`replies`) it was rewritten, host byte order; equal to the packet's where it was not.
    pub port: u16,
    /// Always 0.
    pub zero: u16,
    /// Half-open reply entries: the acknowledgement number that proves the client saw the target's SYN-ACK.
    pub expect: u32,
}
const _: () = assert!(size_of::<Entry>() == 32);

/// The changing part of an [`Entry`], one word so that it changes by one compare-and-swap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Life {
    /// Jiffies (low 32 bits) of the last packet seen in this direction, refreshed at most four times a second.
    pub seen: u32,
    /// Bits of [`life`](crate::flow).
    pub state: u32,
}

/// A bucket: two cache lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bucket {
    /// The entries.
    pub entries: [Entry; WAYS],
}
const _: () = assert!(size_of::<Bucket>() == 128);

/// Who the client of an entry of `flows` or `half_flows` is: for people, written once with the entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Client {
    /// The client's address.
    pub address: Address,
    /// The client's port, host byte order.
    pub port: u16,
    /// Always 0.
    pub zero: [u8; 6],
}
const _: () = assert!(size_of::<Client>() == 24);

/// Counters of a listener, both directions: an element of `listener_counts`, by listener id, one for each CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Counts {
    /// Packets forwarded, replies included.
    pub packets: u64,
    /// Bytes of those packets, IP header included.
    pub bytes: u64,
    /// Flows that were given a target.
    pub new_flows: u64,
    /// Packets dropped on behalf of this listener, by [`Reason::OF_LISTENERS`](crate::reasons::Reason::OF_LISTENERS).
    pub drops: [u64; 3],
}
const _: () = assert!(size_of::<Counts>() == 48);

/// Lines of `slot_cpu_counts` for each CPU: a power of two. A slot's line is the one of its number modulo this.
pub const SLOT_LINES: u32 = 1 << 10;

/// Counters of a slot, both directions: a line of `slot_cpu_counts`, or an element of `slot_counts`.
///
/// Each CPU counts in a line of its own. When another slot needs the line, the CPU adds what the line holds to the
/// slot's element of `slot_counts`, which all CPUs share. A slot's count is therefore its element and every CPU's line
/// that bears its number and generation. On a node with up to [`SLOT_LINES`] targets no line ever changes hands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SlotCounts {
    /// The slot's number.
    pub slot: u32,
    /// The slot's generation; what is counted for another generation is another target's.
    pub generation: u32,
    /// Packets forwarded, replies included.
    pub packets: u64,
    /// Bytes of those packets, IP header included.
    pub bytes: u64,
    /// Flows that were given this target.
    pub new_flows: u64,
}
const _: () = assert!(size_of::<SlotCounts>() == 32);

impl SlotCounts {
    /// True if these are counters of this slot in this generation.
    pub fn is_of(&self, slot: u32, generation: u32) -> bool {
        (self.slot, self.generation) == (slot, generation)
    }
}
