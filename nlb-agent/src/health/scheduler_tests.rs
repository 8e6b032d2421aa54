//! The checker under a paused clock with made-up targets, and with thousands of real ones on the loopback device.

use super::*;
use crate::health::Failure;
use crate::health::probe::Prober;
use crate::model::CheckProtocol;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep, timeout};

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A target for each address: its checks last as long as its port says, in milliseconds; port 1 panics. One that lasts as
/// long as its timeout has timed out, and so does one of an address that is dead.
#[derive(Clone, Default)]
pub(super) struct Stage(pub(super) Arc<Seen>);

#[derive(Default)]
pub(super) struct Seen {
    starts: Mutex<HashMap<SocketAddr, Vec<Instant>>>,
    under_way: Mutex<HashSet<SocketAddr>>,
    pub(super) dead: Mutex<HashSet<SocketAddr>>,
    pub(super) overlaps: AtomicUsize,
    pub(super) most: AtomicUsize,
}

/// Ends with the check, also when it is broken off.
struct UnderWay<'a>(&'a Seen, SocketAddr);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.lock().unwrap().remove(&self.1);
    }
}

impl Ask for Stage {
    async fn ask(&self, address: SocketAddr, settings: &HealthCheck) -> Outcome {
        self.0.starts.lock().unwrap().entry(address).or_default().push(Instant::now());
        {
            let mut under_way = self.0.under_way.lock().unwrap();
            if !under_way.insert(address) {
                self.0.overlaps.fetch_add(1, Ordering::Relaxed);
            }
            self.0.most.fetch_max(under_way.len(), Ordering::Relaxed);
        }
        let _under_way = UnderWay(&self.0, address);
        assert!(address.port() != 1, "port 1 panics");
        let is_dead = self.0.dead.lock().unwrap().contains(&address);
        let lasts = if is_dead { Duration::MAX } else { Duration::from_millis(address.port().into()) };
        sleep(lasts.min(settings.timeout)).await;
        match lasts < settings.timeout {
            true => Outcome::Passed,
            false => Outcome::Failed(Failure::Timeout, "no connection".into()),
        }
    }
}

impl Stage {
    pub(super) fn starts(&self, address: SocketAddr) -> Vec<Instant> {
        self.0.starts.lock().unwrap().get(&address).cloned().unwrap_or_default()
    }

    pub(super) fn checker(&self, sockets: usize) -> (Checker, UnboundedReceiver<Checked>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Checker::new(self.clone(), sockets, sender), receiver)
    }
}

pub(super) fn settings(interval: u64) -> HealthCheck {
    let interval = Duration::from_secs(interval);
    HealthCheck { interval, timeout: interval, ..HealthCheck::default() }
}

pub(super) fn check(index: u32, port: u16, settings: &HealthCheck) -> Check {
    let ip = IpAddr::V4(Ipv4Addr::from(0x7f01_0000 + index));
    let key = TargetKey { ip, port, uid: None };
    let address = key.socket();
    Check { group: "default/web:80/TCP".into(), key, address, settings: Arc::new(settings.clone()) }
}

pub(super) fn drained(receiver: &mut UnboundedReceiver<Checked>) -> Vec<Checked> {
    std::iter::from_fn(|| receiver.try_recv().ok()).collect()
}

