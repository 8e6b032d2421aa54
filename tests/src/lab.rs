//! A client, a node and pods as network namespaces of their own; nothing of the machine's own network is touched.
//!
//! ```text
//!  nlb-PID-N-client                nlb-PID-N-node                          nlb-PID-N-pod1
//!  eth0 198.51.100.7 ───────────── uplink 198.51.100.1   pod1 10.1.1.1 ─── eth0 10.1.1.2
//!       2001:db8:100::7                   2001:db8:100::1     …                 2001:db8:1:1::2
//!  VIP ranges via the node
//! ```
//!
//! The client's link has transmit checksums off, because its packets meet XDP as a wire would bring them. The pods keep
//! all offloads, and the node's uplink has transmit checksums off, as a NIC would see it: so a wrong checksum shows.

pub mod agent;
pub mod conversation;
pub mod curl;
pub mod download;
#[cfg(feature = "kernel")]
pub mod flood;
pub mod http;
pub mod iperf;
pub mod manifests;
pub mod namespace;
pub mod nginx;
pub mod process;
pub mod scene;
pub mod sweep;
pub mod udp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

pub use agent::Agent;
pub use namespace::Namespace;
pub use process::Process;

/// The client's addresses.
pub const CLIENT: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(198, 51, 100, 7), Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 7));
/// The node's addresses on its uplink.
pub const NODE: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(198, 51, 100, 1), Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1));
/// The ranges that the client reaches by way of the node.
pub const VIPS: [&str; 2] = ["192.0.2.0/24", "2001:db8:2::/64"];
/// The node's device towards the client.
pub const UPLINK: &str = "uplink";
/// The node's name in manifests.
pub const NODE_NAME: &str = "node-a";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The namespaces, a folder for files, and a place for pins; all gone when dropped.
pub struct Lab {
    name: String,
    /// Where requests come from.
    pub client: Namespace,
    /// Where nlb runs.
    pub node: Namespace,
    pods: Vec<Pod>,
}

/// A pod: a namespace behind a link of its own, reached from the node by a route.
pub struct Pod {
    /// `pod1` and so on; also the node's device towards it.
    pub name: String,
    /// Its network.
    pub namespace: Namespace,
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Its address.
    pub ipv6: Ipv6Addr,
}

impl Pod {
    /// Its address of the same family as `like`.
    pub fn address(&self, like: IpAddr) -> IpAddr {
        if like.is_ipv4() { self.ipv4.into() } else { self.ipv6.into() }
    }

    /// Takes its link away, so that it answers nothing at all, or gives it back.
    pub fn set_link(&self, up: bool) -> Result<()> {
        self.namespace.ip(&["link", "set", "eth0", if up { "up" } else { "down" }])?;
        // The kernel forgets IPv6 addresses and all routes of a device that goes down.
        if up { self.address_and_route() } else { Ok(()) }
    }

    fn address_and_route(&self) -> Result<()> {
        let (gateway4, gateway6) = gateways(self.ipv4, self.ipv6);
        self.namespace.ip(&["address", "replace", &format!("{}/24", self.ipv4), "dev", "eth0"])?;
        self.namespace.ip(&["address", "replace", &format!("{}/64", self.ipv6), "dev", "eth0", "nodad"])?;
        self.namespace.ip(&["route", "replace", "default", "via", &gateway4.to_string()])?;
        self.namespace.ip(&["route", "replace", "default", "via", &gateway6.to_string()])
    }
}

/// The node's addresses on the link to the pod with these addresses.
fn gateways(ipv4: Ipv4Addr, ipv6: Ipv6Addr) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::from(u32::from(ipv4) - 1), Ipv6Addr::from(u128::from(ipv6) - 1))
}

