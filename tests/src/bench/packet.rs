//! Nanoseconds per packet: each case beside the floor, several rounds, in test runs of the kernel.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use nlb_agent::bpf::OBJECT;
use nlb_common::address::Address;
use nlb_common::reasons::Reason;

use super::case::{CLIENTS, Case, HEADER_WORDS};
use super::figures::Packet;
use super::programs::{HALF_FLOWS, Programs};
use super::world::{self, Flow, Kind, World};

/// Times that each case is measured, each time beside the floor.
const ROUNDS: usize = 11;
/// Repetitions of a floor in one round.
const REPEAT: u32 = 1 << 18;
/// Entries of `flows` by default, and what the documentation recommends for a million live flows.
const DEFAULT_FLOWS: u32 = 1 << 20;
const LARGE_FLOWS: u32 = 1 << 21;

/// What is in the flow tables, and how it is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flows {
    /// None, and none are made.
    None,
    /// This many live ones, each heard of just now: their time lies ahead, so that it stays so however long a round takes.
    Live(usize),
    /// This many whose last packet was a second ago, so that each packet also refreshes its flow's entry.
    Idle(usize),
    /// Each packet begins one; the tables are empty at first and never full.
    New,
    /// Each packet begins one, in tables that are full of others.
    Flood,
}

/// The way of a case's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// From a client.
    In,
    /// From a target.
    Back,
}

/// A case.
#[derive(Clone, Copy, Debug)]
struct Plan {
    name: &'static str,
    kind: Kind,
    way: Way,
    flows: Flows,
    /// Addressed to no VIP.
    other: bool,
    large: bool,
}

impl Plan {
    const fn new(name: &'static str, kind: Kind, flows: Flows) -> Plan {
        Plan { name, kind, way: Way::In, flows, other: false, large: false }
    }

    const fn large(self) -> Plan {
        Plan { large: true, ..self }
    }

    const fn back(self) -> Plan {
        Plan { way: Way::Back, ..self }
    }
}

const FEW: Flows = Flows::Live(64);
const MANY: Flows = Flows::Live(1 << 16);
const MILLION: Flows = Flows::Live(CLIENTS);

/// The cases, in the order of the table; those of one object together.
const PLANS: &[Plan] = &[
    Plan { other: true, ..Plan::new("not-for-us", Kind::Tcp4, Flows::None) },
    Plan::new("tcp4-established", Kind::Tcp4, FEW),
    Plan::new("tcp6-established", Kind::Tcp6, FEW),
    Plan::new("udp4-established", Kind::Udp4, FEW),
    Plan::new("tcp4-established-64k", Kind::Tcp4, MANY),
    Plan::new("tcp6-established-64k", Kind::Tcp6, MANY),
    Plan::new("udp4-established-64k", Kind::Udp4, MANY),
    Plan::new("tcp4-new-flow", Kind::Tcp4, Flows::New),
    Plan::new("tcp4-new-flow-flood", Kind::Tcp4, Flows::Flood),
    Plan::new("reply-tcp4-established", Kind::Tcp4, FEW).back(),
    Plan::new("tcp4-established-1m", Kind::Tcp4, MILLION).large(),
    Plan::new("tcp6-established-1m", Kind::Tcp6, MILLION).large(),
    Plan::new("udp4-established-1m", Kind::Udp4, MILLION).large(),
    Plan::new("tcp4-established-1m-idle", Kind::Tcp4, Flows::Idle(CLIENTS)).large(),
    Plan::new("reply-tcp4-established-1m", Kind::Tcp4, MILLION).back().large(),
];
/// The product's own program and the same without its logging lines.
const LOG_CASES: [&str; 2] = ["not-for-us-log-off", "not-for-us-no-log"];

