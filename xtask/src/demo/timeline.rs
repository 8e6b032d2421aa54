//! What happened when: marked events beside all requests of the background load.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nlb_tests::lab::http::Attempt;

/// The width of one column of a chart.
pub(crate) const BIN: Duration = Duration::from_millis(500);

/// The replica's two moments between which its requests fail.
pub(crate) const STOPPED: &str = "pod6's server is stopped";
pub(crate) const EVICTED: &str = "pod6 is evicted";

/// Something that was done, or found.
pub(crate) struct Event {
    /// Since the load's beginning.
    pub(crate) at: Duration,
    pub(crate) text: &'static str,
}

impl Event {
    /// What a chart marks the `index`th event with.
    pub(crate) fn letter(index: usize) -> char {
        char::from(b'A' + u8::try_from(index % 26).expect("below 26"))
    }
}

/// Events and requests on one clock.
pub(crate) struct Timeline {
    began: Instant,
    pub(crate) events: Vec<Event>,
    pub(crate) attempts: Vec<Attempt>,
}

impl Timeline {
    /// Begins with the load.
    pub(crate) fn new(began: Instant) -> Timeline {
        Timeline { began, events: Vec::new(), attempts: Vec::new() }
    }

    /// Marks now, and returns it on the attempts' clock.
    pub(crate) fn mark(&mut self, text: &'static str) -> Duration {
        let at = self.began.elapsed();
        self.events.push(Event { at, text });
        at
    }

    /// The spans from each stop of the replica to its eviction.
    pub(crate) fn outages(&self) -> impl Iterator<Item = (Duration, Duration)> {
        let moments = |text| self.events.iter().filter(move |event| event.text == text).map(|event| event.at);
        moments(STOPPED).zip(moments(EVICTED))
    }

    /// Everybody who answered.
    pub(crate) fn pods(&self) -> BTreeSet<&str> {
        self.attempts.iter().filter_map(|attempt| Some(attempt.outcome.as_ref().ok()?.pod.as_str())).collect()
    }

    /// Requests in each [`BIN`] that `pod` answered; with `None`, that failed.
    pub(crate) fn counts(&self, pod: Option<&str>) -> Vec<u32> {
        let ends =
            self.attempts.iter().map(|attempt| attempt.at).chain(self.events.iter().map(|event| event.at));
        let mut counts = vec![0; ends.max().map_or(0, |last| bin(last) + 1)];
        for attempt in &self.attempts {
            if attempt.outcome.as_ref().ok().map(|answer| answer.pod.as_str()) == pod {
                counts[bin(attempt.at)] += 1;
            }
        }
        counts
    }
}

/// Which column a moment falls into.
pub(crate) fn bin(at: Duration) -> usize {
    usize::try_from(at.as_millis() / BIN.as_millis()).expect("a demo takes minutes")
}

/// Requests a second, of the number in one bin.
pub(crate) fn rate(count: u32) -> f64 {
    f64::from(count) / BIN.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nlb_tests::lab::http::{Answer, Failure};

    #[test]
    fn every_attempt_is_counted_once() {
        let client = "198.51.100.7:1".parse().unwrap();
        let attempt = |millis, outcome| {
            let at = Duration::from_millis(millis);
            Attempt { at, to: client, connect: Duration::ZERO, total: Duration::ZERO, outcome }
        };
        let by = |pod: &str| Ok(Answer { pod: pod.into(), seen: client, client });
        let mut timeline = Timeline::new(Instant::now());
        timeline.attempts = vec![
            attempt(0, by("pod1")),
            attempt(499, by("pod1")),
            attempt(500, by("pod2")),
            attempt(1700, Err(Failure::Reset)),
        ];
        assert_eq!(timeline.counts(Some("pod1")), [2, 0, 0, 0]);
        assert_eq!(timeline.counts(Some("pod2")), [0, 1, 0, 0]);
        assert_eq!(timeline.counts(None), [0, 0, 0, 1]);
    }
}
