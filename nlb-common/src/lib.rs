//! What is true on both sides of the kernel's border: the packet path, and the layout of the maps.
#![no_std]
#![forbid(unsafe_code)]

pub mod address;
pub mod layout;
pub mod ring;