#[tokio::test(start_paused = true)]
async fn first_within_a_second_then_once_an_interval_and_never_later() {
    let stage = Stage::default();
    let (checker, _outcomes) = stage.checker(1000);
    let checks: Vec<Check> = (0..500).map(|index| check(index, 20, &settings(10))).collect();
    let begin = Instant::now();
    checker.set(checks.clone());
    sleep(100 * SECOND).await;
    for check in &checks {
        let starts = stage.starts(check.address);
        assert!(starts[0] - begin <= SECOND);
        assert!(starts.len() >= 10);
        let gaps: Vec<Duration> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let slack = Duration::from_millis(5);
        assert!(gaps.iter().all(|&gap| gap <= 10 * SECOND + slack), "{gaps:?}");
        assert!(gaps[0] >= 5 * SECOND && gaps[1..].iter().all(|&gap| gap >= 9 * SECOND - slack), "{gaps:?}");
    }
    assert_eq!(stage.0.overlaps.load(Ordering::Relaxed), 0);
    assert_eq!(checker.load().checks, 500);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_lasts_the_whole_interval_is_not_overtaken() {
    let stage = Stage::default();
    let (checker, mut outcomes) = stage.checker(10);
    let dead = check(0, 20_000, &settings(2));
    checker.set(vec![dead.clone()]);
    sleep(21 * SECOND).await;
    assert_eq!(stage.0.overlaps.load(Ordering::Relaxed), 0);
    let starts = stage.starts(dead.address);
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] <= 2 * SECOND + Duration::from_millis(5)));
    let outcomes = drained(&mut outcomes);
    assert!(outcomes.len() >= 9, "{outcomes:?}");
    assert!(outcomes.iter().all(|one| one.took >= 2 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn the_same_list_again_changes_nothing() {
    let stage = Stage::default();
    let (checker, _outcomes) = stage.checker(10);
    let one = check(0, 20, &settings(10));
    for _ in 0..100 {
        checker.set(vec![one.clone()]);
        sleep(SECOND / 2).await;
    }
    let count = stage.starts(one.address).len();
    assert!((5..=7).contains(&count), "{count}");
}

#[tokio::test(start_paused = true)]
async fn changed_settings_hold_at_once() {
    let stage = Stage::default();
    let (checker, _outcomes) = stage.checker(10);
    let one = check(0, 20, &settings(300));
    checker.set(vec![one.clone()]);
    sleep(20 * SECOND).await;
    assert_eq!(stage.starts(one.address).len(), 1);
    let quicker = HealthCheck { timeout: one.settings.timeout, ..settings(2) };
    checker.set(vec![Check { settings: Arc::new(quicker.clone()), ..one.clone() }]);
    sleep(SECOND).await;
    assert_eq!(stage.starts(one.address).len(), 2, "a shorter interval");
    let slow = HealthCheck { interval: 300 * SECOND, ..quicker };
    checker.set(vec![Check { settings: Arc::new(slow.clone()), ..one.clone() }]);
    sleep(100 * SECOND).await;
    assert_eq!(stage.starts(one.address).len(), 2, "a longer interval");
    let other = SocketAddr::new(one.key.ip, 30);
    checker.set(vec![Check { settings: Arc::new(slow), address: other, ..one.clone() }]);
    sleep(SECOND).await;
    assert_eq!(stage.starts(other).len(), 1, "another port");
}

#[tokio::test(start_paused = true)]
async fn a_removed_check_is_broken_off() {
    let stage = Stage::default();
    let (checker, mut outcomes) = stage.checker(10);
    checker.set(vec![check(0, 60_000, &settings(100)), check(1, 20, &settings(100))]);
    sleep(SECOND).await;
    assert_eq!((checker.load().running, drained(&mut outcomes).len()), (1, 1));
    checker.set(Vec::new());
    sleep(SECOND).await;
    assert!(stage.0.under_way.lock().unwrap().is_empty());
    sleep(300 * SECOND).await;
    assert_eq!(drained(&mut outcomes), []);
    assert_eq!(checker.load(), Load { sockets: 10, started: 2, peak: 2, ..Load::default() });
}

#[tokio::test(start_paused = true)]
async fn one_groups_new_list_leaves_the_others_alone() {
    let stage = Stage::default();
    let (checker, mut outcomes) = stage.checker(10);
    let settings = settings(100);
    let other = |index| Check { group: "default/api:80/TCP".into(), ..check(index, 60_000, &settings) };
    checker.set(vec![other(0), other(1), check(0, 20, &settings), check(1, 60_000, &settings)]);
    sleep(SECOND).await;
    checker.set_group("default/web:80/TCP", vec![check(0, 20, &settings), check(2, 20, &settings)]);
    sleep(SECOND).await;
    assert_eq!((checker.load().checks, checker.load().running, checker.load().started), (4, 2, 5));
    assert_eq!(
        drained(&mut outcomes).len(),
        2,
        "the first of the group again, or its second, or another group's"
    );
    checker.set_group("default/api:80/TCP", Vec::new());
    checker.set_group("default/gone:80/TCP", Vec::new());
    sleep(SECOND).await;
    assert_eq!((checker.load().checks, checker.load().running), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn sockets_are_bounded_and_everyone_has_a_turn() {
    let stage = Stage::default();
    let (checker, mut outcomes) = stage.checker(4);
    let group = |index| format!("default/{}:80/TCP", index % 10).into();
    checker.set((0..100).map(|n| Check { group: group(n), ..check(n, 100, &settings(10)) }).collect());
    sleep(9 * SECOND / 2).await;
    let targets: HashSet<TargetKey> = drained(&mut outcomes).into_iter().map(|one| one.key).collect();
    assert_eq!((targets.len(), stage.0.most.load(Ordering::Relaxed)), (100, 4));
    assert_eq!((checker.load().peak, checker.load().waiting), (4, 0));
    assert!(checker.load().waited >= 90);
}

#[tokio::test(start_paused = true)]
async fn dead_targets_do_not_hold_up_the_others() {
    let stage = Stage::default();
    let (checker, _outcomes) = stage.checker(8);
    let mut checks: Vec<Check> = (0..40).map(|index| check(index, 60_000, &settings(10))).collect();
    checks.push(check(99, 20, &settings(1)));
    checker.set(checks);
    sleep(60 * SECOND).await;
    let quick = SocketAddr::new(Ipv4Addr::from(0x7f01_0063).into(), 20);
    let before = stage.starts(quick).len();
    sleep(60 * SECOND).await;
    let count = stage.starts(quick).len() - before;
    assert!(count >= 59, "{count} checks in 60 intervals");
    assert_eq!(stage.0.most.load(Ordering::Relaxed), 8);
}

#[tokio::test(start_paused = true)]
async fn two_groups_check_one_socket_each_for_itself() {
    let stage = Stage::default();
    let (checker, mut outcomes) = stage.checker(10);
    let one = check(0, 20, &settings(10));
    checker.set(vec![one.clone(), Check { group: "default/other:80/TCP".into(), ..one }]);
    sleep(SECOND).await;
    let groups: HashSet<Arc<str>> = drained(&mut outcomes).into_iter().map(|one| one.group).collect();
    assert_eq!(groups.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_panics_is_an_internal_error_and_comes_again() {
    let stage = Stage::default();
    let (checker, mut outcomes) = stage.checker(10);
    checker.set(vec![check(0, 1, &settings(1))]);
    sleep(5 * SECOND).await;
    let outcomes = drained(&mut outcomes);
    assert!(outcomes.len() >= 4);
    assert!(outcomes.iter().all(|one| matches!(one.outcome, Outcome::Internal(_))));
}

/// Sockets in TIME_WAIT (state 06) with this port on either side.
fn time_waits(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[3] == "06" && (row[1].ends_with(&port) || row[2].ends_with(&port))).count()
}

#[tokio::test]
async fn thousands_of_real_targets_with_few_sockets_and_no_time_wait() {
    const TARGETS: u32 = 3000;
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepting = tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
    let (sender, mut outcomes) = mpsc::unbounded_channel();
    let checker = Checker::new(Prober::default(), 64, sender);
    let settings = HealthCheck { protocol: CheckProtocol::Tcp, ..settings(1) };
    let begin = Instant::now();
    checker.set((0..TARGETS).map(|index| check(index, port, &settings)).collect());

    let mut first = HashMap::new();
    let mut results = 0;
    while results < 3 * TARGETS {
        let checked = timeout(60 * SECOND, outcomes.recv()).await.expect("results go on").unwrap();
        assert_eq!(checked.outcome, Outcome::Passed);
        first.entry(checked.key).or_insert_with(|| begin.elapsed());
        results += 1;
    }
    assert_eq!(first.len(), TARGETS as usize);
    let last = first.values().max().unwrap();
    assert!(*last < 10 * SECOND, "the last first check ended after {last:?}");
    assert!(checker.load().peak <= 64);
    drop(checker);
    accepting.abort();
    assert_eq!(time_waits(port), 0);
}
