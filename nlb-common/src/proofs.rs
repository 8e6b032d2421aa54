//! Properties of the packet path's parts, each against something that shares no code with it.

mod checksum;
mod hash;
mod parse;
mod table;

use crate::wire::{Extension, Wire};
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};
use std::vec::Vec;

/// Two addresses of one family, with ports.
fn ends() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    (prop_oneof![v4, v6], any::<(u16, u16)>())
        .prop_map(|((a, b), (c, d))| (SocketAddr::new(a, c), SocketAddr::new(b, d)))
}

fn extension() -> impl Strategy<Value = Extension> {
    prop_oneof![
        (0..3_u8).prop_map(Extension::HopByHop),
        Just(Extension::Routing),
        Just(Extension::Destination),
        Just(Extension::Fragment(0)),
    ]
}

/// TCP and UDP packets of every shape that is served: hop-by-hop options only in front, as RFC 8200 demands.
fn wire() -> impl Strategy<Value = Wire> {
    let shape = (0..3_u8, 0..11_u8, prop::collection::vec(extension(), 0..4), any::<bool>());
    (ends(), any::<bool>(), any::<(u8, u32, u32)>(), shape, prop::collection::vec(any::<u8>(), 0..200))
        .prop_map(|((source, destination), udp, (flags, sequence, acknowledgement), shape, payload)| {
            let (vlans, options, mut extensions, unsummed) = shape;
            extensions.sort_by_key(|extension| !matches!(extension, Extension::HopByHop(_)));
            extensions.dedup();
            let first_only =
                extensions.iter().rposition(|e| matches!(e, Extension::HopByHop(_))).unwrap_or(0);
            extensions.drain(..first_only);
            let bare =
                if udp { Wire::udp(source, destination) } else { Wire::tcp(source, destination, flags) };
            Wire { sequence, acknowledgement, vlans, options, extensions, unsummed, payload, ..bare }
        })
}

/// The sum of bytes as RFC 1071 has it, all of them, checksums included: 0 where they are right.
fn residue(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let mut sum: u64 =
        bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
