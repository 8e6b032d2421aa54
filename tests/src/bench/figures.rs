//! Figures, their medians and spreads, and the budgets that they are held against.

use serde_json::{Value, json};

/// The middle of some numbers, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Middle {
    pub(crate) median: f64,
    /// Distance of the quartiles by the median.
    pub(crate) spread: f64,
}

impl Middle {
    /// Of at least one number.
    pub(crate) fn of(numbers: impl IntoIterator<Item = f64>) -> Middle {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |quarter: f64| {
            let place = quarter * (sorted.len() - 1) as f64;
            let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            low + (high - low) * place.fract()
        };
        let median = at(0.5);
        let spread = if median == 0.0 { 0.0 } else { (at(0.75) - at(0.25)) / median.abs() };
        Middle { median, spread }
    }
}

/// A packet case.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) case: &'static str,
    pub(crate) nanoseconds: f64,
    pub(crate) floor: f64,
    pub(crate) ratio: f64,
    pub(crate) spread: f64,
}

impl Packet {
    /// From rounds of (floor, case) in nanoseconds: the ratio is taken round by round.
    pub(crate) fn new(case: &'static str, rounds: &[(f64, f64)]) -> Packet {
        let ratio = Middle::of(rounds.iter().map(|(floor, whole)| whole / floor));
        Packet {
            case,
            nanoseconds: Middle::of(rounds.iter().map(|(_, whole)| *whole)).median,
            floor: Middle::of(rounds.iter().map(|(floor, _)| *floor)).median,
            ratio: ratio.median,
            spread: ratio.spread,
        }
    }

    /// As the bench's file has it.
    pub(crate) fn json(&self) -> Value {
        json!({ "case": self.case, "nanoseconds": round(self.nanoseconds, 1), "floor": round(self.floor, 1),
            "ratio": round(self.ratio, 2), "spread": round(self.spread, 3) })
    }
}

/// A system case: nlb beside another, in requests or connections a second.
#[derive(Clone, Debug)]
pub(crate) struct System {
    pub(crate) case: String,
    pub(crate) nlb: f64,
    pub(crate) other: f64,
    pub(crate) ratio: f64,
    pub(crate) spread: f64,
}

impl System {
    /// From rounds of (nlb, other).
    pub(crate) fn new(case: String, rounds: &[(f64, f64)]) -> System {
        let ratio = Middle::of(rounds.iter().map(|(nlb, other)| nlb / other));
        System {
            case,
            nlb: Middle::of(rounds.iter().map(|(nlb, _)| *nlb)).median,
            other: Middle::of(rounds.iter().map(|(_, other)| *other)).median,
            ratio: ratio.median,
            spread: ratio.spread,
        }
    }

    /// As the bench's file has it.
    pub(crate) fn json(&self) -> Value {
        json!({ "case": self.case, "nlb": round(self.nlb, 0), "other": round(self.other, 0),
            "ratio": round(self.ratio, 2), "spread": round(self.spread, 3) })
    }
}

/// What a control case is measured in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Amount {
    /// Seconds.
    Seconds(f64),
    /// Megabytes (10^6).
    Megabytes(f64),
    /// Share of one core, 0 to 1 and above.
    Core(f64),
}

impl Amount {
    /// The key in the bench's file, and the number.
    pub(crate) fn parts(self) -> (&'static str, f64) {
        match self {
            Amount::Seconds(number) => ("seconds", number),
            Amount::Megabytes(number) => ("megabytes", number),
            Amount::Core(number) => ("core", number),
        }
    }
}

impl Amount {
    /// Another number in the same unit, for people.
    pub(crate) fn with(self, number: f64) -> String {
        match self {
            Amount::Seconds(_) => Amount::Seconds(number),
            Amount::Megabytes(_) => Amount::Megabytes(number),
            Amount::Core(_) => Amount::Core(number),
        }
        .to_string()
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Amount::Seconds(number) if number < 0.1 => write!(f, "{:.2} ms", number * 1e3),
            Amount::Seconds(number) => write!(f, "{number:.2} s"),
            Amount::Megabytes(number) => write!(f, "{number:.0} MB"),
            Amount::Core(number) => write!(f, "{:.1} % of a core", number * 100.0),
        }
    }
}

/// A control case.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    pub(crate) case: &'static str,
    pub(crate) amount: Amount,
}

impl Control {
    /// As the bench's file has it.
    pub(crate) fn json(&self) -> Value {
        let (key, number) = self.amount.parts();
        json!({ "case": self.case, key: round(number, 6) })
    }
}

fn round(number: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (number * scale).round() / scale
}

/// What a case is held against: ratios to the floor for packets, the case's own unit for the control plane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) must: f64,
    pub(crate) aims: f64,
    /// Katran's ratio.
    pub(crate) katran: Option<f64>,
}

/// The budget of a case, where it has one (DESIGN section 6).
pub(crate) fn budget(case: &str) -> Option<Budget> {
    let packet = |katran, must, aims| Some(Budget { must, aims, katran: Some(katran) });
    let control = |must, aims| Some(Budget { must, aims, katran: None });
    match case {
        "not-for-us" => packet(2.6, 2.0, 1.5),
        "tcp4-established" => packet(4.8, 4.0, 3.0),
        "tcp6-established" => packet(4.8, 4.5, 3.5),
        "tcp4-established-1m" => packet(17.0, 8.0, 5.0),
        "tcp4-new-flow" => packet(28.0, 10.0, 6.0),
        "udp4-established" => packet(5.8, 4.5, 3.5),
        "cold-10000x10" => control(2.0, 0.5),
        "one-endpoint-p99" => control(0.010, 0.001),
        "ring-1000" => control(0.005, 0.0005),
        "memory-10000x10" => control(250.0, 80.0),
        "probes-10000-in-10s" => control(0.20, 0.05),
        _ => None,
    }
}

impl Budget {
    /// How an amount stands against it.
    pub(crate) fn verdict(&self, amount: f64) -> &'static str {
        if amount <= self.aims {
            "aim met"
        } else if amount <= self.must {
            "met"
        } else {
            "NOT MET"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Middle, Packet, budget};

    #[test]
    fn the_ratio_is_taken_within_each_round() {
        // A machine that is twice as slow in one round is so for both.
        let packet = Packet::new("x", &[(20.0, 60.0), (40.0, 120.0), (20.0, 60.0)]);
        assert_eq!((packet.ratio, packet.spread), (3.0, 0.0));
        assert_eq!((packet.floor, packet.nanoseconds), (20.0, 60.0));
    }

    #[test]
    fn median_and_quartiles() {
        let middle = Middle::of([5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!(middle, Middle { median: 3.0, spread: 2.0 / 3.0 });
        assert_eq!(Middle::of([7.0]), Middle { median: 7.0, spread: 0.0 });
    }

    #[test]
    fn verdicts_tell_must_from_aim() {
        let budget = budget("not-for-us").expect("it has one");
        assert_eq!([1.5, 1.6, 2.0, 2.01].map(|r| budget.verdict(r)), ["aim met", "met", "met", "NOT MET"]);
    }
}
