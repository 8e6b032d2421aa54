//! What became of a packet and why: every reason has a counter, a meaning and a remedy.

/// What the data path did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sent on, readdressed.
    Forwarded,
    /// Left alone.
    Passed,
    /// Taken off the road.
    Dropped,
    /// Not a packet's fate but something that happened on its way.
    Noted,
}

macro_rules! reasons {
    ($($name:ident $kind:ident $meaning:literal $remedy:literal)*) => {
        /// Why a packet was forwarded, passed or dropped. The value is the index into the map `reasons`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Reason { $(#[doc = $meaning] $name),* }

        impl Reason {
            /// Every reason, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The reason's name in `drops`, metrics and logs.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }

            /// What it means, one sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning),* }
            }

            /// What to do about it, one sentence.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy),* }
            }

            /// What the data path did.
            #[inline(always)]
            pub const fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind),* }
            }
        }
    };
}

reasons! {
    Forwarded Forwarded "A client's packet was sent to its target." "Nothing to do."
    Replied Forwarded "A target's packet was sent back with the VIP as its source." "Nothing to do."
    NotForUs Passed "The packet is not addressed to a VIP." "Nothing to do: this is the node's other traffic."
    NodeOwn Passed "The packet is for one of the node's own addresses, and no listener takes it." "Nothing to do: the host answers it."
    LocalSocket Passed "A socket of the node itself owns this port, so the packet is the node's." "Give the listener another port if clients should have reached a target."
    NotOurs Passed "The packet leaves the node and is no reply to a flow of ours." "Nothing to do: pods also talk to others directly."
    NoListener Dropped "The VIP has no listener for this protocol and port." "Check the port against `nlb-agent listeners`; a refused port is listed under problems."
    NoTarget Dropped "The listener has no target that could take a new flow." "See `nlb-agent targets`: no endpoint is registered, or none is on this node."
    TableFull Dropped "A new flow found no place in the table of half-open flows." "Raise --max-half-flows, or find who floods the VIP."
    PortAllocationError Dropped "Another conversation with the same pod port uses the client's port, and no other port was free." "The client's next connection will take another port; if it persists, give the listeners target ports of their own."
    Fragment Dropped "A piece of a fragmented datagram was addressed to a VIP." "Lower the sender's datagram size below the path's MTU."
    Icmp Dropped "An ICMP message was addressed to a VIP." "Nothing to do: VIPs answer no ping."
    ProtocolNotServed Dropped "The packet's protocol is neither TCP nor UDP nor ICMP." "A load balancer serves TCP and UDP."
    Truncated Dropped "The packet ends before its headers do." "A sender or a device on the way makes broken packets."
    FlowLost Noted "An entry was pushed out that today's ring would not give again, or a target refused the middle of a conversation it does not know." "Raise --max-flows if `nlb-agent status` shows the table near its capacity; if it is far from full, somebody sends packets of connections that never were."
    FlowRebuilt Noted "One direction's entry of a flow was lost and has been rebuilt from the other's." "Raise --max-flows if this happens often."
}

impl Reason {
    /// Number of reasons.
    pub const COUNT: usize = Self::ALL.len();

    /// True if packets were dropped for it.
    pub const fn is_drop(self) -> bool {
        matches!(self.kind(), Kind::Dropped)
    }

    /// The drops that a listener's own counters tell apart, in the order of [`Counts::drops`](crate::layout::Counts::drops).
    pub const OF_LISTENERS: [Self; 3] = [Self::NoTarget, Self::TableFull, Self::PortAllocationError];

    /// Its index in [`Self::OF_LISTENERS`].
    #[inline(always)]
    pub fn of_listener(self) -> usize {
        if self as u32 == Self::NoTarget as u32 {
            0
        } else if self as u32 == Self::TableFull as u32 {
            1
        } else {
            2
        }
    }
}
