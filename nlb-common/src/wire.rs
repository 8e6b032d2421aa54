//! Packets for tests, from a description to bytes: every checksum computed in full, by nothing that the packet path uses.

use crate::layout::{TCP, UDP};
use std::net::{IpAddr, SocketAddr};
use std::vec;
use std::vec::Vec;

/// An IPv6 extension header (RFC 8200 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Hop-by-hop options of this many units of eight bytes beyond the first.
    HopByHop(u8),
    /// A routing header.
    Routing,
    /// Destination options.
    Destination,
    /// A fragment header with this fragment field: offset and "more" bit; 0 is an atomic fragment.
    Fragment(u16),
}

/// A packet as a person would describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port, of the source's family.
    pub destination: SocketAddr,
    /// IP protocol number; neither TCP nor UDP: the payload follows the IP header.
    pub protocol: u8,
    /// TCP flags.
    pub flags: u8,
    /// TCP sequence number.
    pub sequence: u32,
    /// TCP acknowledgement number.
    pub acknowledgement: u32,
    /// VLAN tags, 0 to 3; two or more begin with a service tag.
    pub vlans: u8,
    /// IPv4: words of options, 0 to 10.
    pub options: u8,
    /// IPv4: the fragment field.
    pub fragment: u16,
    /// IPv6: extension headers, in their order.
    pub extensions: Vec<Extension>,
    /// UDP without a checksum.
    pub unsummed: bool,
    /// What is carried.
    pub payload: Vec<u8>,
    /// Bytes cut off from the end of the frame, lengths and checksums being those of the whole.
    pub cut: usize,
}

impl Wire {
    /// A TCP segment.
    pub fn tcp(source: SocketAddr, destination: SocketAddr, flags: u8) -> Self {
        Self {
            source,
            destination,
            protocol: TCP,
            flags,
            sequence: 1000,
            acknowledgement: 0,
            vlans: 0,
            options: 0,
            fragment: 0,
            extensions: Vec::new(),
            unsummed: false,
            payload: b"payload".to_vec(),
            cut: 0,
        }
    }

    /// A UDP datagram.
    pub fn udp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self { protocol: UDP, ..Self::tcp(source, destination, 0) }
    }

    /// Its bytes, from the Ethernet header on.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in (0..self.vlans).rev() {
            frame.extend(if tag > 0 { [0x88, 0xa8, 0, 7 + tag] } else { [0x81, 0x00, 0x20, 7] });
        }
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00]);
                self.ipv4(&mut frame, source.octets(), destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd]);
                self.ipv6(&mut frame, source.octets(), destination.octets());
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                panic!("two families in one packet")
            }
        }
        frame.truncate(frame.len().saturating_sub(self.cut));
        frame
    }

    fn ipv4(&self, frame: &mut Vec<u8>, source: [u8; 4], destination: [u8; 4]) {
        let header = 20 + 4 * usize::from(self.options);
        let transport = self.transport(&[source, destination].concat());
        let length = ((header + transport.len()) as u16).to_be_bytes();
        let fragment = self.fragment.to_be_bytes();
        let mut ip =
            vec![0x40 | (header / 4) as u8, 0, length[0], length[1], 0x12, 0x34, fragment[0], fragment[1]];
        ip.extend([64, self.protocol, 0, 0]);
        ip.extend(source);
        ip.extend(destination);
        ip.resize(header, 1);
        let sum = sum(&ip).to_be_bytes();
        ip[10..12].copy_from_slice(&sum);
        frame.extend(ip);
        frame.extend(transport);
    }

    fn ipv6(&self, frame: &mut Vec<u8>, source: [u8; 16], destination: [u8; 16]) {
        let transport = self.transport(&[source, destination].concat());
        let kinds: Vec<u8> = self.extensions.iter().map(|e| e.kind()).chain([self.protocol]).collect();
        let extensions: Vec<u8> =
            self.extensions.iter().zip(&kinds[1..]).flat_map(|(e, next)| e.bytes(*next)).collect();
        let length = ((extensions.len() + transport.len()) as u16).to_be_bytes();
        frame.extend([0x60, 0, 0, 0, length[0], length[1], kinds[0], 64]);
        frame.extend(source);
        frame.extend(destination);
        frame.extend(extensions);
        frame.extend(transport);
    }

    fn transport(&self, addresses: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let ports = [self.source.port().to_be_bytes(), self.destination.port().to_be_bytes()].concat();
        let at = match self.protocol {
            TCP => {
                bytes.extend(ports);
                bytes.extend(self.sequence.to_be_bytes());
                bytes.extend(self.acknowledgement.to_be_bytes());
                bytes.extend([0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
                16
            }
            UDP => {
                bytes.extend(ports);
                bytes.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                bytes.extend([0, 0]);
                6
            }
            _ => return self.payload.clone(),
        };
        bytes.extend(&self.payload);
        if !(self.protocol == UDP && self.unsummed) {
            let length = (bytes.len() as u32).to_be_bytes();
            let pseudo = [addresses, &length, &[0, 0, 0, self.protocol]].concat();
            let whole = sum(&[pseudo, bytes.clone()].concat());
            let whole = if self.protocol == UDP && whole == 0 { 0xffff } else { whole };
            bytes[at..at + 2].copy_from_slice(&whole.to_be_bytes());
        }
        bytes
    }
}

impl Extension {
    fn kind(self) -> u8 {
        match self {
            Self::HopByHop(_) => 0,
            Self::Routing => 43,
            Self::Destination => 60,
            Self::Fragment(_) => 44,
        }
    }

    fn bytes(self, next: u8) -> Vec<u8> {
        match self {
            // One option that pads the rest (RFC 8200 section 4.2).
            Self::HopByHop(units) => {
                let mut bytes = vec![0; 8 + 8 * usize::from(units)];
                bytes[0..4].copy_from_slice(&[next, units, 1, 4]);
                bytes
            }
            Self::Destination => vec![next, 0, 1, 4, 0, 0, 0, 0],
            Self::Routing => vec![next, 0, 4, 0, 0, 0, 0, 0],
            Self::Fragment(field) => {
                [&[next, 0][..], &field.to_be_bytes(), &0x1234_5678_u32.to_be_bytes()].concat()
            }
        }
    }
}

/// The Internet checksum of bytes (RFC 1071), the field itself being zero.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
