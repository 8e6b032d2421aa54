//! What the tests that need a kernel share: a laboratory of network namespaces with real clients and servers.

pub mod lab;
