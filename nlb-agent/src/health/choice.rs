//! Which targets take new flows: healthy ones, else healthy ones that are leaving, else everyone.

use super::state::{Group, Health};
use super::status::{Life, Standing, Status};
use crate::model::{
    Forward, Forwarding, IpFamily, Listener, LoadBalancer, Model, Placed, Target, TargetKey, Threshold,
    listener_key,
};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Among whom a group's new flows are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The healthy ones.
    Healthy,
    /// Terminating ones that were healthy and still pass their checks (D6).
    LeavingHealthy,
    /// Every registered one, because too few are healthy.
    FailOpen,
    /// Nobody is registered: terminating ones that still serve, whatever their checks say.
    Leaving,
    /// There is nobody.
    Nobody,
}

/// How the targets of one family in a group stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standings {
    /// Registered: neither draining nor unused. Health never changes it.
    pub registered: u32,
    /// Registered and healthy.
    pub healthy: u32,
    leaving_healthy: u32,
    leaving: u32,
}

impl Standings {
    /// Counts targets.
    pub fn of<'a>(targets: impl IntoIterator<Item = &'a Status>) -> Self {
        let mut standings = Self::default();
        for status in targets {
            standings.registered += u32::from(status.is_registered());
            standings.healthy += u32::from(Choice::Healthy.takes(status));
            standings.leaving_healthy += u32::from(Choice::LeavingHealthy.takes(status));
            standings.leaving += u32::from(Choice::Leaving.takes(status));
        }
        standings
    }

    /// The choice that follows; fewer healthy targets than `minimum` demands by count or by percentage is a breach.
    pub fn choice(&self, minimum: Threshold) -> Choice {
        if self.healthy > 0 && !self.breaches(minimum) {
            Choice::Healthy
        } else if self.healthy == 0 && self.leaving_healthy > 0 {
            Choice::LeavingHealthy
        } else if self.registered > 0 {
            Choice::FailOpen
        } else if self.leaving > 0 {
            Choice::Leaving
        } else {
            Choice::Nobody
        }
    }

    fn breaches(&self, minimum: Threshold) -> bool {
        let count = minimum.count.is_some_and(|count| self.healthy < count);
        let share = u64::from(self.healthy) * 100;
        count || minimum.percentage.is_some_and(|least| share < u64::from(least) * u64::from(self.registered))
    }
}

impl Choice {
    /// Whether this target is among the chosen.
    pub fn takes(self, status: &Status) -> bool {
        match self {
            Self::Healthy => status.is_registered() && status.standing == Standing::Healthy,
            Self::LeavingHealthy => status.is_leaving_healthy(),
            Self::FailOpen => status.is_registered(),
            Self::Leaving => {
                let serving = status.conditions.serving && status.conditions.terminating;
                serving && matches!(status.life, Life::Draining { .. })
            }
            Self::Nobody => false,
        }
    }
}

/// Why this node cannot send to a target; `None` where it can. For now only targets that the host's own routing
/// delivers to are used.
pub fn unreachable_reason(target: &Target) -> Option<String> {
    match (target.local, &target.node) {
        (true, _) => None,
        (false, Some(node)) => Some(format!("it is on node {node}; only targets on this node are used")),
        (false, None) => Some("it is on another node; only targets on this node are used".to_owned()),
    }
}

/// What the maps must do for every listener on every VIP, in the model's order; `node_vip` tells which VIPs are the node's
/// own addresses. A function of the model and of [`Health`] alone.
pub fn forwardings(model: &Model, health: &Health, node_vip: impl Fn(IpAddr) -> bool) -> Vec<Forwarding> {
    forwardings_of(&model.load_balancers, health, node_vip)
}

