//! How busy the checker is, for metrics and for the warning that there are too few sockets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// A check that begins this long after its time is late: the first one is promised within a second.
pub const LATE: Duration = Duration::from_secs(1);

/// How busy a [`super::Checker`] is and was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Sockets that checks may use at once.
    pub sockets: u64,
    /// Checks that it holds.
    pub checks: u64,
    /// Checks under way now, each with one socket.
    pub running: u64,
    /// The most that ever were under way at once.
    pub peak: u64,
    /// Checks whose turn has come and that wait for a socket now.
    pub waiting: u64,
    /// How often a check had to wait for a socket.
    pub waited: u64,
    /// Checks begun.
    pub started: u64,
    /// Checks begun more than [`LATE`] after their time.
    pub late: u64,
    /// Checks broken off because another needed the socket; each began again later.
    pub given_up: u64,
    /// How long the check has waited that waits longest now; 0 where none waits.
    pub behind: Duration,
}

/// The values of a [`Load`] as the checker's task writes them.
#[derive(Debug)]
pub(super) struct Gauges {
    since: Instant,
    sockets: u64,
    pub(super) checks: AtomicU64,
    pub(super) running: AtomicU64,
    pub(super) peak: AtomicU64,
    pub(super) waiting: AtomicU64,
    pub(super) waited: AtomicU64,
    pub(super) started: AtomicU64,
    pub(super) late: AtomicU64,
    pub(super) given_up: AtomicU64,
    /// Milliseconds from `since` to the due time of the check that waits longest; `u64::MAX` where none waits.
    oldest: AtomicU64,
}

impl Gauges {
    pub(super) fn new(sockets: usize) -> Self {
        Self {
            since: Instant::now(),
            sockets: sockets as u64,
            checks: AtomicU64::default(),
            running: AtomicU64::default(),
            peak: AtomicU64::default(),
            waiting: AtomicU64::default(),
            waited: AtomicU64::default(),
            started: AtomicU64::default(),
            late: AtomicU64::default(),
            given_up: AtomicU64::default(),
            oldest: AtomicU64::new(u64::MAX),
        }
    }

    /// Since when the check waits that waits longest.
    pub(super) fn waiting_since(&self, since: Option<Instant>) {
        let millis = |at: Instant| u64::try_from((at - self.since).as_millis()).unwrap_or(u64::MAX);
        self.oldest.store(since.map_or(u64::MAX, millis), Ordering::Relaxed);
    }

    pub(super) fn load(&self) -> Load {
        let read = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
        let oldest = Some(read(&self.oldest)).filter(|oldest| *oldest != u64::MAX);
        let behind = |oldest| self.since.elapsed().saturating_sub(Duration::from_millis(oldest));
        Load {
            sockets: self.sockets,
            checks: read(&self.checks),
            running: read(&self.running),
            peak: read(&self.peak),
            waiting: read(&self.waiting),
            waited: read(&self.waited),
            started: read(&self.started),
            late: read(&self.late),
            given_up: read(&self.given_up),
            behind: oldest.map_or(Duration::ZERO, behind),
        }
    }
}
