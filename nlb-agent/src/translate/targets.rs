//! From EndpointSlices to targets (contract 2.12): which endpoint serves which target group, and what is left out.

use super::findings::{At, Findings};
use super::ports::{Port, number, ports};
use super::settings::Settings;
use super::slices::Slices;
use crate::inputs::{Inputs, ObjectName};
use crate::model::{
    CheckPort, Conditions, IpFamily, LoadBalancer, PortRef, Protocol, Target, TargetGroup, TargetKey,
};
use crate::problem::{Effect, Problem};
use crate::vips::unusable;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use nlb_common::ring::MAX_TARGETS_PER_SET;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// What filling needs besides the load balancer itself.
pub(super) struct Context<'a> {
    pub(super) inputs: &'a Inputs,
    pub(super) settings: &'a Settings,
    pub(super) slices: &'a Slices,
    /// Every address that is served: none of them can be a target.
    pub(super) vips: &'a BTreeSet<IpAddr>,
}

/// An endpoint that can be a target, on whatever port.
struct Candidate<'a> {
    slice: &'a EndpointSlice,
    ip: IpAddr,
    endpoint: &'a Endpoint,
}

/// Gives every group its targets; problems of slices come back, those of the Service go into `findings`.
pub(super) fn fill(
    lb: &mut LoadBalancer,
    service: &Service,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Vec<Problem> {
    let name = ObjectName::new(&lb.namespace, &lb.name);
    let ports = ports(service);
    let slices = context.slices.of_service(&name, context.inputs);
    let mut problems = Vec::new();
    let mut candidates = Vec::new();
    for (slice_name, slice) in &slices {
        let mut about = Findings::new(format!("EndpointSlice {slice_name}"));
        candidates.extend(usable(slice, context, &mut about));
        unmatched_slice_ports(slice, &ports, &lb.target_groups, &mut about);
        unserved_family(slice, service, &mut about);
        problems.append(&mut about.problems);
    }
    if candidates.is_empty() {
        let message =
            "No EndpointSlice gives this Service an endpoint, so its listeners have no target.".to_owned();
        findings.note(At::WHOLE, "NoEndpoints", message, Effect::Ignored);
    } else {
        unmatched_ports(&ports, &slices, findings);
    }
    candidates.retain(|it| lb.ip_families.contains(&IpFamily::of(it.ip)));
    vips_without_endpoints(lb, &candidates, findings);
    for group in &mut lb.target_groups {
        fill_group(group, (&ports, &slices, &candidates), context, findings);
    }
    problems
}

fn usable<'a>(slice: &'a EndpointSlice, context: &Context<'_>, about: &mut Findings) -> Vec<Candidate<'a>> {
    let family = match slice.address_type.as_str() {
        "IPv4" => IpFamily::IPv4,
        "IPv6" => IpFamily::IPv6,
        other => {
            let message = format!(
                "addressType is {other}; nlb forwards to IPv4 and IPv6 only, so the slice has no effect."
            );
            about.warn(
                At { field: "addressType", value: Some(other) },
                "AddressTypeNotSupported",
                message,
                Effect::Ignored,
            );
            return Vec::new();
        }
    };
    let mut usable = Vec::new();
    for (index, endpoint) in slice.endpoints.iter().enumerate() {
        for (nth, text) in endpoint.addresses.iter().enumerate() {
            let why = match (nth, text.parse::<IpAddr>()) {
                (0, Ok(ip)) => match reason_against(ip, family, context.vips) {
                    None => {
                        usable.push(Candidate { slice, ip, endpoint });
                        continue;
                    }
                    Some(why) => why,
                },
                (_, Err(_)) => "it is no IP address",
                (_, Ok(_)) => "only the first address of an endpoint counts; write one endpoint for each pod",
            };
            let field = format!("endpoints[{index}].addresses[{nth}]");
            let message = format!("{field} is {}, which is left out: {why}.", super::shown(text));
            about.warn(At { field: &field, value: Some(text) }, "UnusableAddress", message, Effect::Ignored);
        }
    }
    usable
}

/// A cluster makes slices of the Service's own families only.
fn unserved_family(slice: &EndpointSlice, service: &Service, about: &mut Findings) {
    let families = service.spec.as_ref().and_then(|it| it.ip_families.as_deref()).unwrap_or_default();
    let is_family = matches!(slice.address_type.as_str(), "IPv4" | "IPv6");
    if is_family && !families.is_empty() && !families.contains(&slice.address_type) {
        let message = format!(
            "addressType is {}, but spec.ipFamilies of the Service names {} alone; the slice has no effect.",
            slice.address_type,
            families.join(", ")
        );
        let at = At { field: "addressType", value: Some(&slice.address_type) };
        about.warn(at, "FamilyNotServed", message, Effect::Ignored);
    }
}

/// Targets are of their VIP's family.
fn vips_without_endpoints(lb: &LoadBalancer, candidates: &[Candidate<'_>], findings: &mut Findings) {
    let is_idle = |vip: &&IpAddr| !candidates.iter().any(|it| IpFamily::of(it.ip) == IpFamily::of(**vip));
    for vip in lb.vips.iter().filter(is_idle).take_while(|_| !candidates.is_empty()) {
        let message = format!(
            "No EndpointSlice gives this Service an {:?} endpoint, so its listeners on {vip} have no target.",
            IpFamily::of(*vip)
        );
        findings.note(At::WHOLE, "NoEndpoints", message, Effect::Ignored);
    }
}

fn reason_against(ip: IpAddr, family: IpFamily, vips: &BTreeSet<IpAddr>) -> Option<&'static str> {
    if IpFamily::of(ip) != family {
        Some("it is not of the slice's addressType")
    } else if vips.contains(&ip) {
        Some("it is a VIP, so traffic would come back to the load balancer")
    } else {
        unusable(ip)
    }
}

fn unmatched_slice_ports(
    slice: &EndpointSlice,
    ports: &[Port],
    groups: &[TargetGroup],
    about: &mut Findings,
) {
    for (index, port) in slice.ports.iter().flatten().enumerate() {
        let name = port.name.as_deref().unwrap_or_default();
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let is_kept =
            |it: &TargetGroup| it.slice_port.as_deref() == Some(name) && it.protocol.to_string() == protocol;
        if !ports.iter().any(|it| it.name == name && it.protocol == protocol) && !groups.iter().any(is_kept) {
            let field = format!("ports[{index}].name");
            let value = Some(name).filter(|it| !it.is_empty());
            let message = match value {
                Some(name) => format!(
                    "{field} is {} ({protocol}), but the Service has no such port; it has no effect.",
                    super::shown(name)
                ),
                None => format!(
                    "{field} is absent, but no {protocol} port of the Service is without a name; it has no effect."
                ),
            };
            about.warn(At { field: &field, value }, "PortNameNotFound", message, Effect::Ignored);
        } else if port.port.and_then(number).is_none() {
            let field = format!("ports[{index}].port");
            let message =
                format!("{field} is absent, so nobody knows where its endpoints listen; it has no effect.");
            about.warn(At { field: &field, value: None }, "PortNumberMissing", message, Effect::Ignored);
        }
    }
}

fn unmatched_ports(ports: &[Port], slices: &[(&ObjectName, &EndpointSlice)], findings: &mut Findings) {
    for port in ports.iter().filter(|port| port.transport.is_some()) {
        if !slices.iter().any(|(_, slice)| slice_port(slice, &port.name, &port.protocol).is_some()) {
            let field = format!("spec.ports[{}].name", port.index);
            let value = Some(port.name.as_str()).filter(|it| !it.is_empty());
            let called =
                value.map_or("without a name".into(), |name| format!("named {}", super::shown(name)));
            let message = format!(
                "No EndpointSlice of this Service has a port {called} ({}), so port {} has no target.",
                port.protocol, port.number
            );
            findings.warn(At { field: &field, value }, "PortNameNotFound", message, Effect::Ignored);
        }
    }
}

fn slice_port(slice: &EndpointSlice, name: &str, protocol: &str) -> Option<u16> {
    let fits = |it: &&k8s_openapi::api::discovery::v1::EndpointPort| {
        it.name.as_deref().unwrap_or_default() == name && it.protocol.as_deref().unwrap_or("TCP") == protocol
    };
    slice.ports.iter().flatten().find(fits)?.port.and_then(number)
}

/// Ports of a Service, its slices, and the endpoints in them.
type Ends<'a> = (&'a [Port], &'a [(&'a ObjectName, &'a EndpointSlice)], &'a [Candidate<'a>]);

fn fill_group(group: &mut TargetGroup, ends: Ends<'_>, context: &Context<'_>, findings: &mut Findings) {
    let port = ends.0.iter().find(|port| port.transport == Some(group.protocol) && is_of(group, port));
    // Learnt while it can be, where an older version wrote the group down.
    group.slice_port = group.slice_port.take().or_else(|| port.map(|it| it.name.clone()));
    let targets = targets_of(group, port, ends, context);
    let limit = MAX_TARGETS_PER_SET as usize;
    if targets.len() > limit {
        let message = format!(
            "{} has {} targets; {limit} is the most that one target group can have. The first {limit} by address are served.",
            group.name,
            targets.len()
        );
        findings.warn(At::WHOLE, "TooManyTargets", message, Effect::Clamped);
    }
    group.targets = targets.into_values().take(limit).collect();
}

fn targets_of(
    group: &TargetGroup,
    port: Option<&Port>,
    (ports, slices, candidates): Ends<'_>,
    context: &Context<'_>,
) -> BTreeMap<TargetKey, Target> {
    // A kept group may be of a Service port that has another name now, or another number.
    let names: Vec<&str> =
        port.map(|it| it.name.as_str()).into_iter().chain(group.slice_port.as_deref()).collect();
    let protocol = group.protocol.to_string();
    let told = |slice: &EndpointSlice| names.iter().find_map(|name| slice_port(slice, name, &protocol));
    let is_forgotten = port.is_none() && !slices.iter().any(|(_, slice)| told(slice).is_some());
    let mut targets: BTreeMap<TargetKey, Target> = BTreeMap::new();
    for candidate in candidates {
        let number = if is_forgotten { untold_port(group, candidate.ip) } else { told(candidate.slice) };
        if let Some(number) = number {
            let target = target(candidate, number, group, ports, candidates, context);
            targets.entry(target.key.clone()).and_modify(|it| merge(it, &target)).or_insert(target);
        }
    }
    targets
}

/// Slices forget a port that its Service forgot, but the pods of a group that goes on still listen where they did.
fn untold_port(group: &TargetGroup, ip: IpAddr) -> Option<u16> {
    let before = group.targets.iter().find(|it| it.key.ip == ip).map(|it| it.key.port);
    match &group.target_port {
        PortRef::Number(number) => before.or(Some(*number)),
        PortRef::Name(_) => before,
    }
}

fn is_of(group: &TargetGroup, port: &Port) -> bool {
    group.name.rsplit_once(':').is_some_and(|(_, end)| end == format!("{}/{}", port.number, port.protocol))
}

fn target(
    candidate: &Candidate<'_>,
    port: u16,
    group: &TargetGroup,
    ports: &[Port],
    all: &[Candidate<'_>],
    context: &Context<'_>,
) -> Target {
    let endpoint = candidate.endpoint;
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let node = endpoint.node_name.clone().filter(|it| !it.is_empty());
    Target {
        key: TargetKey {
            ip: candidate.ip,
            port,
            uid: endpoint.target_ref.as_ref().and_then(|it| it.uid.clone()),
        },
        check_port: check_port(candidate, port, group, ports, all),
        zone: endpoint.zone.clone().or_else(|| zone_of(node.as_deref()?, context.inputs)),
        local: node.is_none() || node == context.settings.node_name,
        node,
        weight: 1,
        conditions: Conditions {
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
        },
    }
}

fn zone_of(node: &str, inputs: &Inputs) -> Option<String> {
    let node = inputs.nodes.get(&ObjectName::new("", node))?;
    node.metadata.labels.as_ref()?.get(ZONE_LABEL).cloned()
}

/// A named port of a pod is what the pod's slices say of the Service port that leads there.
fn check_port(
    candidate: &Candidate<'_>,
    port: u16,
    group: &TargetGroup,
    ports: &[Port],
    all: &[Candidate<'_>],
) -> u16 {
    match &group.health_check.port {
        CheckPort::TrafficPort => port,
        CheckPort::Number(number) => *number,
        CheckPort::Name(name) => {
            let wanted = PortRef::Name(name.clone());
            let found = |slice: &EndpointSlice| {
                let named = ports.iter().filter(|it| it.target == wanted);
                named.filter_map(|it| slice_port(slice, &it.name, &it.protocol)).next()
            };
            let elsewhere = || all.iter().filter(|it| it.ip == candidate.ip).find_map(|it| found(it.slice));
            found(candidate.slice).or_else(elsewhere).unwrap_or(port)
        }
    }
}

/// One endpoint in two slices, as happens while it moves: whatever speaks for it counts.
fn merge(first: &mut Target, other: &Target) {
    first.conditions.ready |= other.conditions.ready;
    first.conditions.serving |= other.conditions.serving;
    first.conditions.terminating &= other.conditions.terminating;
    first.zone = first.zone.take().or_else(|| other.zone.clone());
    if first.node.is_none() {
        first.node.clone_from(&other.node);
        first.local = other.local;
    }
}

/// Nodes that have a ready endpoint, whichever ports of the Service it serves, for `externalTrafficPolicy: Local`.
pub(super) fn nodes_with_ready_pods(service: &ObjectName, context: &Context<'_>) -> BTreeSet<String> {
    let slices = context.slices.of_service(service, context.inputs);
    let endpoints = slices.iter().flat_map(|(_, slice)| &slice.endpoints);
    let ready = endpoints.filter(|it| it.conditions.as_ref().and_then(|it| it.ready).unwrap_or(true));
    ready.filter_map(|it| it.node_name.clone()).collect()
}

/// `namespace/service:port/PROTOCOL`.
pub(super) fn group_name(service: &ObjectName, port: u16, protocol: Protocol) -> String {
    format!("{service}:{port}/{protocol}")
}
