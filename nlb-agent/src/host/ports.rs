//! Ports that the node itself uses, so that a listener on its own address never takes one of them.

use crate::model::Protocol;
use anyhow::Context as _;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// Where kube-proxy puts NodePorts unless the cluster says otherwise.
pub const NODE_PORTS: RangeInclusive<u16> = 30000..=32767;
/// The kernel's own default for `ip_local_port_range`.
const LOCAL_PORTS: RangeInclusive<u16> = 32768..=60999;

/// A TCP socket that listens, or a UDP socket that is bound and not connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// What it is bound to; unspecified = every address of the node.
    pub address: IpAddr,
    /// What it is bound to.
    pub port: u16,
    /// Name of a process that holds it, where `/proc` lets us see.
    pub process: Option<String>,
}

impl Listening {
    /// Whether packets to (`ip`, `port`) are its. A socket bound to `::` counts for IPv4 too: whether it is v6-only is not shown.
    fn takes(&self, protocol: Protocol, ip: IpAddr, port: u16) -> bool {
        let everywhere = self.address.is_unspecified() && (self.address.is_ipv6() || ip.is_ipv4());
        (self.protocol, self.port) == (protocol, port) && (everywhere || self.address.to_canonical() == ip)
    }
}

/// Why a port of the node's own address is not free, or not safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortUse {
    /// A socket of the node listens there: refuse.
    Taken(Listening),
    /// Inside [`NODE_PORTS`]: refuse.
    NodePort,
    /// The kernel may give it to an outgoing connection of the node (`ip_local_port_range`, not reserved): warn.
    Ephemeral,
}

/// Who listens, and the ranges of port numbers that have an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Every socket that waits for others.
    pub listening: Vec<Listening>,
    /// `net.ipv4.ip_local_port_range` (of IPv6 too).
    pub local: RangeInclusive<u16>,
    /// `net.ipv4.ip_local_reserved_ports`.
    pub reserved: Vec<RangeInclusive<u16>>,
}

impl Default for Ports {
    fn default() -> Self {
        Self { listening: Vec::new(), local: LOCAL_PORTS, reserved: Vec::new() }
    }
}

impl Ports {
    /// What stands against a listener on the node's own address; the gravest reason first.
    pub fn use_of(&self, protocol: Protocol, ip: IpAddr, port: u16) -> Option<PortUse> {
        if let Some(socket) = self.listening.iter().find(|socket| socket.takes(protocol, ip, port)) {
            return Some(PortUse::Taken(socket.clone()));
        }
        if NODE_PORTS.contains(&port) {
            return Some(PortUse::NodePort);
        }
        let reserved = self.reserved.iter().any(|range| range.contains(&port));
        (self.local.contains(&port) && !reserved).then_some(PortUse::Ephemeral)
    }

    /// Reads sockets and ranges of the calling thread's network namespace. The kernel does not announce new sockets: read again
    /// every few seconds where `--vip node` is used.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn read() -> anyhow::Result<Self> {
        let mut sockets = Vec::new();
        for (table, protocol) in
            [("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)]
        {
            // The thread's own, which is the process's in the agent and the namespace's in a test.
            let path = format!("/proc/thread-self/net/{table}");
            match std::fs::read_to_string(&path) {
                Ok(text) => sockets.extend(text.lines().filter_map(|line| row(line, protocol))),
                // A kernel without IPv6 has no such file.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && table.ends_with('6') => {}
                Err(error) => return Err(error).with_context(|| format!("reading {path}")),
            }
        }
        let inodes = sockets.iter().map(|(_, inode)| *inode).collect();
        let holders = holders(&inodes);
        let named = sockets
            .into_iter()
            .map(|(socket, inode)| Listening { process: holders.get(&inode).cloned(), ..socket });
        let setting =
            |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
        Ok(Self {
            listening: named.collect(),
            local: local_range(&setting("ip_local_port_range")).unwrap_or(LOCAL_PORTS),
            reserved: ranges(&setting("ip_local_reserved_ports")),
        })
    }
}

/// One row of `/proc/net/tcp` (proc_net_tcp.rst): its socket and inode, if it waits for others.
fn row(line: &str, protocol: Protocol) -> Option<(Listening, u64)> {
    const LISTEN: &str = "0A";
    const UNCONNECTED: &str = "07";
    let waiting = match protocol {
        Protocol::Tcp => LISTEN,
        Protocol::Udp => UNCONNECTED,
    };
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, *fields.get(3)?, fields.get(9)?);
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let listening = Listening { protocol, address: hex_address(address)?, port, process: None };
    (state == waiting).then_some((listening, inode.parse().ok()?))
}

/// The kernel prints the address as words of the machine's byte order, each in network byte order in memory.
fn hex_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?).into())
        }
        _ => None,
    }
}

