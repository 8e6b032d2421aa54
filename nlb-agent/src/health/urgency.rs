//! How soon a target's next check must begin: what its last checks have shown of it.

use super::outcome::{Failure, Outcome};
use std::time::Duration;

/// Every check may keep its socket for this long, whoever waits. A target that answers within it is quick.
pub(super) const SLICE: Duration = Duration::from_millis(250);

/// Why a check asks for a socket, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// The last check ended within a [`SLICE`], so this one will most likely not keep its socket.
    Quick,
    /// No check has ended yet.
    New,
    /// The target has answered before, but its last check took longer than a [`SLICE`]: it is slow, or it has died and its
    /// verdict is still to come.
    Doubtful,
    /// The target has never answered, or has been silent for so many checks that its verdict has been given.
    Silent,
}

/// What the checks of one target have shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    asked: bool,
    answered: bool,
    slow: bool,
    /// Failed checks in a row that each took longer than a slice.
    silences: u32,
}

impl Record {
    /// Takes in how a check ended and how long it took.
    pub(super) fn learn(&mut self, outcome: &Outcome, took: Duration) {
        let slow = took > SLICE;
        let silent = match outcome {
            // It says nothing about the target.
            Outcome::Internal(_) => return,
            Outcome::Passed => false,
            Outcome::Failed(Failure::Timeout, _) => true,
            Outcome::Failed(Failure::Broken | Failure::Unreachable | Failure::ResponseCode, _) => slow,
        };
        self.asked = true;
        self.slow = slow;
        self.answered |= !silent;
        self.silences = if silent { self.silences.saturating_add(1) } else { 0 };
    }

    /// The urgency of the next check, where this many failures in a row make a target unhealthy.
    pub(super) fn urgency(&self, unhealthy_threshold: u32) -> Urgency {
        match self.silences {
            _ if !self.asked => Urgency::New,
            0 if self.slow => Urgency::Doubtful,
            0 => Urgency::Quick,
            silences if self.answered && silences < unhealthy_threshold => Urgency::Doubtful,
            _ => Urgency::Silent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(2);
    const LONG: Duration = Duration::from_secs(2);

    fn silent() -> (Outcome, Duration) {
        (Outcome::Failed(Failure::Timeout, "no connection".into()), LONG)
    }

    fn refused(took: Duration) -> (Outcome, Duration) {
        (Outcome::Failed(Failure::Broken, "connection refused".into()), took)
    }

    #[track_caller]
    fn assert_urgency(checks: &[(Outcome, Duration)], urgency: Urgency) {
        let mut record = Record::default();
        checks.iter().for_each(|(outcome, took)| record.learn(outcome, *took));
        assert_eq!(record.urgency(3), urgency, "{checks:?}");
    }

    #[test]
    fn a_target_is_new_until_a_check_has_ended() {
        assert_urgency(&[], Urgency::New);
        assert_urgency(&[(Outcome::Internal("too many open files".into()), MOMENT)], Urgency::New);
        assert_urgency(&[(Outcome::Passed, MOMENT)], Urgency::Quick);
        assert_urgency(&[refused(MOMENT)], Urgency::Quick);
    }

    #[test]
    fn a_target_that_has_answered_is_silent_only_after_its_verdict() {
        let passed = (Outcome::Passed, MOMENT);
        assert_urgency(&[passed.clone(), silent()], Urgency::Doubtful);
        assert_urgency(&[passed.clone(), silent(), silent()], Urgency::Doubtful);
        assert_urgency(&[passed.clone(), silent(), silent(), refused(LONG)], Urgency::Silent);
        assert_urgency(&[passed.clone(), silent(), silent(), silent(), passed], Urgency::Quick);
    }

    #[test]
    fn a_target_that_has_never_answered_is_silent_after_one_check() {
        assert_urgency(&[silent()], Urgency::Silent);
        assert_urgency(&[refused(LONG)], Urgency::Silent);
    }

    #[test]
    fn a_slow_answer_makes_a_target_doubtful() {
        assert_urgency(&[(Outcome::Passed, LONG)], Urgency::Doubtful);
        assert_urgency(&[(Outcome::Passed, LONG), (Outcome::Passed, MOMENT)], Urgency::Quick);
    }
}
