//! The state that the story in [`decide`](crate::decide) reads and writes: BPF maps in the kernel, plain memory in tests.

use crate::address::{Address, Words};
use crate::hash::Hash;
use crate::layout::{Client, Entry, Life, Listener, ListenerKey, Sharers, Slot, TargetKey, Vip};
use crate::parse::Packet;
use crate::reasons::Reason;
use crate::table::{self, Found};

/// One of the four flow tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Established flows, by the client's packets.
    Flows,
    /// Established flows, by the target's packets.
    Replies,
    /// Half-open flows, by the client's packets.
    HalfFlows,
    /// Half-open flows, by the target's packets.
    HalfReplies,
}

/// A bucket of a flow table. Other CPUs read and write it at the same time.
pub trait Cells: Copy {
    /// The tag of one way, 0 to 3.
    fn tag(self, way: usize) -> u64;
    /// The whole entry. It may change while it is copied: compare the tag afterwards.
    fn entry(self, way: usize) -> Entry;
    /// The changing part of one way.
    fn life(self, way: usize) -> Life;
    /// Changes the tag if it still is `from`; false if it is not.
    fn swap_tag(self, way: usize, from: u64, to: u64) -> bool;
    /// Writes all of an entry but its tag; only by who holds the way.
    fn fill(self, way: usize, entry: &Entry);
    /// Changes the life if it still is `from`; false if it is not.
    fn swap_life(self, way: usize, from: Life, to: Life) -> bool;
    /// Writes the expected acknowledgement number.
    fn expect(self, way: usize, number: u32);
}

/// All maps, the clock, and the counters.
pub trait Tables: Sized {
    /// A bucket of a flow table.
    type Cells: Cells;

    /// The same number. In the kernel the verifier knows nothing of it afterwards, and so need not follow apart every way to it.
    #[inline(always)]
    fn unknown(&self, number: u64) -> u64 {
        number
    }

    /// Where the parsed packet lies while it is worked on: `local`, or a place off the stack, of which the kernel has 512 bytes
    /// for a whole chain of calls.
    #[inline(always)]
    fn desk<'a>(&self, local: &'a mut Packet) -> Option<&'a mut Packet> {
        Some(local)
    }

    /// Jiffies, low 32 bits.
    fn now(&self) -> u32;
    /// Jiffies in a second.
    fn second(&self) -> u32;
    /// The secret of the flow tables' hash.
    fn seed(&self) -> [u64; 2];

    /// False if the address surely is no VIP.
    fn may_be_vip(&self, address: Words) -> bool;
    /// The VIP with this address.
    fn vip(&self, address: &Address) -> Option<Vip>;
    /// The listener of a VIP, protocol and port.
    fn listener(&self, key: &ListenerKey) -> Option<Listener>;
    /// Where the members of the listener with this id begin in `rings`; 0 = it has none.
    fn choice(&self, id: u32) -> u64;
    /// One word of `rings`.
    fn ring_word(&self, at: u32) -> Option<u64>;
    /// The slot with this number.
    fn slot(&self, number: u32) -> Option<&Slot>;
    /// False if nothing with this address, port (host byte order) and protocol is a target.
    fn may_be_target(&self, address: Words, port: u16, protocol: u8) -> bool;
    /// The slots that are this pod port.
    fn sharers(&self, key: &TargetKey) -> Option<&Sharers>;

    /// Buckets of a table less one; the number of buckets is a power of two.
    fn mask(&self, table: Table) -> u32;
    /// The bucket with this number.
    fn cells(&self, table: Table, number: u32) -> Option<Self::Cells>;
    /// The entry of this hash; the kernel overrides it with a function of its own, so that the verifier looks at it once.
    #[inline(always)]
    fn find(&self, table: Table, hash: Hash) -> Found {
        table::find(self, table, hash)
    }
    /// Puts an entry in the least valuable place and returns its index; overridden as `find` is.
    #[inline(always)]
    fn put(&self, table: Table, hash: Hash, entry: &Entry) -> Option<u32> {
        table::put(self, table, hash, entry)
    }
    /// Notes for people who the client of entry `index` of `Flows` or `HalfFlows` is.
    fn note_client(&self, table: Table, index: u32, client: &Client);

    /// True if the node has a socket for this packet: a connection, a listening or a bound one.
    fn local_socket(&self, packet: &Packet) -> bool;

    /// Counts a reason.
    fn count(&self, reason: Reason);
    /// Counts forwarded packets and bytes for the slot of this number and its listener.
    fn count_traffic(&self, number: u32, slot: &Slot, packets: u32, bytes: u32);
    /// Counts a flow that was given the target in the slot of this number.
    fn count_flow(&self, number: u32, slot: &Slot);
    /// Counts a packet dropped on behalf of a listener, for one of [`Reason::OF_LISTENERS`].
    fn count_drop(&self, listener: u32, reason: Reason);
}
