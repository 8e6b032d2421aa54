//! What the manifests mean, in the words of the AWS contract and free of Kubernetes: plain data between translate and the maps.

use crate::claims::Claims;
use crate::inputs::ObjectName;
use crate::problem::Problem;
use nlb_common::layout::{ListenerKey, TCP, UDP};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Everything that the inputs ask for; a function of them alone, in the order of namespace and name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// The Services that are ours and can be built.
    pub load_balancers: Vec<LoadBalancer>,
    /// Services of type LoadBalancer that are not ours, and why.
    pub unclaimed: Vec<Unclaimed>,
    /// What users must fix.
    pub problems: Vec<Problem>,
    /// Who has which pod address, by the EndpointSlices of all Services.
    pub claims: Claims,
}

impl Model {
    /// Where in [`Self::load_balancers`] a Service stands, if it is there.
    pub fn place(&self, service: &ObjectName) -> Option<usize> {
        let wanted = (&service.namespace, &service.name);
        self.load_balancers.binary_search_by(|it| (&it.namespace, &it.name).cmp(&wanted)).ok()
    }

    /// The target group of this name, which its own Service has.
    pub fn target_group(&self, name: &str) -> Option<&TargetGroup> {
        let (service, _, _) = crate::health::listener_of(name)?;
        let place = self.place(&service)?;
        self.load_balancers[place].target_groups.iter().find(|group| group.name == name)
    }
}

/// A Service of type LoadBalancer that belongs to somebody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unclaimed {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// Why it is not claimed, one clause.
    pub reason: String,
}

/// One Service of type LoadBalancer that nlb has claimed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadBalancer {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// The Service's UID; `None` where the manifest has none.
    pub uid: Option<String>,
    /// `spec.loadBalancerClass`; `None` when adopted without one.
    pub class: Option<String>,
    /// Which pools its VIPs come from.
    pub scheme: Scheme,
    /// Families asked for, the primary one first.
    pub ip_families: Vec<IpFamily>,
    /// The addresses it was given, one for each family that has one, in the order of `ip_families`; in `--vip node` the node's own.
    pub vips: Vec<IpAddr>,
    /// True if deletion is held back.
    pub deletion_protection: bool,
    /// The ports that are served, in the order of `spec.ports`. One for each port and protocol; it stands on every VIP.
    pub listeners: Vec<Listener>,
    /// The ports that are not served.
    pub refused_ports: Vec<RefusedPort>,
    /// One for each Service port, in the order of `spec.ports`.
    pub target_groups: Vec<TargetGroup>,
    /// Nodes that accept its traffic; `None` where no Node is known.
    pub nodes: Option<Vec<String>>,
}

/// Inside or outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// For clients inside.
    Internal,
    /// For everyone.
    InternetFacing,
}

/// `spec.ipFamilies`' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum IpFamily {
    IPv4,
    IPv6,
}

impl IpFamily {
    /// The family of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::IPv4 } else { Self::IPv6 }
    }
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// The IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// One served Service port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// The port clients connect to.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Flows without a packet for this long end. TCP: 350 s by default, UDP: 120 s.
    pub idle_timeout: Duration,
    /// CIDRs that may connect; empty = everyone.
    pub source_ranges: Vec<ipnet::IpNet>,
    /// Target groups and their weights, the Service's own first.
    pub forward: Vec<Forward>,
    /// Whether a client keeps its target group.
    pub target_group_stickiness: bool,
}

/// The key of a listener on one of its VIPs, as the maps have it.
pub fn listener_key(vip: IpAddr, listener: &Listener) -> ListenerKey {
    ListenerKey { vip: vip.into(), port: listener.port, protocol: listener.protocol.number(), zero: 0 }
}

/// One target group of a listener's action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Name of a target group.
    pub target_group: String,
    /// 0 to 999: its share of new flows is weight / sum.
    pub weight: u32,
}

/// A port that is not served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedPort {
    /// The Service port.
    pub port: u16,
    /// TCP, UDP or SCTP, as written.
    pub protocol: String,
    /// CamelCase, as in `check-output.md`.
    pub reason: String,
}

/// What a listener forwards to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetGroup {
    /// `namespace/service:servicePort/PROTOCOL`.
    pub name: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// As given or defaulted; both mean pod addresses here.
    pub target_type: TargetType,
    /// The pods' port.
    pub target_port: PortRef,
    /// What EndpointSlices call its port: the name of the Service port that it was built from, empty where that has none. It
    /// finds the targets of a group that goes on although its Service port is gone. `None` where an older version wrote it down.
    #[serde(default)]
    pub slice_port: Option<String>,
    /// How its targets are checked.
    pub health_check: HealthCheck,
    /// Whether targets on other nodes see the client's address.
    pub preserve_client_ip: bool,
    /// Whether connections begin with a PROXY protocol v2 header.
    pub proxy_protocol_v2: bool,
    /// Whether new flows of one client address go to one target.
    pub source_ip_stickiness: bool,
    /// Whether targets of other zones are used alike.
    pub cross_zone: bool,
    /// How long a draining target keeps its flows at most, 0 to 3600 s.
    pub deregistration_delay: Duration,
    /// Whether what is left at the end of the delay is cut.
    pub deregistration_connection_termination: bool,
    /// Whether flows to a target that turns unhealthy are cut; never for UDP, whose datagrams go to another target instead.
    pub unhealthy_connection_termination: bool,
    /// How long flows to an unhealthy target are kept where they are not cut at once.
    pub unhealthy_draining_interval: Duration,
    /// Fewer healthy targets than this: fail open.
    pub minimum_healthy_targets: Threshold,
    /// Fewer healthy targets than this: stop announcing.
    pub dns_failover: Threshold,
    /// The endpoints, sorted by address, port and UID. Not written down: EndpointSlices tell them anew.
    #[serde(skip)]
    pub targets: Vec<Target>,
}

