//! What a frame is, and whether its checksums are right, by a crate that has nothing to do with the packet path.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nlb_common::parse::tcp::{ACK, SYN};
use nlb_common::wire::Wire;
use std::net::{IpAddr, SocketAddr};

/// True if the frame is a whole TCP or UDP packet and every checksum of it is right; `None` if it is something else.
pub fn is_sound(frame: &[u8]) -> Option<bool> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (net, transport) = (packet.net?, packet.transport?);
    let (written, wanted) = match (&net, &transport) {
        (NetSlice::Ipv4(ip), TransportSlice::Tcp(tcp)) => {
            let (header, ip) = (tcp.to_header(), ip.header());
            let wanted = header.calc_checksum_ipv4_raw(ip.source(), ip.destination(), tcp.payload());
            (header.checksum, wanted.ok()?)
        }
        (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => {
            let (header, ip) = (udp.to_header(), ip.header());
            let wanted = header.calc_checksum_ipv4_raw(ip.source(), ip.destination(), udp.payload());
            (header.checksum, wanted.ok()?)
        }
        (NetSlice::Ipv6(ip), TransportSlice::Tcp(tcp)) => {
            let (header, ip) = (tcp.to_header(), ip.header());
            let wanted = header.calc_checksum_ipv6_raw(ip.source(), ip.destination(), tcp.payload());
            (header.checksum, wanted.ok()?)
        }
        (NetSlice::Ipv6(ip), TransportSlice::Udp(udp)) => {
            let (header, ip) = (udp.to_header(), ip.header());
            let wanted = header.calc_checksum_ipv6_raw(ip.source(), ip.destination(), udp.payload());
            (header.checksum, wanted.ok()?)
        }
        _ => return None,
    };
    let unsummed = matches!(transport, TransportSlice::Udp(_)) && written == 0;
    // 0 and 0xffff are the same number in one's complement.
    let same = written == wanted || (written ^ wanted == 0xffff && (written == 0 || wanted == 0));
    let header = match &net {
        NetSlice::Ipv4(ip) => ip.header().to_header().calc_header_checksum() == ip.header().header_checksum(),
        NetSlice::Ipv6(_) | NetSlice::Arp(_) => true,
    };
    Some(header && (unsummed || same))
}

/// A TCP or UDP packet's ends and whether it is a SYN: as much as an answer needs to know.
pub fn described(frame: &[u8]) -> Option<Wire> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination) = match packet.net? {
        NetSlice::Ipv4(ip) => (IpAddr::from(ip.header().source()), IpAddr::from(ip.header().destination())),
        NetSlice::Ipv6(ip) => (IpAddr::from(ip.header().source()), IpAddr::from(ip.header().destination())),
        NetSlice::Arp(_) => return None,
    };
    let at = |ip, port| SocketAddr::new(ip, port);
    match packet.transport? {
        TransportSlice::Tcp(tcp) => Some(Wire::tcp(
            at(source, tcp.source_port()),
            at(destination, tcp.destination_port()),
            if tcp.syn() { SYN } else { ACK },
        )),
        TransportSlice::Udp(udp) => {
            Some(Wire::udp(at(source, udp.source_port()), at(destination, udp.destination_port())))
        }
        _ => None,
    }
}
