//! Two that want one VIP and port: an older Service, or the node itself, keeps it.

use super::Draft;
use super::findings::At;
use super::ports::{Port, ports};
use super::settings::{NodeVips, Settings, Vips};
use crate::inputs::ObjectName;
use crate::model::{IpFamily, Listener, LoadBalancer, Protocol, RefusedPort};
use crate::problem::Effect;
use k8s_openapi::api::core::v1::Service;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// Refuses what is taken. `drafts` stand in the order of who was first.
pub(super) fn settle(drafts: &mut [Draft<'_>], settings: &Settings) {
    let mut owners: BTreeMap<(IpAddr, Protocol, u16), ObjectName> = BTreeMap::new();
    for draft in drafts {
        let Some(lb) = &mut draft.lb else { continue };
        for listener in std::mem::take(&mut lb.listeners) {
            let places = places(lb, &listener, &settings.vips);
            let owner = places.iter().find_map(|place| owners.get(place).map(|owner| (place.0, owner)));
            let taken = match (owner, &settings.vips) {
                (Some((vip, owner)), _) if vip.is_unspecified() => {
                    Some(format!("on every node it is Service {owner}'s, which is older"))
                }
                (Some((vip, owner)), _) => Some(format!("on {vip} it is Service {owner}'s, which is older")),
                (None, Vips::Node(node)) => taken_by_socket(node, lb, &listener)
                    .or_else(|| in_range(node.node_ports.as_ref(), &listener)),
                (None, Vips::AnyNode(range)) => in_range(Some(range), &listener),
                (None, Vips::None | Vips::Pools(_)) => None,
            };
            if let Some(why) = taken {
                let (field, value) = (field_of(draft.service, &listener), listener.port.to_string());
                let at = At { field: &field, value: Some(&value) };
                let message = format!("Port {}/{} is not served: {why}.", listener.port, listener.protocol);
                draft.findings.warn(at, "PortTaken", message, Effect::PortRefused);
                refuse(lb, &listener);
                continue;
            }
            if let Vips::Node(node) = &settings.vips
                && let Some(range) = node.local_ports.as_ref().filter(|range| range.contains(&listener.port))
            {
                let message = format!(
                    "Port {} is served, but the node takes ports {} to {} for its own connections; keep it out with net.ipv4.ip_local_reserved_ports.",
                    listener.port,
                    range.start(),
                    range.end()
                );
                let (field, value) = (field_of(draft.service, &listener), listener.port.to_string());
                let at = At { field: &field, value: Some(&value) };
                draft.findings.warn(at, "LocalPortRange", message, Effect::LocalMeaning);
            }
            owners.extend(places.into_iter().map(|place| (place, draft.name.clone())));
            lb.listeners.push(listener);
        }
    }
}

/// The port's place in the spec; one that was kept from an earlier spec may have none.
fn field_of(service: &Service, listener: &Listener) -> String {
    let ports = ports(service);
    let same = |it: &&Port| (it.number, it.transport) == (listener.port, Some(listener.protocol));
    ports.iter().find(same).map_or("spec.ports".into(), |it| format!("spec.ports[{}].port", it.index))
}

/// Where a listener stands: on its VIPs, or on those of a node that is not known.
fn places(lb: &LoadBalancer, listener: &Listener, vips: &Vips) -> Vec<(IpAddr, Protocol, u16)> {
    let any = |family: &IpFamily| match family {
        IpFamily::IPv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpFamily::IPv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let addresses = match vips {
        Vips::AnyNode(_) => lb.ip_families.iter().map(any).collect(),
        Vips::None | Vips::Pools(_) | Vips::Node(_) => lb.vips.clone(),
    };
    addresses.into_iter().map(|ip| (ip, listener.protocol, listener.port)).collect()
}

fn taken_by_socket(node: &NodeVips, lb: &LoadBalancer, listener: &Listener) -> Option<String> {
    let covering = |it: &&super::settings::Listening| {
        lb.vips.iter().any(|vip| it.covers(*vip, listener.protocol, listener.port))
    };
    let own = node.listening.iter().find(covering)?;
    Some(format!("{} listens on {} port {} of this node", own.owner, own.address, own.port))
}

fn in_range(node_ports: Option<&RangeInclusive<u16>>, listener: &Listener) -> Option<String> {
    let range = node_ports.filter(|range| range.contains(&listener.port))?;
    Some(format!("{} to {} is the node-port range", range.start(), range.end()))
}

fn refuse(lb: &mut LoadBalancer, listener: &Listener) {
    let (port, protocol) = (listener.port, listener.protocol.to_string());
    lb.refused_ports.push(RefusedPort { port, protocol, reason: "PortTaken".into() });
    // A group that nothing forwards to would be probed for nobody.
    lb.target_groups.retain(|group| !listener.forward.iter().any(|it| it.target_group == group.name));
}
