//! The bytes of one packet, as the story in [`decide`](crate::decide) sees them.

use crate::address::Words;
use crate::checksum::Delta;
use crate::parse::Packet;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Where a header's fields begin at most: beyond it a packet counts as cut off.
pub const FARTHEST: usize = 1 << 11;

/// Which end of a packet gets another address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The source: a reply gets its VIP back.
    Source,
    /// The destination: a client's packet gets its target.
    Destination,
}

/// What a packet is to carry afterwards. `end` gets `address` and `port`, the other end keeps its address and gets `other_port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readdress {
    /// The end that changes.
    pub end: End,
    /// Its new address, of the packet's own family.
    pub address: Words,
    /// Its new port, host byte order.
    pub port: u16,
    /// The port of the other end, host byte order; the present one to leave it.
    pub other_port: u16,
}

/// One packet. Offsets count from the first byte of its Ethernet header.
pub trait Frame {
    /// Copies out a header; `None` where the packet ends before it does.
    fn read<T: FromBytes + Immutable>(&self, offset: usize) -> Option<T>;

    /// Changes address and ports together with every checksum that covers them; `None` if the packet is cut off.
    fn readdress(&mut self, packet: &Packet, change: &Readdress) -> Option<()>;

    /// Packets on the wire that this one stands for (a segmentation offload's), at least 1.
    fn segments(&self) -> u32;
}

/// A frame whose bytes may be written where they are: all but those at TC egress, which carry partial checksums.
pub trait Bytes: Frame {
    /// Writes a field; `None` where the packet ends before it does.
    fn write<T: IntoBytes + Immutable + Copy>(&mut self, offset: usize, value: T) -> Option<()>;
}

/// [`Frame::readdress`] by RFC 1624, on the bytes.
#[inline(always)]
pub fn readdress<B: Bytes>(frame: &mut B, packet: &Packet, change: &Readdress) -> Option<()> {
    let (old_address, old_port, other_port, address_at, port_at, other_at) = packet.side(change.end);
    let mut addresses = Delta::default();
    if packet.network.ipv4 {
        addresses = addresses.word(old_address[3], change.address[3]);
        frame.write(address_at, change.address[3])?;
        let checksum: u16 = frame.read(packet.network.offset + 10)?;
        frame.write(packet.network.offset + 10, addresses.apply(checksum))?;
    } else {
        for (old, new) in old_address.into_iter().zip(change.address) {
            addresses = addresses.word(old, new);
        }
        frame.write(address_at, change.address)?;
    }
    let all = addresses
        .half(old_port.to_be(), change.port.to_be())
        .half(other_port.to_be(), change.other_port.to_be());
    frame.write(port_at, change.port.to_be())?;
    if change.other_port != other_port {
        frame.write(other_at, change.other_port.to_be())?;
    }
    let checksum: u16 = frame.read(packet.checksum_at())?;
    // A UDP datagram without a checksum stays without (RFC 768, RFC 6935); 0 is never the sum of one that has it.
    if packet.is_udp() && checksum == 0 {
        return Some(());
    }
    let checksum = all.apply(checksum);
    frame.write(packet.checksum_at(), if packet.is_udp() && checksum == 0 { 0xffff } else { checksum })
}
