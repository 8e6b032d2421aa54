//! The health of every target of every group: pure, level-triggered, and able to survive a restart.

use super::choice::{Choice, Standings, unreachable_reason};
use super::outcome::Outcome;
use super::reason::Reason;
use super::status::{Departure, Life, Standing, Status};
use crate::model::{HealthCheck, IpFamily, LoadBalancer, Model, Target, TargetGroup, TargetKey, Threshold};
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

/// Every target's status, by target group and key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    pub(super) groups: HashMap<String, Group>,
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
    /// How long after a target became unhealthy its flows are given up; `None`: never.
    cut_after: Option<Duration>,
}

impl Settings {
    fn of(group: &TargetGroup) -> Self {
        let interval = group.unhealthy_draining_interval;
        let cut_after = match group.unhealthy_connection_termination {
            true => Some(Duration::ZERO),
            false => Some(interval).filter(|interval| !interval.is_zero()),
        };
        Self {
            check: group.health_check.clone(),
            minimum: group.minimum_healthy_targets,
            deregistration_delay: group.deregistration_delay,
            cut_after,
        }
    }
}

impl Health {
    /// Brings every target in line with the model and with the time: registers, drains, removes, ends drains and the grace
    /// of unhealthy targets. May be called with the same model any number of times.
    pub fn update(&mut self, model: &Model, now: Timestamp) {
        self.follow(model, false, now);
    }

    /// As [`Self::update`], but what was restored and never named since stays as it is: for a start at which not everything
    /// can be read.
    pub fn update_keeping(&mut self, model: &Model, now: Timestamp) {
        self.follow(model, true, now);
    }

    fn follow(&mut self, model: &Model, keeping: bool, now: Timestamp) {
        let used = groups_in_use(model);
        let mut before = std::mem::take(&mut self.groups);
        for load_balancer in &model.load_balancers {
            for group in &load_balancer.target_groups {
                let known = before.remove_entry(&group.name);
                let (name, mut known) = known.unwrap_or_else(|| (group.name.clone(), Group::default()));
                known.update(load_balancer, group, used.contains(group.name.as_str()), keeping, now);
                self.groups.insert(name, known);
            }
        }
        self.groups.extend(before.into_iter().filter(|(_, group)| keeping && group.restored));
    }

    /// As [`Self::update`], for these load balancers of the model alone: no other has changed, and none is new or gone.
    pub fn update_some<'a>(
        &mut self,
        changed: impl IntoIterator<Item = &'a LoadBalancer>,
        model: &Model,
        now: Timestamp,
    ) {
        for load_balancer in changed {
            for group in &load_balancer.target_groups {
                // A listener of another Service may lead there as well.
                let used = leads_to(load_balancer, &group.name)
                    || model.load_balancers.iter().any(|other| leads_to(other, &group.name));
                let known = self.groups.entry(group.name.clone()).or_default();
                known.update(load_balancer, group, used, false, now);
            }
        }
    }

    /// The groups that [`Self::update`] would find a drain or a grace ended in.
    pub fn due(&self, now: Timestamp) -> HashSet<String> {
        self.deadlines().filter(|(_, at)| *at <= now).map(|(name, _)| name.to_owned()).collect()
    }

    /// Takes in the result of one check; true if [`super::forwardings`] may have changed. A target that is not known (any
    /// more) changes nothing.
    pub fn outcome(&mut self, group: &str, key: &TargetKey, outcome: &Outcome, now: Timestamp) -> bool {
        let Some(group) = self.groups.get_mut(group) else { return false };
        let Some(status) = group.targets.get_mut(key).filter(|status| status.is_checked()) else {
            return false;
        };
        let before = status.standing;
        status.learn(outcome, &group.settings.check, now);
        let moved = status.standing != before;
        if moved {
            group.settle(now);
        }
        moved
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
        keeping: bool,
        now: Timestamp,
    ) {
        self.restored = false;
        self.settings = Settings::of(group);
        let reborn = matches!((&self.owner, &load_balancer.uid), (Some(old), Some(new)) if old != new);
        self.owner.clone_from(&load_balancer.uid);
        let mut before = std::mem::take(&mut self.targets);
        for target in &group.targets {
            let (key, known) = match before.remove_entry(&target.key) {
                Some((key, known)) => (key, Some(known)),
                None => (target.key.clone(), None),
            };
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
        self.end_drains(now);
        self.settle(now);
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

    /// Gives up the flows of unhealthy targets whose grace is over. While the group fails open they are kept, and they
    /// are given up, with those that came meanwhile, when that ends.
    fn settle(&mut self, now: Timestamp) {
        if !self.targets.values().any(is_unhealthy) {
            return;
        }
        for family in [IpFamily::IPv4, IpFamily::IPv6] {
            let failing_open = self.choice(family) == Choice::FailOpen;
            let cut_after = self.settings.cut_after;
            let targets = self.targets.iter_mut().filter(|(key, _)| IpFamily::of(key.ip) == family);
            let unhealthy = targets.filter(|(_, status)| is_unhealthy(status));
            for (_, status) in unhealthy {
                if failing_open {
                    status.cut = false;
                } else if !status.cut && cut_after.is_some_and(|after| status.since + after <= now) {
                    status.cut = true;
                    status.incarnation = status.incarnation.wrapping_add(1);
                }
            }
        }
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let failing_open =
            [IpFamily::IPv4, IpFamily::IPv6].map(|family| self.choice(family) == Choice::FailOpen);
        let deadlines = self.targets.iter().filter_map(|(key, status)| match status.life {
            Life::Draining { began, .. } => Some(began + self.settings.deregistration_delay),
            Life::Registered if is_unhealthy(status) && !status.cut => {
                let held = failing_open[usize::from(key.ip.is_ipv6())];
                self.settings.cut_after.filter(|_| !held).map(|after| status.since + after)
            }
            Life::Registered | Life::Unused(_) => None,
        });
        deadlines.min()
    }
}

fn is_unhealthy(status: &Status) -> bool {
    status.is_registered() && status.standing == Standing::Unhealthy
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
    status.see(Some(target.conditions), target.weight, now);
    status
}