/// Measures the wanted cases; `programs` is the bench's object.
pub(crate) fn measure(programs: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Packet>> {
    let mut figures = Vec::new();
    for (large, flows) in [(false, DEFAULT_FLOWS), (true, LARGE_FLOWS)] {
        let plans: Vec<&Plan> =
            PLANS.iter().filter(|plan| plan.large == large && wanted(plan.name)).collect();
        let log = !large && LOG_CASES.into_iter().any(wanted);
        if plans.is_empty() && !log {
            continue;
        }
        let mut stage = Stage::new(Programs::from_file(programs, flows)?)?;
        eprintln!("bench: flow tables of {flows} entries");
        for plan in plans {
            let figure = stage.measure(plan).with_context(|| plan.name)?;
            eprintln!("bench: {}: {:.2} x the floor", figure.case, figure.ratio);
            figures.push(figure);
        }
        if log {
            figures.extend(without_log(&mut stage)?);
        }
    }
    Ok(figures)
}

struct Stage {
    programs: Programs,
    world: World,
}

/// What runs in one round: the case's program and the one that only restores, with what they share.
struct Runs {
    restore: &'static str,
    program: &'static str,
    /// What `restore` costs above being called is taken off.
    called: &'static str,
    packet: Vec<u8>,
    repeat: u32,
}

impl Stage {
    fn new(mut programs: Programs) -> Result<Stage> {
        let world = World::new(&mut programs)?;
        Ok(Stage { programs, world })
    }

    fn measure(&mut self, plan: &Plan) -> Result<Packet> {
        let ahead = self.programs.clock.now()?.wrapping_add(600 * self.programs.clock.second());
        let (flows, lost) = match plan.flows {
            Flows::Live(count) | Flows::Idle(count) => {
                self.world.populate(plan.kind, count, ahead, plan.way == Way::Back)?
            }
            Flows::None => (self.world.clients(plan.kind).take(64).collect(), 0),
            Flows::New | Flows::Flood => {
                self.world.clear();
                (self.world.clients(plan.kind).take(CLIENTS).collect(), 0)
            }
        };
        if lost > 0 {
            eprintln!("bench: {}: {lost} more flows found both their buckets full", plan.name);
        }
        let runs = self.prepare(plan, &flows)?;
        let before = self.programs.counter("bench_strays", 0)?;
        let mut rounds = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            self.before_round(plan, &runs)?;
            rounds.push(self.round(&runs)?);
        }
        let strays = self.programs.counter("bench_strays", 0)? - before;
        ensure!(strays == 0, "{strays} packets did not end as {:?}", plan.expected());
        Ok(Packet::new(plan.name, &rounds))
    }

    /// Writes the case's packet and clients, and looks at one packet that comes out.
    fn prepare(&mut self, plan: &Plan, flows: &[Flow]) -> Result<Runs> {
        let packet = plan.packet(&flows[0]);
        let order = world::mapped::<u64>(&self.programs, "bench_clients")?;
        (0_u32..).zip(flows).for_each(|(i, flow)| order.store(i, plan.client(flow)));
        let mut headers = [0; HEADER_WORDS];
        for (word, bytes) in headers.iter_mut().zip(packet[14..].chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().expect("four bytes"));
        }
        plan.blank(&mut headers);
        let (expected, mask) = (plan.expected() as u32, flows.len() as u32 - 1);
        world::set(&mut self.programs, "bench_case", words(&Case { headers, expected, mask, zero: 0 }))?;
        let (restore, program, called) = plan.programs();
        let repeat = match plan.flows {
            Flows::None | Flows::Flood => REPEAT,
            // Half as many as there is room for.
            Flows::New => HALF_FLOWS / 2,
            Flows::Live(count) => REPEAT.max(count as u32),
            Flows::Idle(count) => count as u32,
        };
        let out = self.programs.run(program, &packet, 1)?;
        plan.check(&out.packet)?;
        Ok(Runs { restore, program, called, packet, repeat })
    }

    /// Brings the tables to where the case wants them, and its part of them into the cache as far as it goes.
    fn before_round(&mut self, plan: &Plan, runs: &Runs) -> Result<()> {
        match plan.flows {
            Flows::New => self.world.clear(),
            Flows::Idle(count) => {
                let now = self.programs.clock.now()?.wrapping_sub(self.programs.clock.second());
                self.world.populate(plan.kind, count, now, false)?;
            }
            Flows::Flood => drop(self.programs.run(runs.program, &runs.packet, 4 * HALF_FLOWS)?),
            Flows::None | Flows::Live(_) => {}
        }
        Ok(())
    }

    /// The floor's and the case's nanoseconds.
    fn round(&self, runs: &Runs) -> Result<(f64, f64)> {
        let run =
            |name, repeat| Ok::<_, anyhow::Error>(self.programs.run(name, &runs.packet, repeat)?.nanoseconds);
        let floor = run("floor_tx", REPEAT)?;
        let called = run(runs.called, REPEAT)?;
        let restore = run(runs.restore, runs.repeat)?;
        let whole = run(runs.program, runs.repeat)?;
        Ok((floor, whole - (restore - called)))
    }
}

