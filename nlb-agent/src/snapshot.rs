//! The agent as people and tools see it: model, health and counters of one moment, joined by listener and slot.

use crate::bpf::PinnedMaps;
use crate::health::{self, Load, Status};
use crate::held::{self, Fill};
use crate::model::{IpFamily, Listener, LoadBalancer, TargetGroup, listener_key};
use crate::reconcile::Reconcile;
use crate::report::{
    self, Agent, Conntrack, FlowState, Forwarding, Host, ListenerAddress, Snapshot, SourceState, Table,
};
use crate::slots::Occupant;
use crate::{bpf, cli};
use jiff::Timestamp;
use nlb_common::layout::{LAYOUT, ListenerKey};
use nlb_common::reasons::Reason;
use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

/// What does not change while the agent runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// When it began.
    pub started_at: Timestamp,
    /// When the manifests were first read whole.
    pub synced_since: Option<Timestamp>,
}

/// Everything but flows, which take a walk of their own. Counters that cannot be read are 0.
pub fn snapshot(agent: &Reconcile, identity: &Identity, extra: &[crate::problem::Problem]) -> Snapshot {
    let mut problems = agent.problems();
    problems.extend(extra.iter().cloned());
    let mut snapshot = Snapshot {
        agent: Agent {
            running: true,
            version: Some(cli::VERSION.into()),
            node: Some(agent.node.clone()),
            leader: Some(false),
            started_at: Some(identity.started_at),
            layout: Some(LAYOUT),
        },
        interfaces: Some(agent.uplinks.report(&agent.data_path.links, &agent.host.network)),
        sources: Some(vec![SourceState {
            name: "manifests".into(),
            synced: agent.sources.synced,
            since: identity.synced_since,
        }]),
        tables: tables(agent),
        vips: vips(agent),
        host: host(agent),
        checks: Some(checks(agent)),
        problems: Some(problems),
        reasons: reasons(&agent.data_path.maps),
        ..Snapshot::default()
    };
    for load_balancer in &agent.model().load_balancers {
        for vip in &load_balancer.vips {
            for listener in &load_balancer.listeners {
                add_listener(&mut snapshot, agent, load_balancer, *vip, listener);
            }
        }
    }
    add_held(&mut snapshot, agent);
    snapshot
}

fn tables(agent: &Reconcile) -> Vec<Table> {
    let live = agent.tally.total();
    let contents = agent.control.contents();
    let targets = contents.slots.iter().filter(|slot| slot.protocol != 0).count();
    let fill = Fill {
        flows: live.established,
        half_flows: live.half_open,
        listeners: contents.listeners.len(),
        slots: targets,
        vips: contents.vips.len(),
    };
    held::tables(fill, agent.data_path.maps.sizes)
}

fn vips(agent: &Reconcile) -> Vec<report::Vip> {
    let held = agent.control.contents().vips.keys().map(|address| address.ip());
    let asked_for = agent.model().load_balancers.iter().flat_map(|it| it.vips.iter().copied());
    let all: BTreeSet<IpAddr> = held.chain(asked_for).collect();
    let own = |vip| report::Vip {
        owner: Some(agent.node.clone()),
        here: Some(true),
        eligible: Some(true),
        ..held::vip(vip)
    };
    all.into_iter().map(own).collect()
}

fn checks(agent: &Reconcile) -> report::Checks {
    let Load { sockets, running, waiting, late, given_up, .. } = agent.checks();
    report::Checks { sockets, running, waiting, late, given_up }
}

fn host(agent: &Reconcile) -> Host {
    let sysctls = &agent.host.sysctls;
    Host {
        forwarding: Forwarding { ipv4: Some(sysctls.ipv4_forwarding), ipv6: sysctls.ipv6_forwarding },
        conntrack: sysctls.conntrack.map(|it| Conntrack { entries: it.entries, capacity: it.capacity }),
    }
}

/// Every reason of the data path with what it means.
pub fn reasons(maps: &PinnedMaps) -> Vec<report::Reason> {
    let counted = maps.reasons().unwrap_or_default();
    let row = |(reason, packets): (Reason, u64)| report::Reason {
        name: reason.name().into(),
        packets,
        kind: reason.kind(),
        meaning: reason.meaning().into(),
        remedy: reason.remedy().into(),
    };
    counted.into_iter().map(row).collect()
}

/// Listeners that the maps hold and no Service that is known asks for: an earlier agent's, until everything was read.
fn add_held(snapshot: &mut Snapshot, agent: &Reconcile) {
    let named: HashSet<ListenerAddress> = snapshot.listeners.iter().map(|row| row.listener).collect();
    let is_named = |key: &ListenerKey| ListenerAddress::of(key).is_none_or(|it| named.contains(&it));
    let (maps, contents) = (&agent.data_path.maps, agent.control.contents());
    let mut found = 0;
    for (key, listener) in contents.listeners.iter().filter(|(key, _)| !is_named(key)) {
        let counts = maps.listener_counts(listener.id).ok();
        let flows = agent.tally.listener(listener.id).all();
        snapshot.listeners.extend(held::listener(key, &counts.unwrap_or_default(), flows));
        found += 1;
        for Occupant { slot, .. } in agent.control.listener(key).into_iter().flat_map(|(_, all)| all) {
            let counts = maps.slot_counts(*slot).unwrap_or_default();
            let flows = agent.tally.slot(*slot).all();
            snapshot.targets.extend(held::target(&contents.slots[*slot as usize], &counts, flows));
        }
    }
    if found > 0 {
        let problem = held::problem(&agent.node, found, agent.sources.synced);
        snapshot.problems.get_or_insert_default().push(problem);
    }
}

