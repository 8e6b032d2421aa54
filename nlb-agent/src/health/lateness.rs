//! Whether checks have been late for so long that somebody should know.

use super::load::{LATE, Load};
use std::time::{Duration, Instant};

/// Checks that are late for a shorter time than this are nobody's concern: many targets have come, or gone, at once.
const LASTING: Duration = Duration::from_secs(10);
/// After so long without a late check it is over.
const OVER: Duration = Duration::from_secs(30);

/// What looks at a checker's [`Load`] have shown.
#[derive(Clone, Debug, Default)]
pub struct Lateness {
    late: u64,
    since: Option<Instant>,
    last: Option<Instant>,
    lasting: bool,
}

impl Lateness {
    /// Takes in one look; true while checks begin late and have done so for 10 s or more. It ends after 30 s without.
    pub fn look(&mut self, load: &Load, now: Instant) -> bool {
        let is_late = load.late != self.late || load.behind > LATE;
        self.late = load.late;
        if is_late {
            self.last = Some(now);
            let since = *self.since.get_or_insert(now);
            self.lasting |= now - since >= LASTING;
        } else if !self.lasting || self.last.is_none_or(|last| now - last >= OVER) {
            self.since = None;
            self.lasting = false;
        }
        self.lasting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What looks 5 s apart say, where 1 = checks began late, 2 = one waits long, 0 = all is well.
    fn looks(kinds: &[u64]) -> Vec<bool> {
        let (mut lateness, mut load, mut now) = (Lateness::default(), Load::default(), Instant::now());
        let mut look = |kind| {
            load.late += u64::from(kind == 1);
            load.behind = if kind == 2 { 2 * LATE } else { LATE / 2 };
            now += Duration::from_secs(5);
            lateness.look(&load, now)
        };
        kinds.iter().map(|kind| look(*kind)).collect()
    }

    #[test]
    fn a_moment_is_nobodys_concern() {
        assert_eq!(looks(&[1, 1, 0, 2, 1, 0, 0, 1]), [false; 8]);
    }

    #[test]
    fn what_lasts_is_said_until_it_is_over() {
        let said = looks(&[1, 2, 1, 0, 2, 0, 0, 0, 0, 0, 0, 1]);
        let (t, f) = (true, false);
        assert_eq!(said, [f, f, t, t, t, t, t, t, t, t, f, f]);
    }
}
