//! When each check is due: a queue by time, and the pauses between the checks of one target.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;
use tokio::time::Instant;

/// Every first check is due this soon after its target was registered, a little under the second that is promised.
const FIRST_WITHIN: Duration = Duration::from_millis(800);
/// First checks follow each other no closer than it takes to make them, and no wider than this, so that few targets are
/// known at once.
const FIRST_APART: Duration = Duration::from_micros(100);

/// Ids in the order in which they are due.
#[derive(Debug, Default)]
pub(super) struct Queue {
    due: BTreeSet<(Instant, u64)>,
}

impl Queue {
    pub(super) fn insert(&mut self, due: Instant, id: u64) {
        self.due.insert((due, id));
    }

    pub(super) fn remove(&mut self, due: Instant, id: u64) {
        self.due.remove(&(due, id));
    }

    /// When the first one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Takes out the first one if it is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<u64> {
        self.next().filter(|due| *due <= now)?;
        self.due.pop_first().map(|(_, id)| id)
    }
}

/// The due times of `count` first checks, spread evenly.
pub(super) fn first_checks(count: usize, now: Instant) -> impl Iterator<Item = Instant> {
    let share = FIRST_WITHIN / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    let apart = share.min(FIRST_APART);
    (0..count).map(move |index| now + apart * u32::try_from(index).unwrap_or(u32::MAX))
}

/// What tells a target's pauses from every other's, on every run the same.
pub(super) fn phase(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// From the start of a target's check number `number` (0 is the first) to the start of the next: never longer than the
/// interval, because detection within threshold x interval + timeout is promised, and up to a tenth shorter. The
/// first pause is anything between half the interval and the whole, so that targets registered together part at once.
pub(super) fn pause(phase: u64, number: u32, interval: Duration) -> Duration {
    let range = if number == 0 { 0.5 } else { 0.1 };
    let part = phase_hash(phase, number);
    interval.mul_f64(1.0 - range * part)
}

/// A number from 0 to 1.
fn phase_hash(phase: u64, number: u32) -> f64 {
    f64::from(u32::try_from(self::phase((phase, number)) >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_pause_is_never_longer_than_the_interval(seed: u64, number: u32, seconds in 1_u64..=300) {
            let interval = Duration::from_secs(seconds);
            let pause = pause(seed, number, interval);
            prop_assert!(pause <= interval);
            let least = if number == 0 { 0.499 } else { 0.899 };
            prop_assert!(pause >= interval.mul_f64(least));
        }

        #[test]
        fn first_checks_are_in_order_and_within_a_second(count in 1_usize..30_000) {
            let now = Instant::now();
            let due: Vec<Instant> = first_checks(count, now).collect();
            prop_assert_eq!(due.len(), count);
            prop_assert!(due.is_sorted());
            prop_assert!(due[count - 1] < now + Duration::from_secs(1));
        }
    }

    /// How many of 2000 targets, registered at once, have check number `number` in each tenth of the interval.
    fn tenths(number: u32) -> [u32; 10] {
        let interval = Duration::from_secs(10);
        let mut tenths = [0; 10];
        for seed in 0..2000_u64 {
            let at: Duration = (0..number).map(|number| pause(phase(seed), number, interval)).sum();
            tenths[usize::try_from(at.as_millis() % 10_000 / 1000).unwrap()] += 1;
        }
        tenths
    }

    #[test]
    fn targets_that_began_together_part_at_once_and_for_good() {
        assert!(tenths(1).iter().all(|&count| count < 500), "{:?}", tenths(1));
        let later = tenths(400);
        assert!(later.iter().all(|&count| (100..300).contains(&count)), "{later:?}");
    }
}
