//! The health of every target of every group: pure, level-triggered, and able to survive a restart.

use super::choice::{Choice, Standings, unreachable_reason};
use super::ending::{Ending, is_concerned};
use super::outcome::Outcome;
use super::reason::Reason;
use super::reuse::{Forgotten, Left};
use super::status::{Departure, Life, Status};
use crate::claims::{Claims, Owner};
use crate::model::{HealthCheck, IpFamily, LoadBalancer, Model, Target, TargetGroup, TargetKey, Threshold};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

/// Every target's status, by target group and key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    pub(super) groups: HashMap<String, Group>,
    pub(super) left: Left,
}

/// One target group as health needs it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Group {
    /// As an earlier agent left it: no model has named it since.
    pub(super) restored: bool,
    /// UID of the Service; another one is another Service of the same name, whose targets begin anew.
    pub(super) owner: Option<String>,
    pub(super) targets: BTreeMap<TargetKey, Status>,
    pub(super) settings: Settings,
}

/// The attributes that move a target's state.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Settings {
    check: HealthCheck,
    minimum: Threshold,
    deregistration_delay: Duration,
    ending: Ending,
}

impl Settings {
    fn of(group: &TargetGroup) -> Self {
        Self {
            check: group.health_check.clone(),
            minimum: group.minimum_healthy_targets,
            deregistration_delay: group.deregistration_delay,
            ending: Ending::of(group),
        }
    }
}

/// How a group is looked at.
#[derive(Clone, Copy)]
struct Look<'a> {
    claims: &'a Claims,
    /// What was restored and is not named stays.
    keeping: bool,
    now: Timestamp,
}

impl Health {
    /// Brings every target in line with the model and with the time: registers, drains, removes, ends drains and the grace
    /// of unhealthy targets, and forgets those that have left and whose address is another pod's now, which it returns.
    /// May be called with the same model any number of times.
    pub fn update(&mut self, model: &Model, now: Timestamp) -> Vec<Forgotten> {
        self.follow(model, Look { claims: &model.claims, keeping: false, now })
    }

    /// As [`Self::update`], but what was restored and never named since stays as it is, unless its address is another pod's:
    /// for a start at which not everything can be read.
    pub fn update_keeping(&mut self, model: &Model, now: Timestamp) -> Vec<Forgotten> {
        self.follow(model, Look { claims: &model.claims, keeping: true, now })
    }

    fn follow(&mut self, model: &Model, look: Look<'_>) -> Vec<Forgotten> {
        let used = groups_in_use(model);
        let mut forgotten = Vec::new();
        let mut before = std::mem::take(self);
        for load_balancer in &model.load_balancers {
            for group in &load_balancer.target_groups {
                let known = before.groups.remove_entry(&group.name);
                let (name, mut known) = known.unwrap_or_else(|| (group.name.clone(), Group::default()));
                forgotten.extend(known.update(load_balancer, group, used.contains(name.as_str()), look));
                self.left.note(&name, &known);
                self.groups.insert(name, known);
            }
        }
        for (name, mut group) in before.groups.into_iter().filter(|(_, it)| look.keeping && it.restored) {
            forgotten.extend(group.yield_addresses(&name, look.claims, None));
            self.left.note(&name, &group);
            self.groups.insert(name, group);
        }
        forgotten
    }

