//! The whole way of a packet, as one story: `ingress` for what comes from clients, `egress` for what targets answer.
//!
//! ```text
//! ingress   parse -> a VIP? -> known flow ---------------------------------> readdress to the target, pass to the host's routing
//!                              \-> half-open flow -> answered? establish ---/
//!                               \-> listener -> ring -> a port of its own --/ new half-open flow, or a lost entry rebuilt
//! egress    parse -> a target's port? -> known flow -----------------------> readdress from the VIP, let it leave
//!                                        \-> half-open flow, note answer --/
//!                                         \-> entry lost? rebuild it -----/
//!                                          \-> else: not ours, untouched
//! ```
//!
//! A flow has two entries: `Flows` (or `HalfFlows`) is found by the client's packets, `Replies` (or `HalfReplies`) by the target's.
//! Each names slot, generation, the client's port on the other side, when its own direction last spoke, and what is known of
//! the end. Either can be rebuilt from the other; a flow is forgotten when *neither* direction has spoken for its idle timeout.
//!
//! The same source runs in the kernel and on the host. State comes in through [`Tables`], bytes through [`Frame`].

use crate::address::{Address, Words};
use crate::flow::{self, state};
use crate::frame::{End, Frame, Readdress};
use crate::hash::{Hash, Tuple};
use crate::layout::{
    Client, Entry, Life, Listener, ListenerKey, Members, NO_SLOT, SHARERS, Slot, TargetKey, UDP, Vip,
};
use crate::parse::{self, Network, Other, Packet, tcp};
use crate::ports;
use crate::reasons::Reason;
use crate::ring;
use crate::table::{self, Found};
use crate::tables::{Table, Tables};

/// A packet's target: the slot, and the port that the client has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The slot's number.
    pub slot: u32,
    /// The client's port as the target sees it (to the target) or as the client knows it (back), host byte order.
    pub port: u16,
}

/// A client's packet, as `nlb_xdp` sees it: decides, and readdresses it if it is for a target.
#[inline(always)]
pub fn ingress<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Reason {
    let reason = match toward_target(frame, tables) {
        Ok(reason) | Err(reason) => reason,
    };
    tables.count(reason);
    reason
}

/// A packet that leaves the node, as `nlb_reply` sees it: decides, and puts the VIP back if it is an answer through a listener.
#[inline(always)]
pub fn egress<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Reason {
    let reason = match toward_client(frame, tables) {
        Ok(reason) | Err(reason) => reason,
    };
    tables.count(reason);
    reason
}

#[inline(always)]
fn toward_target<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Reason, Reason> {
    let mut local = Packet::default();
    let packet = tables.desk(&mut local).ok_or(Reason::NotForUs)?;
    packet.network = parse::network(frame).ok_or(Reason::NotForUs)?;
    if !tables.may_be_vip(packet.network.destination) {
        return Err(Reason::NotForUs);
    }
    let parsed = parse::transport(frame, packet);
    let packet = &*packet;
    parsed.map_err(|other| unserved(tables, &packet.network, other))?;
    let hash = packet.tuple().place(tables.seed());
    let route = match known(tables, packet, hash) {
        Some(route) => route,
        None => admit(tables, packet, hash)?,
    };
    let slot = tables.slot(route.slot).ok_or(Reason::NoTarget)?;
    let change = Readdress {
        end: End::Destination,
        address: slot.target.words(),
        port: slot.target_port,
        other_port: route.port,
    };
    frame.readdress(packet, &change).ok_or(Reason::Truncated)?;
    tables.count_traffic(route.slot, slot, frame.segments(), packet.network.length);
    Ok(Reason::Forwarded)
}

/// What becomes of a packet to a VIP that is not a whole TCP or UDP packet.
#[inline(always)]
fn unserved<T: Tables>(tables: &T, network: &Network, other: Other) -> Reason {
    match tables.vip(&Address::from_words(network.destination)) {
        None => Reason::NotForUs,
        Some(vip) if vip.flags & Vip::NODE != 0 => Reason::NodeOwn,
        Some(_) => match other {
            Other::Fragment => Reason::Fragment,
            Other::Icmp => Reason::Icmp,
            Other::Protocol => Reason::ProtocolNotServed,
            Other::Truncated => Reason::Truncated,
        },
    }
}

