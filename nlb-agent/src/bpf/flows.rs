//! The flows that live now, for people who ask.

use super::maps::PinnedMaps;
use super::verdict::{Stage, Verdict, client_tuple, other_direction, reply_tuple, verdict};
use nlb_common::flow;
use nlb_common::layout::{Client, Entry, ListenerKey, Slot};
use nlb_common::tables::Table;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// One flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The client.
    pub client: SocketAddr,
    /// The client's port as the target sees it.
    pub port: u16,
    /// The slot's number.
    pub slot: u32,
    /// The slot: VIP, target, protocol.
    pub at: Slot,
    /// How far it has come.
    pub stage: Stage,
    /// Seconds since the last packet of either direction (known to a quarter of a second).
    pub idle_seconds: u32,
}

/// Which flows are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowFilter {
    /// Of this listener alone.
    pub listener: Option<ListenerKey>,
    /// Of this client alone.
    pub client: Option<IpAddr>,
    /// At most so many are listed; all that match are counted.
    pub limit: usize,
}

impl FlowFilter {
    fn takes(&self, slot: &Slot, client: &Client) -> bool {
        self.listener.is_none_or(|wanted| wanted == slot.listener_key())
            && self.client.is_none_or(|wanted| wanted == client.address.ip())
    }
}

/// A list that may be cut short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowList {
    /// At most as many as were asked for, established ones first.
    pub flows: Vec<Flow>,
    /// How many match.
    pub total: u64,
}

impl PinnedMaps {
    /// The flows that live now; reads both tables of the client's direction.
    pub fn flows(&self, filter: &FlowFilter) -> io::Result<FlowList> {
        let now = self.clock.now()?;
        let mut list = FlowList::default();
        for table in [Table::Flows, Table::HalfFlows] {
            let entries = self.table(table);
            for index in 0..entries.capacity() {
                let Some(entry) = entries.is_taken(index).then(|| entries.entry(index)).flatten() else {
                    continue;
                };
                let (Some(slot), Some(client)) = (self.slot(entry.slot), entries.client(index)) else {
                    continue;
                };
                if !filter.takes(&slot, &client) {
                    continue;
                }
                if let Some(flow) = self.flow(table, &entry, &slot, &client, now) {
                    list.total += 1;
                    if list.flows.len() < filter.limit {
                        list.flows.push(flow);
                    }
                }
            }
        }
        Ok(list)
    }

    /// The flow of a client's entry; `None` if it is over, or not yet wholly written.
    fn flow(&self, table: Table, entry: &Entry, slot: &Slot, client: &Client, now: u32) -> Option<Flow> {
        let Client { address, port, .. } = *client;
        if client_tuple(client, slot).place(self.config.seed).tag != entry.tag {
            return None;
        }
        let hash = reply_tuple(client, slot, entry.port).place(self.config.seed);
        let found = self.table(other_direction(table)).find(hash).map(|(_, reply)| reply);
        let reply = found.filter(|reply| reply.slot == entry.slot && reply.generation == entry.generation);
        let judge = |table, entry: &Entry| verdict(table, entry, Some(slot), now, self.config.hz);
        match judge(table, entry) {
            Verdict::Stale => return None,
            Verdict::Live => {}
            Verdict::Silent => {
                reply.filter(|reply| judge(other_direction(table), reply) == Verdict::Live)?;
            }
        }
        let age = flow::age(entry.life, now);
        let age = reply.map_or(age, |reply| age.min(flow::age(reply.life, now)));
        Some(Flow {
            client: SocketAddr::new(address.ip(), port),
            port: entry.port,
            slot: entry.slot,
            at: *slot,
            stage: Stage::of(table, entry.life.state),
            idle_seconds: age / self.config.hz.max(1),
        })
    }
}
