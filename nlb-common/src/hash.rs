//! Hashes of a 5-tuple: a secret one for the flow tables, a public one for rings, and the bits of the two filters.
//!
//! Both 5-tuple hashes are NH (the inner hash of UMAC, RFC 4418 section 5.2) with a finisher: products of 32-bit halves
//! that carry a key each, so that without the key nobody can construct two tuples that collide.

use crate::address::Words;
use crate::layout::{TARGET_FILTER_BITS, VIP_FILTER_BITS};

/// A flow's place in a flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    /// Stands for the whole 5-tuple; never 0 or 1. Independent of `place`.
    pub tag: u64,
    /// Chooses the buckets.
    pub place: u32,
}

/// A 5-tuple as one direction's packets carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Source address.
    pub source: Words,
    /// Destination address.
    pub destination: Words,
    /// Source port, host byte order.
    pub source_port: u16,
    /// Destination port, host byte order.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// True for IPv4, whose addresses are their last word.
    pub ipv4: bool,
}

/// A constant without structure: the fraction of the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// The key of the ring's hash: the same on every node, so that every node picks the same target.
const RING_KEY: u64 = 0x243f_6a88_85a3_08d3;

#[inline(always)]
const fn product(word: u64, key: u64) -> u64 {
    let low = (word as u32).wrapping_add(key as u32);
    let high = ((word >> 32) as u32).wrapping_add((key >> 32) as u32);
    low as u64 * high as u64
}

#[inline(always)]
const fn finish(mut x: u64) -> u64 {
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ x >> 32
}

#[inline(always)]
const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

impl Tuple {
    #[inline(always)]
    fn lane(&self, key: u64) -> u64 {
        let ports = pair(
            u32::from(self.source_port) | u32::from(self.destination_port) << 16,
            u32::from(self.protocol) << 8 | u32::from(self.ipv4),
        );
        let mut sum = product(ports, key);
        if self.ipv4 {
            sum = sum
                .wrapping_add(product(pair(self.source[3], self.destination[3]), key.wrapping_add(GOLDEN)));
        } else {
            let mut key = key;
            for i in 0..4 {
                key = key.wrapping_add(GOLDEN.wrapping_mul(3));
                sum = sum.wrapping_add(product(pair(self.source[i], self.destination[i]), key));
            }
        }
        sum
    }

    /// The place of this tuple in a flow table whose secret is `seed`.
    #[inline(always)]
    pub fn place(&self, seed: [u64; 2]) -> Hash {
        let tag = finish(self.lane(seed[0]) ^ seed[1]);
        let place = finish(self.lane(seed[1]).wrapping_add(seed[0])) as u32;
        Hash { tag: if tag < 2 { tag | 2 } else { tag }, place }
    }

    /// The hash that picks this flow's ring entry: a function of the 5-tuple alone.
    #[inline(always)]
    pub fn ring(&self) -> u32 {
        (finish(self.lane(RING_KEY)) >> 32) as u32
    }

    /// The tuple of the packets that come back.
    #[inline(always)]
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..*self
        }
    }
}

/// The bit of the map `vip_filter` that stands for this address.
#[inline(always)]
pub const fn vip_bit(address: Words) -> u32 {
    let folded = (address[0] ^ address[1].rotate_left(11)) ^ (address[2].rotate_left(22) ^ address[3]);
    folded.wrapping_mul(0x9e37_79b1) >> (32 - VIP_FILTER_BITS.trailing_zeros())
}

/// The bit of the map `target_filter` that stands for this address, port (host byte order) and protocol.
#[inline(always)]
pub const fn target_bit(address: Words, port: u16, protocol: u8) -> u32 {
    let folded = (address[0] ^ address[1].rotate_left(11)) ^ (address[2].rotate_left(22) ^ address[3]);
    let mixed =
        (folded.wrapping_mul(0x9e37_79b1) ^ (port as u32) << 8 ^ protocol as u32).wrapping_mul(0x85eb_ca6b);
    (mixed ^ mixed >> 15).wrapping_mul(0xc2b2_ae35) >> (32 - TARGET_FILTER_BITS.trailing_zeros())
}
