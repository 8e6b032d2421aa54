//! Few sockets and thousands of silent targets, under a paused clock: how late the others' checks are, and that every
//! silent target has its verdict all the same.

use super::tests::{SECOND, Stage, check, drained, settings};
use super::*;
use crate::health::Failure;
use proptest::prelude::*;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

/// The port of targets that answer after 20 ms.
const ANSWERS: u16 = 20;
/// The port of targets that answer after 1 s.
const SLOW: u16 = 1_000;
/// The port of targets that do not answer within any timeout here.
const SILENT: u16 = 60_000;

/// `each` targets in each of `groups` groups, asked every 10 s.
fn many(groups: u32, each: u32, port: u16) -> Vec<Check> {
    let settings = Arc::new(settings(10));
    let one = |group: u32, index| Check {
        group: format!("default/many-{group}:80/TCP").into(),
        settings: Arc::clone(&settings),
        ..check(group * each + index, port, &settings)
    };
    (0..groups).flat_map(|group| (0..each).map(move |index| one(group, index))).collect()
}

/// Two targets of a group of their own that are asked every second; two failures make them unhealthy.
fn good() -> Vec<Check> {
    let settings = HealthCheck { unhealthy_threshold: 2, ..settings(1) };
    let one = |index| Check { group: "default/good:80/TCP".into(), ..check(index, ANSWERS, &settings) };
    vec![one(0x20_0000), one(0x20_0001)]
}

/// When a new group's first check begins at the latest: each of `groups` other ones may have its turn before, for a
/// slice, and the sockets for slices are a quarter, one of eight of which is not for new targets.
fn first_within(sockets: usize, groups: u32) -> Duration {
    let at_once = (sockets / 4).max(1);
    let at_once = u32::try_from(at_once - at_once / 8).unwrap();
    SECOND + SLICE * (groups.div_ceil(at_once) + 1)
}

const LANDSCAPES: [(usize, u32, u32); 7] = [
    (2, 1, 50),
    (8, 1, 10_000),
    (8, 100, 10),
    (64, 100, 100),
    (512, 1, 1600),
    (512, 1, 10_000),
    (512, 1000, 10),
];

