//! From bytes to a [`Packet`]: Ethernet, up to two VLAN tags, IPv4 with options, IPv6 with extension headers, TCP and UDP.

use crate::address::{MAPPED, Words};
use crate::frame::{End, FARTHEST, Frame};
use crate::hash::Tuple;
use crate::layout::{TCP, UDP};
use zerocopy::{FromBytes, Immutable};

/// ICMP (RFC 792) and ICMPv6 (RFC 4443).
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// TCP flag bits (RFC 9293 section 3.1).
pub mod tcp {
    #![expect(missing_docs, reason = "the RFC's own names")]
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const ACK: u8 = 16;
}

/// The network layer of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Network {
    /// Where the IP header begins.
    pub offset: usize,
    /// True for IPv4.
    pub ipv4: bool,
    /// Source address.
    pub source: Words,
    /// Destination address.
    pub destination: Words,
    /// Bytes from the IP header on, as the header says.
    pub length: u32,
    /// IPv4: the header's length and its fragment field; IPv6: the first next-header value.
    first: First,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
struct First {
    header: usize,
    fragment: bool,
    next: u8,
}

/// A TCP or UDP packet that is no fragment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Packet {
    /// Its network layer.
    pub network: Network,
    /// Where its transport header begins.
    pub transport: usize,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// TCP flags; 0 for UDP.
    pub flags: u8,
    /// Source port, host byte order.
    pub source_port: u16,
    /// Destination port, host byte order.
    pub destination_port: u16,
    /// TCP sequence number, host byte order; 0 for UDP.
    pub sequence: u32,
    /// TCP acknowledgement number, host byte order; 0 for UDP.
    pub acknowledgement: u32,
}

/// What is above IP where it is not a whole TCP or UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// A piece of a datagram.
    Fragment,
    /// ICMP or ICMPv6.
    Icmp,
    /// Another protocol.
    Protocol,
    /// The headers are cut off.
    Truncated,
}

#[derive(FromBytes, Immutable)]
#[repr(C)]
struct Ipv4Header {
    version_ihl: u8,
    _tos: u8,
    length: u16,
    _id: u16,
    fragment: u16,
    _ttl: u8,
    protocol: u8,
    _checksum: u16,
    source: u32,
    destination: u32,
}

#[derive(FromBytes, Immutable)]
#[repr(C)]
struct Ipv6Header {
    version: u8,
    _class_flow: [u8; 3],
    payload: u16,
    next: u8,
    _hops: u8,
    source: Words,
    destination: Words,
}

#[derive(FromBytes, Immutable)]
#[repr(C)]
struct TcpHeader {
    source_port: u16,
    destination_port: u16,
    sequence: u32,
    acknowledgement: u32,
    offset: u8,
    flags: u8,
    _window: u16,
    _checksum: u16,
    _urgent: u16,
}

#[derive(FromBytes, Immutable)]
#[repr(C)]
struct UdpHeader {
    source_port: u16,
    destination_port: u16,
    _length: u16,
    _checksum: u16,
}

const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();
const VLAN: u16 = 0x8100_u16.to_be();
const SERVICE_VLAN: u16 = 0x88a8_u16.to_be();

/// The network layer; `None` for what is not IP or not whole: the host's own business.
#[inline(always)]
pub fn network<F: Frame>(frame: &F) -> Option<Network> {
    let mut ethertype: u16 = frame.read(12)?;
    let mut offset = 14;
    for _ in 0..2 {
        if ethertype == VLAN || ethertype == SERVICE_VLAN {
            ethertype = frame.read(offset + 2)?;
            offset += 4;
        }
    }
    match ethertype {
        IPV4 => ipv4(frame, offset),
        IPV6 => ipv6(frame, offset),
        _ => None,
    }
}

#[inline(always)]
fn ipv4<F: Frame>(frame: &F, offset: usize) -> Option<Network> {
    let h: Ipv4Header = frame.read(offset)?;
    let header = (h.version_ihl as usize & 15) * 4;
    if h.version_ihl >> 4 != 4 || header < 20 {
        return None;
    }
    Some(Network {
        offset,
        ipv4: true,
        source: [0, 0, MAPPED, h.source],
        destination: [0, 0, MAPPED, h.destination],
        length: u32::from(u16::from_be(h.length)),
        first: First { header, fragment: h.fragment & 0x3fff_u16.to_be() != 0, next: h.protocol },
    })
}

/// An IPv4 address where only IPv6 belongs: nothing that a wire may carry, and it must not be taken for that IPv4 address.
#[inline(always)]
fn is_mapped(address: &Words) -> bool {
    address[2] == MAPPED && address[0] | address[1] == 0
}

#[inline(always)]
fn ipv6<F: Frame>(frame: &F, offset: usize) -> Option<Network> {
    let h: Ipv6Header = frame.read(offset)?;
    if h.version >> 4 != 6 || is_mapped(&h.source) || is_mapped(&h.destination) {
        return None;
    }
    Some(Network {
        offset,
        ipv4: false,
        source: h.source,
        destination: h.destination,
        length: u32::from(u16::from_be(h.payload)) + 40,
        first: First { header: 40, fragment: false, next: h.next },
    })
}