    /// As [`Self::update`], for these load balancers of the model alone, and for addresses that slices claim otherwise than
    /// before: no other load balancer has changed, and none is new or gone.
    pub fn update_some<'a>(
        &mut self,
        changed: impl IntoIterator<Item = &'a LoadBalancer>,
        claimed: &BTreeSet<IpAddr>,
        model: &Model,
        now: Timestamp,
    ) -> Vec<Forgotten> {
        let look = Look { claims: &model.claims, keeping: false, now };
        let mut forgotten = Vec::new();
        let mut updated = HashSet::new();
        for load_balancer in changed {
            for group in &load_balancer.target_groups {
                // A listener of another Service may lead there as well.
                let used = leads_to(load_balancer, &group.name)
                    || model.load_balancers.iter().any(|other| leads_to(other, &group.name));
                let known = self.groups.entry(group.name.clone()).or_default();
                forgotten.extend(known.update(load_balancer, group, used, look));
                self.left.note(&group.name, known);
                updated.insert(group.name.as_str());
            }
        }
        for &address in claimed {
            let mut names = named_at(address, model);
            names.extend(self.left.with(address).cloned());
            for name in names.iter().filter(|name| !updated.contains(name.as_str())) {
                let Some(group) = self.groups.get_mut(name) else { continue };
                let found = group.yield_addresses(name, look.claims, Some(address));
                if !found.is_empty() {
                    group.settle(now);
                    self.left.note(name, group);
                    forgotten.extend(found);
                }
            }
        }
        forgotten
    }

    /// The groups that [`Self::update`] would find a drain or a grace ended in.
    pub fn due(&self, now: Timestamp) -> HashSet<String> {
        self.deadlines().filter(|(_, at)| *at <= now).map(|(name, _)| name.to_owned()).collect()
    }

    /// Takes in the result of one check; true if [`super::forwardings`] may have changed. A target that is not known (any
    /// more) changes nothing.
    pub fn outcome(&mut self, group: &str, key: &TargetKey, outcome: &Outcome, now: Timestamp) -> bool {
        let Some(group) = self.groups.get_mut(group) else { return false };
        let Some(status) = group.targets.get_mut(key).filter(|status| status.is_placed()) else {
            return false;
        };
        let before = (status.standing, status.cut);
        status.learn(outcome, &group.settings.check, now);
        if status.standing != before.0 || is_concerned(status) {
            group.settle(now);
        }
        group.targets.get(key).is_some_and(|status| (status.standing, status.cut) != before)
    }

    /// When [`Self::update`] must be called next although nothing else happens: the earliest end of a drain, or of the
    /// grace of an unhealthy target's flows.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines().map(|(_, at)| at).min()
    }

    /// The next deadline of every group that has one; what no model has named yet waits for one.
    fn deadlines(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        let followed = self.groups.iter().filter(|(_, group)| !group.restored);
        followed.filter_map(|(name, group)| Some((name.as_str(), group.next_deadline()?)))
    }

    /// A target's status.
    pub fn status(&self, group: &str, key: &TargetKey) -> Option<&Status> {
        self.groups.get(group)?.targets.get(key)
    }

    /// Every target of a group, also those that drain and are named by no EndpointSlice any more, sorted by key.
    pub fn targets(&self, group: &str) -> impl Iterator<Item = (&TargetKey, &Status)> {
        self.groups.get(group).into_iter().flat_map(|group| &group.targets)
    }

    /// How a group's targets of one family stand; all 0 for an unknown group.
    pub fn standings(&self, group: &str, family: IpFamily) -> Standings {
        self.groups.get(group).map(|group| group.standings(family)).unwrap_or_default()
    }

    /// Who takes a group's new flows of one family.
    pub fn choice(&self, group: &str, family: IpFamily) -> Choice {
        self.groups.get(group).map_or(Choice::Nobody, |group| group.choice(family))
    }

    /// True while a group's traffic goes to all registered targets of the family because too few are healthy.
    pub fn fail_open(&self, group: &str, family: IpFamily) -> bool {
        self.choice(group, family) == Choice::FailOpen
    }

    pub(super) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.get(name)
    }
}

fn groups_in_use(model: &Model) -> HashSet<&str> {
    let listeners = model.load_balancers.iter().flat_map(|load_balancer| &load_balancer.listeners);
    listeners.flat_map(|listener| &listener.forward).map(|forward| forward.target_group.as_str()).collect()
}

/// The groups of the Services whose slices name an address.
fn named_at(address: IpAddr, model: &Model) -> BTreeSet<String> {
    let owners = model.claims.at(address).map(|claim| &claim.by.owner);
    let places = owners.filter_map(|owner| match owner {
        Owner::Service(service) => model.place(service),
        Owner::Slice(_) => None,
    });
    let groups = places.flat_map(|place| &model.load_balancers[place].target_groups);
    groups.map(|group| group.name.clone()).collect()
}

fn leads_to(load_balancer: &LoadBalancer, group: &str) -> bool {
    load_balancer.listeners.iter().flat_map(|listener| &listener.forward).any(|it| it.target_group == group)
}

