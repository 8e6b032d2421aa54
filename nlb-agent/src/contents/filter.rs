//! Which bit of the filters an address or a target sets.

use nlb_common::address::Words;
use nlb_common::layout::{TARGET_FILTER_BITS, VIP_FILTER_BITS};

/// The bit of `vip_filter` for this address, below [`VIP_FILTER_BITS`].
pub fn vip_bit(words: Words) -> u32 {
    fold(words) >> (u32::BITS - VIP_FILTER_BITS.trailing_zeros())
}

/// The bit of `target_filter` for this pod port, below [`TARGET_FILTER_BITS`].
pub fn target_bit(words: Words, port: u16, protocol: u8) -> u32 {
    let port = u32::from(port) << 8 | u32::from(protocol);
    (fold(words) ^ port).wrapping_mul(0x85eb_ca6b) >> (u32::BITS - TARGET_FILTER_BITS.trailing_zeros())
}

fn fold(words: Words) -> u32 {
    words.into_iter().fold(0, |hash: u32, word| (hash.rotate_left(13) ^ word).wrapping_mul(0x9e37_79b1))
}
