//! What the tests that need a kernel share: a laboratory of network namespaces with real clients and servers, the object
//! loaded, rows of packets that host and kernel must treat alike, and the bench.

#[cfg(feature = "kernel")]
pub mod bench;
#[cfg(feature = "kernel")]
pub mod fixtures;
#[cfg(feature = "kernel")]
pub mod kernel;
pub mod lab;
#[cfg(feature = "kernel")]
pub mod oracle;
#[cfg(feature = "kernel")]
pub mod traffic;