/// The hot path: an established flow whose target is still the one it was given.
#[inline(always)]
fn known<T: Tables>(tables: &T, packet: &Packet, hash: Hash) -> Option<Route> {
    let found = table::find(tables, Table::Flows, hash);
    if !found.exists() {
        return None;
    }
    if flow::slot(tables, &found.entry).is_none() {
        found.forget(tables);
        return None;
    }
    let now = tables.now();
    let life = found.entry.life;
    let age = flow::age(life, now);
    // An entry is written four times a second at most, so that its cache line stays clean.
    let speaks = packet.has(tcp::SYN | tcp::FIN | tcp::RST) || age >= tables.second() / 4;
    if speaks && !client_spoke(tables, packet, hash.tag, found.index) {
        found.forget(tables);
        return None;
    }
    Some(Route { slot: found.entry.slot, port: found.entry.port })
}

/// A client's packet that changes its flow's life; false if the flow is over and this packet begins another.
#[inline(never)]
fn client_spoke<T: Tables>(tables: &T, packet: &Packet, tag: u64, index: u32) -> bool {
    let now = tables.now();
    let found = table::at(tables, Table::Flows, index, tag);
    let Some(slot) = flow::slot(tables, &found.entry) else { return false };
    let Entry { life, port, .. } = found.entry;
    let hash = reply_tuple(packet, slot, port).place(tables.seed());
    let reply = tables.find(Table::Replies, hash);
    let paired = reply.exists() && same_flow(&reply.entry, &found.entry);
    if silent(tables, &found.entry, &reply, flow::limit(life.state, slot.idle, tables.second())) {
        if paired {
            reply.forget(tables);
        }
        return false;
    }
    if !paired {
        if packet.is_syn() && flow::is_over(life.state) {
            return false;
        }
        // The other direction's entry was lost: this one knows all that it held.
        let entry = Entry { port: packet.source_port, life: Life { seen: now, ..life }, ..found.entry };
        rebuild(tables, Table::Replies, hash, &entry);
        found.live(tables, Life { seen: now, state: life.state });
        return true;
    }
    // A target that has spoken since outlived the client's SYN or RST, which so were forged, or old.
    let heard = reply.entry.life.state & state::HEARD != 0;
    let settled = if heard { life.state & !(state::SYN_AGAIN | state::CLIENT_RST) } else { life.state };
    let pending = settled & state::SYN_AGAIN != 0;
    let mark = if packet.is_syn() { state::SYN_AGAIN } else { flow::client_marks(packet) };
    if packet.is_syn() {
        let waited = flow::age(life, now) >= tables.second();
        if flow::is_over(settled) || settled & state::CLIENT_RST != 0 || (pending && waited) {
            reply.forget(tables);
            return false;
        }
    }
    if mark != 0 {
        listen(tables, &reply, mark & !state::SYN_AGAIN);
    }
    // The first SYN's time stays while nothing has been heard of the target since.
    let next = Life { seen: if pending { life.seen } else { now }, state: settled | mark };
    if next != life {
        found.live(tables, next);
    }
    true
}

/// True if neither direction of a flow has been heard of for this many jiffies; `other` is what stands for the other one.
#[inline(always)]
fn silent<T: Tables>(tables: &T, one: &Entry, other: &Found, limit: u32) -> bool {
    let now = tables.now();
    let other_spoke =
        other.exists() && same_flow(one, &other.entry) && flow::age(other.entry.life, now) <= limit;
    flow::age(one.life, now) > limit && !other_spoke
}

/// Begins to listen whether the target sends anything, and leaves marks on its entry.
#[inline(always)]
fn listen<T: Tables>(tables: &T, reply: &Found, marks: u32) {
    let life = reply.entry.life;
    reply.live(tables, Life { seen: life.seen, state: (life.state & !state::HEARD) | marks });
}

