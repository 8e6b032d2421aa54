//! Random traffic and random state for the comparison of host and kernel: conversations, pressure, nonsense, and mutations of it all.

use crate::kernel::Direction;
use crate::oracle::described;
use nlb_common::flow::state;
use nlb_common::layout::{Entry, NO_SLOT, TCP, UDP};
use nlb_common::parse::tcp::{ACK, FIN, RST, SYN};
use nlb_common::scene::{HZ, NOW, Scene, TABLES};
use nlb_common::table::BUSY;
use nlb_common::tables::Table;
use nlb_common::wire::{Extension, Wire};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::net::{IpAddr, SocketAddr};

/// A port of the node's own address: listeners for TCP and UDP, a real socket for TCP alone.
pub const BOUND_TCP: u16 = 9000;
/// Likewise, a real socket for UDP alone.
pub const BOUND_UDP: u16 = 9001;
/// Sequence number of every SYN-ACK, so that clients can acknowledge it.
const SEQUENCE: u32 = 7000;
/// Client ports: few, so that they collide.
const PORTS: std::ops::Range<u16> = 40_000..40_010;
/// Every bit that an entry's state may have.
const STATES: u32 = 1023;

/// One address family's half of the world.
struct Family {
    clients: [IpAddr; 3],
    pool: IpAddr,
    node: IpAddr,
    pods: [IpAddr; 3],
}

/// Random traffic through one scene, the same for the same seed.
pub struct Traffic {
    /// The state, as the host has it.
    pub scene: Scene,
    rng: StdRng,
    families: [Family; 2],
    choices: Vec<u64>,
    /// Packets that reached a pod lately: what answers are made of.
    recent: Vec<Wire>,
    /// What is sent next, whatever comes up: to have a state's effect seen.
    due: Vec<(Direction, Wire)>,
}

fn family(text: [&str; 8]) -> Family {
    let [a, b, c, pool, node, x, y, z] = text.map(|text| text.parse::<IpAddr>().expect("an address"));
    Family { clients: [a, b, c], pool, node, pods: [x, y, z] }
}

impl Traffic {
    /// The scene and the dice.
    pub fn new(seed: u64) -> Self {
        let families = [
            family([
                "198.51.100.7",
                "198.51.100.8",
                "203.0.113.99",
                "203.0.113.10",
                "192.0.2.1",
                "10.244.1.11",
                "10.244.1.12",
                "10.244.255.255",
            ]),
            family([
                "2001:db8:c::7",
                "2001:db8:c::8",
                "fe80::1",
                "2001:db8:f::10",
                "2001:db8:1::1",
                "fd00:244::11",
                "fd00:244::12",
                "fd00:244:ffff:ffff::ffff",
            ]),
        ];
        let mut scene = Scene::default();
        for f in &families {
            scene.vip(f.pool, false);
            scene.vip(f.node, true);
            let pods = |port| f.pods.map(|pod| SocketAddr::new(pod, port));
            for port in [443, 444] {
                scene.listener(SocketAddr::new(f.pool, port), TCP, 350, &pods(8443));
            }
            scene.listener(SocketAddr::new(f.pool, 53), UDP, 120, &pods(5353));
            scene.listener(SocketAddr::new(f.pool, 80), TCP, 350, &[]);
            scene.listener(SocketAddr::new(f.node, 8080), TCP, 60, &pods(8443));
            for port in [BOUND_TCP, BOUND_UDP] {
                scene.listener(SocketAddr::new(f.node, port), TCP, 350, &pods(8443));
                scene.listener(SocketAddr::new(f.node, port), UDP, 120, &pods(5353));
            }
        }
        scene.host.bound.extend([(BOUND_TCP, TCP), (BOUND_UDP, UDP)]);
        let choices = scene.host.choices.clone();
        let rng = StdRng::seed_from_u64(seed);
        Self { scene, rng, families, choices, recent: Vec::new(), due: Vec::new() }
    }