impl Plan {
    fn programs(&self) -> (&'static str, &'static str, &'static str) {
        match (self.way, self.kind) {
            (Way::In, Kind::Tcp4 | Kind::Udp4) => ("restore_ipv4", "ingress_ipv4", "floor_pass"),
            (Way::In, Kind::Tcp6) => ("restore_ipv6", "ingress_ipv6", "floor_pass"),
            (Way::Back, _) => ("restore_reply", "egress_ipv4", "floor_tc"),
        }
    }

    fn expected(&self) -> Reason {
        match (self.other, self.way) {
            (true, _) => Reason::NotForUs,
            (false, Way::In) => Reason::Forwarded,
            (false, Way::Back) => Reason::Replied,
        }
    }
}

/// The case as the map holds it.
fn words(case: &Case) -> [u32; HEADER_WORDS + 3] {
    let mut words = [0; HEADER_WORDS + 3];
    words[..HEADER_WORDS].copy_from_slice(&case.headers);
    words[HEADER_WORDS..].copy_from_slice(&[case.expected, case.mask, case.zero]);
    words
}

/// What leads a packet's Ethernet header: two addresses that mean nothing.
const MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
/// Bytes above the transport header.
const PAYLOAD: [u8; 26] = [0; 26];

impl Plan {
    /// A packet of this flow.
    fn packet(&self, flow: &Flow) -> Vec<u8> {
        let to_target = self.way == Way::In;
        let (server, port) = if to_target {
            (flow.slot.vip, flow.slot.vip_port)
        } else {
            (flow.slot.target, flow.slot.target_port)
        };
        let (client, server) = (flow.client.ip(), server.ip());
        // A documentation address that is nobody's VIP.
        let server = if self.other { IpAddr::from(Ipv4Addr::new(203, 0, 113, 9)) } else { server };
        let ((source, source_port), (destination, destination_port)) = if to_target {
            ((client, flow.port), (server, port))
        } else {
            ((server, port), (client, flow.port))
        };
        let ethernet = PacketBuilder::ethernet2(MACS.0, MACS.1);
        let network = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ethernet.ipv4(source.octets(), destination.octets(), 64)
            }
            (source, destination) => {
                let bytes = |ip| Address::from(ip).bytes;
                ethernet.ipv6(bytes(source), bytes(destination), 64)
            }
        };
        let mut packet = Vec::new();
        if self.kind == Kind::Udp4 {
            network.udp(source_port, destination_port).write(&mut packet, &PAYLOAD)
        } else {
            let tcp = network.tcp(source_port, destination_port, 1, 65535);
            let begins = matches!(self.flows, Flows::New | Flows::Flood);
            let tcp = if begins { tcp.syn() } else { tcp.ack(1) };
            tcp.write(&mut packet, &PAYLOAD)
        }
        .expect("a vector takes all that is written");
        packet
    }

    /// A client as the map `bench_clients` holds it.
    fn client(&self, flow: &Flow) -> u64 {
        let [low, high] = match self.way {
            Way::In => [flow.port.to_be(), 0],
            Way::Back => [0, flow.port.to_be()],
        };
        let ports = u32::from(low) | u32::from(high) << 16;
        u64::from(flow.client.words()[3]) | u64::from(ports) << 32
    }

    /// Takes the client's port out of the headers: each repetition puts another there.
    fn blank(&self, headers: &mut [u32; HEADER_WORDS]) {
        let word = if self.kind == Kind::Tcp6 { 10 } else { 5 };
        headers[word] &= if self.way == Way::In { 0xffff_0000 } else { 0x0000_ffff };
    }

    /// Looks at a packet that came out: it must be on its way to a target, from the VIP, or as it was.
    fn check(&self, packet: &[u8]) -> Result<()> {
        let sliced = SlicedPacket::from_ethernet(packet).context("what came out cannot be parsed")?;
        let (source, destination) = match sliced.net.context("what came out has no IP header")? {
            NetSlice::Ipv4(ip) => {
                (IpAddr::from(ip.header().source_addr()), IpAddr::from(ip.header().destination_addr()))
            }
            NetSlice::Ipv6(ip) => {
                (IpAddr::from(ip.header().source_addr()), IpAddr::from(ip.header().destination_addr()))
            }
            NetSlice::Arp(_) => anyhow::bail!("what came out is ARP"),
        };
        let (from, to) = match sliced.transport.context("what came out has no transport header")? {
            TransportSlice::Tcp(tcp) => (tcp.source_port(), tcp.destination_port()),
            TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port()),
            other => anyhow::bail!("what came out is {other:?}"),
        };
        let listener = self.kind.listener();
        let right = match (self.other, self.way) {
            (true, _) => to == listener.port,
            (false, Way::In) => self.kind.is_target(destination, to),
            (false, Way::Back) => (source, from) == (listener.vip.ip(), listener.port),
        };
        ensure!(right, "a packet came out from {source} port {from} to {destination} port {to}");
        Ok(())
    }
}