/// The transport layer, above the packet's network layer.
#[inline(always)]
pub fn transport<F: Frame>(frame: &F, packet: &mut Packet) -> Result<(), Other> {
    let network = &packet.network;
    let mut next = network.first.next;
    let mut at = network.offset + network.first.header;
    let mut fragment = network.first.fragment;
    if !network.ipv4 && next != TCP && next != UDP {
        (next, at, fragment) = extensions(frame, next, at)?;
    }
    if fragment {
        return Err(Other::Fragment);
    }
    match next {
        TCP => segment(frame, packet, at),
        UDP => datagram(frame, packet, at),
        ICMP | ICMP6 => Err(Other::Icmp),
        _ => Err(Other::Protocol),
    }
}

/// Steps over IPv6 extension headers (RFC 8200 section 4): at most six, which is more than any real packet has.
#[inline(always)]
fn extensions<F: Frame>(frame: &F, mut next: u8, mut at: usize) -> Result<(u8, usize, bool), Other> {
    let mut fragment = false;
    for _ in 0..6 {
        match next {
            0 | 43 | 60 => {
                let h: [u8; 2] = frame.read(at).ok_or(Other::Truncated)?;
                next = h[0];
                at += (h[1] as usize + 1) * 8;
            }
            44 => {
                let h: [u8; 4] = frame.read(at).ok_or(Other::Truncated)?;
                next = h[0];
                fragment = u16::from_be_bytes([h[2], h[3]]) & 0xfff9 != 0;
                at += 8;
                if fragment {
                    // What follows may be the middle of anything.
                    break;
                }
            }
            _ => break,
        }
        if at > FARTHEST {
            return Err(Other::Truncated);
        }
    }
    Ok((next, at, fragment))
}

#[inline(always)]
fn segment<F: Frame>(frame: &F, packet: &mut Packet, at: usize) -> Result<(), Other> {
    let h: TcpHeader = frame.read(at).ok_or(Other::Truncated)?;
    packet.transport = at;
    packet.protocol = TCP;
    packet.flags = h.flags;
    packet.source_port = u16::from_be(h.source_port);
    packet.destination_port = u16::from_be(h.destination_port);
    packet.sequence = u32::from_be(h.sequence);
    packet.acknowledgement = u32::from_be(h.acknowledgement);
    Ok(())
}

#[inline(always)]
fn datagram<F: Frame>(frame: &F, packet: &mut Packet, at: usize) -> Result<(), Other> {
    let h: UdpHeader = frame.read(at).ok_or(Other::Truncated)?;
    packet.transport = at;
    packet.protocol = UDP;
    packet.flags = 0;
    packet.source_port = u16::from_be(h.source_port);
    packet.destination_port = u16::from_be(h.destination_port);
    packet.sequence = 0;
    packet.acknowledgement = 0;
    Ok(())
}

impl Packet {
    /// True for UDP.
    #[inline(always)]
    pub fn is_udp(&self) -> bool {
        self.protocol == UDP
    }

    /// A TCP SYN without ACK: somebody wants a new connection.
    #[inline(always)]
    pub fn is_syn(&self) -> bool {
        self.protocol == TCP && self.flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN
    }

    /// A TCP segment that begins no connection.
    #[inline(always)]
    pub fn is_middle(&self) -> bool {
        self.protocol == TCP && !self.is_syn()
    }

    /// A TCP SYN-ACK.
    #[inline(always)]
    pub fn is_syn_ack(&self) -> bool {
        self.flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN | tcp::ACK
    }

    /// True if any of these TCP flags is set.
    #[inline(always)]
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// The 5-tuple.
    #[inline(always)]
    pub fn tuple(&self) -> Tuple {
        Tuple {
            source: self.network.source,
            destination: self.network.destination,
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol: self.protocol,
            ipv4: self.network.ipv4,
        }
    }

    /// Where the transport checksum stands.
    #[inline(always)]
    pub fn checksum_at(&self) -> usize {
        self.transport + if self.protocol == UDP { 6 } else { 16 }
    }

    /// Of one end: its address and port, the other end's port, and where these three stand in the frame.
    #[inline(always)]
    pub fn side(&self, end: End) -> (Words, u16, u16, usize, usize, usize) {
        let n = &self.network;
        let (source_at, size) = if n.ipv4 { (n.offset + 12, 4) } else { (n.offset + 8, 16) };
        match end {
            End::Source => (
                n.source,
                self.source_port,
                self.destination_port,
                source_at,
                self.transport,
                self.transport + 2,
            ),
            End::Destination => (
                n.destination,
                self.destination_port,
                self.source_port,
                source_at + size,
                self.transport + 2,
                self.transport,
            ),
        }
    }
}
