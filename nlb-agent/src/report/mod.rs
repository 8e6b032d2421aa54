//! What the agent says of itself: plain data that the running agent or a reader of the pinned maps fills, as JSON and as tables.

mod address;
mod drops;
mod flows;
mod listeners;
mod page;
mod rates;
mod status;
mod targets;
mod view;

pub use address::{ListenerAddress, NotAListener};
pub use drops::{CountedReason, Drops, ReasonToMend};
pub use flows::{Flow, FlowFilter, FlowState, Flows};
pub use listeners::Listeners;
pub use page::{Page, age, arrangement, count, scaled};
pub use rates::{Rate, rate};
pub use status::Status;
pub use targets::{Targets, of_service};
pub use view::View;

use crate::problem::Problem;
use jiff::Timestamp;
use nlb_common::reasons::Kind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Everything that can be asked of an agent, at one moment. What only a running agent knows is `None` where it does not run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The agent itself.
    pub agent: Agent,
    /// The uplinks.
    pub interfaces: Option<Vec<Interface>>,
    /// Where Services come from.
    pub sources: Option<Vec<SourceState>>,
    /// How full the maps are.
    pub tables: Vec<Table>,
    /// The VIPs.
    pub vips: Vec<Vip>,
    /// The machine's own settings.
    pub host: Host,
    /// The health checks; `None` where no agent makes them.
    pub checks: Option<Checks>,
    /// What must be mended.
    pub problems: Option<Vec<Problem>>,
    /// The listeners, any order.
    pub listeners: Vec<Listener>,
    /// The targets, one for each listener that has it, any order.
    pub targets: Vec<Target>,
    /// Flows; empty unless they were asked for.
    pub flows: Flows,
    /// Every reason of the data path, also those that were never met.
    pub reasons: Vec<Reason>,
}

/// The agent itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// False where this was read from the pinned maps.
    pub running: bool,
    /// The running agent's version.
    pub version: Option<String>,
    /// The node's name.
    pub node: Option<String>,
    /// Whether it writes the Services' status for the cluster.
    pub leader: Option<bool>,
    /// When the process began.
    #[serde(with = "whole_seconds")]
    pub started_at: Option<Timestamp>,
    /// [`nlb_common::layout::LAYOUT`] of the maps.
    pub layout: Option<u32>,
}

/// An uplink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MTU in bytes; `None` while it is not there.
    pub mtu: Option<u32>,
    /// How `nlb_xdp` is attached.
    pub mode: InterfaceMode,
    /// How `nlb_reply` is attached.
    pub reply: ReplyMode,
    /// What was chosen, why, and the command that improves it.
    pub notes: Vec<String>,
}

/// How `nlb_xdp` is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterfaceMode {
    /// In the driver.
    Driver,
    /// In the kernel's own receive path.
    Generic,
    /// Not at all.
    None,
}

/// How `nlb_reply` is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplyMode {
    /// As a tcx link.
    Tcx,
    /// As a clsact filter.
    Clsact,
    /// Not at all.
    None,
}

/// One source of Services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceState {
    /// `manifests` or `kubernetes`.
    pub name: String,
    /// Whether its whole contents are known.
    pub synced: bool,
    /// Since when it has been so; `None` while that is not known.
    #[serde(with = "whole_seconds")]
    pub since: Option<Timestamp>,
}

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The map's name.
    pub name: String,
    /// Entries in use.
    pub entries: u64,
    /// Entries it was made for.
    pub capacity: u64,
}

/// A VIP as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vip {
    /// The address.
    pub vip: std::net::IpAddr,
    /// The node that answers for it.
    pub owner: Option<String>,
    /// Whether that is this node.
    pub here: Option<bool>,
    /// Whether this node could answer for it.
    pub eligible: Option<bool>,
    /// Why it could not.
    pub reason: Option<String>,
}

/// The machine's own settings that forwarding depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// `net.ipv4.ip_forward`, `net.ipv6.conf.all.forwarding`.
    pub forwarding: Forwarding,
    /// `None` where nf_conntrack is not loaded.
    pub conntrack: Option<Conntrack>,
}

/// How busy the health checks are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// Sockets that they may use at once.
    pub sockets: u64,
    /// Under way now, each with one socket.
    pub running: u64,
    /// Those whose time has come and that wait for a socket now.
    pub waiting: u64,
    /// Those that began more than a second after their time, since the agent began.
    pub late: u64,
    /// Those that were broken off for another and began again, since the agent began.
    pub given_up: u64,
}

/// Whether the host forwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Forwarding {
    pub ipv4: Option<bool>,
    pub ipv6: Option<bool>,
}

