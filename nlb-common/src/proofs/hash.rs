//! Hashes: every field counts, and the ring's never changes.

use super::ends;
use crate::address::Address;
use crate::hash::Tuple;
use crate::ring;
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

const SEED: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

fn tuple((source, destination): (SocketAddr, SocketAddr), protocol: u8) -> Tuple {
    Tuple {
        source: Address::from(source.ip()).words(),
        destination: Address::from(destination.ip()).words(),
        source_port: source.port(),
        destination_port: destination.port(),
        protocol,
        ipv4: source.is_ipv4(),
    }
}

proptest! {
    #[test]
    fn every_field_changes_tag_place_and_ring(ends in ends(), udp in any::<bool>(), bit in 0..16_u32) {
        let one = tuple(ends, if udp { 17 } else { 6 });
        let flip = 1_u16 << bit;
        let mut others = std::vec![
            Tuple { source_port: one.source_port ^ flip, ..one },
            Tuple { destination_port: one.destination_port ^ flip, ..one },
            Tuple { protocol: if udp { 6 } else { 17 }, ..one },
        ];
        for word in if one.ipv4 { 3..4 } else { 0..4 } {
            let (mut a, mut b) = (one, one);
            a.source[word] ^= u32::from(flip) << 16;
            b.destination[word] ^= u32::from(flip);
            others.extend([a, b]);
        }
        if one.source != one.destination || one.source_port != one.destination_port {
            others.push(one.reversed());
        }
        for other in others {
            prop_assert_ne!(other.place(SEED).tag, one.place(SEED).tag, "{:?}", other);
            prop_assert_ne!(other.place(SEED), one.place(SEED));
            prop_assert_ne!(other.ring(), one.ring(), "{:?}", other);
        }
        prop_assert_ne!(one.place([SEED[0], SEED[1] ^ 1]), one.place(SEED));
        prop_assert_eq!(one.reversed().reversed(), one);
    }

    #[test]
    fn tags_are_never_those_of_empty_and_busy(ends in ends(), seed in any::<[u64; 2]>()) {
        prop_assert!(tuple(ends, 6).place(seed).tag > 1);
    }
}

#[test]
fn the_rings_hash_never_changes() {
    let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let golden = [
        ("198.51.100.7:40000", "203.0.113.10:443", 6, 1_541_421_364),
        ("198.51.100.7:40001", "203.0.113.10:443", 6, 3_978_302_389),
        ("198.51.100.7:40000", "203.0.113.10:443", 17, 1_356_166_141),
        ("[2001:db8::7]:40000", "[2001:db8:f::10]:443", 6, 2_103_852_013),
        ("[2001:db8::7]:40000", "[2001:db8:f::10]:53", 17, 957_121_707),
        ("0.0.0.0:0", "0.0.0.0:0", 6, 2_542_648_583),
    ];
    let now = golden
        .map(|(source, destination, protocol, _)| tuple((at(source), at(destination)), protocol).ring());
    assert_eq!(now, golden.map(|(.., value)| value), "flows would move on an upgrade, and between nodes");
}

#[test]
fn hashes_spread_over_rings_and_buckets() {
    let (mut ring, mut buckets) = ([0_u32; 251], [0_u32; 64]);
    let server = SocketAddr::new(IpAddr::from([203, 0, 113, 10]), 443);
    for port in 0..=u16::MAX {
        let tuple = tuple((SocketAddr::new(IpAddr::from([198, 51, 100, 7]), port), server), 6);
        ring[ring::pick(tuple.ring(), 251) as usize] += 1;
        buckets[tuple.place(SEED).place as usize % 64] += 1;
    }
    // Six standard deviations of a fair throw.
    let fair = |counts: &[u32], deviation: f64| {
        let mean = 65536.0 / counts.len() as f64;
        assert!(counts.iter().all(|count| (f64::from(*count) - mean).abs() < 6.0 * deviation), "{counts:?}");
    };
    fair(&ring, 16.2);
    fair(&buckets, 32.0);
}
