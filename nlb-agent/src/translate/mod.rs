//! From Kubernetes objects to the model: what users wrote, what it means here, and what they should know about it.
//!
//! [`translate`] is a pure function. Each file reads one part of the contract: `claim` (whose Service), `front` (scheme,
//! families, addresses), `health_check`, `attributes`, `listeners`, `refusals` and `sources` (ports not served), `known` (all the rest),
//! `targets` (EndpointSlices, found by `slices`), `claimed` (whose pod has which address), then `addresses` and `clashes`, which look at all load balancers together.
//! `translation` remembers what is between a Service and its targets, so that an endpoint's change costs no more than it must.

mod addresses;
mod annotations;
mod attributes;
mod claim;
mod claimed;
#[cfg(test)]
mod claimed_tests;
mod clashes;
#[cfg(test)]
mod contract;
mod findings;
mod front;
mod health_check;
#[cfg(test)]
mod kept_tests;
mod known;
mod listeners;
mod nodes;
mod ports;
#[cfg(test)]
mod properties;
mod refusals;
mod settings;
mod slices;
mod sources;
mod targets;
#[cfg(test)]
mod tests;
mod translation;

pub use findings::{found, shown};
pub use settings::{Listening, NodeVips, Settings, TargetType, Vips};
pub use sources::source_range;
pub use translation::{Extent, Renewal, Translation};

use crate::inputs::{Inputs, ObjectName};
use crate::model::{
    Forward, IpFamily, Listener, LoadBalancer, Model, Protocol, RefusedPort, Scheme, TargetGroup, Unclaimed,
};
use crate::problem::Problem;
use annotations::Annotations;
use attributes::{AttributeMaps, GroupAttributes};
use claim::Claim;
use findings::Findings;
use front::Wanted;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use listeners::IdleTimeouts;
use ports::Port;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One of our Services on its way into the model.
struct Draft<'a> {
    name: ObjectName,
    service: &'a Service,
    /// `None` where it cannot be built and nothing earlier can go on.
    lb: Option<LoadBalancer>,
    /// True if `lb` is the earlier one, which goes on because the new one cannot be built.
    kept: bool,
    scheme: Scheme,
    wanted: Vec<Wanted>,
    prefers_dual: bool,
    findings: Findings,
}

/// What the inputs ask for. `previous` is the last result: it gives a Service whose settings are bad now its last good
/// state, and every Service the addresses that it has.
pub fn translate(inputs: &Inputs, settings: &Settings, previous: Option<&Model>) -> Model {
    Translation::of(&Arc::new(inputs.clone()), settings, previous).into_model()
}

/// Every Service that is ours, all but its targets settled, in the order of who was first; and those that are not ours.
fn drafts<'a>(
    inputs: &'a Inputs,
    settings: &Settings,
    previous: Option<&Model>,
) -> (Vec<Draft<'a>>, Vec<Unclaimed>) {
    let (mut drafts, mut unclaimed) = (Vec::new(), Vec::new());
    for (name, service) in &inputs.services {
        match claim::claim(service, settings) {
            Claim::Ours => drafts.push(draft(name, service, settings, previous)),
            Claim::NotOurs(reason) => {
                let ObjectName { namespace, name } = name.clone();
                unclaimed.push(Unclaimed { namespace, name, reason });
            }
            Claim::NoLoadBalancer => {}
        }
    }
    drafts.sort_by_cached_key(|draft| age(draft.service, &draft.name));
    addresses::give(&mut drafts, settings, previous);
    clashes::settle(&mut drafts, settings);
    front::same_labels(drafts.iter_mut().map(|it| (it.service, &it.name, &mut it.findings)));
    (drafts, unclaimed)
}

/// Who was first: creationTimestamp (a Service without one is not made yet), then namespace and name.
fn age(service: &Service, name: &ObjectName) -> (Reverse<bool>, Option<Timestamp>, ObjectName) {
    let created = service.metadata.creation_timestamp.as_ref().map(|it| it.0);
    (Reverse(created.is_some()), created, name.clone())
}

/// Namespace, name, field; then whatever makes the order one.
pub fn order(problem: &Problem) -> (String, Problem) {
    let object = problem.object.split_once(' ').map_or("", |(_, name)| name);
    let field = problem.field.as_deref().unwrap_or_default();
    (format!("{}\0{field}", object.replacen('/', "\0", 1)), problem.clone())
}

/// Reads one Service; where its settings are bad, what `previous` had of it goes on.
fn draft<'a>(
    name: &ObjectName,
    service: &'a Service,
    settings: &Settings,
    previous: Option<&Model>,
) -> Draft<'a> {
    let annotations = Annotations::of(service);
    let mut findings = Findings::new(format!("Service {name}"));
    let kind = front::target_type(&annotations, settings, &mut findings);
    nodes::wanted_labels(&annotations, kind, &mut findings);
    let families = front::families(service, &annotations, &mut findings);
    let wanted = front::wanted(service, &annotations, &families, &mut findings);
    let scheme = front::scheme(&annotations, settings, &mut findings);
    front::label(&annotations, &mut findings);
    known::answer(&annotations, &mut findings);
    claim::deletion(service, &mut findings);
    claim::left_overs(service, &mut findings);
    let mut lb = build(name, service, (scheme, families, kind), settings, &mut findings);
    let mut kept = false;
    let mut built = Some(());
    if findings.is_broken() {
        match previous.and_then(|it| earlier(it, name, service)) {
            Some(last) => {
                findings.kept_last_good();
                lb = last.clone();
                kept = true;
            }
            None => built = None,
        }
    }
    let policy = service.spec.as_ref().and_then(|it| it.ip_family_policy.as_deref());
    let prefers_dual = policy == Some("PreferDualStack");
    Draft {
        name: name.clone(),
        service,
        lb: built.map(|()| lb),
        kept,
        scheme,
        wanted,
        prefers_dual,
        findings,
    }
}