#[inline(always)]
fn rebuild<T: Tables>(tables: &T, table: Table, hash: Hash, entry: &Entry) {
    if tables.put(table, hash, entry).is_some() {
        tables.count(Reason::FlowRebuilt);
    }
}

#[inline(always)]
fn same_flow(a: &Entry, b: &Entry) -> bool {
    a.slot == b.slot && a.generation == b.generation
}

/// The tuple that the target's answers to this packet will have, when the target knows the client by `port`.
#[inline(always)]
fn reply_tuple(packet: &Packet, slot: &Slot, port: u16) -> Tuple {
    Tuple {
        source: slot.target.words(),
        destination: packet.network.source,
        source_port: slot.target_port,
        destination_port: port,
        protocol: packet.protocol,
        ipv4: packet.network.ipv4,
    }
}

/// A packet without an established flow: of a half-open one, of one whose entry was lost, or the first of a new one.
#[inline(always)]
fn admit<T: Tables>(tables: &T, packet: &Packet, hash: Hash) -> Result<Route, Reason> {
    let pending = half_open(tables, packet, hash);
    if pending.goes_on {
        return Ok(pending.route);
    }
    let Chosen { listener, slot, flags } = choose(tables, packet)?;
    let opened = opening(tables, packet, slot, pending.route.slot);
    // To a node's own address nobody moves a conversation from elsewhere: its middle is a masqueraded pod's, or nobody's.
    if flags & Listener::NODE != 0 && packet.is_middle() && !opened.is_ok_and(|place| place.taken.is_known())
    {
        return Err(Reason::NodeOwn);
    }
    let opened = opened.and_then(|place| begin(tables, packet, &hash, &place));
    opened.inspect_err(|reason| tables.count_drop(listener, *reason))
}

/// What takes a packet that begins something. Words: BTF cannot say what a `Result` hides in a `bool`.
#[derive(Clone, Copy)]
struct Chosen {
    /// The listener's id.
    listener: u32,
    slot: u32,
    /// The listener's.
    flags: u32,
}

/// The listener of a packet that begins something, and the slot that takes it.
#[inline(never)]
fn choose<T: Tables>(tables: &T, packet: &Packet) -> Result<Chosen, Reason> {
    let vip = Address::from_words(packet.network.destination);
    let key = ListenerKey { vip, port: packet.destination_port, protocol: packet.protocol, zero: 0 };
    let Some(listener) = tables.listener(&key) else {
        return Err(match tables.vip(&vip) {
            None => Reason::NotForUs,
            Some(vip) if vip.flags & Vip::NODE != 0 => Reason::NodeOwn,
            Some(_) => Reason::NoListener,
        });
    };
    if listener.flags & Listener::NODE != 0 && tables.local_socket(packet) {
        return Err(Reason::LocalSocket);
    }
    match select(tables, listener.id, packet.tuple().ring()) {
        Some(slot) => Ok(Chosen { listener: listener.id, slot, flags: listener.flags }),
        None => {
            tables.count_drop(listener.id, Reason::NoTarget);
            Err(Reason::NoTarget)
        }
    }
}

/// The slot that a listener's ring has for a flow hash, if it has targets.
#[inline(always)]
fn select<T: Tables>(tables: &T, listener: u32, hash: u32) -> Option<u32> {
    let at = tables.choice(listener) as u32;
    if at == 0 {
        return None;
    }
    let members = Members::from_word(tables.ring_word(at)?);
    let index = ring::pick(hash, members.size);
    let word = tables.ring_word(members.ring.wrapping_add(index >> 2))?;
    let position = (word >> ((index & 3) * 16)) as u32 & 0xffff;
    let word = tables.ring_word(at.wrapping_add(1 + (position >> 1)))?;
    Some(if position & 1 == 0 { word as u32 } else { (word >> 32) as u32 })
}

/// What the half-open tables know of a client's packet. Words, as in [`Taken`].
#[derive(Clone, Copy)]
struct Pending {
    /// Where the packet goes; or, if it does not, the slot to which a SYN went that it repeats.
    route: Route,
    goes_on: bool,
}

