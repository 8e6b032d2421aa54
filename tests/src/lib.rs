//! What the kernel's tests stand on: the object loaded, and rows of packets that host and kernel must treat alike.

pub mod fixtures;
pub mod kernel;
pub mod oracle;
pub mod traffic;
