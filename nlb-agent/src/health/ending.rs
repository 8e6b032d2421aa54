//! When the flows of a target that stays listed are given up: it is unhealthy, or it drains and its checks find it dead.

use super::choice::Choice;
use super::status::{Ended, Life, Standing, Status};
use crate::model::{Protocol, TargetGroup};
use jiff::Timestamp;
use std::time::Duration;

/// The attributes of a target group that decide.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ending {
    udp: bool,
    /// Checks in a row that make a target unhealthy.
    threshold: u32,
    /// How long after a target became unhealthy its flows are given up; `None`: never.
    cut_after: Option<Duration>,
}

impl Ending {
    pub(super) fn of(group: &TargetGroup) -> Self {
        let interval = group.unhealthy_draining_interval;
        let udp = group.protocol == Protocol::Udp;
        let cut_after = match (group.unhealthy_connection_termination, interval.is_zero()) {
            (true, _) => Some(Duration::ZERO),
            (false, false) => Some(interval),
            // A datagram may go elsewhere at any time; a TCP connection may not.
            (false, true) => udp.then_some(Duration::ZERO),
        };
        Self { udp, threshold: group.health_check.unhealthy_threshold, cut_after }
    }

    /// Gives up what is to be given up now, once for each spell. While a target is chosen because nobody better is there,
    /// the flows of an unhealthy one are kept; they are given up, with those that came meanwhile, when that ends.
    pub(super) fn settle(&self, status: &mut Status, choice: Choice, now: Timestamp) {
        match status.life {
            Life::Registered if status.standing == Standing::Unhealthy => {
                if choice == Choice::FailOpen {
                    status.cut = false;
                } else if !status.cut && self.cut_after.is_some_and(|after| status.since + after <= now) {
                    status.give_up(Ended::Unhealthy);
                }
            }
            Life::Draining { .. } => match self.finds_dead(status) {
                Some(ended) if !status.cut => status.give_up(ended),
                Some(_) => {}
                // It takes new flows (D6), and these are its own again.
                None => status.cut &= !choice.takes(status),
            },
            Life::Registered | Life::Unused(_) => {}
        }
    }

    /// What the checks of a draining target say of its flows: servers refuse, or answer 503, while they finish what is open,
    /// so only silence ends a connection; datagrams have no reason to wait.
    fn finds_dead(&self, status: &Status) -> Option<Ended> {
        if status.unanswered >= self.threshold {
            Some(Ended::Silent)
        } else if self.udp && status.standing == Standing::Unhealthy {
            Some(Ended::Failing)
        } else {
            None
        }
    }

    /// When flows are to be given up next although no check ends.
    pub(super) fn deadline(&self, status: &Status, choice: Choice) -> Option<Timestamp> {
        let waits = is_unhealthy(status) && !status.cut && choice != Choice::FailOpen;
        self.cut_after.filter(|_| waits).map(|after| status.since + after)
    }
}

/// True for a target that [`Ending::settle`] has something to decide for.
pub(super) fn is_concerned(status: &Status) -> bool {
    is_unhealthy(status) || matches!(status.life, Life::Draining { .. })
}

fn is_unhealthy(status: &Status) -> bool {
    status.is_registered() && status.standing == Standing::Unhealthy
}
