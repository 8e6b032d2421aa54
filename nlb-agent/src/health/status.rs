//! One target's state and how check results and the cluster's word move it.

use super::outcome::{Failure, Outcome, Tally};
use super::reason::{Reason, State};
use crate::claims::Owner;
use crate::model::{Conditions, HealthCheck};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// What the checks alone say of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// No verdict yet.
    Initial,
    /// Passes.
    Healthy,
    /// Fails.
    Unhealthy,
}

/// What the cluster alone says of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Life {
    /// Ready.
    Registered,
    /// Not ready, terminating or gone.
    Draining {
        /// When the delay began.
        began: Timestamp,
        /// Whether it was healthy then (D6).
        was_healthy: bool,
        /// Why.
        departure: Departure,
    },
    /// Of no use here.
    Unused(Reason),
}

/// Why a target drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Departure {
    /// The endpoint is there and not ready.
    NotReady,
    /// Its pod is being deleted.
    Terminating,
    /// No EndpointSlice names it any more.
    Gone,
}

impl Departure {
    /// `None` for an endpoint that is to stay.
    pub(super) fn of(conditions: Conditions) -> Option<Self> {
        match (conditions.terminating, conditions.ready) {
            (true, _) => Some(Self::Terminating),
            (false, false) => Some(Self::NotReady),
            (false, true) => None,
        }
    }

    fn subject(self) -> &'static str {
        match self {
            Self::NotReady => "the endpoint is not ready",
            Self::Terminating => "the pod is terminating",
            Self::Gone => "the endpoint is gone",
        }
    }
}

/// Why flows were given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ended {
    /// It was registered and unhealthy.
    #[default]
    Unhealthy,
    /// It drained, and nothing answered its checks.
    Silent,
    /// It drained, and its checks failed.
    Failing,
    /// Its address is another pod's.
    Reused,
}

/// Everything that is known of one target of one group; what the checks found and what the cluster says stand side by
/// side, so that a target which is ready again is simply in its former state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub(super) standing: Standing,
    pub(super) life: Life,
    pub(super) finding: Option<Reason>,
    pub(super) cause: Cow<'static, str>,
    pub(super) since: Timestamp,
    pub(super) passes: u32,
    pub(super) failures: u32,
    /// Failing checks in a row that got no answer at all.
    #[serde(default)]
    pub(super) unanswered: u32,
    pub(super) incarnation: u32,
    /// True once the flows of this spell, unhealthy or draining, have been given up.
    pub(super) cut: bool,
    /// Why, where `cut` says so.
    #[serde(default)]
    pub(super) ended: Ended,
    /// The port that its checks asked last, for a time when no slice names it.
    #[serde(default)]
    pub(super) check_port: Option<u16>,
    /// Where else its address stood while it was registered, and still stands since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) also_in: Vec<Owner>,
    /// UIDs of pods that were being deleted at its address while it was registered, and still are: they had it first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) before_it: Vec<String>,
    /// True once it has left and its own Service listed its address no more.
    #[serde(default)]
    pub(super) away: bool,
    pub(super) tally: Tally,
    /// The inputs' own word, given anew with every model.
    #[serde(skip, default = "gone")]
    pub(super) conditions: Conditions,
    /// Theirs too, but a restarted agent may have to do without them for a while.
    #[serde(default)]
    pub(super) weight: u32,
    /// As an earlier agent left it: no model has named it since.
    #[serde(skip)]
    pub(super) restored: bool,
}

fn gone() -> Conditions {
    Conditions { ready: false, serving: false, terminating: false }
}

impl Status {
    /// A target that was just registered.
    pub(super) fn registered(incarnation: u32, now: Timestamp) -> Self {
        Self {
            standing: Standing::Initial,
            life: Life::Registered,
            finding: Some(Reason::RegistrationInProgress),
            cause: "the first check has not ended".into(),
            since: now,
            passes: 0,
            failures: 0,
            unanswered: 0,
            incarnation,
            cut: false,
            ended: Ended::default(),
            check_port: None,
            also_in: Vec::new(),
            before_it: Vec::new(),
            away: false,
            tally: Tally::default(),
            conditions: gone(),
            weight: 0,
            restored: false,
        }
    }

