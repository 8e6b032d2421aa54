//! One target's state and how check results and the cluster's word move it.

use crate::model::{Conditions, HealthCheck};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// What AWS calls the target's health state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Registered; no check has passed yet, and not enough have failed.
    Initial,
    /// Takes new flows.
    Healthy,
    /// Takes none, unless its group fails open.
    Unhealthy,
    /// Leaving: keeps its flows until the deregistration delay ends.
    Draining,
    /// Known, but neither checked nor sent any traffic.
    Unused,
}

impl State {
    /// Every state, for metrics that show each as 0 or 1.
    pub const ALL: [Self; 5] = [Self::Initial, Self::Healthy, Self::Unhealthy, Self::Draining, Self::Unused];

    /// The word that users see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
            Self::Unused => "unused",
        }
    }
}

/// Why a target is in its state (AWS: `TargetHealth.Reason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// Registered, and its first check has not ended.
    #[serde(rename = "Elb.RegistrationInProgress")]
    RegistrationInProgress,
    /// Checked, without a verdict yet.
    #[serde(rename = "Elb.InitialHealthChecking")]
    InitialHealthChecking,
    /// The check could not be made, for a reason on this side.
    #[serde(rename = "Elb.InternalError")]
    InternalError,
    /// Refused, reset or malformed.
    #[serde(rename = "Target.FailedHealthChecks")]
    FailedHealthChecks,
    /// No answer in time.
    #[serde(rename = "Target.Timeout")]
    Timeout,
    /// An answer with a code that is not among the success codes.
    #[serde(rename = "Target.ResponseCodeMismatch")]
    ResponseCodeMismatch,
    /// Draining.
    #[serde(rename = "Target.DeregistrationInProgress")]
    DeregistrationInProgress,
    /// Drained, and still not ready.
    #[serde(rename = "Target.NotRegistered")]
    NotRegistered,
    /// No listener of this node leads to it.
    #[serde(rename = "Target.NotInUse")]
    NotInUse,
}

impl Reason {
    /// AWS's code.
    pub fn code(self) -> &'static str {
        match self {
            Self::RegistrationInProgress => "Elb.RegistrationInProgress",
            Self::InitialHealthChecking => "Elb.InitialHealthChecking",
            Self::InternalError => "Elb.InternalError",
            Self::FailedHealthChecks => "Target.FailedHealthChecks",
            Self::Timeout => "Target.Timeout",
            Self::ResponseCodeMismatch => "Target.ResponseCodeMismatch",
            Self::DeregistrationInProgress => "Target.DeregistrationInProgress",
            Self::NotRegistered => "Target.NotRegistered",
            Self::NotInUse => "Target.NotInUse",
        }
    }
}

/// How one check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer came in time and was right.
    Passed,
    /// The target failed it; the text is the cause in a few words, such as `connection refused`.
    Failed(Failure, Cow<'static, str>),
    /// It could not be made, which says nothing about the target; the text is the cause.
    Internal(Cow<'static, str>),
}

/// In which way a target failed a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Refused, reset, unreachable, or not an answer of the protocol.
    Broken,
    /// No whole answer within the timeout.
    Timeout,
    /// A code outside the success codes.
    ResponseCode,
}

impl Failure {
    fn reason(self) -> Reason {
        match self {
            Self::Broken => Reason::FailedHealthChecks,
            Self::Timeout => Reason::Timeout,
            Self::ResponseCode => Reason::ResponseCodeMismatch,
        }
    }
}

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

/// Checks of a target by result, since it was registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Passed.
    pub passed: u64,
    /// Refused, reset, unreachable or malformed.
    pub failed: u64,
    /// Timed out.
    pub timeout: u64,
    /// Answered with another code.
    pub response_code: u64,
    /// Could not be made.
    pub internal: u64,
}

impl Tally {
    /// (value of the label `result`, count) for `nlb_target_health_checks_total`.
    pub fn by_result(&self) -> [(&'static str, u64); 5] {
        [
            ("passed", self.passed),
            ("failed", self.failed),
            ("timeout", self.timeout),
            ("response-code", self.response_code),
            ("internal-error", self.internal),
        ]
    }

    fn count(&mut self, outcome: &Outcome) {
        *match outcome {
            Outcome::Passed => &mut self.passed,
            Outcome::Failed(Failure::Broken, _) => &mut self.failed,
            Outcome::Failed(Failure::Timeout, _) => &mut self.timeout,
            Outcome::Failed(Failure::ResponseCode, _) => &mut self.response_code,
            Outcome::Internal(_) => &mut self.internal,
        } += 1;
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
    #[serde(skip)]
    pub(super) weight: u32,
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
                *self =
                    Self { tally, conditions, weight, ..Self::registered(self.incarnation.wrapping_add(1), now) };
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
            Outcome::Failed(failure, cause) => self.fail(*failure, cause, check.unhealthy_threshold, now),
            Outcome::Internal(cause) => self.learn_nothing(cause),
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
            self.cause = format!("{} of {threshold} passes in a row after it was unhealthy", self.passes).into();
        }
    }

    fn fail(&mut self, failure: Failure, cause: &Cow<'static, str>, threshold: u32, now: Timestamp) {
        self.passes = 0;
        self.failures = self.failures.saturating_add(1);
        let counted = || format!("{cause}; {} of {threshold} failures in a row", self.failures).into();
        match self.standing {
            Standing::Initial | Standing::Healthy if self.failures >= threshold => {
                self.find(Standing::Unhealthy, Some(failure.reason()), cause.clone(), now);
            }
            Standing::Unhealthy => self.find(Standing::Unhealthy, Some(failure.reason()), cause.clone(), now),
            Standing::Initial => {
                self.find(Standing::Initial, Some(Reason::InitialHealthChecking), counted(), now);
            }
            Standing::Healthy => self.find(Standing::Healthy, None, counted(), now),
        }
    }

    /// A check that could not be made leaves state and counts alone; only a target without a verdict shows it.
    fn learn_nothing(&mut self, cause: &Cow<'static, str>) {
        match self.standing {
            Standing::Initial => {
                self.finding = Some(Reason::InternalError);
                self.cause = cause.clone();
            }
            Standing::Healthy | Standing::Unhealthy => {}
        }
    }

    fn find(&mut self, standing: Standing, finding: Option<Reason>, cause: Cow<'static, str>, now: Timestamp) {
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
