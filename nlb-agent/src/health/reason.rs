//! The words in which a target's health is shown: AWS's states and reason codes.

use serde::{Deserialize, Serialize};

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
    /// Leaving: keeps its flows while it answers, until the deregistration delay ends.
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