impl Group {
    /// The targets of one family.
    pub(super) fn family(&self, family: IpFamily) -> impl Iterator<Item = (&TargetKey, &Status)> {
        self.targets.iter().filter(move |(key, _)| IpFamily::of(key.ip) == family)
    }

    pub(super) fn standings(&self, family: IpFamily) -> Standings {
        Standings::of(self.family(family).map(|(_, status)| status))
    }

    pub(super) fn choice(&self, family: IpFamily) -> Choice {
        self.standings(family).choice(self.settings.minimum)
    }

    fn update(
        &mut self,
        load_balancer: &LoadBalancer,
        group: &TargetGroup,
        used: bool,
        Look { claims, keeping, now }: Look<'_>,
    ) -> Vec<Forgotten> {
        self.restored = false;
        self.settings = Settings::of(group);
        let reborn = matches!((&self.owner, &load_balancer.uid), (Some(old), Some(new)) if old != new);
        self.owner.clone_from(&load_balancer.uid);
        let mut before = std::mem::take(&mut self.targets);
        let mut new = BTreeSet::new();
        for target in &group.targets {
            let (key, known) = match before.remove_entry(&target.key) {
                Some((key, known)) => (key, Some(known)),
                None => (target.key.clone(), None),
            };
            if known.is_none() && Departure::of(target.conditions).is_some() {
                new.insert(key.clone());
            }
            self.targets.insert(key, seen(known, target, used, reborn, now));
        }
        // A Service that was created anew owes nothing to the flows of the old one.
        if !reborn {
            self.targets.extend(before.into_iter().filter(|(_, status)| status.is_placed()).map(
                |(key, mut status)| {
                    if !(keeping && status.restored) {
                        status.see(None, 0, now);
                    }
                    (key, status)
                },
            ));
        }
        let mut forgotten = self.yield_addresses(&group.name, claims, None);
        self.end_drains(now);
        self.settle(now);
        // What was never registered had no flows to lose.
        forgotten.retain(|it| !new.contains(&it.key));
        forgotten
    }

    fn end_drains(&mut self, now: Timestamp) {
        let delay = self.settings.deregistration_delay;
        self.targets.retain(|_, status| match status.life {
            Life::Draining { began, departure, .. } if began + delay <= now => {
                status.drained(now);
                departure != Departure::Gone
            }
            Life::Draining { .. } | Life::Registered | Life::Unused(_) => true,
        });
    }

    /// Gives up the flows that [`Ending`] says are to be given up now.
    fn settle(&mut self, now: Timestamp) {
        if !self.targets.values().any(is_concerned) {
            return;
        }
        for family in [IpFamily::IPv4, IpFamily::IPv6] {
            let choice = self.choice(family);
            let targets = self.targets.iter_mut().filter(|(key, _)| IpFamily::of(key.ip) == family);
            for (_, status) in targets.filter(|(_, status)| is_concerned(status)) {
                self.settings.ending.settle(status, choice, now);
            }
        }
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let choices = [IpFamily::IPv4, IpFamily::IPv6].map(|family| self.choice(family));
        let deadlines = self.targets.iter().filter_map(|(key, status)| match status.life {
            Life::Draining { began, .. } => Some(began + self.settings.deregistration_delay),
            Life::Registered => self.settings.ending.deadline(status, choices[usize::from(key.ip.is_ipv6())]),
            Life::Unused(_) => None,
        });
        deadlines.min()
    }
}

/// The status of a target that the model names.
fn seen(known: Option<Status>, target: &Target, used: bool, reborn: bool, now: Timestamp) -> Status {
    let idle = match used {
        true => unreachable_reason(target),
        false => Some("no listener leads to its target group".to_owned()),
    };
    if let Some(cause) = idle {
        let known =
            known.filter(|known| known.life == Life::Unused(Reason::NotInUse) && known.cause == cause);
        let known = known.unwrap_or_else(|| Status::unused(cause, now));
        return Status { restored: false, ..known };
    }
    let mut status = match known {
        Some(known) if reborn => Status::registered(known.incarnation.wrapping_add(1), now),
        Some(known) if known.life != Life::Unused(Reason::NotInUse) => known,
        Some(_) | None => Status::registered(0, now),
    };
    status.check_port = Some(target.check_port);
    status.see(Some(target.conditions), target.weight, now);
    status
}
