//! The whole way of a packet, as one story: `ingress` for what comes from clients, `egress` for what targets answer.
//!
//! ```text
//! ingress   parse -> a VIP? -> known flow ------------------------------> readdress to the target, pass to the host's routing
//!                              \-> half-open flow -> answered? establish -/
//!                               \-> listener -> ring -> new half-open ---/
//! egress    parse -> a target's port? -> known flow ---------------------> readdress from the VIP, let it leave
//!                                       \-> half-open flow -> note answer /
//!                                        \-> lost entry? rebuild --------/
//!                                         \-> else: not ours, untouched
//! ```
//!
//! The same source runs in the kernel and on the host. State comes in through [`Tables`], bytes through [`Frame`].

use crate::address::Address;
use crate::flow::{self, state};
use crate::frame::{End, Frame, Readdress};
use crate::hash::{Hash, Tuple};
use crate::layout::{
    Client, Entry, Life, Listener, ListenerKey, Members, NO_SLOT, SHARERS, Slot, TCP, TargetKey, UDP, Vip,
};
use crate::parse::{self, Network, Other, Packet, tcp};
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
    tables.count_traffic(route.slot, slot.listener, frame.segments(), packet.network.length);
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
    // Four times a second at most: the line stays clean otherwise.
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
    let idle = flow::limit(life.state, slot.idle, tables.second());
    if flow::age(life, now) > idle && (!paired || flow::age(reply.entry.life, now) > idle) {
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
    let heard = reply.entry.life.state & state::HEARD != 0;
    let waited = flow::age(life, now) >= tables.second();
    let next = if packet.is_syn() {
        if flow::is_over(life.state)
            || (life.state & state::CLIENT_RST != 0 && !heard)
            || (life.state & state::SYN_AGAIN != 0 && !heard && waited)
        {
            reply.forget(tables);
            return false;
        }
        listen(tables, &reply, 0);
        // The first SYN's time stays while nothing has been heard of the target since.
        let seen = if life.state & state::SYN_AGAIN != 0 && !heard { life.seen } else { now };
        Life { seen, state: life.state | state::SYN_AGAIN }
    } else {
        let marks = if packet.protocol == TCP {
            flow::marks(packet.has(tcp::FIN), packet.has(tcp::RST), true)
        } else {
            0
        };
        if marks != 0 {
            listen(tables, &reply, marks);
        }
        let pending = life.state & state::SYN_AGAIN != 0 && !heard;
        let settled = if heard { life.state & !(state::SYN_AGAIN | state::CLIENT_RST) } else { life.state };
        Life { seen: if pending { life.seen } else { now }, state: settled | marks }
    };
    if next != life {
        found.live(tables, next);
    }
    true
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
    if let Some(route) = half_open(tables, packet, hash) {
        return Ok(route);
    }
    let (listener, number) = choose(tables, packet)?;
    open(tables, packet, hash, number).inspect_err(|_| tables.count_drop(listener))
}