/// Names of the processes that hold the sockets with these inodes; processes we may not look into are left out.
fn holders(inodes: &HashSet<u64>) -> HashMap<u64, String> {
    let mut found = HashMap::new();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok()) {
        let files = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        for link in files.filter_map(|file| std::fs::read_link(file.path()).ok()) {
            let text = link.to_string_lossy();
            let inode = text.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            let Some(inode) =
                inode.and_then(|inode| inode.parse().ok()).filter(|inode| inodes.contains(inode))
            else {
                continue;
            };
            if let Ok(name) = std::fs::read_to_string(process.path().join("comm")) {
                found.entry(inode).or_insert_with(|| name.trim().to_owned());
            }
        }
    }
    found
}

/// Two numbers with white space between them.
fn local_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    Some(numbers.next()?.ok()?..=numbers.next()?.ok()?)
}

/// `8080,9148-9150`.
fn ranges(text: &str) -> Vec<RangeInclusive<u16>> {
    let parts = text.trim().split(',').filter(|part| !part.is_empty());
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    parts.filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
        0: 0100007F:2538 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0000000000000000 100 0 0 10 0\n   \
        1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 678 1 0000000000000000 100 0 0 10 0\n   \
        2: 020200C0:9C40 010200C0:01BB 01 00000000:00000000 00:00000000 00000000     0        0 999 1 0000000000000000 20 4 30 10 -1\n";
    const TCP6: &str = "   0: B80D0120000000000000000002000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 42 1 0 100 0 0 10 0\n";

    fn socket(protocol: Protocol, address: &str, port: u16) -> Listening {
        Listening { protocol, address: address.parse().unwrap(), port, process: None }
    }

    #[test]
    fn only_sockets_that_wait_are_read() {
        let read: Vec<_> = TCP.lines().filter_map(|line| row(line, Protocol::Tcp)).collect();
        let wanted =
            [(socket(Protocol::Tcp, "127.0.0.1", 9528), 12345), (socket(Protocol::Tcp, "0.0.0.0", 22), 678)];
        assert_eq!(read, wanted);
        let read = row(TCP6, Protocol::Tcp).unwrap().0;
        assert_eq!(read, socket(Protocol::Tcp, "2001:db8::2", 443));
        assert_eq!(row(TCP6, Protocol::Udp), None);
    }

    #[test]
    fn lines_that_are_no_rows_are_skipped() {
        for line in ["", "sl", "0: zz:16 x 0A a b c d e f", "0: 0100:16 x 0A a b c d e 1"] {
            assert_eq!(row(line, Protocol::Tcp), None, "{line}");
        }
    }

    #[test]
    fn a_port_is_judged_by_the_gravest_reason() {
        let listening = vec![
            socket(Protocol::Tcp, "0.0.0.0", 22),
            socket(Protocol::Tcp, "::", 80),
            socket(Protocol::Udp, "192.0.2.2", 53),
            socket(Protocol::Tcp, "::ffff:192.0.2.2", 81),
            socket(Protocol::Tcp, "127.0.0.1", 9464),
            socket(Protocol::Tcp, "192.0.2.2", 30080),
        ];
        let ports = Ports {
            listening: listening.clone(),
            local: 32000..=60999,
            reserved: ranges("40000,40010-40020\n"),
        };
        let taken = |at: usize| Some(PortUse::Taken(listening[at].clone()));
        let cases = [
            (Protocol::Tcp, "192.0.2.2", 22, taken(0)),
            (Protocol::Tcp, "2001:db8::2", 22, None),
            (Protocol::Udp, "192.0.2.2", 22, None),
            (Protocol::Tcp, "192.0.2.2", 80, taken(1)),
            (Protocol::Tcp, "2001:db8::2", 80, taken(1)),
            (Protocol::Udp, "192.0.2.2", 53, taken(2)),
            (Protocol::Udp, "192.0.2.3", 53, None),
            (Protocol::Tcp, "192.0.2.2", 81, taken(3)),
            (Protocol::Tcp, "192.0.2.2", 9464, None),
            (Protocol::Tcp, "192.0.2.2", 30080, taken(5)),
            (Protocol::Tcp, "192.0.2.2", 30081, Some(PortUse::NodePort)),
            (Protocol::Tcp, "192.0.2.2", 32000, Some(PortUse::NodePort)),
            (Protocol::Tcp, "192.0.2.2", 33000, Some(PortUse::Ephemeral)),
            (Protocol::Udp, "2001:db8::2", 60999, Some(PortUse::Ephemeral)),
            (Protocol::Tcp, "192.0.2.2", 61000, None),
            (Protocol::Tcp, "192.0.2.2", 40000, None),
            (Protocol::Tcp, "192.0.2.2", 40015, None),
        ];
        for (protocol, ip, port, wanted) in cases {
            assert_eq!(ports.use_of(protocol, ip.parse().unwrap(), port), wanted, "{ip}:{port}/{protocol}");
        }
    }

    #[test]
    fn ranges_are_read_as_the_kernel_prints_them() {
        assert_eq!(local_range("32768\t60999\n"), Some(32768..=60999));
        assert_eq!(local_range(""), None);
        assert_eq!(ranges("\n"), []);
        assert_eq!(ranges("8080,9148-9150\n"), [8080..=8080, 9148..=9150]);
    }
}
