//! The life of a flow: what its entries remember, how long they last, and which of them is worth least.
//!
//! A flow has an entry for each direction. Every packet that is forwarded without a flow opens a *half-open* one, in tables of
//! their own; it is *established* (moved into `flows` and `replies`) by the client's packet after the target has answered: for
//! a SYN only if that packet acknowledges the target's SYN-ACK. So whoever forges addresses fills the half-open tables alone.

use crate::layout::{Entry, Life, Slot, UDP};
use crate::parse::{Packet, tcp};
use crate::tables::Tables;

/// Bits of [`Life::state`].
pub mod state {
    /// The client sent FIN.
    pub const CLIENT_FIN: u32 = 1;
    /// The target sent FIN.
    pub const TARGET_FIN: u32 = 2;
    /// The client sent RST: forged or not, the target's next packet will tell.
    pub const CLIENT_RST: u32 = 4;
    /// The target sent RST.
    pub const TARGET_RST: u32 = 8;
    /// In `flows`: a SYN came on the established flow, at the time `seen`, which stands still meanwhile.
    pub const SYN_AGAIN: u32 = 16;
    /// In `replies`: the target has sent something since this bit was last cleared.
    pub const HEARD: u32 = 32;
    /// Today's ring would not give this target again (set by the agent), or a port was rewritten: evicted last.
    pub const KEEP: u32 = 64;
    /// Half-open: begun by a SYN, not in the middle of a conversation.
    pub const BY_SYN: u32 = 128;
    /// In `half_replies`: the target has answered.
    pub const ANSWERED: u32 = 256;
    /// In `half_replies`: a pod's conversation that came in through no listener.
    pub const DIRECT: u32 = 512;
    /// Both sides sent FIN.
    pub const BOTH_FIN: u32 = CLIENT_FIN | TARGET_FIN;
}
use state::{BOTH_FIN, CLIENT_FIN, CLIENT_RST, DIRECT, KEEP, TARGET_FIN, TARGET_RST};

/// Seconds that a flow is remembered after the target's RST.
pub const RESET_SECONDS: u32 = 10;
/// Seconds that a flow is remembered after both sides' FIN: what TIME-WAIT lasts on Linux.
pub const CLOSED_SECONDS: u32 = 60;
/// Seconds that a half-open TCP flow waits for its next packet.
pub const HALF_OPEN_SECONDS: u32 = 60;
/// Seconds that a pod's own conversation is remembered: as long as any listener's idle timeout may be (AWS: 6 000 s), because its
/// entry names no listener.
pub const DIRECT_SECONDS: u32 = 6_000;

/// How much an entry is worth when a place is needed; the least goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value(u32);

const CLASS: u32 = 1 << 30;

impl Value {
    /// Nobody has the entry, or the very flow itself.
    pub const EMPTY: Self = Self(1);
    /// Somebody is writing the entry.
    pub const HELD: Self = Self(u32::MAX);

    /// One number that orders by value and carries an index.
    #[inline(always)]
    pub fn over(self, index: u32) -> u64 {
        u64::from(self.0) << 32 | u64::from(index)
    }

    /// The value and the index of such a number.
    #[inline(always)]
    pub fn under(number: u64) -> (Self, u32) {
        (Self((number >> 32) as u32), number as u32)
    }

    /// True if losing the entry may lose the flow.
    #[inline(always)]
    pub fn is_precious(self) -> bool {
        self.0 >= 2 * CLASS && self.0 != u32::MAX
    }
}

/// The value of an entry in use: closing ones, then those that the ring would give again, then the others; the oldest first.
#[inline(always)]
pub fn value(life: Life, now: u32) -> Value {
    let age = age(life, now);
    let class = if life.state & (TARGET_RST | CLIENT_RST | DIRECT) != 0 || life.state & BOTH_FIN == BOTH_FIN {
        0
    } else if life.state & KEEP == 0 {
        CLASS
    } else {
        2 * CLASS
    };
    let youth = (CLASS - 1).saturating_sub(age);
    Value(class + if youth < 2 { 2 } else { youth })
}

/// Jiffies since the entry's last packet. A clock that lags behind on another CPU reads as 0.
#[inline(always)]
pub fn age(life: Life, now: u32) -> u32 {
    let age = now.wrapping_sub(life.seen);
    if age > u32::MAX / 2 { 0 } else { age }
}

/// How long an established flow may be idle, in jiffies: shorter once the target has ended it. A client's RST alone may be forged.
#[inline(always)]
pub fn limit(state: u32, idle: u32, second: u32) -> u32 {
    let short = if state & TARGET_RST != 0 {
        RESET_SECONDS * second
    } else if state & BOTH_FIN == BOTH_FIN {
        CLOSED_SECONDS * second
    } else {
        idle
    };
    if short < idle { short } else { idle }
}

/// True if the conversation is over as far as can be known from the marks: a SYN begins another one.
#[inline(always)]
pub fn is_over(state: u32) -> bool {
    state & TARGET_RST != 0 || state & BOTH_FIN == BOTH_FIN
}

/// The slot that an entry names, if its generation is still the entry's.
#[inline(always)]
pub fn slot<'a, T: Tables>(tables: &'a T, entry: &Entry) -> Option<&'a Slot> {
    let slot = tables.slot(entry.slot)?;
    if slot.generation == entry.generation { Some(slot) } else { None }
}

/// How long a half-open flow may be idle, in jiffies: one-way UDP is as good as any.
#[inline(always)]
pub fn half_limit(protocol: u8, idle: u32, second: u32) -> u32 {
    if protocol == UDP { idle } else { HALF_OPEN_SECONDS * second }
}

/// The marks that a client's packet leaves on both entries of its flow; a datagram has no flags and leaves none.
#[inline(always)]
pub fn client_marks(packet: &Packet) -> u32 {
    if packet.has(tcp::RST) {
        CLIENT_RST
    } else if packet.has(tcp::FIN) {
        CLIENT_FIN
    } else {
        0
    }
}

/// The marks that a target's packet leaves likewise.
#[inline(always)]
pub fn target_marks(packet: &Packet) -> u32 {
    if packet.has(tcp::RST) {
        TARGET_RST
    } else if packet.has(tcp::FIN) {
        TARGET_FIN
    } else {
        0
    }
}