impl Pending {
    const NOTHING: Self = Self { route: Route { slot: NO_SLOT, port: 0 }, goes_on: false };
}

/// A packet of a half-open flow: establishes it if the target has answered and this packet shows that the client knows.
#[inline(never)]
fn half_open<T: Tables>(tables: &T, packet: &Packet, hash: Hash) -> Pending {
    let half = tables.find(Table::HalfFlows, hash);
    if !half.exists() {
        return Pending::NOTHING;
    }
    let Some(slot) = flow::slot(tables, &half.entry) else { return Pending::NOTHING };
    let now = tables.now();
    let Entry { life, port, .. } = half.entry;
    let reply_hash = reply_tuple(packet, slot, port).place(tables.seed());
    let reply = tables.find(Table::HalfReplies, reply_hash);
    if silent(tables, &half.entry, &reply, flow::half_limit(packet.protocol, slot.idle, tables.second())) {
        return Pending::NOTHING;
    }
    let paired = reply.exists() && same_flow(&reply.entry, &half.entry);
    let answer = if paired { reply.entry.life.state } else { 0 };
    let route = Route { slot: half.entry.slot, port };
    // A SYN that nobody answered, or that was refused, may find a better target by now.
    if packet.is_syn() && answer & state::TARGET_RST != 0 {
        return Pending::NOTHING;
    }
    if packet.is_syn() && answer & state::ANSWERED == 0 {
        return Pending { route, goes_on: false };
    }
    let knows = packet.is_udp()
        || (!packet.has(tcp::SYN | tcp::RST)
            && (life.state & state::BY_SYN == 0
                || (packet.has(tcp::ACK) && packet.acknowledgement == reply.entry.expect)));
    let fits = knows && answer & (state::ANSWERED | state::TARGET_RST) == state::ANSWERED;
    let fin = (life.state | answer | flow::client_marks(packet)) & state::BOTH_FIN;
    if fits && establish(tables, packet, hash, &half.entry, reply_hash, fin) {
        half.forget(tables);
        reply.forget(tables);
        return Pending { route, goes_on: true };
    }
    if !paired && (!reply.exists() || reply.entry.life.state & state::DIRECT != 0) {
        // Lost; an answer that came meanwhile was taken for the pod's own conversation.
        let entry = Entry { port: packet.source_port, life: Life { seen: now, ..life }, ..half.entry };
        rebuild(tables, Table::HalfReplies, reply_hash, &entry);
    }
    if fin & !life.state & state::CLIENT_FIN != 0 || flow::age(life, now) >= tables.second() / 4 {
        half.live(tables, Life { seen: now, state: life.state | fin & state::CLIENT_FIN });
    }
    Pending { route, goes_on: true }
}

/// Writes both entries of an established flow; false if one of them found no place.
#[inline(always)]
fn establish<T: Tables>(
    tables: &T,
    packet: &Packet,
    hash: Hash,
    half: &Entry,
    reply_hash: Hash,
    fin: u32,
) -> bool {
    let keep = if half.port == packet.source_port { 0 } else { state::KEEP };
    let entry = Entry { life: Life { seen: tables.now(), state: keep | fin }, ..*half };
    let Some(index) = tables.put(Table::Flows, hash, &entry) else { return false };
    note(tables, Table::Flows, index, packet);
    let life = Life { seen: entry.life.seen, state: keep | fin | state::HEARD };
    tables.put(Table::Replies, reply_hash, &Entry { port: packet.source_port, life, ..entry }).is_some()
}

#[inline(always)]
fn note<T: Tables>(tables: &T, table: Table, index: u32, packet: &Packet) {
    let address = Address::from_words(packet.network.source);
    tables.note_client(table, index, &Client { address, port: packet.source_port, zero: [0; 6] });
}

/// What stands in the way of a reply tuple. A word, because the verifier refuses what LLVM makes of an enum that carries one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Taken(u32);