/// The host's own connection tracking, through which every local flow passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conntrack {
    /// `net.netfilter.nf_conntrack_count`.
    pub entries: u64,
    /// `net.netfilter.nf_conntrack_max`.
    pub capacity: u64,
}

/// Counters of a listener or of a target behind one; both directions as far as this node sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// Flows alive.
    pub flows: u64,
    /// Flows that were ever given a target.
    pub new_flows: u64,
    /// Packets forwarded.
    pub packets: u64,
    /// Bytes of those packets, IP header included.
    pub bytes: u64,
}

impl std::iter::Sum for Traffic {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            flows: a.flows + b.flows,
            new_flows: a.new_flows + b.new_flows,
            packets: a.packets + b.packets,
            bytes: a.bytes + b.bytes,
        })
    }
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// (VIP, port, protocol).
    pub listener: ListenerAddress,
    /// The Service's namespace.
    pub namespace: Option<String>,
    /// The Service's name.
    pub service: Option<String>,
    /// Targets that are healthy.
    pub healthy: Option<u32>,
    /// Targets that are registered, draining ones not counted.
    pub registered: Option<u32>,
    /// Traffic goes to all registered targets because too few are healthy.
    pub fail_open: Option<bool>,
    /// Its counters.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// Packets dropped on its behalf, by reason.
    pub drops: BTreeMap<String, u64>,
}

/// One target of one listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// The Service's namespace.
    pub namespace: Option<String>,
    /// The Service's name.
    pub service: Option<String>,
    /// The listener it serves.
    pub listener: ListenerAddress,
    /// The pod's address and port.
    pub target: SocketAddr,
    /// The pod's node.
    pub node: Option<String>,
    /// The pod's zone.
    pub zone: Option<String>,
    /// Whether the host's own routing delivers to it.
    pub local: Option<bool>,
    /// Relative share of new flows.
    pub weight: Option<u32>,
    /// What is done to its packets.
    pub path: Option<Path>,
    /// Where its packets leave the program.
    pub via: Option<Via>,
    /// Why this path, one sentence.
    pub path_reason: Option<String>,
    /// Its health.
    pub state: Option<State>,
    /// AWS's reason code.
    pub reason: Option<String>,
    /// The reason in a sentence.
    pub description: Option<String>,
    /// Since when it has been in this state.
    #[serde(with = "whole_seconds")]
    pub since: Option<Timestamp>,
    /// Its counters.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// Health checks by result (`passed`, `failed`, `timeout`), since the agent began.
    pub checks: Option<BTreeMap<String, u64>>,
}

/// What is done to the packets of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// Destination NAT; the host's routing delivers.
    Local,
    /// Source NAT as well.
    Snat,
    /// Encapsulated; the target's node answers the client.
    Dsr,
    /// Nothing: it gets no packets.
    None,
}

/// Where packets to a target leave the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// XDP_PASS.
    Stack,
    /// XDP_TX.
    XdpTx,
    /// XDP_REDIRECT.
    XdpRedirect,
}

/// The health of a target, healthiest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its checks pass.
    Healthy,
    /// Its checks have not been passed yet.
    Initial,
    /// It keeps its flows and gets no new ones.
    Draining,
    /// Its checks fail.
    Unhealthy,
    /// Registered but not in use.
    Unused,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Healthy, Self::Initial, Self::Draining, Self::Unhealthy, Self::Unused];

    /// The word in JSON, tables and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Initial => "initial",
            Self::Draining => "draining",
            Self::Unhealthy => "unhealthy",
            Self::Unused => "unused",
        }
    }
}

/// One reason of the data path and how often it was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Its name.
    pub name: String,
    /// Packets.
    pub packets: u64,
    /// What became of them.
    pub kind: Kind,
    /// What it means, one sentence.
    pub meaning: String,
    /// What to do, one sentence.
    pub remedy: String,
}

impl Snapshot {
    /// Everything in the order of the contract: listeners by address, targets below them.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.listeners.sort_by(|a, b| {
            (&a.namespace, &a.service, a.listener).cmp(&(&b.namespace, &b.service, b.listener))
        });
        self.targets.sort_by(|a, b| {
            (&a.namespace, &a.service, a.listener, a.target).cmp(&(
                &b.namespace,
                &b.service,
                b.listener,
                b.target,
            ))
        });
        self.vips.sort_by_key(|vip| vip.vip);
        self
    }
}

/// RFC 3339 without a fraction: finer than people or the contract ask for.
mod whole_seconds {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
        time.and_then(|time| Timestamp::from_second(time.as_second()).ok()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
        Option::deserialize(from)
    }
}

#[cfg(test)]
pub(crate) mod tests;
