//! The flow rules, one story each: a table of packets, and of what becomes of each of them.
//!
//! Every story is played over IPv4 and IPv6. Time is in milliseconds and passes only where a story says so.

mod closing;
mod establishing;
mod idle;
mod losing;
mod node;
mod sharing;

use crate::layout::{TCP, UDP};
use crate::parse::tcp::{ACK, FIN, RST, SYN};
use crate::reasons::Reason;
use crate::scene::{HZ, Scene};
use crate::tables::Table;
use crate::wire::Wire;
use std::format;
use std::net::{IpAddr, SocketAddr};
use std::string::String;
use std::vec::Vec;

/// Sequence number of a target's SYN-ACK.
const SEQUENCE: u32 = 7000;

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The client sends a SYN.
    Syn,
    /// The client acknowledges the SYN-ACK.
    Ack,
    /// The client acknowledges what nobody sent.
    WrongAck,
    /// The client sends a FIN.
    Fin,
    /// The client sends a RST.
    Rst,
    /// The client sends a datagram, or a segment that acknowledges data.
    Data,
    /// This target sends a SYN-ACK to the client's port as it knows it.
    SynAck(usize),
    /// This target sends a datagram or a segment.
    Answer(usize),
    /// This target sends a FIN.
    TargetFin(usize),
    /// This target sends a RST.
    TargetRst(usize),
    /// Milliseconds pass.
    Wait(u32),
    /// The ring gives this target to everybody.
    Aim(usize),
    /// This target's slot is freed.
    Gone(usize),
    /// A table loses all that it holds.
    Lose(Table),
}

/// What is seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum See {
    /// Nothing: no packet.
    Nothing,
    /// The packet reached this target, readdressed, all checksums right.
    At(usize),
    /// The packet reached the client, from the VIP, all checksums right.
    Back,
    /// The packet went on as it was, for this reason.
    Untouched(Reason),
    /// The packet was dropped, for this reason.
    Dropped(Reason),
}
use See::{At, Back, Dropped, Nothing, Untouched};
use Step::{Ack, Aim, Answer, Data, Fin, Gone, Lose, Rst, Syn, SynAck, TargetFin, TargetRst, Wait, WrongAck};

/// One client, one listener with two targets (slots 0 and 1), and what the wire shows.
struct Story {
    scene: Scene,
    protocol: u8,
    client: SocketAddr,
    vip: SocketAddr,
    targets: [SocketAddr; 2],
    /// The client's port as each target knows it.
    known_as: [u16; 2],
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().expect("an address"), port)
}

impl Story {
    fn new(protocol: u8, v6: bool) -> Self {
        let [client, vip, a, b] = if v6 {
            ["2001:db8:c::7", "2001:db8:f::10", "fd00:244::11", "fd00:244::12"]
        } else {
            ["198.51.100.7", "203.0.113.10", "10.244.1.11", "10.244.1.12"]
        };
        let mut story = Self {
            scene: Scene::default(),
            protocol,
            client: at(client, 40_000),
            vip: at(vip, 443),
            targets: [at(a, 8443), at(b, 8443)],
            known_as: [40_000; 2],
        };
        story.scene.vip(story.vip.ip(), false);
        story.scene.listener(story.vip, protocol, if protocol == TCP { 350 } else { 120 }, &story.targets);
        story.scene.aim(0, &[0]);
        story
    }

    fn packet(&self, source: SocketAddr, destination: SocketAddr, flags: u8) -> Wire {
        let wire = Wire::tcp(source, destination, flags);
        Wire { protocol: self.protocol, sequence: SEQUENCE, ..wire }
    }

    /// A client's packet: which target it reached, if any.
    fn client(&mut self, flags: u8, acknowledgement: u32) -> See {
        let wire = Wire { acknowledgement, ..self.packet(self.client, self.vip, flags) };
        let (reason, out) = self.scene.ingress(&wire.frame());
        if reason != Reason::Forwarded {
            assert_eq!(out, wire.frame(), "changed and yet not forwarded");
            return if reason.is_drop() { Dropped(reason) } else { Untouched(reason) };
        }
        let transport = if self.client.is_ipv4() { 34 } else { 54 };
        let port = u16::from_be_bytes([out[transport], out[transport + 1]]);
        let source = SocketAddr::new(self.client.ip(), port);
        let reached =
            |target: SocketAddr| Wire { source, destination: target, ..wire.clone() }.frame() == out;
        let number = self.targets.into_iter().position(reached).expect("a target's packet, whole");
        self.known_as[number] = port;
        At(number)
    }