/// [`forwardings`] of some load balancers alone.
pub fn forwardings_of<'a>(
    load_balancers: impl IntoIterator<Item = &'a LoadBalancer>,
    health: &Health,
    node_vip: impl Fn(IpAddr) -> bool,
) -> Vec<Forwarding> {
    let mut forwardings = Vec::new();
    for load_balancer in load_balancers {
        for &vip in &load_balancer.vips {
            for listener in &load_balancer.listeners {
                forwardings.push(forwarding(listener, vip, node_vip(vip), health));
            }
        }
    }
    forwardings
}

fn forwarding(listener: &Listener, vip: IpAddr, node_vip: bool, health: &Health) -> Forwarding {
    let (registered, targets) = match listener.forward.as_slice() {
        [only] => one_group(only, IpFamily::of(vip), health),
        several => several_groups(several, IpFamily::of(vip), health),
    };
    Forwarding {
        listener: listener_key(vip, listener),
        node_vip,
        idle_timeout: listener.idle_timeout,
        registered,
        targets,
    }
}

/// The usual case: shares are the targets' own weights, so that they stay readable and the ring stays as it is.
fn one_group(forward: &Forward, family: IpFamily, health: &Health) -> (u32, Vec<Placed>) {
    let Some(group) = health.group(&forward.target_group) else { return (0, Vec::new()) };
    let weight = u32::from(forward.weight > 0);
    let staying = shares(group, family).filter(|(_, status, share)| stays(status, *share));
    let targets = staying.map(|(key, status, share)| Placed {
        key: key.clone(),
        incarnation: status.incarnation,
        share: share * weight,
    });
    (group.standings(family).registered, targets.collect())
}

/// Shares of a listener with several groups are parts of this, times the group's weight (at most 999): they fit 32 bits.
const WHOLE: u64 = 1_000_000;

/// Each group's weight is divided among its targets by theirs. A group without anyone to take flows gives its part to the
/// others.
fn several_groups(forwards: &[Forward], family: IpFamily, health: &Health) -> (u32, Vec<Placed>) {
    let mut placed: BTreeMap<&TargetKey, (bool, bool, Placed)> = BTreeMap::new();
    for forward in forwards {
        let Some(group) = health.group(&forward.target_group) else { continue };
        let total: u64 = shares(group, family).map(|(_, _, share)| u64::from(share)).sum();
        for (key, status, share) in shares(group, family) {
            let part = part(forward.weight, share, total);
            let empty = || (false, false, Placed { key: key.clone(), incarnation: 0, share: 0 });
            let (registered, staying, entry) = placed.entry(key).or_insert_with(empty);
            *registered |= status.is_registered();
            *staying |= stays(status, share);
            entry.share = entry.share.saturating_add(part);
            // A sum rises whenever either does.
            entry.incarnation = entry.incarnation.wrapping_add(status.incarnation);
        }
    }
    let registered = placed.values().filter(|(registered, _, _)| *registered).count();
    let staying = placed.into_values().filter(|(_, staying, _)| *staying);
    (u32::try_from(registered).unwrap_or(u32::MAX), staying.map(|(_, _, placed)| placed).collect())
}

/// A weight above 0 never comes out as 0.
fn part(group_weight: u32, share: u32, total: u64) -> u32 {
    if group_weight == 0 || share == 0 {
        return 0;
    }
    let part = u128::from(group_weight) * u128::from(WHOLE) * u128::from(share) / u128::from(total);
    u32::try_from(part.max(1)).unwrap_or(u32::MAX)
}

/// A draining target whose flows were given up needs no place any more, unless it takes new ones (D6).
fn stays(status: &Status, share: u32) -> bool {
    share > 0 || !status.has_lost_flows()
}

/// Every target of a family that may keep or take flows, with its share of new ones inside its group.
fn shares(group: &Group, family: IpFamily) -> impl Iterator<Item = (&TargetKey, &Status, u32)> {
    let choice = group.choice(family);
    group.family(family).filter(|(_, status)| status.is_placed()).map(move |(key, status)| {
        let share = if choice.takes(status) { status.weight } else { 0 };
        (key, status, share)
    })
}