/// AWS's words; both mean pod addresses here, they only set defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetType {
    /// The controller's own default.
    Instance,
    /// The client's address is not kept for TCP unless asked for.
    Ip,
}

impl TargetType {
    /// The annotation's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Ip => "ip",
        }
    }
}

/// A port number, or a name that is looked up per pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PortRef {
    /// 1 to 65535.
    Number(u16),
    /// An IANA service name in the pod's own list.
    Name(String),
}

/// A count and a percentage, each `None` where it is `off`; either breach counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threshold {
    /// Targets.
    pub count: Option<u32>,
    /// 1 to 100 % of the registered targets.
    pub percentage: Option<u32>,
}

impl Default for Threshold {
    fn default() -> Self {
        Self { count: Some(1), percentage: None }
    }
}

/// How the targets of a group are checked (AWS: the target group's health check settings).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// TCP, HTTP or HTTPS.
    pub protocol: CheckProtocol,
    /// Which port of the target is asked.
    pub port: CheckPort,
    /// 1 to 300 s between the starts of two checks.
    pub interval: Duration,
    /// 1 to 120 s, at most the interval.
    pub timeout: Duration,
    /// 2 to 10 passes in a row after an `unhealthy`.
    pub healthy_threshold: u32,
    /// 2 to 10 failures in a row.
    pub unhealthy_threshold: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            protocol: CheckProtocol::Tcp,
            port: CheckPort::TrafficPort,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(10),
            healthy_threshold: 3,
            unhealthy_threshold: 3,
        }
    }
}

/// What counts as an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckProtocol {
    /// The handshake completes.
    Tcp,
    /// A response with one of the codes.
    Http(HttpCheck),
    /// The same over TLS; the certificate is not verified (as AWS).
    Https(HttpCheck),
}

/// What an HTTP check asks and accepts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpCheck {
    /// Path and query, beginning with `/`.
    pub path: String,
    /// Inclusive ranges of codes between 200 and 599, as written in `200,202,300-399`.
    pub success_codes: Vec<(u16, u16)>,
}

/// Which port a check asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckPort {
    /// The target's own port.
    TrafficPort,
    /// This port of the pod.
    Number(u16),
    /// A named port of the pod; resolved into [`Target::check_port`].
    Name(String),
}

/// One endpoint of a target group: a pod IP and port. `key` is its identity; the rest may change under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Who it is.
    pub key: TargetKey,
    /// The port that its health checks ask.
    pub check_port: u16,
    /// `nodeName` of the endpoint.
    pub node: Option<String>,
    /// `zone` of the endpoint.
    pub zone: Option<String>,
    /// True if the host's own routing delivers to it: on this node, or on no named node.
    pub local: bool,
    /// Relative share of new flows, 1 by default; 0 gets none.
    pub weight: u32,
    /// The EndpointSlice's conditions.
    pub conditions: Conditions,
}

/// What an EndpointSlice says of an endpoint, defaults applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Takes new flows, if its checks agree.
    pub ready: bool,
    /// Could still serve, also while terminating.
    pub serving: bool,
    /// Its pod is being deleted.
    pub terminating: bool,
}

/// The identity of a target: a reused address under another UID is another target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetKey {
    /// The pod's address.
    pub ip: IpAddr,
    /// The pod's port.
    pub port: u16,
    /// The pod's UID (`targetRef.uid`), where known.
    pub uid: Option<String>,
}

impl TargetKey {
    /// Where packets go.
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

/// What the maps must do for one listener on one VIP: the end product of model and health, the start of `slots`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// (VIP, protocol, port).
    pub listener: ListenerKey,
    /// The VIP is the node's own address.
    pub node_vip: bool,
    /// Idle timeout of its flows.
    pub idle_timeout: Duration,
    /// Registered targets, healthy or not: what the ring's size comes from.
    pub registered: u32,
    /// Every target that keeps or takes flows, sorted by key, each key once.
    pub targets: Vec<Placed>,
}

/// A target as one listener uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Who it is.
    pub key: TargetKey,
    /// Rises when the target's flows must be forgotten although it stays (unhealthy, its flows cut).
    pub incarnation: u32,
    /// Share of new flows relative to the other targets; 0 = keeps the flows it has, takes no new ones.
    pub share: u32,
}