    /// A target's packet: whether it reached the client as from the VIP.
    fn target(&self, number: usize, flags: u8) -> See {
        let seen = SocketAddr::new(self.client.ip(), self.known_as[number]);
        let wire = self.packet(self.targets[number], seen, flags);
        let (reason, out) = self.scene.egress(&wire.frame());
        if reason != Reason::Replied {
            assert_eq!(out, wire.frame(), "changed and yet not ours");
            return Untouched(reason);
        }
        assert_eq!(out, Wire { source: self.vip, destination: self.client, ..wire }.frame());
        Back
    }

    fn step(&mut self, step: Step) -> See {
        match step {
            Syn => self.client(SYN, 0),
            Ack => self.client(ACK, SEQUENCE + 1),
            WrongAck => self.client(ACK, SEQUENCE + 2),
            Data => self.client(ACK, SEQUENCE + 500),
            Fin => self.client(FIN | ACK, SEQUENCE + 500),
            Rst => self.client(RST, 0),
            SynAck(number) => self.target(number, SYN | ACK),
            Answer(number) => self.target(number, ACK),
            TargetFin(number) => self.target(number, FIN | ACK),
            TargetRst(number) => self.target(number, RST),
            Wait(milliseconds) => self.quietly(|s| s.scene.age(milliseconds * HZ / 1000)),
            Aim(number) => self.quietly(|s| s.scene.aim(0, &[number as u32])),
            Gone(number) => self.quietly(|s| s.scene.free(number as u32)),
            Lose(table) => self.quietly(|s| s.scene.lose(table)),
        }
    }

    fn quietly(&mut self, change: impl FnOnce(&mut Self)) -> See {
        change(self);
        Nothing
    }

    #[track_caller]
    fn play(&mut self, steps: &[(Step, See)]) {
        for (number, (step, expected)) in steps.iter().enumerate() {
            let seen = self.step(*step);
            assert_eq!(
                seen,
                *expected,
                "step {number}, {step:?}, {}; so far {}",
                self.family(),
                self.tables()
            );
        }
    }

    fn family(&self) -> &str {
        if self.client.is_ipv4() { "IPv4" } else { "IPv6" }
    }

    fn tables(&self) -> String {
        format!("{:?}", crate::scene::TABLES.map(|table| self.scene.host.entries(table)))
    }

    /// Entries in `flows`, `replies`, `half_flows`, `half_replies`.
    fn sizes(&self) -> [usize; 4] {
        crate::scene::TABLES.map(|table| self.scene.host.entries(table).len())
    }

    fn counted(&self, reason: Reason) -> u64 {
        self.scene.counted(reason)
    }
}

/// Plays a TCP story in both families, and returns how it ended.
#[track_caller]
fn tell(steps: &[(Step, See)]) -> Vec<Story> {
    told(TCP, steps)
}

/// Plays a story in both families, and returns how it ended.
#[track_caller]
fn told(protocol: u8, steps: &[(Step, See)]) -> Vec<Story> {
    [false, true]
        .into_iter()
        .map(|v6| {
            let mut story = Story::new(protocol, v6);
            story.play(steps);
            story
        })
        .collect()
}

/// What it takes to establish a TCP flow to target 0.
const ESTABLISHED: [(Step, See); 3] = [(Syn, At(0)), (SynAck(0), Back), (Ack, At(0))];

/// Plays a story that begins with an established TCP flow to target 0, while the ring has moved on to target 1.
#[track_caller]
fn afterwards(steps: &[(Step, See)]) -> Vec<Story> {
    tell(&[&ESTABLISHED[..], &[(Aim(1), Nothing)], steps].concat())
}
