//! Parsing: what an independent parser sees is what is seen, and nothing else.

use super::wire;
use crate::address::Address;
use crate::host::Memory;
use crate::layout::{TCP, UDP};
use crate::parse::{self, Other, Packet};
use crate::wire::{Extension, Wire};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};
use std::vec::Vec;

fn ours(frame: &[u8]) -> Option<Result<Packet, Other>> {
    let frame = Memory(frame.to_vec());
    let network = parse::network(&frame)?;
    let mut packet = Packet { network, ..Packet::default() };
    Some(parse::transport(&frame, &mut packet).map(|()| packet))
}

/// Ends, protocol, flags, sequence and acknowledgement as the independent parser has them.
fn theirs(frame: &[u8]) -> Option<(SocketAddr, SocketAddr, u8, u8, u32, u32)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination) = match packet.net? {
        NetSlice::Ipv4(ip) => (IpAddr::from(ip.header().source()), IpAddr::from(ip.header().destination())),
        NetSlice::Ipv6(ip) => (IpAddr::from(ip.header().source()), IpAddr::from(ip.header().destination())),
        NetSlice::Arp(_) => return None,
    };
    let at = |a, b| (SocketAddr::new(source, a), SocketAddr::new(destination, b));
    match packet.transport? {
        TransportSlice::Tcp(tcp) => {
            let (a, b) = at(tcp.source_port(), tcp.destination_port());
            Some((a, b, TCP, tcp.slice()[13], tcp.sequence_number(), tcp.acknowledgment_number()))
        }
        TransportSlice::Udp(udp) => {
            let (a, b) = at(udp.source_port(), udp.destination_port());
            Some((a, b, UDP, 0, 0, 0))
        }
        TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_) => None,
    }
}

fn same(packet: &Packet, them: (SocketAddr, SocketAddr, u8, u8, u32, u32)) -> bool {
    let ip = |words| Address::from_words(words);
    let (source, destination, protocol, flags, sequence, acknowledgement) = them;
    ip(packet.network.source) == Address::from(source.ip())
        && ip(packet.network.destination) == Address::from(destination.ip())
        && packet.network.ipv4 == source.is_ipv4()
        && (packet.source_port, packet.destination_port) == (source.port(), destination.port())
        && (packet.protocol, packet.flags) == (protocol, flags)
        && (packet.sequence, packet.acknowledgement) == (sequence, acknowledgement)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_served_packet_is_what_the_independent_parser_sees(wire in wire()) {
        let frame = wire.frame();
        let them = theirs(&frame);
        prop_assert!(them.is_some(), "the test's own packet");
        let packet = ours(&frame).expect("IP").expect("TCP or UDP");
        prop_assert!(same(&packet, them.expect("just seen")), "{:?}\n{:?}", packet, them);
    }

    #[test]
    fn a_packet_cut_anywhere_is_cut_off_or_whole(wire in wire()) {
        let whole = wire.frame();
        let packet = ours(&whole).expect("IP").expect("TCP or UDP");
        let headers = packet.transport + if wire.protocol == TCP { 20 } else { 8 };
        for length in 0..whole.len() {
            match ours(&whole[..length]) {
                None => prop_assert!(length < packet.network.offset + 40),
                Some(Err(other)) => {
                    prop_assert_eq!(other, Other::Truncated);
                    prop_assert!(length < headers);
                }
                Some(Ok(cut)) => {
                    prop_assert!(length >= headers);
                    prop_assert_eq!(cut, packet);
                }
            }
        }
    }

    #[test]
    fn garbage_is_nothing_but_what_it_is(mut frame in prop::collection::vec(any::<u8>(), 0..200), kind in 0..4_usize) {
        // With an honest Ethernet type and version, so that the depths are reached.
        if let Some(start) = frame.get_mut(12..15) {
            start.copy_from_slice(&[[8, 0, 0x45], [0x86, 0xdd, 0x60], [0x81, 0, 0], [8, 0, 0x4f]][kind]);
        }
        if let (Some(Ok(packet)), Some(them)) = (ours(&frame), theirs(&frame)) {
            prop_assert!(same(&packet, them), "{:?}\n{:?}", packet, them);
        }
    }

    #[test]
    fn a_mutated_packet_is_nothing_but_what_it_is(wire in wire(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut frame = wire.frame();
        let at = 12 + at.index((frame.len() - 12).min(80));
        frame[at] = byte;
        if let (Some(Ok(packet)), Some(them)) = (ours(&frame), theirs(&frame)) {
            prop_assert!(same(&packet, them), "{:?}\n{:?}", packet, them);
        }
    }
}

fn v4(change: impl Fn(Wire) -> Wire) -> Vec<u8> {
    let at = |last: u8, port| SocketAddr::new(IpAddr::from([192, 0, 2, last]), port);
    change(Wire::tcp(at(1, 1), at(2, 2), 2)).frame()
}

fn v6(change: impl Fn(Wire) -> Wire) -> Vec<u8> {
    let at = |text: &str| SocketAddr::new(text.parse::<IpAddr>().expect("an address"), 7);
    change(Wire::tcp(at("2001:db8::1"), at("2001:db8::2"), 2)).frame()
}

#[test]
fn fragments_are_fragments_and_whole_packets_are_not() {
    for (field, fragment) in [(0x2000, true), (1, true), (0x1fff, true), (0x4000, false), (0, false)] {
        let seen = ours(&v4(|wire| Wire { fragment: field, ..wire })).expect("IP");
        assert_eq!(seen.is_err(), fragment, "{field:#x}");
        assert!(!fragment || seen == Err(Other::Fragment));
    }
    for (field, fragment) in [(1, true), (8, true), (0xfff8, true), (0, false), (6, false)] {
        let extensions = std::vec![Extension::HopByHop(0), Extension::Fragment(field)];
        let seen = ours(&v6(|wire| Wire { extensions: extensions.clone(), ..wire })).expect("IP");
        assert_eq!(seen.is_err(), fragment, "{field:#x}");
        assert!(!fragment || seen == Err(Other::Fragment));
    }
}

#[test]
fn an_ipv4_address_mapped_into_ipv6_is_not_taken_for_it() {
    for range in [22..38, 38..54] {
        let mut frame = v6(|wire| wire);
        frame[range].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 2]);
        assert_eq!(ours(&frame), None);
    }
}

#[test]
fn other_protocols_have_their_own_name() {
    for (protocol, other) in
        [(1, Other::Icmp), (58, Other::Icmp), (47, Other::Protocol), (132, Other::Protocol)]
    {
        assert_eq!(ours(&v4(|wire| Wire { protocol, ..wire })), Some(Err(other)));
        assert_eq!(ours(&v6(|wire| Wire { protocol, ..wire })), Some(Err(other)));
    }
}