impl Taken {
    /// Nothing.
    const FREE: Self = Self(0);
    /// Another conversation.
    const OTHER: Self = Self(1 << 31);
    /// Besides its state: this flow's own established entry, whose other half was lost.
    const OWN: u32 = 1 << 30;
    /// This flow's own half-open entry.
    const HALF: Self = Self(1 << 29);

    #[inline(always)]
    fn is_own(self) -> bool {
        self.0 & Self::OWN != 0
    }

    #[inline(always)]
    fn is_known(self) -> bool {
        self.0 & (Self::OWN | Self::HALF.0) != 0
    }
}

/// Where a flow without entries goes: to a target, under a port that no other conversation with this pod port has.
#[derive(Clone, Copy)]
struct Opening {
    route: Route,
    taken: Taken,
    /// The slot to which an earlier SYN of this very flow went, else [`NO_SLOT`].
    repeated: u32,
}

/// Finds the port for a packet's flow to a slot; or the one that it has there already.
#[inline(never)]
fn opening<T: Tables>(tables: &T, packet: &Packet, number: u32, repeated: u32) -> Result<Opening, Reason> {
    let slot = tables.slot(number).ok_or(Reason::NoTarget)?;
    for round in 0..ports::TRIED {
        let port = ports::rewritten(packet.source_port, round);
        let hash = reply_tuple(packet, slot, port).place(tables.seed());
        let taken = taken(tables, packet, slot, number, hash);
        if taken != Taken::OTHER {
            return Ok(Opening { route: Route { slot: number, port }, taken, repeated });
        }
    }
    Err(Reason::PortAllocationError)
}

#[inline(always)]
fn taken<T: Tables>(tables: &T, packet: &Packet, slot: &Slot, number: u32, hash: Hash) -> Taken {
    let reply = tables.find(Table::Replies, hash);
    if reply.exists() {
        let own = reply.entry.slot == number && reply.entry.port == packet.source_port;
        // Nobody's unless it lives; a SYN begins anew what is its own and over.
        let begins = own && packet.is_syn() && flow::is_over(reply.entry.life.state);
        if !begins && lives(tables, packet, &packet.network.source, Table::Flows, &reply) {
            return if own { Taken(reply.entry.life.state | Taken::OWN) } else { Taken::OTHER };
        }
        // Else the new flow's answers would be taken for the old one's.
        reply.forget(tables);
    }
    let half = tables.find(Table::HalfReplies, hash);
    if !half.exists() {
        return Taken::FREE;
    }
    if half.entry.slot == number && half.entry.port == packet.source_port {
        return Taken::HALF;
    }
    let lives = if half.entry.life.state & state::DIRECT != 0 {
        flow::age(half.entry.life, tables.now()) <= slot.idle
    } else {
        lives(tables, packet, &packet.network.source, Table::HalfFlows, &half)
    };
    if lives { Taken::OTHER } else { Taken::FREE }
}

/// True if the flow of this reply entry lives, whose client's entries are in `table`: its target is there, and one side has spoken lately.
#[inline(always)]
fn lives<T: Tables>(tables: &T, packet: &Packet, client: &Words, table: Table, reply: &Found) -> bool {
    let Some(slot) = flow::slot(tables, &reply.entry) else { return false };
    let tuple = client_tuple(packet, client, slot, reply.entry.port);
    let forward = tables.find(table, tuple.place(tables.seed()));
    !silent(tables, &reply.entry, &forward, limit(tables, packet, table, slot, reply.entry.life.state))
}

/// How long a flow whose client's entry is in `table` may be idle, in jiffies.
#[inline(always)]
fn limit<T: Tables>(tables: &T, packet: &Packet, table: Table, slot: &Slot, state: u32) -> u32 {
    match table {
        Table::Flows | Table::Replies => flow::limit(state, slot.idle, tables.second()),
        Table::HalfFlows | Table::HalfReplies => {
            flow::half_limit(packet.protocol, slot.idle, tables.second())
        }
    }
}

