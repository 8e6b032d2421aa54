//! How a check ended, and how many ended so.

use super::reason::Reason;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

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
    /// Refused, reset, or not an answer of the protocol.
    Broken,
    /// There is no way to it: a router, or the kernel itself, says so.
    Unreachable,
    /// No whole answer within the timeout.
    Timeout,
    /// A code outside the success codes.
    ResponseCode,
}

impl Failure {
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Broken | Self::Unreachable => Reason::FailedHealthChecks,
            Self::Timeout => Reason::Timeout,
            Self::ResponseCode => Reason::ResponseCodeMismatch,
        }
    }

    /// True if nothing answered, as where a pod or its node has vanished.
    pub(super) fn is_silence(self) -> bool {
        match self {
            Self::Timeout | Self::Unreachable => true,
            Self::Broken | Self::ResponseCode => false,
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

    pub(super) fn count(&mut self, outcome: &Outcome) {
        *match outcome {
            Outcome::Passed => &mut self.passed,
            Outcome::Failed(Failure::Broken | Failure::Unreachable, _) => &mut self.failed,
            Outcome::Failed(Failure::Timeout, _) => &mut self.timeout,
            Outcome::Failed(Failure::ResponseCode, _) => &mut self.response_code,
            Outcome::Internal(_) => &mut self.internal,
        } += 1;
    }
}