impl Lab {
    /// Lays out a client, a node and `pods` pods; first takes away what dead processes have left.
    pub fn new(pods: usize) -> Result<Lab> {
        ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root");
        sweep::dead()?;
        sweep::on_signals()?;
        let name = format!("nlb-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = sweep::folder(&name);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let client = Namespace::new(&format!("{name}-client"))?;
        let node = Namespace::new(&format!("{name}-node"))?;
        let mut lab = Lab { name, client, node, pods: Vec::new() };
        lab.connect_client()?;
        for _ in 0..pods {
            lab.add_pod()?;
        }
        Ok(lab)
    }

    fn connect_client(&self) -> Result<()> {
        self.node.sysctl("net.ipv4.ip_forward", "1")?;
        self.node.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        // Whatever the machine's defaults are, here they are the kernel's.
        self.node.sysctl("net.ipv4.conf.all.rp_filter", "0")?;
        self.node.sysctl("net.ipv4.conf.default.rp_filter", "0")?;
        self.client.link("eth0", &self.node, UPLINK)?;
        self.client.ethtool(&["-K", "eth0", "tx", "off"])?;
        self.node.ethtool(&["-K", UPLINK, "tx", "off"])?;
        for (namespace, device, (ipv4, ipv6)) in [(&self.client, "eth0", CLIENT), (&self.node, UPLINK, NODE)]
        {
            namespace.ip(&["address", "add", &format!("{ipv4}/24"), "dev", device])?;
            namespace.ip(&["address", "add", &format!("{ipv6}/64"), "dev", device, "nodad"])?;
        }
        // Pods are reached directly as well: nlb must leave such packets alone.
        for (range, gateway) in [
            (VIPS[0], NODE.0.into()),
            (VIPS[1], IpAddr::from(NODE.1)),
            ("10.1.0.0/16", NODE.0.into()),
            ("2001:db8:1::/48", NODE.1.into()),
        ] {
            self.client.ip(&["route", "add", range, "via", &gateway.to_string()])?;
        }
        Ok(())
    }

    /// One more pod: `podN` with 10.1.N.2 and 2001:db8:1:N::2.
    pub fn add_pod(&mut self) -> Result<&Pod> {
        let number = u8::try_from(self.pods.len() + 1).context("at most 255 pods")?;
        let name = format!("pod{number}");
        let namespace = Namespace::new(&format!("{}-{name}", self.name))?;
        namespace.link("eth0", &self.node, &name)?;
        namespace.ethtool(&["-K", "eth0", "tx", "on", "gso", "on", "tso", "on"])?;
        let ipv4 = Ipv4Addr::new(10, 1, number, 2);
        let ipv6 = Ipv6Addr::new(0x2001, 0xdb8, 1, number.into(), 0, 0, 0, 2);
        let (gateway4, gateway6) = gateways(ipv4, ipv6);
        self.node.ip(&["address", "add", &format!("{gateway4}/24"), "dev", &name])?;
        self.node.ip(&["address", "add", &format!("{gateway6}/64"), "dev", &name, "nodad"])?;
        let pod = Pod { name, namespace, ipv4, ipv6 };
        pod.address_and_route()?;
        for address in [ipv4.into(), ipv6.into()] {
            wait_for_path(&self.client, address)?;
        }
        self.pods.push(pod);
        Ok(self.pods.last().expect("just pushed"))
    }

    /// The pods, in the order of their numbers.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// A folder for this lab's files.
    pub fn folder(&self) -> PathBuf {
        sweep::folder(&self.name)
    }

    /// A folder for this lab's pins, not yet made.
    pub fn pins(&self) -> PathBuf {
        sweep::pins(&self.name)
    }

    /// Keeps everything after this process has ended, until [`sweep::kept`].
    pub fn keep(self) -> Result<()> {
        let marker = self.folder().join(sweep::KEPT);
        std::fs::write(&marker, "").with_context(|| format!("cannot write {}", marker.display()))?;
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        sweep::lab(&self.name);
    }
}

/// The first answer of `look` within `patience`, looked for 20 times a second.
pub fn eventually<T>(patience: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        // One more look after the time is up, so that a slow machine is not a failure.
        let last = began.elapsed() >= patience;
        match look() {
            Ok(Some(found)) => return Ok(found),
            Err(error) if last => return Err(error),
            Ok(None) if last => anyhow::bail!("still not so after {patience:?}"),
            Ok(None) | Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Waits until packets from `namespace` reach `address`: the kernel takes a new link into use some time after it is up.
fn wait_for_path(namespace: &Namespace, address: IpAddr) -> Result<()> {
    // Nobody serves this port, so a refusal shows the path both ways.
    let closed = SocketAddr::new(address, 9);
    let refused = move || {
        let connected = std::net::TcpStream::connect_timeout(&closed, Duration::from_millis(300));
        Ok(connected.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused).then_some(()))
    };
    namespace
        .enter(move || eventually(Duration::from_secs(15), refused))?
        .with_context(|| format!("no path to {address}"))
}

/// Waits until somebody in `namespace` accepts connections at `address`.
pub fn wait_for_listener(namespace: &Namespace, address: SocketAddr) -> Result<()> {
    let connect = move || {
        Ok(std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok().then_some(()))
    };
    namespace
        .enter(move || eventually(Duration::from_secs(10), connect))?
        .with_context(|| format!("nobody accepts connections at {address}"))
}

/// A program built beside this one: `target/debug/NAME` for tests and for xtask.
pub(crate) fn sibling(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("cannot tell where this program is")?;
    let found =
        this.ancestors().skip(1).take(2).map(|folder: &Path| folder.join(name)).find(|file| file.is_file());
    found.with_context(|| format!("{name} is not built: cargo build --package nlb-tests --bin {name}"))
}