#[tokio::test(start_paused = true)]
async fn a_new_groups_first_check_is_soon_among_silent_ones_from_the_start() {
    for (sockets, groups, each) in LANDSCAPES {
        let stage = Stage::default();
        let (checker, _outcomes) = stage.checker(sockets);
        checker.set(many(groups, each, SILENT).into_iter().chain(good()).collect());
        let bound = first_within(sockets, groups);
        sleep(bound).await;
        let asked = good().iter().any(|check| !stage.starts(check.address).is_empty());
        assert!(asked, "not within {bound:?} with {sockets} sockets and {groups} groups of {each}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_groups_first_check_is_soon_when_silent_ones_hold_every_socket() {
    for (sockets, groups, each) in LANDSCAPES {
        let stage = Stage::default();
        let (checker, _outcomes) = stage.checker(sockets);
        checker.set(many(groups, each, SILENT));
        sleep(15 * SECOND).await;
        checker.set_group("default/good:80/TCP", good());
        sleep(first_within(sockets, groups)).await;
        let starts = stage.starts(good()[0].address);
        assert!(!starts.is_empty(), "{sockets} sockets, {groups} groups of {each}");
    }
}

/// The longest time between the starts of two checks of a target, from `since` on.
fn longest_gap(stage: &Stage, address: SocketAddr, since: Instant) -> Duration {
    let mut starts = stage.starts(address);
    starts.push(Instant::now());
    let recent: Vec<Instant> = starts.into_iter().filter(|at| *at >= since).collect();
    let gaps = recent.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or(Duration::MAX)
}

#[tokio::test(start_paused = true)]
async fn a_quick_targets_checks_are_on_time_whatever_the_silent_ones_do() {
    for (sockets, groups, each) in LANDSCAPES {
        let stage = Stage::default();
        let (checker, _outcomes) = stage.checker(sockets);
        checker.set(good());
        sleep(5 * SECOND).await;
        let since = Instant::now();
        checker.set(many(groups, each, SILENT).into_iter().chain(good()).collect());
        sleep(60 * SECOND).await;
        let late = longest_gap(&stage, good()[0].address, since - SECOND).saturating_sub(SECOND);
        let bound = if sockets >= 64 { Duration::from_millis(50) } else { 2 * SLICE };
        assert!(late <= bound, "{late:?} late with {sockets} sockets and {groups} groups of {each}");
    }
}

/// How many checks of the address have timed out, each after its whole timeout.
fn timeouts(outcomes: &mut UnboundedReceiver<Checked>, address: SocketAddr) -> usize {
    let all = drained(outcomes).into_iter().filter(|one| one.key.socket() == address);
    let timed_out = all.filter(|one| matches!(one.outcome, Outcome::Failed(Failure::Timeout, _)));
    timed_out.inspect(|one| assert!(one.took >= SECOND, "{one:?}")).count()
}

#[tokio::test(start_paused = true)]
async fn a_death_by_silence_is_noticed_in_time_among_silent_ones() {
    for (sockets, groups, each) in LANDSCAPES.into_iter().filter(|(sockets, ..)| *sockets >= 64) {
        let stage = Stage::default();
        let (checker, mut outcomes) = stage.checker(sockets);
        checker.set(good());
        sleep(5 * SECOND).await;
        checker.set(many(groups, each, SILENT).into_iter().chain(good()).collect());
        sleep(30 * SECOND).await;
        let dead = good()[0].address;
        stage.0.dead.lock().unwrap().insert(dead);
        drained(&mut outcomes);
        // Interval x threshold + timeout, which is promised, and what a socket may have to be waited for.
        sleep(3 * SECOND + SLICE).await;
        assert!(timeouts(&mut outcomes, dead) >= 2, "{sockets} sockets, {groups} groups of {each}");
    }
}

#[tokio::test(start_paused = true)]
async fn targets_that_fall_silent_together_hold_up_no_other_group() {
    let stage = Stage::default();
    let (checker, mut outcomes) = stage.checker(512);
    let rack = many(16, 100, ANSWERS);
    checker.set(rack.iter().cloned().chain(good()).collect());
    sleep(30 * SECOND).await;
    stage.0.dead.lock().unwrap().extend(rack.iter().map(|check| check.address));
    drained(&mut outcomes);
    let since = Instant::now();
    sleep(120 * SECOND).await;
    let late = longest_gap(&stage, good()[0].address, since).saturating_sub(SECOND);
    assert!(late <= Duration::from_millis(5), "{late:?}");
    let mut counts: HashMap<TargetKey, usize> = HashMap::new();
    drained(&mut outcomes).into_iter().for_each(|one| *counts.entry(one.key).or_default() += 1);
    let least = rack.iter().map(|check| counts.get(&check.key).copied().unwrap_or_default()).min();
    assert!(least >= Some(2), "the fewest verdicts in 120 s: {least:?}");
}

#[tokio::test(start_paused = true)]
async fn every_silent_target_has_its_whole_timeout_although_new_ones_keep_coming() {
    let stage = Stage::default();
    let (checker, mut outcomes) = stage.checker(8);
    let old = many(4, 5, SILENT);
    checker.set(old.clone());
    for second in 0..180 {
        let new = (0..20).map(|index| check(0x10_0000 + second * 20 + index, SILENT, &settings(10)));
        checker.set_group("default/web:80/TCP", new.collect());
        sleep(SECOND).await;
    }
    let ended = drained(&mut outcomes);
    assert!(ended.iter().all(|one| one.took >= 10 * SECOND), "a check that was broken off is no outcome");
    for check in &old {
        let count = ended.iter().filter(|one| one.key == check.key).count();
        assert!(count >= 2, "{count} verdicts of {}", check.address);
    }
    assert!(checker.load().given_up > 0 && checker.load().late > 0 && checker.load().behind > SECOND);
}

#[tokio::test(start_paused = true)]
async fn slow_targets_answer_although_silent_ones_wait() {
    let stage = Stage::default();
    let (checker, mut outcomes) = stage.checker(32);
    let slow: Vec<Check> = (0..10).map(|index| check(0x10_0000 + index, SLOW, &settings(10))).collect();
    checker.set(many(20, 50, SILENT).into_iter().chain(slow.clone()).collect());
    sleep(300 * SECOND).await;
    drained(&mut outcomes);
    sleep(60 * SECOND).await;
    let ended = drained(&mut outcomes);
    for check in &slow {
        let passed = |one: &&Checked| one.key == check.key && one.outcome == Outcome::Passed;
        assert!(ended.iter().filter(passed).count() >= 5, "{}", check.address);
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_silent_targets_are_all_under_way_where_sockets_are_many() {
    let stage = Stage::default();
    let (checker, mut outcomes) = stage.checker(20_000);
    checker.set(many(1, 10_000, SILENT));
    sleep(31 * SECOND).await;
    let (load, ended) = (checker.load(), drained(&mut outcomes).len());
    assert_eq!((load.waiting, load.late, load.given_up), (0, 0, 0));
    assert!(ended >= 30_000 - 1_000, "{ended}");
}

/// A group: how many targets, and how they behave.
fn group() -> impl Strategy<Value = (u32, u16)> {
    (1_u32..12, prop_oneof![Just(ANSWERS), Just(SLOW), Just(SILENT), Just(SILENT)])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whoever is there, with however few sockets: never too many at once, never two of one target, new groups are asked
    /// soon, quick targets on time, and every silent one is given its whole timeout again and again.
    #[test]
    fn every_group_has_its_share(sockets in 8_usize..64, groups in prop::collection::vec(group(), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(share(sockets, &groups))?;
    }
}

async fn share(sockets: usize, groups: &[(u32, u16)]) -> Result<(), TestCaseError> {
    let stage = Stage::default();
    let (checker, mut outcomes) = stage.checker(sockets);
    let begin = Instant::now();
    let settings = settings(2);
    let mut checks = Vec::new();
    for (number, &(targets, port)) in groups.iter().enumerate() {
        let group: Arc<str> = format!("default/{number}:80/TCP").into();
        let base = u32::try_from(number).unwrap() * 100;
        checks.extend(
            (0..targets)
                .map(|index| Check { group: Arc::clone(&group), ..check(base + index, port, &settings) }),
        );
    }
    checker.set(checks.clone());
    // Every group that holds its sockets for long has an equal share of at least a quarter of the tenures.
    let long = groups.iter().filter(|(_, port)| *port != ANSWERS);
    let (largest, shares) =
        long.fold((0, 0), |(most, shares), (targets, _)| (most.max(*targets), shares + 1));
    let tenures = u32::try_from((sockets - sockets / 4) / 4).unwrap();
    sleep(20 * SECOND + 2 * SECOND * (2 * largest * shares).div_ceil(tenures)).await;
    prop_assert_eq!(stage.0.overlaps.load(Ordering::Relaxed), 0);
    prop_assert!(stage.0.most.load(Ordering::Relaxed) <= sockets);
    let ended = drained(&mut outcomes);
    for check in &checks {
        let count = ended.iter().filter(|one| one.key == check.key).count();
        prop_assert!(count >= 2, "{count} checks of {} ended", check.address);
        let whole = |one: &Checked| check.key.port != SILENT || one.took >= 2 * SECOND;
        prop_assert!(ended.iter().filter(|one| one.key == check.key).all(whole), "{}", check.address);
        if check.key.port == ANSWERS {
            let late = longest_gap(&stage, check.address, begin + 4 * SECOND).saturating_sub(2 * SECOND);
            prop_assert!(late <= 2 * SLICE, "{late:?}");
        }
    }
    let first = |check: &Check| stage.starts(check.address)[0] - begin;
    for number in 0..groups.len() {
        let name = format!("default/{number}:80/TCP");
        let soonest = checks.iter().filter(|check| *check.group == *name).map(first).min();
        let bound = first_within(sockets, u32::try_from(groups.len()).unwrap());
        prop_assert!(soonest <= Some(bound), "{soonest:?} of {bound:?}");
    }
    Ok(())
}
