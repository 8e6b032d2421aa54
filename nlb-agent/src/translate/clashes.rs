//! Two that want one VIP and port: an older Service, or the node itself, keeps it.

use super::Draft;
use super::findings::At;
use super::ports::{Port, ports};
use super::settings::{NodeVips, Settings, Vips};
use crate::inputs::ObjectName;
use crate::model::{Listener, LoadBalancer, Protocol, RefusedPort};
use crate::problem::Effect;
use k8s_openapi::api::core::v1::Service;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Refuses what is taken. `drafts` stand in the order of who was first.
pub(super) fn settle(drafts: &mut [Draft<'_>], settings: &Settings) {
    let mut owners: BTreeMap<(IpAddr, Protocol, u16), ObjectName> = BTreeMap::new();
    for draft in drafts {
        let Some(lb) = &mut draft.lb else { continue };
        for listener in std::mem::take(&mut lb.listeners) {
            let place = |vip: &IpAddr| (*vip, listener.protocol, listener.port);
            let owner = lb.vips.iter().find_map(|vip| owners.get(&place(vip)).map(|owner| (*vip, owner)));
            let taken = match (owner, &settings.vips) {
                (Some((vip, owner)), _) => Some(format!("on {vip} it is Service {owner}'s, which is older")),
                (None, Vips::Node(node)) => taken_by_node(node, lb, &listener),
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
            owners.extend(lb.vips.iter().map(|vip| (place(vip), draft.name.clone())));
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

fn taken_by_node(node: &NodeVips, lb: &LoadBalancer, listener: &Listener) -> Option<String> {
    let covering = |it: &&super::settings::Listening| {
        lb.vips.iter().any(|vip| it.covers(*vip, listener.protocol, listener.port))
    };
    if let Some(own) = node.listening.iter().find(covering) {
        return Some(format!("{} listens on {} port {} of this node", own.owner, own.address, own.port));
    }
    let range = node.node_ports.as_ref().filter(|range| range.contains(&listener.port))?;
    Some(format!("{} to {} is the node-port range", range.start(), range.end()))
}

fn refuse(lb: &mut LoadBalancer, listener: &Listener) {
    let (port, protocol) = (listener.port, listener.protocol.to_string());
    lb.refused_ports.push(RefusedPort { port, protocol, reason: "PortTaken".into() });
    // A group that nothing forwards to would be probed for nobody.
    lb.target_groups.retain(|group| !listener.forward.iter().any(|it| it.target_group == group.name));
}
