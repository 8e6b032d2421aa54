//! Gives every load balancer its VIPs, and says who got none and why.

use super::Draft;
use super::findings::{At, Findings};
use super::front::Wanted;
use super::settings::{NodeVips, Settings, Vips};
use crate::model::{IpFamily, LoadBalancer, Model};
use crate::problem::Effect;
use crate::vips::{Allocations, Grant, Pools, Request, Shortage};

/// Fills in `vips`. `drafts` stand in the order of who was first.
pub(super) fn give(drafts: &mut [Draft<'_>], settings: &Settings, previous: Option<&Model>) {
    match &settings.vips {
        Vips::None => {}
        Vips::AnyNode(_) => drafts.iter_mut().for_each(own_addresses_only),
        Vips::Node(node) => drafts.iter_mut().for_each(|draft| from_node(draft, node)),
        Vips::Pools(pools) => {
            let now = previous.map(|it| Allocations::of(&it.load_balancers)).unwrap_or_default();
            from_pools(drafts, pools, &now.or(&settings.remembered));
        }
    }
}

fn from_node(draft: &mut Draft<'_>, node: &NodeVips) {
    let Some(lb) = &mut draft.lb else { return };
    lb.vips.clear();
    for family in &lb.ip_families {
        lb.vips.extend(node.addresses.iter().copied().filter(|ip| IpFamily::of(*ip) == *family));
    }
    for family in &lb.ip_families {
        let has = lb.vips.iter().any(|ip| IpFamily::of(*ip) == *family);
        if !has && !is_optional(draft.prefers_dual, *family, lb) {
            let message = format!(
                "The node has no {family:?} address that clients could use, so the Service has none (--vip node)."
            );
            draft.findings.warn(At::WHOLE, "NoNodeAddress", message, Effect::Ignored);
        }
    }
    own_addresses_only(draft);
}

fn own_addresses_only(draft: &mut Draft<'_>) {
    for Wanted { ip, field } in &draft.wanted {
        let value = ip.to_string();
        let message =
            format!("{field}: {ip} was asked for, but --vip node serves on the node's own addresses.");
        draft.findings.note(At { field, value: Some(&value) }, "NoEffect", message, Effect::Ignored);
    }
}

fn from_pools(drafts: &mut [Draft<'_>], pools: &Pools, before: &Allocations) {
    let requests: Vec<Request> = drafts.iter().map(request).collect();
    let mut grants = pools.allocate(&requests, before);
    for draft in drafts {
        let Grant { vips, shortages } = grants.remove(&draft.name).unwrap_or_default();
        let Some(lb) = &mut draft.lb else { continue };
        lb.vips = vips;
        for shortage in shortages {
            let optional = match shortage {
                Shortage::NoPool(family) | Shortage::Exhausted(family) => {
                    is_optional(draft.prefers_dual, family, lb)
                }
                Shortage::NotInPool(_) | Shortage::Taken(..) | Shortage::Reserved(..) => false,
            };
            if !optional {
                say(&shortage, &draft.wanted, &mut draft.findings);
            }
        }
    }
}

fn request(draft: &Draft<'_>) -> Request {
    let lb = draft.lb.as_ref();
    Request {
        service: draft.name.clone(),
        uid: draft.service.metadata.uid.clone(),
        scheme: lb.map_or(draft.scheme, |it| it.scheme),
        families: lb.map_or_else(Vec::new, |it| it.ip_families.clone()),
        // What goes on as before keeps its addresses, whatever is asked for now.
        wanted: if draft.kept {
            lb.map(|it| it.vips.clone()).unwrap_or_default()
        } else {
            draft.wanted.iter().map(|it| it.ip).collect()
        },
        allocate: lb.is_some(),
    }
}

/// `PreferDualStack` takes what there is.
fn is_optional(prefers_dual: bool, family: IpFamily, lb: &LoadBalancer) -> bool {
    prefers_dual && (!lb.vips.is_empty() || lb.ip_families.first() != Some(&family))
}

fn say(shortage: &Shortage, wanted: &[Wanted], findings: &mut Findings) {
    let waits = "The Service waits without an address of that family.";
    let (reason, value, message) = match shortage {
        Shortage::NoPool(family) => {
            ("NoPool", None, format!("No --vip-pool has {family:?} addresses for this scheme. {waits}"))
        }
        Shortage::Exhausted(family) => {
            ("PoolExhausted", None, format!("All {family:?} addresses of the pools are taken. {waits}"))
        }
        Shortage::NotInPool(ip) => {
            ("AddressNotInPool", Some(ip), format!("{ip} was asked for, but no --vip-pool holds it. {waits}"))
        }
        Shortage::Taken(ip, owner) => {
            ("AddressTaken", Some(ip), format!("{ip} was asked for, but Service {owner} has it. {waits}"))
        }
        Shortage::Reserved(ip, what) => {
            ("AddressReserved", Some(ip), format!("{ip} was asked for, but it is {what}. {waits}"))
        }
    };
    // An address that goes on from before may be named nowhere any more.
    let named = value.and_then(|ip| wanted.iter().find(|it| it.ip == *ip));
    let field = named.map_or("", |it| it.field.as_str());
    let message = if field.is_empty() { message } else { format!("{field}: {message}") };
    let value = value.map(ToString::to_string);
    findings.warn(At { field, value: value.as_deref() }, reason, message, Effect::Ignored);
}