    /// A target that is known and not used; `cause` is the sentence that says why.
    pub(super) fn unused(cause: String, now: Timestamp) -> Self {
        let life = Life::Unused(Reason::NotInUse);
        Self { life, finding: None, cause: cause.into(), ..Self::registered(0, now) }
    }

    /// The state as users see it.
    pub fn state(&self) -> State {
        match (self.life, self.standing) {
            (Life::Registered, Standing::Initial) => State::Initial,
            (Life::Registered, Standing::Healthy) => State::Healthy,
            (Life::Registered, Standing::Unhealthy) => State::Unhealthy,
            (Life::Draining { .. }, _) => State::Draining,
            (Life::Unused(_), _) => State::Unused,
        }
    }

    /// AWS's code; `None` for a healthy target.
    pub fn reason(&self) -> Option<Reason> {
        match self.life {
            Life::Registered => self.finding,
            Life::Draining { .. } => Some(Reason::DeregistrationInProgress),
            Life::Unused(reason) => Some(reason),
        }
    }

    /// One clause that gives the cause.
    pub fn description(&self) -> Cow<'_, str> {
        let departure = match self.life {
            Life::Registered | Life::Unused(Reason::NotInUse) => return self.cause.as_ref().into(),
            Life::Draining { departure, .. } => departure.subject(),
            Life::Unused(_) if self.ended == Ended::Reused => {
                return "the endpoint is not ready, and its address is another pod's now".into();
            }
            Life::Unused(_) => {
                return "the endpoint is not ready and its deregistration delay has ended".into();
            }
        };
        let flows = match (self.cut, self.ended) {
            (false, _) => "flows are kept while it answers, until the deregistration delay ends",
            (true, Ended::Silent) => "its flows were ended because nothing answered its checks",
            (true, Ended::Failing) => "its flows were given up because its checks failed",
            (true, Ended::Unhealthy | Ended::Reused) => "its flows were ended because it was unhealthy",
        };
        format!("{departure}; {flows}").into()
    }

    /// When it came into this state.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// What the checks alone say.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// What the cluster alone says.
    pub fn life(&self) -> Life {
        self.life
    }

    /// Passing checks in a row.
    pub fn passes(&self) -> u32 {
        self.passes
    }

    /// Failing checks in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Rises when the target's flows must be forgotten although it stays.
    pub fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// Checks by result.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Relative share of new flows that the inputs give it.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// True for a target that counts as one of its group.
    pub fn is_registered(&self) -> bool {
        matches!(self.life, Life::Registered)
    }

    /// True for a target that may keep or take flows, and is checked.
    pub fn is_placed(&self) -> bool {
        !matches!(self.life, Life::Unused(_))
    }

    /// True for a target that drains and whose flows were given up before the delay ended.
    pub fn has_lost_flows(&self) -> bool {
        self.cut && matches!(self.life, Life::Draining { .. })
    }

    /// True for a terminating target that was healthy and still passes (D6).
    pub fn is_leaving_healthy(&self) -> bool {
        matches!(self.life, Life::Draining { was_healthy: true, .. })
            && self.standing == Standing::Healthy
            && self.conditions.serving
            && self.conditions.terminating
    }

    /// Takes in what the inputs say of a target that this node uses; `conditions` is `None` for one that they no longer name.
    pub(super) fn see(&mut self, conditions: Option<Conditions>, weight: u32, now: Timestamp) {
        self.conditions = conditions.unwrap_or(gone());
        self.weight = weight;
        self.restored = false;
        let departure = conditions.map_or(Some(Departure::Gone), Departure::of);
        match (self.life, departure) {
            (Life::Registered, None) | (Life::Unused(_), Some(_)) => {}
            (Life::Registered, Some(departure)) => {
                let was_healthy = self.standing == Standing::Healthy;
                self.live(Life::Draining { began: now, was_healthy, departure }, now);
            }
            (Life::Draining { began, was_healthy, .. }, Some(departure)) => {
                self.life = Life::Draining { began, was_healthy, departure };
            }
            (Life::Draining { .. }, None) => {
                // Whatever flows it has from now on are to be judged anew.
                self.cut = false;
                self.live(Life::Registered, now);
            }
            (Life::Unused(_), None) => {
                let Self { tally, conditions, check_port, .. } = *self;
                *self = Self {
                    tally,
                    conditions,
                    check_port,
                    weight,
                    ..Self::registered(self.incarnation.wrapping_add(1), now)
                };
            }
        }
    }

    /// Has its flows forgotten.
    pub(super) fn give_up(&mut self, ended: Ended) {
        self.cut = true;
        self.ended = ended;
        self.incarnation = self.incarnation.wrapping_add(1);
    }

    /// For a target that the inputs still name, but not as ready, while its address is another pod's.
    pub(super) fn lose_address(&mut self) {
        self.ended = Ended::Reused;
        self.life = Life::Unused(Reason::NotRegistered);
    }

    fn live(&mut self, life: Life, now: Timestamp) {
        self.life = life;
        self.since = now;
    }

    /// Ends the drain of a target that the inputs still name.
    pub(super) fn drained(&mut self, now: Timestamp) {
        self.ended = Ended::default();
        self.live(Life::Unused(Reason::NotRegistered), now);
    }

    /// Takes in one check's result.
    pub(super) fn learn(&mut self, outcome: &Outcome, check: &HealthCheck, now: Timestamp) {
        self.tally.count(outcome);
        match outcome {
            Outcome::Passed => self.pass(check.healthy_threshold, now),
            Outcome::Failed(failure, cause) => {
                self.fail(*failure, cause.clone(), check.unhealthy_threshold, now);
            }
            Outcome::Internal(cause) => self.learn_nothing(cause.clone()),
        }
    }

    fn pass(&mut self, threshold: u32, now: Timestamp) {
        self.failures = 0;
        self.unanswered = 0;
        self.passes = self.passes.saturating_add(1);
        let enough = match self.standing {
            Standing::Initial | Standing::Healthy => 1,
            Standing::Unhealthy => threshold,
        };
        if self.passes >= enough {
            self.find(Standing::Healthy, None, "passes its checks".into(), now);
        } else {
            self.cause =
                format!("{} of {threshold} passes in a row after it was unhealthy", self.passes).into();
        }
    }

    fn fail(&mut self, failure: Failure, cause: Cow<'static, str>, threshold: u32, now: Timestamp) {
        self.passes = 0;
        self.failures = self.failures.saturating_add(1);
        self.unanswered = if failure.is_silence() { self.unanswered.saturating_add(1) } else { 0 };
        let verdict = match self.standing {
            Standing::Initial | Standing::Healthy => self.failures >= threshold,
            Standing::Unhealthy => true,
        };
        if verdict {
            return self.find(Standing::Unhealthy, Some(failure.reason()), cause, now);
        }
        let finding = Some(Reason::InitialHealthChecking).filter(|_| self.standing == Standing::Initial);
        let counted = format!("{cause}; {} of {threshold} failures in a row", self.failures);
        self.find(self.standing, finding, counted.into(), now);
    }

    /// A check that could not be made leaves state and counts alone; only a target without a verdict shows it.
    fn learn_nothing(&mut self, cause: Cow<'static, str>) {
        match self.standing {
            Standing::Initial => {
                self.finding = Some(Reason::InternalError);
                self.cause = cause;
            }
            Standing::Healthy | Standing::Unhealthy => {}
        }
    }

    fn find(
        &mut self,
        standing: Standing,
        finding: Option<Reason>,
        cause: Cow<'static, str>,
        now: Timestamp,
    ) {
        let before = self.state();
        self.standing = standing;
        self.finding = finding;
        self.cause = cause;
        // Of one that drains, flows that were given up stay so until it takes new ones.
        self.cut &= standing == Standing::Unhealthy || !self.is_registered();
        if self.state() != before {
            self.since = now;
        }
    }
}
