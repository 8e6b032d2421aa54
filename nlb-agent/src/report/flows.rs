//! `flows`: who talks to which target through which listener.

use super::page::plural;
use super::{ListenerAddress, Page, Path, Snapshot, View, count};
use crate::model::Protocol;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// The answer to `flows`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// Those that were asked for, at most as many as asked for.
    pub flows: Vec<Flow>,
    /// How many there are of that kind.
    pub total: u64,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// TCP or UDP.
    #[serde(with = "protocol")]
    pub protocol: Protocol,
    /// The client's address and port, as they came.
    pub client: SocketAddr,
    /// The listener.
    pub listener: ListenerAddress,
    /// The target; `None` where its slot is free again.
    pub target: Option<SocketAddr>,
    /// What is done to its packets.
    pub path: Path,
    /// How far it has come.
    pub state: FlowState,
    /// Seconds since its last packet.
    pub idle_seconds: u64,
}

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowState {
    /// Only one side has spoken.
    HalfOpen,
    /// Both have.
    Established,
    /// A FIN or RST was seen.
    Closing,
}

impl FlowState {
    /// The word in JSON and tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::HalfOpen => "half-open",
            Self::Established => "established",
            Self::Closing => "closing",
        }
    }
}

impl Path {
    /// The word in JSON and tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Snat => "snat",
            Self::Dsr => "dsr",
            Self::None => "none",
        }
    }
}

/// Which flows are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowFilter {
    /// Only this listener's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<ListenerAddress>,
    /// Only this client's, any port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// At most so many rows; `None` = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl FlowFilter {
    /// Whether this flow is asked for.
    pub fn admits(&self, listener: ListenerAddress, client: SocketAddr) -> bool {
        self.listener.is_none_or(|wanted| wanted == listener)
            && self.client.is_none_or(|wanted| wanted.to_canonical() == client.ip().to_canonical())
    }

    /// The answer from all flows there are: counts them all, keeps no more than the limit.
    pub fn answer(&self, all: impl IntoIterator<Item = Flow>) -> Flows {
        let limit = self.limit.unwrap_or(usize::MAX);
        let mut answer = Flows::default();
        for flow in all.into_iter().filter(|flow| self.admits(flow.listener, flow.client)) {
            answer.total += 1;
            if answer.flows.len() < limit {
                answer.flows.push(flow);
            }
        }
        answer.flows.sort_by_key(|flow| (flow.listener, flow.client));
        answer
    }
}

impl View for Flows {
    const PATH: &'static str = "/flows";

    fn of(snapshot: Snapshot) -> Self {
        snapshot.flows
    }

    fn table(&self, page: &Page) -> String {
        if self.total == 0 {
            return page
                .lines(&["No flow: nobody talks to a listener now, or none fits what was asked for."]);
        }
        let shown = self.flows.len();
        let of =
            if shown as u64 == self.total { String::new() } else { format!(" of {}", count(self.total)) };
        let mut text = page.lines(&[format!("{}{of}, by listener and client.", plural(shown, "flow"))]);
        let mut table = page.table(&["CLIENT", "LISTENER", "TARGET", "PATH", "STATE", ">IDLE"]);
        for flow in &self.flows {
            let target = flow.target.map_or_else(|| "gone".to_owned(), |target| target.to_string());
            let [client, listener] = [flow.client.to_string(), flow.listener.to_string()];
            let [path, state] = [flow.path.word(), flow.state.word()].map(str::to_owned);
            table.add_row([client, listener, target, path, state, format!("{}s", flow.idle_seconds)]);
        }
        text += &page.text(table, &[3, 5]);
        if !of.is_empty() {
            text += &page
                .lines(&["More with --limit N; fewer with --listener VIP:PORT/PROTOCOL or --client IP."]);
        }
        text
    }
}

/// The model's protocol is only ever written; here it is read back, too.
mod protocol {
    use crate::model::Protocol;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(protocol: &Protocol, to: S) -> Result<S::Ok, S::Error> {
        protocol.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Protocol, D::Error> {
        match String::deserialize(from)?.as_str() {
            "TCP" => Ok(Protocol::Tcp),
            "UDP" => Ok(Protocol::Udp),
            other => Err(D::Error::custom(format!("{other} is neither TCP nor UDP"))),
        }
    }
}
