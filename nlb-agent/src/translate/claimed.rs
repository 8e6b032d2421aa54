//! The addresses that EndpointSlices claim for pods, slice by slice, and what is to be said where two pods have one address.

use super::findings::{At, Findings};
use super::settings::Settings;
use super::slices::label;
use crate::claims::{Claim, Claimant, Claims, Owner};
use crate::inputs::{Inputs, ObjectName};
use crate::model::Protocol;
use crate::problem::{Effect, Problem};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// The reason of what [`Twice`] says.
pub(super) const TWICE: &str = "AddressClaimedTwice";
/// Where pods share a node's address, so many of them are compared with one that comes later.
const COMPARED: usize = 256;

/// What all slices claim, and which addresses are the nodes' own.
pub(super) fn claims(inputs: &Inputs, settings: &Settings) -> Claims {
    let mut claims = Claims::among(node_addresses(inputs, settings));
    for (name, slice) in &inputs.endpoint_slices {
        for (address, claim) in of_slice(name, slice, inputs, settings) {
            claims.insert(address, claim);
        }
    }
    claims
}

/// Of Nodes, of this machine, and of the hosts of known pods.
fn node_addresses(inputs: &Inputs, settings: &Settings) -> BTreeSet<IpAddr> {
    let of_node = |node: &Arc<Node>| {
        let addresses = node.status.iter().flat_map(|it| it.addresses.iter().flatten());
        addresses.filter_map(|it| it.address.parse().ok()).collect::<Vec<IpAddr>>()
    };
    let of_pod = |pod: &Arc<Pod>| {
        let status = pod.status.as_ref();
        let first = status.and_then(|it| it.host_ip.as_deref());
        let all = status.and_then(|it| it.host_ips.as_ref()).into_iter().flatten();
        first
            .into_iter()
            .chain(all.map(|it| it.ip.as_str()))
            .filter_map(|it| it.parse().ok())
            .collect::<Vec<_>>()
    };
    let known = inputs.nodes.values().flat_map(of_node).chain(inputs.pods.values().flat_map(of_pod));
    known.chain(settings.node_addresses.iter().copied()).collect()
}

/// What one slice claims.
pub(super) fn of_slice<'a>(
    name: &ObjectName,
    slice: &'a EndpointSlice,
    inputs: &'a Inputs,
    settings: &'a Settings,
) -> impl Iterator<Item = (IpAddr, Claim)> + 'a {
    let owner = match label(slice).filter(|it| !it.is_empty()) {
        Some(service) => Owner::Service(ObjectName::new(&name.namespace, service)),
        None => Owner::Slice(name.clone()),
    };
    let made = slice.metadata.creation_timestamp.as_ref().map(|it| it.0);
    let by = Arc::new(Claimant::new(name.clone(), owner, made, ports(slice)));
    slice.endpoints.iter().flat_map(move |it| {
        let node = it.node_name.as_ref().filter(|node| !node.is_empty());
        let claim = Claim {
            by: Arc::clone(&by),
            uid: uid(it).map(Into::into),
            ready: it.conditions.as_ref().and_then(|it| it.ready).unwrap_or(true),
            leaving: it.conditions.as_ref().and_then(|it| it.terminating).unwrap_or(false),
            may_be_shared: node.is_some_and(|node| {
                Some(node) != settings.node_name.as_ref()
                    && !inputs.nodes.contains_key(&ObjectName::new("", node.as_str()))
            }),
        };
        it.addresses.iter().filter_map(|text| text.parse().ok()).map(move |address| (address, claim.clone()))
    })
}

fn uid(endpoint: &Endpoint) -> Option<&str> {
    endpoint.target_ref.as_ref()?.uid.as_deref().filter(|uid| !uid.is_empty())
}

fn ports(slice: &EndpointSlice) -> Option<Vec<(Protocol, u16)>> {
    let ports = slice.ports.as_ref().filter(|ports| !ports.is_empty())?;
    let known = |port: &k8s_openapi::api::discovery::v1::EndpointPort| {
        let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            _ => return Some(None),
        };
        // A port without a number stands for all of them.
        let number = port.port?;
        Some(u16::try_from(number).ok().map(|number| (protocol, number)))
    };
    let all: Option<Vec<Option<(Protocol, u16)>>> = ports.iter().map(known).collect();
    Some(all?.into_iter().flatten().collect())
}

/// Follows the claims of changed slices; the addresses of which anything else is said now.
pub(super) fn follow(
    claims: &mut Claims,
    changed: &BTreeSet<ObjectName>,
    (before, now): (&Inputs, &Inputs),
    settings: &Settings,
) -> Firsts {
    let mut firsts = Firsts::new();
    for name in changed {
        let of = |inputs: &Inputs| -> BTreeSet<(IpAddr, Claim)> {
            let slice = inputs.endpoint_slices.get(name);
            slice.into_iter().flat_map(|slice| of_slice(name, slice, inputs, settings)).collect()
        };
        let (old, new) = (of(before), of(now));
        for (address, _) in old.symmetric_difference(&new) {
            firsts.entry(*address).or_insert_with(|| first(claims, *address));
        }
        old.difference(&new).for_each(|(address, claim)| claims.remove(*address, claim));
        new.difference(&old).for_each(|(address, claim)| claims.insert(*address, claim.clone()));
    }
    firsts
}

/// What is to be said of slices that have an address which an earlier one has for another pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Twice {
    by_slice: BTreeMap<ObjectName, Problem>,
}

/// The first claim of each address that was looked at.
pub(super) type Firsts = HashMap<IpAddr, Option<Claim>>;

