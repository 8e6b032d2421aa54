//! Everything between the agent and the kernel's `bpf(2)`: loading, pins, attachments, typed maps, the sweep of the flow tables.

pub mod clock;
pub mod detach;
pub mod dump;
pub mod flows;
pub mod links;
pub mod loader;
pub mod log;
pub mod maps;
pub mod memory;
pub mod netlink;
pub mod pins;
pub mod plain;
pub mod replacement;
pub mod reply;
mod shapes;
pub mod sweep;
pub mod sys;
pub mod verdict;

pub use loader::{DataPath, OpenError, Options};
pub use maps::PinnedMaps;

/// The eBPF object; empty where the agent was built without it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nlb.o"));
