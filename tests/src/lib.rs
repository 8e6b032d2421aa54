//! What the tests that need a kernel share: a laboratory of network namespaces with real clients and servers, and the bench.

#[cfg(feature = "kernel")]
pub mod bench;
pub mod lab;