    /// Makes another state of the present one.
    pub fn change(&mut self) {
        self.release();
        if self.rng.random_ratio(1, 40) {
            TABLES.iter().for_each(|table| self.scene.lose(*table));
            self.recent.clear();
        }
        let ages = [0, 1, HZ / 4, HZ, 11 * HZ, 61 * HZ, 125 * HZ, 351 * HZ];
        let most = if self.rng.random_ratio(1, 8) { ages.len() } else { 4 };
        self.scene.age(*ages[..most].choose(&mut self.rng).expect("an age"));
        if self.rng.random_ratio(1, 10) {
            let slot = self.rng.random_range(0..48);
            self.scene.free(slot);
        }
        if self.rng.random_ratio(1, 10) {
            // The ring of another listener of the same family has other slots for the same tuples, or none.
            let listener = self.rng.random_range(0..18);
            self.scene.host.choices[listener] = *self.choices.choose(&mut self.rng).expect("a choice");
        }
        if self.rng.random_ratio(1, 30) {
            self.scene.host.choices.clone_from(&self.choices);
        }
        match self.rng.random_range(0..10) {
            0..=3 => self.lose_entries(),
            4 => self.colour_entries(),
            5 => self.contend(),
            6 => self.exhaust(),
            7 => self.crowd(),
            8..=9 => {}
            other => unreachable!("{other} of 10"),
        }
    }

    /// The next packet, and its way.
    pub fn packet(&mut self) -> (Direction, Vec<u8>) {
        let (direction, wire) = match self.due.pop() {
            Some(due) => due,
            None => match self.rng.random_range(0..100) {
                0..=59 => (Direction::Ingress, self.client_packet()),
                60..=79 if !self.recent.is_empty() => (Direction::Egress, self.target_packet()),
                60..=97 => self.stranger(),
                _ => self.misdirected(),
            },
        };
        let mut frame = self.dressed(wire).frame();
        if self.rng.random_ratio(1, 12) {
            self.mutate(&mut frame);
        }
        (direction, frame)
    }

    /// Remembers how a client's packet was sent and where it came to; often the conversation goes on.
    pub fn reached(&mut self, sent: &[u8], frame: &[u8]) {
        let (Some(sent), Some(wire)) = (described(sent), described(frame)) else { return };
        if self.recent.len() == 12 {
            self.recent.remove(0);
        }
        self.recent.push(wire.clone());
        if self.due.len() < 4 && self.rng.random_ratio(1, 2) {
            if self.rng.random_ratio(2, 3) {
                let again = Wire { flags: ACK, acknowledgement: SEQUENCE + 1, ..sent };
                self.due.push((Direction::Ingress, again));
            }
            let answer = self.answer(&wire);
            self.due.push((Direction::Egress, answer));
        }
    }

    fn family(&mut self) -> &Family {
        let index = self.rng.random_range(0..2);
        &self.families[index]
    }

    fn client(&mut self) -> SocketAddr {
        let (which, port) = (self.rng.random_range(0..3), self.rng.random_range(PORTS));
        SocketAddr::new(self.family().clients[which], port)
    }

    fn flags(&mut self) -> u8 {
        const COMMON: [u8; 12] =
            [SYN, SYN, SYN, ACK, ACK, ACK, ACK, FIN | ACK, RST, RST | ACK, SYN | ACK, SYN | RST];
        *COMMON.choose(&mut self.rng).expect("flags")
    }

    fn client_packet(&mut self) -> Wire {
        let client = self.client();
        let f = &self.families[usize::from(client.is_ipv6())];
        let listeners = [
            (f.pool, 443, TCP),
            (f.pool, 443, TCP),
            (f.pool, 444, TCP),
            (f.pool, 53, UDP),
            (f.node, 8080, TCP),
            (f.pool, 443, TCP),
            (f.pool, 80, TCP),
            (f.node, BOUND_TCP, TCP),
            (f.node, BOUND_TCP, UDP),
            (f.node, BOUND_UDP, UDP),
            (f.node, BOUND_UDP, TCP),
            (f.pool, 53, UDP),
        ];
        let (address, port, protocol) = *listeners.choose(&mut self.rng).expect("a listener");
        let at = SocketAddr::new(address, port);
        if protocol == UDP {
            return Wire::udp(client, at);
        }
        let fits = self.rng.random_ratio(3, 4);
        let acknowledgement = if fits { SEQUENCE + 1 } else { self.rng.random() };
        Wire { acknowledgement, ..Wire::tcp(client, at, self.flags()) }
    }