/// Writes both entries of a new half-open flow; or, of one that is established, the client's entry that was lost.
#[inline(never)]
fn begin<T: Tables>(tables: &T, packet: &Packet, hash: &Hash, opening: &Opening) -> Result<Route, Reason> {
    let Opening { route, taken, repeated } = *opening;
    let slot = tables.slot(route.slot).ok_or(Reason::NoTarget)?;
    let keep = if route.port == packet.source_port { 0 } else { state::KEEP };
    let (table, state) = if taken.is_own() {
        (Table::Flows, taken.0 & !(Taken::OWN | state::HEARD) | keep)
    } else if packet.is_syn() {
        (Table::HalfFlows, state::BY_SYN)
    } else {
        (Table::HalfFlows, flow::client_marks(packet) & state::CLIENT_FIN)
    };
    let entry = Entry {
        tag: 0,
        slot: route.slot,
        generation: slot.generation,
        life: Life { seen: tables.now(), state },
        port: route.port,
        zero: 0,
        expect: 0,
    };
    let index = tables.put(table, *hash, &entry).ok_or(Reason::TableFull)?;
    note(tables, table, index, packet);
    if table == Table::Flows {
        tables.count(Reason::FlowRebuilt);
        return Ok(route);
    }
    let reply_hash = reply_tuple(packet, slot, route.port).place(tables.seed());
    let entry = Entry { port: packet.source_port, ..entry };
    tables.put(Table::HalfReplies, reply_hash, &entry).ok_or(Reason::TableFull)?;
    if route.slot != repeated {
        tables.count_flow(route.slot, slot);
    }
    Ok(route)
}

#[inline(always)]
fn toward_client<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Reason, Reason> {
    let mut local = Packet::default();
    let packet = tables.desk(&mut local).ok_or(Reason::NotOurs)?;
    packet.network = parse::network(frame).ok_or(Reason::NotOurs)?;
    parse::transport(frame, packet).map_err(|_| Reason::NotOurs)?;
    let packet = &*packet;
    if !tables.may_be_target(packet.network.source, packet.source_port, packet.protocol) {
        return Err(Reason::NotOurs);
    }
    let hash = packet.tuple().place(tables.seed());
    let route = match answered(tables, packet, hash) {
        Some(route) => route,
        None => answer(tables, packet, hash).ok_or(Reason::NotOurs)?,
    };
    let slot = tables.slot(route.slot).ok_or(Reason::NotOurs)?;
    let change = Readdress {
        end: End::Source,
        address: slot.vip.words(),
        port: slot.vip_port,
        other_port: route.port,
    };
    frame.readdress(packet, &change).ok_or(Reason::NotOurs)?;
    tables.count_traffic(route.slot, slot, frame.segments(), packet.network.length);
    Ok(Reason::Replied)
}

/// The hot path back: an answer of an established flow.
#[inline(always)]
fn answered<T: Tables>(tables: &T, packet: &Packet, hash: Hash) -> Option<Route> {
    let found = table::find(tables, Table::Replies, hash);
    if !found.exists() {
        return None;
    }
    if flow::slot(tables, &found.entry).is_none() {
        found.forget(tables);
        return None;
    }
    let now = tables.now();
    let life = found.entry.life;
    let unheard = life.state & state::HEARD == 0;
    let speaks =
        packet.has(tcp::SYN | tcp::FIN | tcp::RST) || unheard || flow::age(life, now) >= tables.second() / 4;
    if speaks && !target_spoke(tables, packet, hash.tag, found.index) {
        return None;
    }
    Some(Route { slot: found.entry.slot, port: found.entry.port })
}

