//! Asks every target again and again, spread over time, with a bounded number of sockets.

mod wanted;

use super::checks::Check;
use super::load::{Gauges, LATE, Load};
use super::outcome::Outcome;
use super::queue::{Queue, pause};
use super::sockets::{Grant, Sockets};
use super::urgency::{Record, SLICE};
use crate::model::{HealthCheck, TargetKey};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Makes one check; [`super::probe::Prober`] does it with real sockets.
pub trait Ask: Send + Sync + 'static {
    /// Ends within the timeout of the settings, and holds at most one socket until then.
    fn ask(&self, address: SocketAddr, settings: &HealthCheck) -> impl Future<Output = Outcome> + Send;
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The target group's name.
    pub group: Arc<str>,
    /// The target.
    pub key: TargetKey,
    /// How the check ended.
    pub outcome: Outcome,
    /// From its start to its end.
    pub took: Duration,
}

/// The handle of the task that makes the checks; dropping it ends them all.
#[derive(Debug)]
pub struct Checker {
    wanted: mpsc::UnboundedSender<Wanted>,
    gauges: Arc<Gauges>,
}

impl Checker {
    /// Starts the task, on the current tokio runtime. At most `sockets` checks (but two) are under way at once; each result
    /// goes to `outcomes`.
    pub fn new(ask: impl Ask, sockets: usize, outcomes: mpsc::UnboundedSender<Checked>) -> Self {
        let (wanted, receiver) = mpsc::unbounded_channel();
        let sockets = Sockets::new(sockets);
        let gauges = Arc::new(Gauges::new(sockets.total()));
        let task = Task {
            ask: Arc::new(ask),
            sockets,
            outcomes,
            gauges: Arc::clone(&gauges),
            entries: HashMap::new(),
            groups: HashMap::new(),
            next_id: 0,
            round: 0,
            queue: Queue::default(),
            waiting: BTreeSet::new(),
            slices: VecDeque::new(),
            running: JoinSet::new(),
            under_way: HashMap::new(),
        };
        tokio::spawn(task.run(receiver));
        Self { wanted, gauges }
    }

    /// Makes these the checks, and no others: new ones are begun within a second, those that are not named are ended, and
    /// changed settings hold at once. May be called with the same list any number of times.
    pub fn set(&self, checks: Vec<Check>) {
        self.want(Wanted::All(checks));
    }

    /// As [`Self::set`], for the target group of this name alone: all checks must be of it.
    pub fn set_group(&self, group: &str, checks: Vec<Check>) {
        self.want(Wanted::OfGroup(group.into(), checks));
    }

    fn want(&self, wanted: Wanted) {
        // The task ends before its handle only with the whole runtime.
        let _ = self.wanted.send(wanted);
    }

    /// How busy it is.
    pub fn load(&self) -> Load {
        self.gauges.load()
    }
}

/// What the task is told.
enum Wanted {
    All(Vec<Check>),
    OfGroup(Arc<str>, Vec<Check>),
}

/// One check and where it stands: queued, waiting for a socket, or under way.
#[derive(Debug)]
struct Entry {
    check: Check,
    group: u64,
    phase: u64,
    due: Instant,
    started: Option<Instant>,
    number: u32,
    stage: Stage,
    record: Record,
    round: u64,
}

#[derive(Debug)]
enum Stage {
    /// Its turn comes when it is due.
    Queued,
    /// Its turn has come at this time, and it has no socket.
    Waits(Instant),
    /// It begins as soon as the check has ended that was broken off for it.
    Granted {
        slice: bool,
    },
    UnderWay(AbortHandle),
}

impl Entry {
    fn next_due(&self, now: Instant) -> Instant {
        let since_start = pause(self.phase, self.number.saturating_sub(1), self.check.settings.interval);
        self.started.map_or(now, |started| started + since_start).max(now)
    }
}

/// The checks of one target group.
struct Group {
    number: u64,
    ids: HashMap<TargetKey, u64>,
}

/// What becomes of a task when it has ended.
enum Ending {
    /// Its outcome is that of the check with this id.
    Outcome(u64),
    /// It was broken off so that the check with this id can begin.
    Yields(u64),
    /// It was broken off because nobody wants its outcome.
    Nothing,
}

struct Task<A> {
    ask: Arc<A>,
    sockets: Sockets,
    outcomes: mpsc::UnboundedSender<Checked>,
    gauges: Arc<Gauges>,
    entries: HashMap<u64, Entry>,
    groups: HashMap<Arc<str>, Group>,
    next_id: u64,
    round: u64,
    queue: Queue,
    /// (since when, id) of the checks that wait for a socket.
    waiting: BTreeSet<(Instant, u64)>,
    /// When the slices end, in this order; those of checks that have ended are left out where they come first.
    slices: VecDeque<(Instant, Id)>,
    running: JoinSet<Outcome>,
    under_way: HashMap<Id, Ending>,
}