    fn target_packet(&mut self) -> Wire {
        let reached = self.recent.choose(&mut self.rng).expect("somebody spoke").clone();
        self.answer(&reached)
    }

    fn answer(&mut self, reached: &Wire) -> Wire {
        let flags =
            if reached.flags & SYN != 0 && self.rng.random_ratio(2, 3) { SYN | ACK } else { self.flags() };
        let flags = if flags & (SYN | ACK) == SYN { ACK } else { flags };
        let answer = Wire::tcp(reached.destination, reached.source, flags);
        Wire { sequence: SEQUENCE, protocol: reached.protocol, ..answer }
    }

    /// What no flow has to do with: other protocols, ports, addresses, shapes.
    fn stranger(&mut self) -> (Direction, Wire) {
        let client = self.client();
        let f = &self.families[usize::from(client.is_ipv6())];
        let (pool, node, pod) = (f.pool, f.node, f.pods[0]);
        let icmp = if client.is_ipv4() { 1 } else { 58 };
        let to = |address, port| Wire::tcp(client, SocketAddr::new(address, port), SYN);
        let fragment = |wire| Wire { fragment: 0x2000, extensions: vec![Extension::Fragment(1)], ..wire };
        match self.rng.random_range(0..11) {
            0 => (Direction::Ingress, fragment(to(pool, 443))),
            1 => (Direction::Ingress, Wire { protocol: icmp, ..to(pool, 443) }),
            2 => (Direction::Ingress, Wire { protocol: 47, ..to(pool, 443) }),
            3 => (Direction::Ingress, Wire { cut: 12, ..to(pool, 443) }),
            4 => (Direction::Ingress, to(pool, 81)),
            5 => (Direction::Ingress, to(node, 22)),
            6 => (Direction::Ingress, Wire { protocol: icmp, ..to(node, 22) }),
            7 => (Direction::Ingress, to(pod, 8443)),
            8 => (Direction::Egress, Wire::tcp(SocketAddr::new(pod, 8443), client, ACK)),
            9 => (Direction::Egress, Wire::udp(SocketAddr::new(pod, 5353), client)),
            _ => (Direction::Egress, fragment(Wire::tcp(SocketAddr::new(pod, 8443), client, ACK))),
        }
    }

    /// A packet on the way that is not its own.
    fn misdirected(&mut self) -> (Direction, Wire) {
        let wire = self.client_packet();
        let back = Wire { source: wire.destination, destination: wire.source, ..wire.clone() };
        if self.rng.random() { (Direction::Egress, wire) } else { (Direction::Ingress, back) }
    }

    /// The same packet in another coat.
    fn dressed(&mut self, mut wire: Wire) -> Wire {
        let rng = &mut self.rng;
        if rng.random_ratio(1, 3) {
            wire.vlans = rng.random_range(0..4);
            wire.options = rng.random_range(0..11);
            wire.payload = (0..rng.random_range(0..300)).map(|_| rng.random()).collect();
            wire.unsummed = rng.random_ratio(1, 4);
            let some =
                [Extension::HopByHop(1), Extension::Routing, Extension::Destination, Extension::Fragment(0)];
            for _ in 0..rng.random_range(0..4) {
                wire.extensions.insert(0, *some.choose(rng).expect("an extension"));
            }
        }
        wire
    }

    fn mutate(&mut self, frame: &mut Vec<u8>) {
        let rng = &mut self.rng;
        if rng.random_ratio(1, 4) {
            frame.truncate(rng.random_range(14..frame.len()));
            return;
        }
        for _ in 0..rng.random_range(1..4) {
            // Headers are where it matters.
            let at = rng.random_range(12..frame.len().min(90));
            frame[at] = if rng.random() { rng.random() } else { frame[at] ^ 1 << rng.random_range(0..8) };
        }
    }

