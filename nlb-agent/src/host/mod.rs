//! What the machine is and what it does wrong: readers of the kernel's state at one end, pure judgement at the other.

pub mod addresses;
pub mod files;
pub mod firewall;
pub mod interfaces;
pub mod kernel;
mod netlink;
pub mod network;
pub mod ports;
pub mod preflight;
pub mod privileges;
pub mod sysctls;
mod watch;

#[cfg(test)]
mod namespace_tests;

use firewall::ForwardChain;
use kernel::Kernel;
use network::Network;
use ports::Ports;
use privileges::{Capabilities, PinPlace};
use std::path::Path;
use sysctls::Sysctls;

pub use watch::watch;

/// A snapshot of the machine in the network namespace of the calling thread; plain data that [`preflight::problems`] judges.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    /// The running kernel.
    pub kernel: Kernel,
    /// Interfaces, addresses and routes.
    pub network: Network,
    /// Sockets that listen and the kernel's port ranges.
    pub ports: Ports,
    /// Forwarding, rp_filter, proxy_arp and conntrack.
    pub sysctls: Sysctls,
    /// Base chains at the forward hook; empty where no tool could list them.
    pub firewall: Vec<ForwardChain>,
    /// What this process may do.
    pub capabilities: Capabilities,
    /// The folder of the pins.
    pub pins: PinPlace,
}

impl Host {
    /// Reads everything; the agent does so at start and when [`watch`] speaks. `pin_path` need not exist yet.
    /// Costs tens of milliseconds: it runs `nft` and looks through `/proc`. Nothing is changed.
    ///
    /// # Errors
    /// Netlink or `/proc` failed. A file or tool that this kernel or machine lacks is no error.
    pub async fn read(pin_path: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            kernel: Kernel::read()?,
            network: Network::read().await?,
            ports: Ports::read()?,
            sysctls: Sysctls::read()?,
            firewall: firewall::read().await,
            capabilities: Capabilities::read()?,
            pins: PinPlace::read(pin_path)?,
        })
    }
}
