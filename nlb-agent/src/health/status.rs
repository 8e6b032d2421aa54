//! One target's state and how check results and the cluster's word move it.

use super::outcome::{Failure, Outcome, Tally};
use super::reason::{Reason, State};
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

    fn sentence(self) -> &'static str {
        match self {
            Self::NotReady => "the endpoint is not ready; flows are kept until the deregistration delay ends",
            Self::Terminating => "the pod is terminating; flows are kept until the deregistration delay ends",
            Self::Gone => "the endpoint is gone; flows are kept until the deregistration delay ends",
        }
    }
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
    pub(super) incarnation: u32,
    /// True once the flows of this unhealthy spell have been given up.
    pub(super) cut: bool,
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
            incarnation,
            cut: false,
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
    pub fn description(&self) -> &str {
        match self.life {
            Life::Registered | Life::Unused(Reason::NotInUse) => &self.cause,
            Life::Draining { departure, .. } => departure.sentence(),
            Life::Unused(_) => "the endpoint is not ready and its deregistration delay has ended",
        }
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

    /// True for a target that keeps or takes flows.
    pub fn is_placed(&self) -> bool {
        !matches!(self.life, Life::Unused(_))
    }

    /// True for a target that is to be checked: a draining one only while it could still take flows (D6).
    pub fn is_checked(&self) -> bool {
        match self.life {
            Life::Registered => true,
            Life::Draining { .. } => self.conditions.serving,
            Life::Unused(_) => false,
        }
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
            (Life::Draining { .. }, None) => self.live(Life::Registered, now),
            (Life::Unused(_), None) => {
                let tally = self.tally;
                let conditions = self.conditions;
                *self = Self {
                    tally,
                    conditions,
                    weight,
                    ..Self::registered(self.incarnation.wrapping_add(1), now)
                };
            }
        }
    }

    fn live(&mut self, life: Life, now: Timestamp) {
        self.life = life;
        self.since = now;
    }

    /// Ends the drain of a target that the inputs still name.
    pub(super) fn drained(&mut self, now: Timestamp) {
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
        self.cut &= standing == Standing::Unhealthy;
        if self.state() != before {
            self.since = now;
        }
    }
}
