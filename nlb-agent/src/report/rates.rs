//! Speeds from two looks at the same counters.

use super::Traffic;
use std::time::Duration;

/// Speed of a listener or a target.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Packets a second, both directions.
    pub packets: f64,
    /// Bits a second, both directions.
    pub bits: f64,
    /// New flows a second.
    pub new_flows: f64,
}

/// The speed between two looks `elapsed` apart; 0 for a counter that began anew in between.
pub fn rate(before: &Traffic, after: &Traffic, elapsed: Duration) -> Rate {
    let seconds = elapsed.as_secs_f64();
    if seconds <= 0.0 {
        return Rate::default();
    }
    let per_second = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
    Rate {
        packets: per_second(before.packets, after.packets),
        bits: per_second(before.bytes, after.bytes) * 8.0,
        new_flows: per_second(before.new_flows, after.new_flows),
    }
}

impl std::iter::Sum for Rate {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            packets: a.packets + b.packets,
            bits: a.bits + b.bits,
            new_flows: a.new_flows + b.new_flows,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_become_bits() {
        let before = Traffic { flows: 1, new_flows: 10, packets: 100, bytes: 1_000 };
        let after = Traffic { flows: 2, new_flows: 12, packets: 150, bytes: 2_000 };
        let rate = rate(&before, &after, Duration::from_millis(500));
        assert_eq!(rate, Rate { packets: 100.0, bits: 16_000.0, new_flows: 4.0 });
    }

    proptest! {
        #[test]
        fn never_negative_never_infinite(a: u64, b: u64, millis in 0u64..10_000) {
            let [before, after] = [a, b].map(|n| Traffic { flows: n, new_flows: n, packets: n, bytes: n });
            let rate = rate(&before, &after, Duration::from_millis(millis));
            prop_assert!(rate.bits.is_finite() && rate.bits >= 0.0);
        }
    }
}
