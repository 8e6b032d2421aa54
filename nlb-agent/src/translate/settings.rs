//! What of the command line and of the node decides how manifests are read.

pub use crate::model::TargetType;
use crate::model::{Protocol, Scheme};
use crate::vips::{Allocations, Pools};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// Everything but the objects that [`super::translate`] depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `--load-balancer-class`: classes that are ours.
    pub load_balancer_classes: Vec<String>,
    /// `--claim-by-annotation`: Services without a class are ours where AWS's controller would take them by annotation.
    pub claim_by_annotation: bool,
    /// `--default-class`: Services without a class are ours.
    pub default_class: bool,
    /// `--default-scheme`.
    pub default_scheme: Scheme,
    /// `--default-target-type`.
    pub default_target_type: TargetType,
    /// `--node-name`: decides which targets are local; `None` where nobody asks (check).
    pub node_name: Option<String>,
    /// The node's own addresses, which pods of the host network share.
    pub node_addresses: BTreeSet<IpAddr>,
    /// `--vip` and `--vip-pool`.
    pub vips: Vips,
    /// Addresses given before the agent started, from its state file. What the previous model says goes before it.
    pub remembered: Allocations,
    /// True if the data path drops packets from outside a listener's source ranges. Where it does not, a port that is
    /// restricted is refused rather than opened to everyone.
    pub source_ranges_enforced: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            load_balancer_classes: vec!["nlb.io/nlb".into()],
            claim_by_annotation: false,
            default_class: false,
            default_scheme: Scheme::Internal,
            default_target_type: TargetType::Instance,
            node_name: None,
            node_addresses: BTreeSet::new(),
            vips: Vips::None,
            remembered: Allocations::default(),
            source_ranges_enforced: false,
        }
    }
}

/// Where VIPs come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Vips {
    /// From nowhere: load balancers have none, and that is no problem (`check` without flags).
    None,
    /// `--vip-pool`.
    Pools(Pools),
    /// `--vip node`.
    Node(NodeVips),
    /// `--vip node`, where no node is at hand (`check`): load balancers have no VIP, but no two of them a port in common.
    /// Nor does one have a port inside the cluster's `--service-node-port-range`.
    AnyNode(RangeInclusive<u16>),
}

/// The node's own addresses as VIPs, with what the node needs for itself.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeVips {
    /// Addresses that clients may use, in order of preference; loopback and link-local ones do not belong here.
    pub addresses: Vec<IpAddr>,
    /// Ports that the node listens on.
    pub listening: Vec<Listening>,
    /// The cluster's `--service-node-port-range`; `None` without a cluster.
    pub node_ports: Option<RangeInclusive<u16>>,
    /// `net.ipv4.ip_local_port_range`.
    pub local_ports: Option<RangeInclusive<u16>>,
}

/// A socket of the node that waits for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where it listens; the unspecified address of either family means everywhere.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Who, as the user knows it: `sshd (pid 812)`.
    pub owner: String,
}

impl Listening {
    /// True if a listener on this VIP would take its clients away.
    pub fn covers(&self, vip: IpAddr, protocol: Protocol, port: u16) -> bool {
        (self.protocol, self.port) == (protocol, port)
            && (self.address.is_unspecified() || self.address == vip)
    }
}