fn add_listener(
    snapshot: &mut Snapshot,
    agent: &Reconcile,
    load_balancer: &LoadBalancer,
    vip: IpAddr,
    listener: &Listener,
) {
    let key = listener_key(vip, listener);
    let Some(address) = ListenerAddress::of(&key) else { return };
    let maps = &agent.data_path.maps;
    let seat = agent.control.listener(&key);
    let family = IpFamily::of(vip);
    let groups: Vec<&TargetGroup> = load_balancer
        .target_groups
        .iter()
        .filter(|group| listener.forward.iter().any(|forward| forward.target_group == group.name))
        .collect();
    let counts = seat.and_then(|(id, _)| maps.listener_counts(id).ok()).unwrap_or_default();
    let flows = seat.map_or(0, |(id, _)| agent.tally.listener(id).all());
    let standings = groups.iter().map(|group| agent.health.standings(&group.name, family));
    let (healthy, registered) =
        standings.fold((0, 0), |(healthy, all), it| (healthy + it.healthy, all + it.registered));
    snapshot.listeners.push(report::Listener {
        listener: address,
        namespace: Some(load_balancer.namespace.clone()),
        service: Some(load_balancer.name.clone()),
        healthy: Some(healthy),
        registered: Some(registered),
        fail_open: Some(groups.iter().any(|group| agent.health.fail_open(&group.name, family))),
        traffic: held::listener_traffic(&counts, flows),
        drops: held::drops(&counts),
    });
    let occupants = seat.map_or(&[][..], |(_, occupants)| occupants);
    for group in groups {
        add_targets(snapshot, agent, load_balancer, group, address, occupants);
    }
}

fn add_targets(
    snapshot: &mut Snapshot,
    agent: &Reconcile,
    load_balancer: &LoadBalancer,
    group: &TargetGroup,
    listener: ListenerAddress,
    occupants: &[Occupant],
) {
    for (key, status) in agent.health.targets(&group.name) {
        if key.ip.is_ipv4() != listener.socket.is_ipv4() || is_gone(status) {
            continue;
        }
        let occupant = occupants.iter().find(|it| {
            let uid = it.known.as_ref().map(|known| &known.uid);
            (it.ip, it.port) == (key.ip, key.port) && uid.is_none_or(|uid| *uid == key.uid)
        });
        let known = group.targets.iter().find(|target| target.key == *key);
        let local = known.is_none_or(|target| target.local);
        let maps = &agent.data_path.maps;
        let counts = occupant.and_then(|it| maps.slot_counts(it.slot).ok()).unwrap_or_default();
        let reason = known.and_then(health::unreachable_reason);
        snapshot.targets.push(report::Target {
            namespace: Some(load_balancer.namespace.clone()),
            service: Some(load_balancer.name.clone()),
            listener,
            target: key.socket(),
            node: known.and_then(|it| it.node.clone()),
            zone: known.and_then(|it| it.zone.clone()),
            local: Some(local),
            weight: Some(status.weight()),
            path: Some(if local { report::Path::Local } else { report::Path::None }),
            via: local.then_some(report::Via::Stack),
            path_reason: Some(reason.unwrap_or_else(|| {
                "the host's own routing delivers to it, and the client's address is kept".into()
            })),
            state: Some(state(status.state())),
            reason: status.reason().map(|reason| reason.code().into()),
            description: Some(status.description().into()),
            since: Some(status.since()),
            traffic: held::target_traffic(&counts, occupant.map_or(0, |it| agent.tally.slot(it.slot).all())),
            checks: Some(
                status.tally().by_result().into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
            ),
        });
    }
}

/// A target that was deregistered and whose delay has ended: no longer listed.
fn is_gone(status: &Status) -> bool {
    status.state() == health::State::Unused && status.reason() == Some(health::Reason::NotRegistered)
}

fn state(state: health::State) -> report::State {
    match state {
        health::State::Initial => report::State::Initial,
        health::State::Healthy => report::State::Healthy,
        health::State::Unhealthy => report::State::Unhealthy,
        health::State::Draining => report::State::Draining,
        health::State::Unused => report::State::Unused,
    }
}

/// The flows that a filter lets through.
///
/// # Errors
/// The maps cannot be read.
pub fn flows(maps: &PinnedMaps, filter: &report::FlowFilter) -> std::io::Result<report::Flows> {
    let filter = bpf::flows::FlowFilter {
        listener: filter.listener.map(ListenerAddress::key),
        client: filter.client,
        limit: filter.limit.unwrap_or(usize::MAX),
    };
    let found = maps.flows(&filter)?;
    let flow = |it: &bpf::flows::Flow| {
        let listener = ListenerAddress::of(&it.at.listener_key())?;
        Some(report::Flow {
            protocol: listener.protocol,
            client: it.client,
            listener,
            target: Some((it.at.target.ip(), it.at.target_port).into()),
            path: report::Path::Local,
            state: match it.stage {
                bpf::verdict::Stage::HalfOpen => FlowState::HalfOpen,
                bpf::verdict::Stage::Established => FlowState::Established,
                bpf::verdict::Stage::Closing => FlowState::Closing,
            },
            idle_seconds: it.idle_seconds.into(),
        })
    };
    Ok(report::Flows { flows: found.flows.iter().filter_map(flow).collect(), total: found.total })
}