/// The listener's id of a packet that begins something, and the slot that takes it.
#[inline(never)]
pub fn choose<T: Tables>(tables: &T, packet: &Packet) -> Result<(u32, u32), Reason> {
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
        Some(number) => Ok((listener.id, number)),
        None => {
            tables.count_drop(listener.id);
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

/// A packet of a half-open flow: establishes it if the target has answered and this packet shows that the client knows.
#[inline(never)]
pub fn half_open<T: Tables>(tables: &T, packet: &Packet, hash: Hash) -> Option<Route> {
    let half = tables.find(Table::HalfFlows, hash);
    if !half.exists() {
        return None;
    }
    let slot = flow::slot(tables, &half.entry)?;
    let now = tables.now();
    let life = half.entry.life;
    let idle = if packet.is_udp() { slot.idle } else { flow::HALF_OPEN_SECONDS * tables.second() };
    if flow::age(life, now) > idle {
        return None;
    }
    let reply_hash = reply_tuple(packet, slot, half.entry.port).place(tables.seed());
    let reply = tables.find(Table::HalfReplies, reply_hash);
    let answer =
        if reply.exists() && same_flow(&reply.entry, &half.entry) { reply.entry.life.state } else { 0 };
    // A SYN that nobody answered, or that was refused, may find a better target by now.
    if packet.is_syn() && (answer & state::ANSWERED == 0 || answer & state::TARGET_RST != 0) {
        return None;
    }
    let route = Route { slot: half.entry.slot, port: half.entry.port };
    let knows = packet.is_udp()
        || (!packet.has(tcp::SYN | tcp::RST)
            && (life.state & state::BY_SYN == 0
                || (packet.has(tcp::ACK) && packet.acknowledgement == reply.entry.expect)));
    let fits = knows && answer & (state::ANSWERED | state::TARGET_RST) == state::ANSWERED;
    if fits && establish(tables, packet, hash, &half.entry, reply_hash) {
        half.forget(tables);
        reply.forget(tables);
    } else if flow::age(life, now) >= tables.second() / 4 {
        half.live(tables, Life { seen: now, state: life.state });
    }
    Some(route)
}

/// Writes both entries of an established flow; false if one of them found no place.
#[inline(always)]
fn establish<T: Tables>(tables: &T, packet: &Packet, hash: Hash, half: &Entry, reply_hash: Hash) -> bool {
    let keep = if half.port == packet.source_port { 0 } else { state::KEEP };
    let fin = if packet.protocol == TCP { flow::marks(packet.has(tcp::FIN), false, true) } else { 0 };
    let entry = Entry { life: Life { seen: tables.now(), state: keep | fin }, expect: 0, ..*half };
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

/// How many ports are tried for a flow whose client port another conversation with the same pod port has.
const PORTS_TRIED: u32 = 4;

/// What stands in the way of a reply tuple.
enum Taken {
    /// Nothing.
    Free,
    /// This flow's own established entry, whose other half was lost.
    Own,
    /// Another conversation.
    Other,
}

/// Opens a half-open flow to a slot, under a port that no other conversation with this pod port has.
#[inline(never)]
pub fn open<T: Tables>(tables: &T, packet: &Packet, hash: Hash, number: u32) -> Result<Route, Reason> {
    let slot = tables.slot(number).ok_or(Reason::NoTarget)?;
    let mut port = packet.source_port;
    for round in 0..PORTS_TRIED {
        let reply_hash = reply_tuple(packet, slot, port).place(tables.seed());
        match taken(tables, packet, number, reply_hash) {
            Taken::Free => {
                return begin(tables, packet, hash, reply_hash, Route { slot: number, port }, slot);
            }
            Taken::Own => return resume(tables, packet, hash, Route { slot: number, port }, slot),
            Taken::Other => {}
        }
        // Deterministic, so that a lost entry finds its port again; from 1024 on, where no service lives.
        port = 1024 + (((hash.tag >> 8) as u32).wrapping_add(round.wrapping_mul(0x9e37)) & 0x7fff) as u16;
    }
    Err(Reason::PortAllocationError)
}

#[inline(always)]
fn taken<T: Tables>(tables: &T, packet: &Packet, number: u32, hash: Hash) -> Taken {
    let now = tables.now();
    let reply = tables.find(Table::Replies, hash);
    if reply.exists()
        && let Some(other) = flow::slot(tables, &reply.entry)
        && flow::age(reply.entry.life, now)
            <= flow::limit(reply.entry.life.state, other.idle, tables.second())
    {
        let own = reply.entry.slot == number && reply.entry.port == packet.source_port;
        if !own {
            return Taken::Other;
        }
        if !packet.is_syn() {
            return Taken::Own;
        }
        // A SYN begins anew what is its own.
        reply.forget(tables);
    }
    let half = tables.find(Table::HalfReplies, hash);
    if half.exists() && flow::age(half.entry.life, now) <= flow::HALF_OPEN_SECONDS * tables.second() {
        let direct = half.entry.life.state & state::DIRECT != 0;
        let own = half.entry.slot == number && half.entry.port == packet.source_port;
        let live = direct || flow::slot(tables, &half.entry).is_some();
        if live && !own {
            return Taken::Other;
        }
    }
    Taken::Free
}

/// Writes both entries of a new half-open flow.
#[inline(always)]
fn begin<T: Tables>(
    tables: &T,
    packet: &Packet,
    hash: Hash,
    reply_hash: Hash,
    route: Route,
    slot: &Slot,
) -> Result<Route, Reason> {
    let by_syn = if packet.is_syn() { state::BY_SYN } else { 0 };
    let entry = Entry {
        tag: 0,
        slot: route.slot,
        generation: slot.generation,
        life: Life { seen: tables.now(), state: by_syn },
        port: route.port,
        zero: 0,
        expect: 0,
    };
    let index = tables.put(Table::HalfFlows, hash, &entry).ok_or(Reason::TableFull)?;
    note(tables, Table::HalfFlows, index, packet);
    let entry = Entry { port: packet.source_port, ..entry };
    tables.put(Table::HalfReplies, reply_hash, &entry).ok_or(Reason::TableFull)?;
    tables.count_flow(route.slot, slot.listener);
    Ok(route)
}

/// Rebuilds the client's entry of an established flow from the target's.
#[inline(always)]
fn resume<T: Tables>(
    tables: &T,
    packet: &Packet,
    hash: Hash,
    route: Route,
    slot: &Slot,
) -> Result<Route, Reason> {
    let keep = if route.port == packet.source_port { 0 } else { state::KEEP };
    let entry = Entry {
        tag: 0,
        slot: route.slot,
        generation: slot.generation,
        life: Life { seen: tables.now(), state: keep },
        port: route.port,
        zero: 0,
        expect: 0,
    };
    let index = tables.put(Table::Flows, hash, &entry).ok_or(Reason::TableFull)?;
    note(tables, Table::Flows, index, packet);
    tables.count(Reason::FlowRebuilt);
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
    tables.count_traffic(route.slot, slot.listener, frame.segments(), packet.network.length);
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
    if packet.has(tcp::FIN | tcp::RST) || unheard || flow::age(life, now) >= tables.second() / 4 {
        target_spoke(tables, packet, hash.tag, found.index);
    }
    Some(Route { slot: found.entry.slot, port: found.entry.port })
}

/// A target's packet that changes its flow's life.
#[inline(never)]
fn target_spoke<T: Tables>(tables: &T, packet: &Packet, tag: u64, index: u32) {
    let now = tables.now();
    let found = table::at(tables, Table::Replies, index, tag);
    let Some(slot) = flow::slot(tables, &found.entry) else { return };
    let Entry { life, port, .. } = found.entry;
    let marks = if packet.protocol == TCP {
        flow::marks(packet.has(tcp::FIN), packet.has(tcp::RST), false)
    } else {
        0
    };
    found.live(tables, Life { seen: now, state: life.state | marks | state::HEARD });
    let hash = client_tuple(packet, slot, port).place(tables.seed());
    let forward = tables.find(Table::Flows, hash);
    if !forward.exists() {
        let life = Life { seen: now, state: (life.state | marks) & !state::HEARD };
        let entry = Entry { port: packet.destination_port, life, ..found.entry };
        if let Some(index) = tables.put(Table::Flows, hash, &entry) {
            let address = Address::from_words(packet.network.destination);
            tables.note_client(Table::Flows, index, &Client { address, port, zero: [0; 6] });
            tables.count(Reason::FlowRebuilt);
        }
    } else if marks != 0 && same_flow(&forward.entry, &found.entry) {
        let life = forward.entry.life;
        forward.live(tables, Life { seen: life.seen, state: life.state | marks });
    }
}

/// The tuple of the client's packets that this answer of `slot` belongs to, when the client calls itself `port`.
#[inline(always)]
fn client_tuple(packet: &Packet, slot: &Slot, port: u16) -> Tuple {
    Tuple {
        source: packet.network.destination,
        destination: slot.vip.words(),
        source_port: port,
        destination_port: slot.vip_port,
        protocol: packet.protocol,
        ipv4: packet.network.ipv4,
    }
}

/// A target's packet without an established flow: of a half-open one, of one whose entry was lost, or of no flow of ours.
#[inline(never)]
pub fn answer<T: Tables>(tables: &T, packet: &Packet, hash: Hash) -> Option<Route> {
    let now = tables.now();
    let half = tables.find(Table::HalfReplies, hash);
    if half.exists() {
        if half.entry.life.state & state::DIRECT != 0 {
            if flow::age(half.entry.life, now) >= tables.second() / 4 {
                half.live(tables, Life { seen: now, ..half.entry.life });
            }
            return None;
        }
        if flow::slot(tables, &half.entry).is_some() {
            note_answer(tables, packet, &half, now);
            return Some(Route { slot: half.entry.slot, port: half.entry.port });
        }
        half.forget(tables);
    }
    let address = Address::from_words(packet.network.source);
    let key = TargetKey { address, port: packet.source_port, protocol: packet.protocol, zero: 0 };
    let sharers = tables.sharers(&key)?;
    for i in 0..SHARERS {
        let number = sharers.slots[i];
        if number == NO_SLOT {
            break;
        }
        if let Some(route) = lost_reply(tables, packet, hash, number, now) {
            let half = tables.find(Table::HalfReplies, hash);
            if half.exists() {
                note_answer(tables, packet, &half, now);
            }
            return Some(route);
        }
    }
    // Remembered, so that no flow of ours takes the same tuple while this conversation lasts.
    let entry = Entry { slot: NO_SLOT, life: Life { seen: now, state: state::DIRECT }, ..Entry::default() };
    let _full = tables.put(Table::HalfReplies, hash, &entry);
    None
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
        state::ANSWERED
    };
    half.live(tables, Life { seen: now, state: life.state | marks });
}

/// Rebuilds the target's entry of a flow of this slot from the client's, if there is such a flow.
#[inline(always)]
fn lost_reply<T: Tables>(tables: &T, packet: &Packet, hash: Hash, number: u32, now: u32) -> Option<Route> {
    let slot = tables.slot(number)?;
    let client = packet.destination_port;
    let tuple = client_tuple(packet, slot, client);
    let place = tuple.place(tables.seed());
    let mut flow = tables.find(Table::Flows, place);
    let mut table = Table::Replies;
    if !flow.exists() {
        flow = tables.find(Table::HalfFlows, place);
        table = Table::HalfReplies;
    }
    if !flow.exists() {
        return None;
    }
    let entry = flow.entry;
    if entry.slot != number || entry.generation != slot.generation || entry.port != client {
        return None;
    }
    let life = Life { seen: now, state: entry.life.state | state::HEARD };
    rebuild(tables, table, hash, &Entry { life, port: client, ..entry });
    Some(Route { slot: number, port: client })
}