impl Twice {
    pub(super) fn of(claims: &Claims, inputs: &Inputs, settings: &Settings) -> Self {
        let slices = claims.crowded().flat_map(|address| claims.at(address)).map(|it| it.by.slice.clone());
        let mut twice = Self::default();
        twice.renew(&slices.collect(), claims, inputs, settings);
        twice
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.by_slice.values()
    }

    pub(super) fn problem(&self, slice: &ObjectName) -> Option<&Problem> {
        self.by_slice.get(slice)
    }

    /// Looks at these slices anew.
    pub(super) fn renew(
        &mut self,
        slices: &BTreeSet<ObjectName>,
        claims: &Claims,
        inputs: &Inputs,
        settings: &Settings,
    ) {
        let mut firsts = Firsts::new();
        for name in slices {
            let slice = inputs.endpoint_slices.get(name);
            let clashes = slice.into_iter().flat_map(|slice| of_slice(name, slice, inputs, settings));
            let mut clashes = clashes.filter_map(|(address, ours)| {
                let theirs = rival(claims, address, &ours, &mut firsts)?;
                Some((address, ours, theirs))
            });
            match clashes.next() {
                Some(clash) => {
                    let more = clashes.count();
                    self.by_slice.insert(name.clone(), problem(clash, more, inputs));
                }
                None => drop(self.by_slice.remove(name)),
            }
        }
    }
}

/// The claim that the others of this address are held against.
fn first(claims: &Claims, address: IpAddr) -> Option<Claim> {
    claims.at(address).find(|it| counts(it)).cloned()
}

fn counts(claim: &Claim) -> bool {
    claim.ready && claim.uid.is_some()
}

/// The slices of which something else may have to be said now that `firsts` is what came first at some addresses before:
/// where nobody shares an address, only a new first one changes what is said of the others.
pub(super) fn concerned(claims: &Claims, firsts: &Firsts) -> BTreeSet<ObjectName> {
    let is_concerned = |(address, before): &(&IpAddr, &Option<Claim>)| {
        let shared = || claims.nodes.contains(address) || claims.at(**address).any(|it| it.may_be_shared);
        **before != first(claims, **address) || shared()
    };
    let addresses = firsts.iter().filter(is_concerned).map(|(address, _)| *address);
    addresses.flat_map(|address| claims.at(address)).map(|claim| claim.by.slice.clone()).collect()
}

/// The earlier claim of another pod to the same address.
fn rival(claims: &Claims, address: IpAddr, ours: &Claim, firsts: &mut Firsts) -> Option<Claim> {
    if !claims.is_crowded(address) || !counts(ours) {
        return None;
    }
    let first = firsts.entry(address).or_insert_with(|| first(claims, address)).as_ref()?;
    if !ours.may_be_shared && !first.may_be_shared && !claims.nodes.contains(&address) {
        return Some(first).filter(|it| it.uid != ours.uid).cloned();
    }
    let earlier = claims.at(address).filter(|it| counts(it)).take(COMPARED).take_while(|it| *it < ours);
    earlier.into_iter().find(|it| it.by.meets(&ours.by) && it.uid != ours.uid).cloned()
}

fn problem((address, ours, theirs): (IpAddr, Claim, Claim), more: usize, inputs: &Inputs) -> Problem {
    let (field, text, name) = place(address, &ours, inputs).unwrap_or_default();
    let (_, _, other) = place(address, &theirs, inputs).unwrap_or_default();
    let (owner, pod) = (&ours.by.owner, pod(&ours, &name));
    let mut message = format!("{field} is {}, which {owner} has for {pod}", super::shown(&text));
    let (slice, pod) = (&theirs.by.slice, self::pod(&theirs, &other));
    match &theirs.by.owner {
        Owner::Service(service) => {
            message.push_str(&format!(", but EndpointSlice {slice} of Service {service} has it for {pod}."));
        }
        Owner::Slice(_) => message.push_str(&format!(", but EndpointSlice {slice} has it for {pod}.")),
    }
    if more > 0 {
        message.push_str(&format!(" So it is with {more} more addresses of this slice."));
    }
    message.push_str(" Each is served as its own slice says; correct the slice that is out of date.");
    let mut findings = Findings::new(format!("EndpointSlice {}", ours.by.slice));
    findings.warn(At { field: &field, value: Some(&text) }, TWICE, message, Effect::LocalMeaning);
    findings.problems.remove(0)
}

/// Where a slice lays the claim: the field, what it holds, and the pod's name.
fn place(address: IpAddr, claim: &Claim, inputs: &Inputs) -> Option<(String, String, String)> {
    let slice = inputs.endpoint_slices.get(&claim.by.slice)?;
    let is_meant = |it: &Endpoint| uid(it) == claim.uid.as_deref();
    for (place, endpoint) in slice.endpoints.iter().enumerate().filter(|(_, it)| is_meant(it)) {
        let found = endpoint.addresses.iter().enumerate().find(|(_, text)| text.parse() == Ok(address));
        if let Some((nth, text)) = found {
            let name = endpoint.target_ref.as_ref().and_then(|it| it.name.clone()).unwrap_or_default();
            return Some((format!("endpoints[{place}].addresses[{nth}]"), text.clone(), name));
        }
    }
    None
}

fn pod(claim: &Claim, name: &str) -> String {
    let uid = super::shown(claim.uid.as_deref().unwrap_or_default());
    if name.is_empty() {
        format!("the pod with UID {uid}")
    } else {
        format!("pod {} (UID {uid})", super::shown(name))
    }
}