/// A target's packet that changes its flow's life; false if the flow is over and the packet of another conversation.
#[inline(never)]
fn target_spoke<T: Tables>(tables: &T, packet: &Packet, tag: u64, index: u32) -> bool {
    let now = tables.now();
    let found = table::at(tables, Table::Replies, index, tag);
    let Some(slot) = flow::slot(tables, &found.entry) else { return false };
    let Entry { life, port, .. } = found.entry;
    let hash = client_tuple(packet, &packet.network.destination, slot, port).place(tables.seed());
    let forward = tables.find(Table::Flows, hash);
    let paired = forward.exists() && same_flow(&forward.entry, &found.entry);
    // A SYN-ACK after the end answers a SYN that came in through no listener: the listener's would have begun a new flow.
    if (packet.is_syn_ack() && flow::is_over(life.state))
        || silent(tables, &found.entry, &forward, flow::limit(life.state, slot.idle, tables.second()))
    {
        found.forget(tables);
        if paired {
            forward.forget(tables);
        }
        return false;
    }
    let marks = flow::target_marks(packet);
    // It has outlived the client's RST.
    let settled = life.state & !state::CLIENT_RST | marks;
    found.live(tables, Life { seen: now, state: settled | state::HEARD });
    if !forward.exists() {
        let entry = Entry {
            port: packet.destination_port,
            life: Life { seen: now, state: settled & !state::HEARD },
            ..found.entry
        };
        if let Some(index) = tables.put(Table::Flows, hash, &entry) {
            let address = Address::from_words(packet.network.destination);
            tables.note_client(Table::Flows, index, &Client { address, port, zero: [0; 6] });
            tables.count(Reason::FlowRebuilt);
        }
    } else if marks != 0 && paired {
        let life = forward.entry.life;
        forward.live(tables, Life { seen: life.seen, state: life.state | marks });
    }
    true
}

/// The tuple of a client's packets to a slot's listener, when the client calls itself `port`; family and protocol are the packet's.
#[inline(always)]
fn client_tuple(packet: &Packet, client: &Words, slot: &Slot, port: u16) -> Tuple {
    Tuple {
        source: *client,
        destination: slot.vip.words(),
        source_port: port,
        destination_port: slot.vip_port,
        protocol: packet.protocol,
        ipv4: packet.network.ipv4,
    }
}

/// A target's packet without an established flow: of a half-open one, of one whose entry was lost, or of no flow of ours.
#[inline(always)]
fn answer<T: Tables>(tables: &T, packet: &Packet, hash: Hash) -> Option<Route> {
    match half_answered(tables, packet, hash) {
        Half::Ours(route) => Some(route),
        Half::Direct => None,
        Half::Lost => remember(tables, packet, hash, lost(tables, packet)),
    }
}

/// What the half-open tables know of a target's packet.
enum Half {
    /// It answers a half-open flow.
    Ours(Route),
    /// It belongs to a conversation that came in through no listener.
    Direct,
    /// Nothing.
    Lost,
}

/// Looks for the half-open flow that a target's packet answers.
#[inline(never)]
fn half_answered<T: Tables>(tables: &T, packet: &Packet, hash: Hash) -> Half {
    let half = tables.find(Table::HalfReplies, hash);
    if !half.exists() {
        return Half::Lost;
    }
    let now = tables.now();
    if half.entry.life.state & state::DIRECT != 0 {
        if flow::age(half.entry.life, now) >= tables.second() / 4 {
            half.live(tables, Life { seen: now, ..half.entry.life });
        }
        return Half::Direct;
    }
    if lives(tables, packet, &packet.network.destination, Table::HalfFlows, &half) {
        note_answer(tables, packet, &half, now);
        return Half::Ours(Route { slot: half.entry.slot, port: half.entry.port });
    }
    half.forget(tables);
    Half::Lost
}

/// Whose packet it is that no reply entry answers for. Words, as in [`Taken`].
#[derive(Clone, Copy)]
struct Lost {
    /// The flow's slot and its client's own port; [`NO_SLOT`]: no flow of ours.
    route: Route,
    /// What the client's entry says of its life; of no flow of ours, `DIRECT` if the conversation is one of a target's port.
    state: u32,
    half: bool,
}

impl Lost {
    const fn nobody(state: u32) -> Self {
        Self { route: Route { slot: NO_SLOT, port: 0 }, state, half: false }
    }
}

