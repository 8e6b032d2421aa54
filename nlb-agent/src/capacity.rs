//! How much the maps hold, and what is said when that is not enough.

use crate::problem::{Effect, Problem, Severity};
use nlb_common::layout::ListenerKey;

/// Sizes of the maps, and the kernel's tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Elements of `listeners`, `choices` and `listener_counts`.
    pub listeners: u32,
    /// Elements of `vips`: as many as of `listeners`, because each VIP has a listener.
    pub vips: u32,
    /// Elements of `slots` and `slot_counts`; `targets` must hold at least as many.
    pub slots: u32,
    /// 64-bit words of `rings`.
    pub ring_words: u32,
    /// Jiffies per second: 100 to 1000.
    pub hz: u32,
}

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Limit {
    /// [`Limits::listeners`].
    Listeners,
    /// [`Limits::vips`].
    Vips,
    /// [`Limits::slots`].
    Slots,
    /// [`Limits::ring_words`].
    RingWords,
    /// [`MAX_TARGETS_PER_SET`](nlb_common::ring::MAX_TARGETS_PER_SET).
    TargetsPerSet,
}

/// What of a listener could not be placed; what was placed before is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// Whose.
    pub listener: ListenerKey,
    /// What ran out.
    pub limit: Limit,
    /// How much there is of it.
    pub capacity: u32,
    /// Targets that are left out; 0 where the whole listener, or its change, is.
    pub targets: u32,
    /// Some of it waits for a grace period: tried again with the next call, and not worth an Event yet.
    pub passing: bool,
}

impl Shortfall {
    /// The problem as the user sees it, on this object: `Service namespace/name`.
    pub fn problem(&self, object: String) -> Problem {
        let (reason, advice) = match self.limit {
            Limit::Listeners => ("ListenerLimit", format!("remove listeners, {}", more("--max-listeners"))),
            Limit::Vips => ("VipLimit", format!("share VIPs between Services, {}", more("--max-listeners"))),
            Limit::Slots => ("TargetLimit", format!("remove targets, {}", more("--max-targets"))),
            Limit::RingWords => ("RingLimit", format!("remove targets ({FIXED})")),
            Limit::TargetsPerSet => {
                ("TargetSetLimit", format!("spread the targets over several listeners ({FIXED})"))
            }
        };
        let (what, effect) = match (self.targets, self.limit) {
            (0, Limit::RingWords) => ("the listener stays as it was".to_owned(), Effect::KeptLastGood),
            (0, _) => ("the listener is not served".to_owned(), Effect::PortRefused),
            (count, _) => (format!("{count} of its targets get no new flows"), Effect::Clamped),
        };
        let ListenerKey { vip, port, .. } = self.listener;
        let (ip, capacity) = (vip.ip(), self.capacity);
        let message = format!(
            "The limit of {capacity} {} is reached, so for {ip} port {port} {what}; {advice}.",
            self.limit
        );
        Problem {
            severity: Severity::Warning,
            object,
            field: Some("spec.ports".to_owned()),
            value: Some(port.to_string()),
            reason: reason.to_owned(),
            message,
            effect,
        }
    }
}

const FIXED: &str = "this limit is fixed";

/// What must be done before a larger number counts.
fn more(flag: &str) -> String {
    format!(
        "or run `nlb-agent detach`, which ends all flows, and start again with a larger {flag}: maps that are pinned keep their sizes"
    )
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Listeners => "listeners",
            Self::Vips => "VIPs",
            Self::Slots => "targets of listeners",
            Self::RingWords => "words of rings",
            Self::TargetsPerSet => "targets of one listener",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_the_limit_and_what_is_left_out() {
        let listener =
            ListenerKey { vip: std::net::Ipv4Addr::new(10, 0, 0, 1).into(), port: 80, ..Default::default() };
        let limit = Limit::Slots;
        let problem = Shortfall { listener, limit, capacity: 64, targets: 3, passing: false }
            .problem("Service a/b".into());
        assert_eq!(problem.reason, "TargetLimit");
        assert_eq!(
            problem.message,
            "The limit of 64 targets of listeners is reached, so for 10.0.0.1 port 80 3 of its targets get no new \
             flows; remove targets, or run `nlb-agent detach`, which ends all flows, and start again with a larger \
             --max-targets: maps that are pinned keep their sizes."
        );
        assert_eq!(problem.effect, Effect::Clamped);
    }

    #[test]
    fn only_a_limit_that_a_flag_sets_sends_to_one() {
        let limits = [
            (Limit::Listeners, "a larger --max-listeners"),
            (Limit::Vips, "a larger --max-listeners"),
            (Limit::Slots, "a larger --max-targets"),
            (Limit::RingWords, "this limit is fixed"),
            (Limit::TargetsPerSet, "this limit is fixed"),
        ];
        for (limit, end) in limits {
            let listener = ListenerKey::default();
            let message = Shortfall { listener, limit, capacity: 1, targets: 0, passing: false }
                .problem(String::new())
                .message;
            assert!(message.contains(end), "{message}");
            assert_eq!(message.contains("`nlb-agent detach`"), end.contains("--"), "{message}");
        }
    }
}