impl<A: Ask> Task<A> {
    async fn run(mut self, mut wanted: mpsc::UnboundedReceiver<Wanted>) {
        loop {
            self.go_on(Instant::now());
            let next = self.next();
            tokio::select! {
                told = wanted.recv() => match told {
                    None => return,
                    Some(Wanted::All(checks)) => self.set(&checks, Instant::now()),
                    Some(Wanted::OfGroup(group, checks)) => self.set_group(&group, &checks, Instant::now()),
                },
                Some(ended) = self.running.join_next_with_id() => {
                    self.finish(ended, Instant::now());
                    while let Some(ended) = self.running.try_join_next_with_id() {
                        self.finish(ended, Instant::now());
                    }
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    /// Does what is due, and begins what there is a socket for.
    fn go_on(&mut self, now: Instant) {
        self.end_slices(now);
        self.grant(now);
        while let Some(id) = self.queue.pop(now) {
            self.wait(id, now);
            self.grant(now);
            if self.entries.get(&id).is_some_and(|entry| matches!(entry.stage, Stage::Waits(_))) {
                self.gauges.waited.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.show();
    }

    /// When something is due; the end of a slice only matters to checks that wait.
    fn next(&self) -> Option<Instant> {
        let slice = self.slices.front().filter(|_| !self.waiting.is_empty()).map(|(end, _)| *end);
        self.queue.next().into_iter().chain(slice).min()
    }

    /// A check's turn has come: it asks for a socket.
    fn wait(&mut self, id: u64, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.stage = Stage::Waits(now);
        self.waiting.insert((now, id));
        let urgency = entry.record.urgency(entry.check.settings.unhealthy_threshold);
        self.sockets.wait(id, entry.group, urgency);
    }

    fn end_slices(&mut self, now: Instant) {
        while let Some(&(end, task)) = self.slices.front() {
            match self.under_way.get(&task) {
                Some(Ending::Outcome(_)) if end > now => return,
                Some(Ending::Outcome(id)) => self.sockets.overran(*id),
                Some(Ending::Yields(_) | Ending::Nothing) | None => {}
            }
            self.slices.pop_front();
        }
    }

    /// Begins what there is a socket for.
    fn grant(&mut self, now: Instant) {
        while let Some(Grant { begin, instead_of, slice }) = self.sockets.next() {
            if let Some(entry) = self.entries.get_mut(&begin)
                && let Stage::Waits(since) = std::mem::replace(&mut entry.stage, Stage::Granted { slice })
            {
                self.waiting.remove(&(since, begin));
                self.gauges.late.fetch_add(u64::from(now - since > LATE), Ordering::Relaxed);
            }
            let broken_off = instead_of.and_then(|id| self.break_off(id, now));
            match broken_off {
                Some(task) => {
                    self.under_way.insert(task, Ending::Yields(begin));
                }
                None => {
                    self.start(begin, now);
                }
            }
        }
    }

    /// Breaks a check off, which waits for a socket again; its task, which has still to end.
    fn break_off(&mut self, id: u64, now: Instant) -> Option<Id> {
        let entry = self.entries.get_mut(&id)?;
        let Stage::UnderWay(task) = std::mem::replace(&mut entry.stage, Stage::Waits(now)) else {
            unreachable!("only a check that is under way has overrun")
        };
        task.abort();
        entry.number = entry.number.saturating_sub(1);
        self.waiting.insert((now, id));
        self.gauges.given_up.fetch_add(1, Ordering::Relaxed);
        Some(task.id())
    }

    /// Begins a check that was granted a socket. False if it was removed or changed since, and has given the socket back.
    fn start(&mut self, id: u64, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        let Stage::Granted { slice } = entry.stage else { return false };
        let (ask, address) = (Arc::clone(&self.ask), entry.check.address);
        let settings = Arc::clone(&entry.check.settings);
        let task = self.running.spawn(async move { ask.ask(address, &settings).await });
        self.under_way.insert(task.id(), Ending::Outcome(id));
        if slice {
            self.slices.push_back((now + SLICE, task.id()));
        }
        entry.stage = Stage::UnderWay(task);
        entry.started = Some(now);
        entry.number = entry.number.saturating_add(1);
        self.gauges.started.fetch_add(1, Ordering::Relaxed);
        self.gauges.peak.fetch_max(self.running.len() as u64, Ordering::Relaxed);
        true
    }

    fn finish(&mut self, ended: Result<(Id, Outcome), JoinError>, now: Instant) {
        let (task, outcome) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                (error.id(), Outcome::Internal(format!("the check was broken off: {error}").into()))
            }
        };
        match self.under_way.remove(&task) {
            Some(Ending::Outcome(id)) => self.report(id, outcome, now),
            Some(Ending::Yields(id)) if self.start(id, now) => {}
            Some(Ending::Yields(_) | Ending::Nothing) => self.sockets.closed(),
            None => {}
        }
    }

    /// Hands on the outcome, and queues the next check.
    fn report(&mut self, id: u64, outcome: Outcome, now: Instant) {
        self.sockets.leave(id);
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let took = entry.started.map_or(Duration::ZERO, |started| now - started);
        entry.record.learn(&outcome, took);
        entry.stage = Stage::Queued;
        entry.due = entry.next_due(now);
        self.queue.insert(entry.due, id);
        let (group, key) = (Arc::clone(&entry.check.group), entry.check.key.clone());
        // Nobody listens any more only while the agent stops.
        let _ = self.outcomes.send(Checked { group, key, outcome, took });
    }

    fn show(&self) {
        let show = |gauge: &AtomicU64, value: usize| gauge.store(value as u64, Ordering::Relaxed);
        show(&self.gauges.checks, self.entries.len());
        show(&self.gauges.running, self.running.len());
        show(&self.gauges.waiting, self.waiting.len());
        self.gauges.waiting_since(self.waiting.first().map(|(since, _)| *since));
    }
}

#[cfg(test)]
mod fairness;
#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
