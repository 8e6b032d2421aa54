//! Gives every load balancer its VIPs, and says who got none and why.

use super::Draft;
use super::findings::{At, Findings};
use super::settings::{NodeVips, Settings, Vips};
use crate::model::{IpFamily, Model};
use crate::problem::Effect;
use crate::vips::{Allocations, Grant, Pools, Request, Shortage};

/// Fills in `vips`. `drafts` stand in the order of who was first.
pub(super) fn give(drafts: &mut [Draft<'_>], settings: &Settings, previous: Option<&Model>) {
    match &settings.vips {
        Vips::None => {}
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
    for family in lb.ip_families.clone() {
        let own = node.addresses.iter().copied().filter(|ip| IpFamily::of(*ip) == family);
        let before = lb.vips.len();
        lb.vips.extend(own);
        if lb.vips.len() == before && !is_optional(draft.prefers_dual, family, &lb.ip_families) {
            let message = format!(
                "The node has no {family:?} address that clients could use, so the Service has none (--vip node)."
            );
            draft.findings.warn(At::WHOLE, "NoNodeAddress", message, Effect::Ignored);
        }
    }
    if !draft.wanted.is_empty() {
        let message =
            "The Service asks for addresses of its own, but --vip node serves on the node's.".to_owned();
        draft.findings.note(At::WHOLE, "NoEffect", message, Effect::Ignored);
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
                    is_optional(draft.prefers_dual, family, &lb.ip_families)
                }
                Shortage::NotInPool(_) | Shortage::Taken(..) | Shortage::Reserved(..) => false,
            };
            if !optional {
                say(&shortage, &mut draft.findings);
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
            draft.wanted.clone()
        },
        allocate: lb.is_some(),
    }
}

/// `PreferDualStack` takes what there is.
fn is_optional(prefers_dual: bool, family: IpFamily, families: &[IpFamily]) -> bool {
    prefers_dual && families.first() != Some(&family)
}

fn say(shortage: &Shortage, findings: &mut Findings) {
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
    let value = value.map(ToString::to_string);
    let field = if value.is_some() { "spec.loadBalancerIP" } else { "" };
    findings.warn(At { field, value: value.as_deref() }, reason, message, Effect::Ignored);
}
