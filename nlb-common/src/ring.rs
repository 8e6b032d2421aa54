//! How a flow hash picks an entry of a ring, and which sizes rings have.

/// Sizes of rings: primes about four times apart; a ring has the first that is at least 100 x the registered targets.
pub const RING_SIZES: [u32; 7] = [251, 1_021, 4_093, 16_381, 65_521, 262_139, 1_048_573];

/// The most targets a set may have: the largest ring still gives each of them 100 entries.
pub const MAX_TARGETS_PER_SET: u32 = RING_SIZES[6] / 100;

/// The size of the ring of a set with this many registered targets; `None` above [`MAX_TARGETS_PER_SET`].
pub fn size(registered: u32) -> Option<u32> {
    RING_SIZES.into_iter().find(|size| u64::from(*size) >= 100 * u64::from(registered))
}

/// The entry that a flow hash picks, 0 to `size` - 1: its place when the 32-bit hashes are laid along the ring.
#[inline(always)]
pub const fn pick(hash: u32, size: u32) -> u32 {
    ((hash as u64 * size as u64) >> 32) as u32
}
