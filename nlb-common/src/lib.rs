//! What is true on both sides of the kernel's border: the packet path, and the layout of the maps.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "host"))]
extern crate std;

pub mod address;
pub mod checksum;
pub mod decide;
pub mod flow;
pub mod frame;
pub mod hash;
#[cfg(any(test, feature = "host"))]
pub mod host;
pub mod layout;
pub mod parse;
pub mod ports;
#[cfg(test)]
mod proofs;
pub mod reasons;
pub mod ring;
#[cfg(any(test, feature = "host"))]
pub mod scene;
#[cfg(test)]
mod stories;
pub mod table;
pub mod tables;
#[cfg(any(test, feature = "host"))]
pub mod wire;