/// The product's program with its logging off, and the same program without a logging line, on one packet.
fn without_log(stage: &mut Stage) -> Result<Vec<Packet>> {
    ensure!(!OBJECT.is_empty(), "this bench was built without the eBPF object: run `cargo xtask bench`");
    let mut product = Programs::load(OBJECT, DEFAULT_FLOWS)?;
    World::new(&mut product)?;
    let plan = PLANS.iter().find(|plan| plan.other).context("no case is for others")?;
    let flow = stage.world.clients(plan.kind).next().context("there are no clients")?;
    let packet = plan.packet(&flow);
    let mut rounds = [Vec::new(), Vec::new()];
    let pair = [(&product, "nlb_xdp"), (&stage.programs, "without_log")];
    for _ in 0..ROUNDS {
        let floor = stage.programs.run("floor_tx", &packet, REPEAT)?.nanoseconds;
        for ((programs, name), rounds) in pair.iter().zip(&mut rounds) {
            let counted = || programs.counter("reasons", Reason::NotForUs as u32);
            let before = counted()?;
            rounds.push((floor, programs.run(name, &packet, REPEAT)?.nanoseconds));
            let passed = counted()? - before;
            ensure!(passed == u64::from(REPEAT), "{name} left {passed} of {REPEAT} packets alone");
        }
    }
    for (programs, name) in pair {
        let size = programs.size(name)?;
        eprintln!(
            "bench: {name}: {} instructions after pruning, {} bytes of machine code, {} verified",
            size.translated, size.machine, size.verified
        );
    }
    Ok(LOG_CASES.iter().zip(&rounds).map(|(name, rounds)| Packet::new(name, rounds)).collect())
}
