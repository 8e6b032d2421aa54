//! What the bench tells its programs about the case that is measured; the bench includes this file as it stands.

/// 32-bit words of headers that a case restores at most: from the IP header on, IPv6 and TCP.
pub(crate) const HEADER_WORDS: usize = 15;

/// The one element of the map `bench_case`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Case {
    /// The packet's bytes from the IP header on, as words in memory order.
    pub(crate) headers: [u32; HEADER_WORDS],
    /// The [`Reason`](nlb_common::reasons::Reason) with which each run must end.
    pub(crate) expected: u32,
    /// One less than the number of clients that take turns, a power of two.
    pub(crate) mask: u32,
    /// Always 0.
    pub(crate) zero: u32,
}

/// Clients that can take turns: elements of the map `bench_clients`, each the last word of an address in memory order
/// and, in the upper half, what is or-ed into the word of the two ports.
pub(crate) const CLIENTS: usize = 1 << 20;
