//! Asks every target again and again, spread over time, with a bounded number of sockets.

use super::checks::Check;
use super::outcome::{Failure, Outcome};
use super::queue::{Queue, first_checks, pause, phase};
use crate::model::{HealthCheck, TargetKey};
use std::collections::{HashMap, VecDeque};
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

/// How busy a [`Checker`] is and was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
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
}

#[derive(Debug, Default)]
struct Gauges {
    checks: AtomicU64,
    running: AtomicU64,
    peak: AtomicU64,
    waiting: AtomicU64,
    waited: AtomicU64,
    started: AtomicU64,
}

/// The sockets that checks may use at once: half of what this process may open, at most 4096.
pub fn sockets_allowed() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    (soft.unwrap_or(1024) / 2).clamp(1, 4096)
}

/// The handle of the task that makes the checks; dropping it ends them all.
#[derive(Debug)]
pub struct Checker {
    wanted: mpsc::UnboundedSender<Wanted>,
    gauges: Arc<Gauges>,
}

impl Checker {
    /// Starts the task, on the current tokio runtime. At most `sockets` checks are under way at once; each result goes to
    /// `outcomes`.
    pub fn new(ask: impl Ask, sockets: usize, outcomes: mpsc::UnboundedSender<Checked>) -> Self {
        let (wanted, receiver) = mpsc::unbounded_channel();
        let gauges = Arc::<Gauges>::default();
        let task = Task {
            ask: Arc::new(ask),
            sockets: sockets.max(1),
            outcomes,
            gauges: Arc::clone(&gauges),
            entries: HashMap::new(),
            ids: HashMap::new(),
            next_id: 0,
            round: 0,
            queue: Queue::default(),
            quick: VecDeque::new(),
            slow: VecDeque::new(),
            running: JoinSet::new(),
            under_way: HashMap::new(),
            running_slow: 0,
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
        let read = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
        Load {
            checks: read(&self.gauges.checks),
            running: read(&self.gauges.running),
            peak: read(&self.gauges.peak),
            waiting: read(&self.gauges.waiting),
            waited: read(&self.gauges.waited),
            started: read(&self.gauges.started),
        }
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
    phase: u64,
    due: Instant,
    started: Option<Instant>,
    number: u32,
    running: Option<AbortHandle>,
    /// Its turn has come, and there was no socket.
    waiting: bool,
    /// Its last check timed out, so the next one may hold its socket for long.
    slow: bool,
    round: u64,
}

impl Entry {
    fn next_due(&self, now: Instant) -> Instant {
        let since_start = pause(self.phase, self.number.saturating_sub(1), self.check.settings.interval);
        self.started.map_or(now, |started| started + since_start).max(now)
    }
}

struct Task<A> {
    ask: Arc<A>,
    sockets: usize,
    outcomes: mpsc::UnboundedSender<Checked>,
    gauges: Arc<Gauges>,
    entries: HashMap<u64, Entry>,
    ids: HashMap<Arc<str>, HashMap<TargetKey, u64>>,
    next_id: u64,
    round: u64,
    queue: Queue,
    quick: VecDeque<u64>,
    slow: VecDeque<u64>,
    running: JoinSet<Outcome>,
    under_way: HashMap<Id, (u64, bool)>,
    running_slow: usize,
}

impl<A: Ask> Task<A> {
    async fn run(mut self, mut wanted: mpsc::UnboundedReceiver<Wanted>) {
        loop {
            self.start_due(Instant::now());
            self.show();
            let next = self.queue.next();
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

    fn set(&mut self, checks: &[Check], now: Instant) {
        self.begin(checks, now);
        let gone = self.entries.iter().filter(|(_, entry)| entry.round != self.round);
        let gone = gone.map(|(id, _)| *id).collect();
        self.end(gone);
    }

    fn set_group(&mut self, group: &str, checks: &[Check], now: Instant) {
        self.begin(checks, now);
        let held = self.ids.get(group).into_iter().flat_map(HashMap::values);
        let gone = held.filter(|id| self.entries.get(id).is_some_and(|entry| entry.round != self.round));
        let gone = gone.copied().collect();
        self.end(gone);
    }

    /// Takes in checks; those that are asked anew are queued.
    fn begin(&mut self, checks: &[Check], now: Instant) {
        self.round += 1;
        let fresh: Vec<u64> = checks.iter().filter_map(|check| self.take_in(check, now)).collect();
        for (due, &id) in first_checks(fresh.len(), now).zip(&fresh) {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.due = due;
                self.queue.insert(due, id);
            }
        }
    }

    /// Ends checks, and gives up their places in line.
    fn end(&mut self, gone: Vec<u64>) {
        let mut in_line = false;
        for id in gone {
            let Some(mut entry) = self.entries.remove(&id) else { continue };
            self.queue.remove(entry.due, id);
            entry.running.take().inspect(AbortHandle::abort);
            in_line |= entry.waiting;
            let Check { group, key, .. } = &entry.check;
            if let Some(keys) = self.ids.get_mut(group) {
                keys.remove(key);
                if keys.is_empty() {
                    self.ids.remove(group);
                }
            }
        }
        if !in_line {
            return;
        }
        let entries = &self.entries;
        self.quick.retain(|id| entries.get(id).is_some_and(|entry| entry.waiting));
        self.slow.retain(|id| entries.get(id).is_some_and(|entry| entry.waiting));
    }

    /// Takes in one wanted check; its id if it must be made soon, because it is new or asks something else than before.
    fn take_in(&mut self, check: &Check, now: Instant) -> Option<u64> {
        if let Some(&id) = self.ids.get(&check.group).and_then(|keys| keys.get(&check.key)) {
            return self.renew(id, check, now);
        }
        let id = self.next_id;
        self.next_id += 1;
        let entry = Entry {
            check: check.clone(),
            phase: phase((&check.group, &check.key)),
            due: now,
            started: None,
            number: 0,
            running: None,
            waiting: false,
            slow: false,
            round: self.round,
        };
        self.entries.insert(id, entry);
        self.ids.entry(Arc::clone(&check.group)).or_default().insert(check.key.clone(), id);
        Some(id)
    }

    fn renew(&mut self, id: u64, check: &Check, now: Instant) -> Option<u64> {
        let entry = self.entries.get_mut(&id)?;
        let first_sight = entry.round != self.round;
        entry.round = self.round;
        let before = std::mem::replace(&mut entry.check, check.clone());
        let same_question = before.address == check.address
            && before.settings.protocol == check.settings.protocol
            && before.settings.timeout == check.settings.timeout;
        if !same_question && first_sight {
            entry.running.take().inspect(AbortHandle::abort);
            entry.waiting = false;
            self.queue.remove(entry.due, id);
            return Some(id);
        }
        let queued = entry.running.is_none() && !entry.waiting && entry.started.is_some();
        if before.settings.interval != check.settings.interval && queued {
            self.queue.remove(entry.due, id);
            entry.due = entry.next_due(now);
            self.queue.insert(entry.due, id);
        }
        None
    }

    /// Begins what is due; what finds no socket waits in line.
    fn start_due(&mut self, now: Instant) {
        while let Some(id) = self.queue.pop(now) {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.waiting = true;
            let slow = entry.slow;
            if self.has_room(slow) {
                self.start(id, now);
            } else {
                self.gauges.waited.fetch_add(1, Ordering::Relaxed);
                if slow { self.slow.push_back(id) } else { self.quick.push_back(id) }
            }
        }
    }

    /// A quarter of the sockets is kept from targets that time out, so that a dead node never holds up the others.
    fn has_room(&self, slow: bool) -> bool {
        let reserved = self.sockets / 4;
        self.running.len() < self.sockets && (!slow || self.running_slow < self.sockets - reserved)
    }

    fn start(&mut self, id: u64, now: Instant) {
        // One whose settings changed while it was in line is queued again, and left its place in the line behind.
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.waiting) else { return };
        entry.waiting = false;
        let (ask, address) = (Arc::clone(&self.ask), entry.check.address);
        let settings = Arc::clone(&entry.check.settings);
        let handle = self.running.spawn(async move { ask.ask(address, &settings).await });
        self.under_way.insert(handle.id(), (id, entry.slow));
        self.running_slow += usize::from(entry.slow);
        entry.running = Some(handle);
        entry.started = Some(now);
        entry.number = entry.number.saturating_add(1);
        self.gauges.started.fetch_add(1, Ordering::Relaxed);
        self.gauges.peak.fetch_max(self.running.len() as u64, Ordering::Relaxed);
    }

    fn finish(&mut self, ended: Result<(Id, Outcome), JoinError>, now: Instant) {
        let (task, outcome) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                (error.id(), Outcome::Internal(format!("the check was broken off: {error}").into()))
            }
        };
        if let Some((id, slow)) = self.under_way.remove(&task) {
            self.running_slow -= usize::from(slow);
            self.report(id, task, outcome, now);
        }
        while self.has_room(false)
            && let Some(id) = self.quick.pop_front()
        {
            self.start(id, now);
        }
        while self.has_room(true)
            && let Some(id) = self.slow.pop_front()
        {
            self.start(id, now);
        }
    }

    /// Hands on the outcome, unless the check was removed or changed meanwhile, and queues the next one.
    fn report(&mut self, id: u64, task: Id, outcome: Outcome, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.running.as_ref().is_none_or(|running| running.id() != task) {
            return;
        }
        entry.running = None;
        entry.slow = matches!(outcome, Outcome::Failed(Failure::Timeout, _));
        entry.due = entry.next_due(now);
        self.queue.insert(entry.due, id);
        let took = entry.started.map_or(Duration::ZERO, |started| now - started);
        let (group, key) = (Arc::clone(&entry.check.group), entry.check.key.clone());
        // Nobody listens any more only while the agent stops.
        let _ = self.outcomes.send(Checked { group, key, outcome, took });
    }

    fn show(&self) {
        let show = |gauge: &AtomicU64, value: usize| gauge.store(value as u64, Ordering::Relaxed);
        show(&self.gauges.checks, self.entries.len());
        show(&self.gauges.running, self.running.len());
        show(&self.gauges.waiting, self.quick.len() + self.slow.len());
    }
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
