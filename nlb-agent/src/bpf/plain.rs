//! Map keys and values as aya wants them.

use zerocopy::{FromBytes, IntoBytes};

/// A map key or value as aya wants it; `T`'s bounds are the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Plain<T>(pub T);

// SAFETY: `IntoBytes` rules out padding and `FromBytes` accepts every bit pattern.
unsafe impl<T: FromBytes + IntoBytes + Copy + 'static> aya::Pod for Plain<T> {}