/// The same Service in the previous model; one that was made anew under the same name is another.
fn earlier<'a>(previous: &'a Model, name: &ObjectName, service: &Service) -> Option<&'a LoadBalancer> {
    let found = previous
        .load_balancers
        .iter()
        .find(|it| (&it.namespace, &it.name) == (&name.namespace, &name.name))?;
    let differs = found.uid.is_some() && service.metadata.uid.is_some() && found.uid != service.metadata.uid;
    Some(found).filter(|_| !differs)
}

fn build(
    name: &ObjectName,
    service: &Service,
    (scheme, ip_families, kind): (Scheme, Vec<IpFamily>, TargetType),
    settings: &Settings,
    findings: &mut Findings,
) -> LoadBalancer {
    let annotations = Annotations::of(service);
    let ports = ports::ports(service);
    let for_aws = claim::is_for_aws(service, &annotations);
    let attributes = attributes::load_balancer(&annotations, findings);
    let maps = AttributeMaps::read(&annotations, &ports, findings);
    let idle = IdleTimeouts::read(&annotations, &ports, for_aws, findings);
    let sticky = front::later_fields(service, findings);
    // D2: AWS's default where AWS's users look, else the client's address is kept where the path allows.
    let preserve = !for_aws || kind == TargetType::Instance;
    let group = |port: &Port, findings: &mut Findings| {
        let mut group = maps.group(port.number, port.transport?, preserve, findings);
        group.source_ip_stickiness |= sticky;
        Some((port.index, group))
    };
    let groups: BTreeMap<usize, GroupAttributes> =
        ports.iter().filter_map(|port| group(port, findings)).collect();
    let mut refused = refusals::refusals(&annotations, &ports, &groups, findings);
    let sources = sources::sources(service, &annotations, &ip_families, settings, findings);
    if let Some(reason) = sources.closed {
        ports.iter().for_each(|port| _ = refused.entry(port.index).or_insert(reason));
    }
    let health_check = health_check::health_check(&annotations, &ports, findings);
    let served = |port: &&Port| !refused.contains_key(&port.index);
    let target_group = |port: &Port| {
        let parts = (kind, &health_check, attributes.cross_zone);
        Some(target_group(name, port, groups.get(&port.index)?, parts))
    };
    let listener = |port: &Port| Some(listener(name, port, port.transport?, &idle, &sources.ranges));
    LoadBalancer {
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        uid: service.metadata.uid.clone(),
        class: service.spec.as_ref().and_then(|it| it.load_balancer_class.clone()),
        scheme,
        vips: Vec::new(),
        deletion_protection: attributes.deletion_protection,
        listeners: ports.iter().filter(served).filter_map(listener).collect(),
        refused_ports: ports
            .iter()
            .filter_map(|port| refused_port(port, refused.get(&port.index)?))
            .collect(),
        target_groups: ports.iter().filter(served).filter_map(target_group).collect(),
        nodes: None,
        ip_families,
    }
}

fn refused_port(port: &Port, reason: &str) -> Option<RefusedPort> {
    Some(RefusedPort { port: port.number, protocol: port.protocol.clone(), reason: reason.to_owned() })
}

fn listener(
    name: &ObjectName,
    port: &Port,
    protocol: Protocol,
    idle: &IdleTimeouts,
    ranges: &[ipnet::IpNet],
) -> Listener {
    Listener {
        port: port.number,
        protocol,
        idle_timeout: idle.of(port.number, protocol),
        source_ranges: ranges.to_vec(),
        forward: vec![Forward { target_group: targets::group_name(name, port.number, protocol), weight: 1 }],
        target_group_stickiness: false,
    }
}

fn target_group(
    name: &ObjectName,
    port: &Port,
    attributes: &GroupAttributes,
    (kind, health_check, cross_zone): (TargetType, &crate::model::HealthCheck, bool),
) -> TargetGroup {
    let protocol = port.transport.expect("groups are of TCP and UDP ports");
    TargetGroup {
        name: targets::group_name(name, port.number, protocol),
        protocol,
        target_type: kind,
        target_port: port.target.clone(),
        slice_port: Some(port.name.clone()),
        health_check: health_check.clone(),
        preserve_client_ip: attributes.preserve_client_ip,
        // A port that asks for it is refused until it works for real.
        proxy_protocol_v2: false,
        source_ip_stickiness: attributes.source_ip_stickiness,
        cross_zone: attributes.cross_zone.unwrap_or(cross_zone),
        deregistration_delay: attributes.deregistration_delay,
        deregistration_connection_termination: attributes.deregistration_connection_termination,
        unhealthy_connection_termination: attributes.unhealthy_connection_termination,
        unhealthy_draining_interval: attributes.unhealthy_draining_interval,
        minimum_healthy_targets: attributes.minimum_healthy_targets,
        dns_failover: attributes.dns_failover,
        targets: Vec::new(),
    }
}
