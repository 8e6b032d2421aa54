//! Readdressing: the incremental checksum is the full one.

use super::{residue, wire};
use crate::address::Address;
use crate::checksum::Delta;
use crate::frame::{End, Frame, Readdress};
use crate::host::Memory;
use crate::parse::{self, Packet};
use crate::wire::Wire;
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

fn parsed(frame: &Memory) -> Packet {
    let network = parse::network(frame).expect("IP");
    let mut packet = Packet { network, ..Packet::default() };
    parse::transport(frame, &mut packet).expect("TCP or UDP");
    packet
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_readdressed_packet_is_the_packet_written_anew(
        wire in wire(), destination in any::<bool>(), to in any::<[u8; 16]>(), ports in any::<(u16, u16)>(),
    ) {
        prop_assume!(!mapped(&wire) && !wire.source.ip().is_unspecified());
        let ip = if wire.source.is_ipv4() {
            IpAddr::from([to[0], to[1], to[2], to[3]])
        } else {
            IpAddr::from(to)
        };
        let (end, old) = if destination { (End::Destination, wire.source) } else { (End::Source, wire.destination) };
        let (new, other) = (SocketAddr::new(ip, ports.0), SocketAddr::new(old.ip(), ports.1));
        let (source, to) = if destination { (other, new) } else { (new, other) };
        let wanted = Wire { source, destination: to, ..wire.clone() }.frame();
        let mut frame = Memory(wire.frame());
        let packet = parsed(&frame);
        let change = Readdress { end, address: Address::from(ip).words(), port: ports.0, other_port: ports.1 };
        prop_assert_eq!(frame.readdress(&packet, &change), Some(()));
        prop_assert_eq!(frame.0, wanted);
    }

    #[test]
    fn a_delta_keeps_the_sum_right(old in any::<[u8; 24]>(), new in any::<[u8; 24]>(), extremes in any::<[bool; 24]>()) {
        // Zeros and 0xff are where one's complement has two faces.
        let extreme = |bytes: [u8; 24]| {
            let mut bytes = bytes;
            for (byte, extreme) in bytes.iter_mut().zip(extremes) {
                if extreme { *byte = if *byte & 1 == 0 { 0 } else { 0xff } }
            }
            bytes
        };
        let (old, new) = (extreme(old), extreme(new));
        let checksum = residue(&[&old]);
        let mut delta = Delta::default();
        for (a, b) in old.chunks(4).zip(new.chunks(4)).take(5) {
            let word = |bytes: &[u8]| u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            delta = delta.word(word(a), word(b));
        }
        for (a, b) in old.chunks(2).zip(new.chunks(2)).skip(10) {
            delta = delta.half(u16::from_ne_bytes([a[0], a[1]]), u16::from_ne_bytes([b[0], b[1]]));
        }
        let updated = u16::from_be(delta.apply(checksum.to_be()));
        prop_assert_eq!(residue(&[&new, &updated.to_be_bytes()]), 0);
    }
}

fn mapped(wire: &Wire) -> bool {
    let is = |at: SocketAddr| matches!(at.ip(), IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
    is(wire.source) || is(wire.destination)
}

#[test]
fn the_example_of_rfc_1624() {
    // Section 4: 0xdd2f with 0x5555 becoming 0x3285 is 0x0000, not 0xffff.
    assert_eq!(Delta::default().half(0x5555_u16.to_be(), 0x3285_u16.to_be()).apply(0xdd2f_u16.to_be()), 0);
}

#[test]
fn a_checksum_of_zero_is_written_as_ffff_for_udp_alone() {
    let at = |last: u8, port| SocketAddr::new(IpAddr::from([10, 0, 0, last]), port);
    for port in 0..=u16::MAX {
        for wire in [Wire::udp(at(1, 4), at(2, 5)), Wire::tcp(at(1, 4), at(2, 5), 2)] {
            let mut frame = Memory(wire.frame());
            let packet = parsed(&frame);
            let words = Address::from(at(3, 0).ip()).words();
            frame.readdress(
                &packet,
                &Readdress { end: End::Destination, address: words, port, other_port: 4 },
            );
            assert_eq!(frame.0, Wire { destination: at(3, port), ..wire }.frame(), "port {port}");
        }
    }
}