    fn entries(&self, mut change: impl FnMut(&mut Entry)) {
        for cell in self.scene.host.tables.iter().flatten() {
            let mut bucket = cell.get();
            bucket.entries.iter_mut().filter(|entry| entry.tag != 0).for_each(&mut change);
            cell.set(bucket);
        }
    }

    fn release(&mut self) {
        self.entries(|entry| {
            if entry.tag == BUSY {
                *entry = Default::default();
            }
        });
    }

    fn lose_entries(&mut self) {
        let table = *TABLES.choose(&mut self.rng).expect("a table");
        let all = self.rng.random_ratio(1, 4);
        let mut dice = StdRng::seed_from_u64(self.rng.random());
        for cell in &self.scene.host.tables[table as usize] {
            let mut bucket = cell.get();
            bucket
                .entries
                .iter_mut()
                .filter(|_| all || dice.random_ratio(1, 4))
                .for_each(|entry| entry.tag = 0);
            cell.set(bucket);
        }
    }

    /// States and times that no story would have led to.
    fn colour_entries(&mut self) {
        let mut dice = StdRng::seed_from_u64(self.rng.random());
        self.entries(|entry| {
            if dice.random_ratio(1, 3) {
                entry.life.state ^= dice.random::<u32>() & dice.random::<u32>() & STATES;
                entry.life.seen = NOW.wrapping_sub(dice.random_range(0..400 * HZ));
            }
            if dice.random_ratio(1, 4) {
                entry.expect = dice.random();
            }
        });
    }

    /// Everything, or much, is being written by other CPUs.
    fn contend(&mut self) {
        let table = *TABLES.choose(&mut self.rng).expect("a table");
        let all = self.rng.random_ratio(2, 3);
        let mut dice = StdRng::seed_from_u64(self.rng.random());
        for cell in &self.scene.host.tables[table as usize] {
            let mut bucket = cell.get();
            bucket.entries.iter_mut().filter(|_| all || dice.random()).for_each(|entry| entry.tag = BUSY);
            cell.set(bucket);
        }
    }

    /// A table full of entries of every worth: whatever comes must push one out.
    fn crowd(&mut self) {
        let table = *TABLES.choose(&mut self.rng).expect("a table");
        let mut dice = StdRng::seed_from_u64(self.rng.random());
        for cell in &self.scene.host.tables[table as usize] {
            let mut bucket = cell.get();
            for entry in bucket.entries.iter_mut().filter(|entry| entry.tag == 0) {
                let worth = [0, state::KEEP, state::KEEP, state::TARGET_RST, state::DIRECT];
                *entry =
                    Entry { tag: dice.random_range(2..=u64::MAX), slot: dice.random_range(0..48), ..*entry };
                entry.life.state = *worth.choose(&mut dice).expect("a state");
                entry.life.seen = NOW.wrapping_sub(dice.random_range(0..400 * HZ));
            }
            cell.set(bucket);
        }
    }

    /// Takes every port that a client's new flow could have with its pod port.
    fn exhaust(&mut self) {
        let client = self.client();
        let pool = self.families[usize::from(client.is_ipv6())].pool;
        let wire = Wire::tcp(client, SocketAddr::new(pool, 443), SYN);
        let trial = self.scene.clone();
        for _ in 0..5 {
            trial.ingress(&wire.frame());
            trial.lose(Table::HalfFlows);
            for cell in &trial.host.tables[Table::HalfReplies as usize] {
                let mut bucket = cell.get();
                for entry in bucket.entries.iter_mut().filter(|entry| entry.tag > 1) {
                    (entry.slot, entry.life.state, entry.life.seen) = (NO_SLOT, state::DIRECT, NOW);
                }
                cell.set(bucket);
            }
        }
        self.scene.host.tables[3].clone_from(&trial.host.tables[3]);
        for number in 0..4 {
            self.due.push((Direction::Ingress, Wire { sequence: number, ..wire.clone() }));
        }
    }
}
