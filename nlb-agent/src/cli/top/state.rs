//! What `top` knows: the last two looks, the speeds between them, and where the user is.

use crate::report::{Rate, Traffic, rate};
use crate::socket::Sample;
use crossterm::event::{KeyCode, KeyModifiers};
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How many looks the sparkline remembers.
const MEMORY: usize = 512;

/// Which list is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tab {
    #[default]
    Listeners,
    Targets,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Stay,
    Quit,
}

/// The view's state.
#[derive(Debug, Default)]
pub(super) struct Top {
    pub(super) tab: Tab,
    /// The row under the cursor, in the list that is shown.
    pub(super) selected: usize,
    /// What must be said above the lists.
    pub(super) notice: Option<String>,
    /// Packets a second through all listeners, oldest first.
    pub(super) history: VecDeque<u64>,
    /// Speeds, in the order of the last look's rows; empty before the second look.
    pub(super) listener_rates: Vec<Rate>,
    pub(super) target_rates: Vec<Rate>,
    last: Option<(Instant, Sample)>,
}

impl Top {
    /// A new look at the counters, taken at `at`.
    pub(super) fn take(&mut self, at: Instant, sample: Sample) {
        if let Some((before, earlier)) = &self.last {
            let elapsed = at.saturating_duration_since(*before);
            let listeners = |sample: &Sample| -> Vec<_> {
                sample.listeners.iter().map(|row| (row.listener, row.traffic)).collect()
            };
            let targets = |sample: &Sample| -> Vec<_> {
                sample.targets.iter().map(|row| ((row.listener, row.target), row.traffic)).collect()
            };
            self.listener_rates = rates(&listeners(earlier), &listeners(&sample), elapsed);
            self.target_rates = rates(&targets(earlier), &targets(&sample), elapsed);
            self.history.push_back(self.total().packets.round() as u64);
            if self.history.len() > MEMORY {
                self.history.pop_front();
            }
        }
        self.last = Some((at, sample));
        self.selected = self.selected.min(self.rows().saturating_sub(1));
    }

    /// The speed of all listeners together.
    pub(super) fn total(&self) -> Rate {
        self.listener_rates.iter().copied().sum()
    }

    /// The last look.
    pub(super) fn sample(&self) -> Option<&Sample> {
        self.last.as_ref().map(|(_, sample)| sample)
    }

    /// A key was pressed.
    pub(super) fn key(&mut self, key: KeyCode, modifiers: KeyModifiers) -> Step {
        let last = self.rows().saturating_sub(1);
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return Step::Quit,
            // The terminal is raw: Ctrl-C arrives as a key.
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return Step::Quit,
            KeyCode::Tab | KeyCode::BackTab | KeyCode::Left | KeyCode::Right => {
                self.tab = match self.tab {
                    Tab::Listeners => Tab::Targets,
                    Tab::Targets => Tab::Listeners,
                };
                self.selected = 0;
            }
            KeyCode::Down | KeyCode::Char('j') => self.selected = (self.selected + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::PageDown => self.selected = (self.selected + 10).min(last),
            KeyCode::PageUp => self.selected = self.selected.saturating_sub(10),
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = last,
            _ => {}
        }
        Step::Stay
    }

    fn rows(&self) -> usize {
        self.sample().map_or(0, |sample| match self.tab {
            Tab::Listeners => sample.listeners.len(),
            Tab::Targets => sample.targets.len(),
        })
    }
}

/// The speed of each row of `after`; 0 for one that is new.
fn rates<K: Eq + Hash + Copy>(
    before: &[(K, Traffic)],
    after: &[(K, Traffic)],
    elapsed: Duration,
) -> Vec<Rate> {
    let before: HashMap<K, &Traffic> = before.iter().map(|(key, traffic)| (*key, traffic)).collect();
    let speed = |(key, now): &(K, Traffic)| {
        before.get(key).map_or_else(Rate::default, |then| rate(then, now, elapsed))
    };
    after.iter().map(speed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::View;
    use crate::report::tests::five_ports;

    fn sample(packets: u64) -> Sample {
        let mut sample = Sample::of(five_ports());
        for row in &mut sample.listeners {
            row.traffic = Traffic { flows: 1, new_flows: packets, packets, bytes: packets * 100 };
        }
        sample
    }

    fn press(top: &mut Top, key: KeyCode) -> Step {
        top.key(key, KeyModifiers::NONE)
    }

    #[test]
    fn speeds_come_from_two_looks() {
        let began = Instant::now();
        let mut top = Top::default();
        top.take(began, sample(100));
        assert!(top.listener_rates.is_empty() && top.history.is_empty());
        top.take(began + Duration::from_secs(2), sample(300));
        assert_eq!(top.listener_rates[0], Rate { packets: 100.0, bits: 80_000.0, new_flows: 100.0 });
        assert_eq!(top.history, [500], "five listeners at 100 packets/s");
    }

    #[test]
    fn a_new_row_has_no_speed_yet() {
        let began = Instant::now();
        let mut top = Top::default();
        let mut before = sample(100);
        before.listeners.remove(0);
        top.take(began, before);
        top.take(began + Duration::from_secs(1), sample(200));
        assert_eq!((top.listener_rates[0].packets, top.listener_rates[1].packets), (0.0, 100.0));
    }

    #[test]
    fn the_cursor_stays_on_the_list() {
        let mut top = Top::default();
        press(&mut top, KeyCode::Down);
        assert_eq!(top.selected, 0, "nothing is listed yet");
        top.take(Instant::now(), sample(1));
        press(&mut top, KeyCode::End);
        press(&mut top, KeyCode::Down);
        assert_eq!(top.selected, 4);
        press(&mut top, KeyCode::Tab);
        assert_eq!((top.tab, top.selected), (Tab::Targets, 0));
        press(&mut top, KeyCode::End);
        assert_eq!(top.selected, 24);
        top.take(Instant::now(), Sample { listeners: Vec::new(), targets: Vec::new() });
        assert_eq!(top.selected, 0);
    }

    #[test]
    fn three_keys_end_it() {
        let mut top = Top::default();
        assert_eq!(press(&mut top, KeyCode::Char('q')), Step::Quit);
        assert_eq!(press(&mut top, KeyCode::Esc), Step::Quit);
        assert_eq!(top.key(KeyCode::Char('c'), KeyModifiers::CONTROL), Step::Quit);
        assert_eq!(press(&mut top, KeyCode::Char('c')), Step::Stay);
    }
}
