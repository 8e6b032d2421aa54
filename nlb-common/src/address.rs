//! IP addresses as the maps hold them: sixteen bytes, IPv4 mapped into IPv6 (RFC 4291 section 2.5.5.2).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IPv4 or IPv6 address in network byte order; IPv4 as `::ffff:a.b.c.d`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Address {
    /// The sixteen bytes as they stand in an IPv6 header.
    pub bytes: [u8; 16],
}

impl Address {
    /// The four words of the address in memory order, as the packet path carries them.
    #[inline(always)]
    pub fn words(self) -> Words {
        zerocopy::transmute!(self.bytes)
    }

    /// The address whose words these are.
    #[inline(always)]
    pub fn from_words(words: Words) -> Self {
        Self { bytes: zerocopy::transmute!(words) }
    }

    /// The address, IPv4 again where it was mapped.
    pub fn ip(self) -> IpAddr {
        Ipv6Addr::from(self.bytes).to_canonical()
    }

    /// True for an IPv4 address.
    pub fn is_ipv4(self) -> bool {
        matches!(self.ip(), IpAddr::V4(_))
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => Self { bytes: v6.octets() },
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(ip: Ipv4Addr) -> Self {
        Self { bytes: ip.to_ipv6_mapped().octets() }
    }
}

/// An address as four words in memory order: what a register holds after a load, on any machine.
pub type Words = [u32; 4];

/// The third word of a mapped IPv4 address.
pub const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
