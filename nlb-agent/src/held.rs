//! What the maps tell by themselves, in the report's words: addresses and counters, but no names and no health.

use crate::bpf::pins::Sizes;
use crate::problem::{Effect, Problem, Severity};
use crate::report::{self, ListenerAddress, Table, Traffic};
use nlb_common::layout::{Counts, ListenerKey, Slot, SlotCounts};
use nlb_common::reasons::Reason;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A listener with its counters and live flows; `None` for a protocol that nlb does not serve.
pub fn listener(key: &ListenerKey, counts: &Counts, flows: u32) -> Option<report::Listener> {
    Some(report::Listener {
        listener: ListenerAddress::of(key)?,
        namespace: None,
        service: None,
        healthy: None,
        registered: None,
        fail_open: None,
        traffic: listener_traffic(counts, flows),
        drops: drops(counts),
    })
}

/// The target in a slot in use, with its counters and live flows; `None` for a protocol that nlb does not serve.
pub fn target(slot: &Slot, counts: &SlotCounts, flows: u32) -> Option<report::Target> {
    Some(report::Target {
        namespace: None,
        service: None,
        listener: ListenerAddress::of(&slot.listener_key())?,
        target: (slot.target.ip(), slot.target_port).into(),
        node: None,
        zone: None,
        local: Some(true),
        weight: None,
        path: Some(report::Path::Local),
        via: Some(report::Via::Stack),
        path_reason: None,
        state: None,
        reason: None,
        description: None,
        since: None,
        traffic: target_traffic(counts, flows),
        checks: None,
    })
}

/// A VIP; who answers for it the maps do not say.
pub fn vip(vip: IpAddr) -> report::Vip {
    report::Vip { vip, owner: None, here: None, eligible: None, reason: None }
}

/// Entries in use.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the tables' names")]
pub struct Fill {
    pub flows: u32,
    pub half_flows: u32,
    pub listeners: usize,
    pub slots: usize,
    pub vips: usize,
}

/// How full the maps are.
pub fn tables(fill: Fill, sizes: Sizes) -> Vec<Table> {
    let table =
        |name: &str, entries, capacity: u32| Table { name: name.into(), entries, capacity: capacity.into() };
    vec![
        table("flows", fill.flows.into(), sizes.flows),
        table("half_flows", fill.half_flows.into(), sizes.half_flows),
        table("listeners", fill.listeners as u64, sizes.listeners),
        table("slots", fill.slots as u64, sizes.slots),
        table("vips", fill.vips as u64, sizes.listeners),
    ]
}

/// A listener's counters in the report's words.
pub fn listener_traffic(counts: &Counts, flows: u32) -> Traffic {
    let Counts { packets, bytes, new_flows, .. } = *counts;
    Traffic { flows: flows.into(), new_flows, packets, bytes }
}

/// A slot's counters in the report's words.
pub fn target_traffic(counts: &SlotCounts, flows: u32) -> Traffic {
    let SlotCounts { packets, bytes, new_flows, .. } = *counts;
    Traffic { flows: flows.into(), new_flows, packets, bytes }
}

/// Packets dropped on behalf of a listener, by reason.
pub fn drops(counts: &Counts) -> BTreeMap<String, u64> {
    let names = Reason::OF_LISTENERS.iter().map(|reason| reason.name().to_owned());
    names.zip(counts.drops).collect()
}

/// Listeners, more than none, are served of which the agent knows no more than the maps tell; `synced` is whether the
/// sources have been read whole.
pub fn problem(node: &str, listeners: usize, synced: bool) -> Problem {
    let many = if listeners == 1 { "1 listener goes" } else { &format!("{listeners} listeners go") };
    let (reason, message) = if synced {
        let why = "no Service that can be read and built now asks for them, and some cannot";
        let remedy = "Once every manifest can be, they are listed with names and health again, or end";
        ("ListenersKept", format!("{many} on as an earlier agent left them: {why}. {remedy}."))
    } else {
        let why = "the sources have not been read since this agent began";
        let remedy = "Until they are, nobody checks the targets' health, and no change is followed";
        ("SourceNotRead", format!("{many} on as an earlier agent left them: {why}. {remedy}."))
    };
    Problem {
        severity: Severity::Warning,
        object: format!("Node {node}"),
        field: None,
        value: None,
        reason: reason.into(),
        message,
        effect: Effect::KeptLastGood,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nlb_common::layout::UDP;

    fn slot() -> Slot {
        Slot {
            target: IpAddr::from([10, 1, 0, 7]).into(),
            vip: IpAddr::from([192, 0, 2, 10]).into(),
            target_port: 9053,
            vip_port: 53,
            protocol: UDP,
            ..Slot::default()
        }
    }

    #[test]
    fn a_target_stands_below_the_listener_of_its_slot() {
        let counts = Counts { packets: 5, new_flows: 2, ..Counts::default() };
        let of_slot = SlotCounts { packets: 5, new_flows: 2, ..SlotCounts::default() };
        let (target, listener) =
            (target(&slot(), &of_slot, 1).unwrap(), listener(&slot().listener_key(), &counts, 1).unwrap());
        assert_eq!(target.listener.to_string(), "192.0.2.10:53/UDP");
        assert_eq!((target.listener, target.traffic), (listener.listener, listener.traffic));
        assert_eq!(target.target.to_string(), "10.1.0.7:9053");
        assert_eq!((target.traffic.packets, target.traffic.new_flows, target.traffic.flows), (5, 2, 1));
        assert_eq!(
            (target.state, target.service, listener.service, listener.healthy),
            (None, None, None, None)
        );
    }

    #[test]
    fn every_table_of_the_listing_has_its_own_fill_and_size() {
        let fill = Fill { flows: 1, half_flows: 2, listeners: 3, slots: 4, vips: 5 };
        let sizes = Sizes { flows: 10, half_flows: 20, listeners: 30, slots: 40 };
        let rows: Vec<_> =
            tables(fill, sizes).into_iter().map(|it| (it.name, it.entries, it.capacity)).collect();
        let wanted = [("flows", 1, 10), ("half_flows", 2, 20), ("listeners", 3, 30), ("slots", 4, 40)];
        let wanted = wanted.into_iter().chain([("vips", 5, u64::from(sizes.listeners))]);
        assert_eq!(rows, wanted.map(|(name, n, of)| (name.to_owned(), n, of)).collect::<Vec<_>>());
    }

    #[test]
    fn why_listeners_go_on_is_said_apart() {
        let unread = problem("a", 1, false);
        assert_eq!((unread.reason.as_str(), unread.object.as_str()), ("SourceNotRead", "Node a"));
        assert!(unread.message.starts_with("1 listener goes on"), "{}", unread.message);
        let kept = problem("a", 2, true);
        assert_eq!(kept.reason, "ListenersKept");
        assert!(kept.message.starts_with("2 listeners go on"), "{}", kept.message);
    }
}