/// Looks for the flow whose reply entry was lost, among the slots that share this pod port.
#[inline(never)]
fn lost<T: Tables>(tables: &T, packet: &Packet) -> Lost {
    let address = Address::from_words(packet.network.source);
    let key = TargetKey { address, port: packet.source_port, protocol: packet.protocol, zero: 0 };
    let Some(sharers) = tables.sharers(&key) else { return Lost::nobody(0) };
    for i in 0..SHARERS {
        let number = sharers.slots[i];
        if number == NO_SLOT {
            break;
        }
        let found = lost_by(tables, packet, number);
        if found.route.slot != NO_SLOT {
            return found;
        }
    }
    if sharers.slots[SHARERS - 1] != NO_SLOT {
        // There may be more listeners on this pod port than are remembered, and this a flow of one of those.
        tables.count(Reason::FlowLost);
    }
    Lost::nobody(state::DIRECT)
}

/// Writes the reply entry of such a flow anew.
#[inline(never)]
fn remember<T: Tables>(tables: &T, packet: &Packet, hash: Hash, lost: Lost) -> Option<Route> {
    let now = tables.now();
    let Lost { route, state, half } = lost;
    let Some(slot) = tables.slot(route.slot) else {
        // No flow of ours may take the same tuple while the pod's own conversation lasts.
        if state & state::DIRECT != 0 {
            let entry = Entry { slot: NO_SLOT, life: Life { seen: now, state }, ..Entry::default() };
            let _full = tables.put(Table::HalfReplies, hash, &entry);
        }
        return None;
    };
    let life = Life { seen: now, state: state | state::HEARD };
    let entry =
        Entry { slot: route.slot, generation: slot.generation, life, port: route.port, ..Entry::default() };
    rebuild(tables, if half { Table::HalfReplies } else { Table::Replies }, hash, &entry);
    let half = tables.find(Table::HalfReplies, hash);
    if half.exists() {
        note_answer(tables, packet, &half, now);
    }
    Some(route)
}

/// What the target's packet says about a half-open flow.
#[inline(always)]
fn note_answer<T: Tables>(tables: &T, packet: &Packet, half: &Found, now: u32) {
    let life = half.entry.life;
    let by_syn = life.state & state::BY_SYN != 0;
    let marks = if packet.protocol == UDP {
        state::ANSWERED
    } else if packet.has(tcp::RST) {
        if !by_syn && life.state & state::TARGET_RST == 0 {
            // The middle of a conversation that this target knows nothing of: the entry that knew better was lost.
            tables.count(Reason::FlowLost);
        }
        state::TARGET_RST
    } else if packet.is_syn_ack() {
        half.expect(tables, packet.sequence.wrapping_add(1));
        state::ANSWERED
    } else if by_syn {
        0
    } else {
        state::ANSWERED | flow::target_marks(packet)
    };
    half.live(tables, Life { seen: now, state: life.state | marks });
}

/// The flow of this slot that a target's packet belongs to; its port may have been rewritten.
#[inline(always)]
fn lost_by<T: Tables>(tables: &T, packet: &Packet, number: u32) -> Lost {
    let now = tables.now();
    let Some(slot) = tables.slot(number) else { return Lost::nobody(0) };
    for guess in 0..ports::GUESSES {
        let port = ports::original(packet.destination_port, guess);
        if port == 0 {
            continue;
        }
        let tuple = client_tuple(packet, &packet.network.destination, slot, port);
        let place = tuple.place(tables.seed());
        let mut flow = tables.find(Table::Flows, place);
        let half = !flow.exists();
        if half {
            flow = tables.find(Table::HalfFlows, place);
        }
        let Entry { life, .. } = flow.entry;
        let table = if half { Table::HalfFlows } else { Table::Flows };
        let fits = flow.exists()
            && flow.entry.slot == number
            && flow.entry.generation == slot.generation
            && flow.entry.port == packet.destination_port
            && flow::age(life, now) <= limit(tables, packet, table, slot, life.state);
        if fits {
            return Lost { route: Route { slot: number, port }, state: life.state, half };
        }
    }
    Lost::nobody(0)
}
