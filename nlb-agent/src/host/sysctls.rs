//! The kernel settings that forwarding depends on, as the kernel combines them.

use anyhow::Context as _;
use std::collections::BTreeMap;
use std::path::Path;

/// Settings of this network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sysctls {
    /// `net.ipv4.ip_forward`.
    pub ipv4_forwarding: bool,
    /// `net.ipv6.conf.all.forwarding`; `None` where the kernel has no IPv6.
    pub ipv6_forwarding: Option<bool>,
    /// `net.ipv4.conf.all`.
    pub all: DeviceSysctls,
    /// `net.ipv4.conf.DEVICE` by name of the device.
    pub devices: BTreeMap<String, DeviceSysctls>,
    /// `None` while no rule of the host uses conntrack (its module is not loaded).
    pub conntrack: Option<Conntrack>,
}

/// `net.ipv4.conf.X`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceSysctls {
    /// Packets that come in here are forwarded.
    pub forwarding: bool,
    /// 0 none, 1 strict, 2 loose.
    pub rp_filter: u8,
    /// Answers ARP for addresses that it has a route to.
    pub proxy_arp: bool,
}

/// `net.netfilter.nf_conntrack_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conntrack {
    /// Entries now.
    pub entries: u64,
    /// Entries at most.
    pub capacity: u64,
    /// Seconds that an idle, established TCP connection is kept.
    pub tcp_established: u64,
    /// Seconds that an idle UDP exchange with packets both ways is kept.
    pub udp_stream: u64,
}

impl Sysctls {
    /// Reads those of the calling thread's network namespace.
    ///
    /// # Errors
    /// `/proc/sys/net/ipv4` cannot be read.
    pub fn read() -> anyhow::Result<Self> {
        let root = Path::new("/proc/sys/net");
        let mut devices = BTreeMap::new();
        let conf = root.join("ipv4/conf");
        for entry in std::fs::read_dir(&conf).with_context(|| format!("reading {}", conf.display()))? {
            // A device may go away between the list and its files: it then reads as all zero and has no interface either.
            let entry = entry.with_context(|| format!("reading {}", conf.display()))?;
            devices.insert(entry.file_name().to_string_lossy().into_owned(), device(&entry.path()));
        }
        devices.remove("default");
        Ok(Self {
            ipv4_forwarding: number(&root.join("ipv4/ip_forward")) == Some(1),
            ipv6_forwarding: number(&root.join("ipv6/conf/all/forwarding")).map(|value| value > 0),
            all: devices.remove("all").unwrap_or_default(),
            devices,
            conntrack: conntrack(&root.join("netfilter")),
        })
    }

    /// The mode that packets which come in by `device` meet: the greater of `all`'s and its own (ip-sysctl.rst).
    pub fn rp_filter(&self, device: &str) -> u8 {
        self.all.rp_filter.max(self.device(device).rp_filter)
    }

    /// Whether `device` answers ARP for others: either switch is enough.
    pub fn proxy_arp(&self, device: &str) -> bool {
        self.all.proxy_arp || self.device(device).proxy_arp
    }

    /// Whether IPv4 packets that come in by `device` are forwarded; true for a device that is not known.
    pub fn ipv4_forwarding_at(&self, device: &str) -> bool {
        self.devices.get(device).is_none_or(|own| own.forwarding)
    }

    fn device(&self, name: &str) -> DeviceSysctls {
        self.devices.get(name).copied().unwrap_or_default()
    }
}

/// `name` as sysctl(8) writes it inside a key, where a dot separates.
pub fn key(name: &str) -> String {
    name.replace('.', "/")
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn device(folder: &Path) -> DeviceSysctls {
    let value = |name: &str| number(&folder.join(name)).unwrap_or(0);
    DeviceSysctls {
        forwarding: value("forwarding") > 0,
        rp_filter: u8::try_from(value("rp_filter")).unwrap_or(0),
        proxy_arp: value("proxy_arp") > 0,
    }
}

fn conntrack(folder: &Path) -> Option<Conntrack> {
    let value = |name: &str| number(&folder.join(format!("nf_conntrack_{name}")));
    Some(Conntrack {
        entries: value("count")?,
        capacity: value("max")?,
        tcp_established: value("tcp_timeout_established")?,
        udp_stream: value("udp_timeout_stream")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(all: DeviceSysctls, own: DeviceSysctls) -> Sysctls {
        Sysctls { all, devices: [("eth0".to_owned(), own)].into(), ..Sysctls::default() }
    }

    #[test]
    fn the_greater_of_two_modes_counts_although_strict_is_the_lesser() {
        for (all, own, effective) in [(0, 0, 0), (1, 0, 1), (0, 1, 1), (2, 1, 2), (1, 2, 2)] {
            let mode = |rp_filter| DeviceSysctls { rp_filter, ..DeviceSysctls::default() };
            assert_eq!(with(mode(all), mode(own)).rp_filter("eth0"), effective, "all {all}, own {own}");
        }
    }

    #[test]
    fn either_switch_makes_a_proxy() {
        for (all, own) in [(false, false), (true, false), (false, true)] {
            let proxy = |proxy_arp| DeviceSysctls { proxy_arp, ..DeviceSysctls::default() };
            assert_eq!(with(proxy(all), proxy(own)).proxy_arp("eth0"), all || own);
        }
    }

    #[test]
    fn a_dot_in_a_name_is_written_as_a_slash() {
        assert_eq!(key("eth0.5"), "eth0/5");
    }
}
