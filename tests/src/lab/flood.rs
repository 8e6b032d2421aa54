//! Forged packets from addresses that do not exist, as fast as a link takes them without losing others' packets.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result};
use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, Socket, Type};

use super::{CLIENT, Lab, UPLINK};

/// The range that forged packets come from; the node believes it to be behind the client.
const RANGE: &str = "100.64.0.0/10";
/// The first address of that range.
const FIRST: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
/// Packets sent in one go: less than the queue of a veth device with an XDP program holds.
const BURST: u32 = 48;
/// Between two bursts.
const PAUSE: Duration = Duration::from_millis(1);

/// What is forged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forged {
    /// A SYN each.
    Syn,
    /// A SYN each, and an ACK with a guessed number.
    Pair,
    /// An ACK of no conversation each.
    Ack,
    /// A datagram each.
    Datagram,
}

/// Lets the answers to forged packets go the way that clients' answers go, to end at the client.
pub fn prepare(lab: &Lab) -> Result<()> {
    lab.client.sysctl("net.ipv4.ip_forward", "0")?;
    lab.node.ip(&["route", "add", RANGE, "via", &CLIENT.0.to_string(), "dev", UPLINK])
}

/// Sends `flows` forged flows to `to`, each with an address and port of its own, numbered from `first`; returns how
/// many packets that were.
pub fn send(to: SocketAddrV4, forged: Forged, first: u32, flows: u32) -> Result<u64> {
    // 255 is "raw": the IP header is ours, too.
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))
        .context("cannot make a raw socket")?;
    let mut sent = 0;
    for number in first..first + flows {
        for packet in packets(to, forged, number)? {
            socket.send_to(&packet, &SocketAddr::V4(to).into()).context("cannot send a forged packet")?;
            sent += 1;
        }
        if number % BURST == 0 {
            std::thread::sleep(PAUSE);
        }
    }
    Ok(sent)
}

fn packets(to: SocketAddrV4, forged: Forged, number: u32) -> Result<Vec<Vec<u8>>> {
    let source = Ipv4Addr::from(u32::from(FIRST) + 1 + number).octets();
    let port = 1024 + (number.wrapping_mul(7919) % 60_000) as u16;
    let base = || PacketBuilder::ipv4(source, to.ip().octets(), 64);
    let tcp = || base().tcp(port, to.port(), number, 64_240);
    let mut packets = vec![Vec::new()];
    match forged {
        Forged::Syn => tcp().syn().write(&mut packets[0], &[])?,
        Forged::Pair => {
            tcp().syn().write(&mut packets[0], &[])?;
            packets.push(Vec::new());
            base().tcp(port, to.port(), number + 1, 64_240).ack(number).write(&mut packets[1], &[])?;
        }
        Forged::Ack => tcp().ack(number).write(&mut packets[0], &[])?,
        Forged::Datagram => base().udp(port, to.port()).write(&mut packets[0], b"forged")?,
    }
    Ok(packets)
}
