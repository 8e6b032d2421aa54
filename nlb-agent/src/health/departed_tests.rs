//! Flows of targets that have left or fail: whose are ended, when, and what becomes of the target afterwards.

use super::tests::*;
use super::*;
use crate::model::*;
use jiff::Timestamp;
use std::time::Duration;

const UDP: &str = "default/web:53/UDP";

fn silence() -> Outcome {
    Outcome::Failed(Failure::Timeout, "no connection within 10 s".into())
}

fn unreachable() -> Outcome {
    Outcome::Failed(Failure::Unreachable, "no route to host".into())
}

fn busy() -> Outcome {
    Outcome::Failed(Failure::ResponseCode, "HTTP 503, not 200-399".into())
}

/// The targets with these numbers in a group of TCP or UDP.
fn serving(protocol: Protocol, targets: &[(u8, Conditions)]) -> Model {
    let targets = targets.iter().map(|(index, conditions)| target(*index, *conditions)).collect();
    let name = if protocol == Protocol::Tcp { GROUP } else { UDP };
    let termination = protocol == Protocol::Tcp;
    let group =
        TargetGroup { protocol, unhealthy_connection_termination: termination, ..group(name, targets) };
    model(vec![group])
}

fn say(health: &mut Health, index: u8, outcomes: &[Outcome], now: Timestamp) -> Vec<bool> {
    let name = if health.targets(UDP).next().is_some() { UDP } else { GROUP };
    outcomes.iter().map(|outcome| health.outcome(name, &key(index), outcome, now)).collect()
}

/// (number, incarnation, share) of those that have a place.
fn placed(model: &Model, health: &Health) -> Vec<(u8, u32, u32)> {
    let number = |placed: &Placed| placed.key.uid.as_ref().unwrap()["pod-".len()..].parse().unwrap();
    only(model, health).targets.iter().map(|it| (number(it), it.incarnation, it.share)).collect()
}

fn described(health: &Health, name: &str, index: u8) -> String {
    health.status(name, &key(index)).unwrap().description().into_owned()
}

/// Both targets are healthy; then target 1 leaves in every way that there is.
fn left(protocol: Protocol) -> Vec<(Model, Health)> {
    let ways = [vec![(0, READY)], vec![(0, READY), (1, LEAVING)], vec![(0, READY), (1, NOT_READY)]];
    let leave = |targets: Vec<(u8, Conditions)>| {
        let mut health = fresh(&serving(protocol, &[(0, READY), (1, READY)]));
        for index in [0, 1] {
            say(&mut health, index, &[Outcome::Passed], at(1));
        }
        let model = serving(protocol, &targets);
        health.update(&model, at(10));
        assert_eq!(placed(&model, &health), [(0, 0, 1), (1, 0, 0)]);
        (model, health)
    };
    ways.into_iter().map(leave).collect()
}

#[test]
fn connections_end_once_nothing_answers_the_checks_of_a_target_that_drains() {
    for (model, mut health) in left(Protocol::Tcp) {
        let asked: Vec<TargetKey> = checks(&model, &health).into_iter().map(|check| check.key).collect();
        assert_eq!(asked, [key(0), key(1)], "it goes on being checked");
        assert_eq!(say(&mut health, 1, &[silence(), unreachable()], at(12)), [false, true]);
        assert_eq!(status(&health, 1).state(), State::Draining);
        assert_eq!(placed(&model, &health), [(0, 0, 1)]);
        let why = described(&health, GROUP, 1);
        assert!(why.ends_with("; its flows were ended because nothing answered its checks"), "{why}");
        assert_eq!(say(&mut health, 1, &[silence(), silence()], at(14)), [false, false], "once");
        // It answers again, and is ready again: its former state, without the old flows.
        say(&mut health, 1, &[Outcome::Passed, Outcome::Passed, Outcome::Passed], at(20));
        assert_eq!(placed(&model, &health), [(0, 0, 1)], "nothing is there to be kept");
        let both = serving(Protocol::Tcp, &[(0, READY), (1, READY)]);
        health.update(&both, at(21));
        assert_eq!(
            (placed(&both, &health), status(&health, 1).state()),
            (vec![(0, 0, 1), (1, 1, 1)], State::Healthy)
        );
        // The end of the delay is as ever.
        health.update(&model, at(30));
        say(&mut health, 1, &[silence(), silence()], at(31));
        assert_eq!(health.next_deadline(), Some(at(330)));
        health.update(&model, at(330));
        assert!(health.status(GROUP, &key(1)).is_none_or(|it| it.state() == State::Unused));
    }
}

#[test]
fn no_connection_ends_because_a_server_refuses_or_is_busy_while_it_drains() {
    for (model, mut health) in left(Protocol::Tcp) {
        for outcome in
            [refused(), busy(), silence(), refused(), silence(), busy(), Outcome::Passed, silence()]
        {
            say(&mut health, 1, &[outcome], at(12));
            assert_eq!(placed(&model, &health), [(0, 0, 1), (1, 0, 0)]);
        }
        let why = described(&health, GROUP, 1);
        assert!(
            why.ends_with("; flows are kept while it answers, until the deregistration delay ends"),
            "{why}"
        );
        assert_eq!(
            say(&mut health, 1, &[Outcome::Internal("no socket".into()), silence()], at(13)),
            [false, true]
        );
    }
}

#[test]
fn datagrams_go_elsewhere_once_the_checks_of_a_target_that_drains_fail_in_any_way() {
    for (model, mut health) in left(Protocol::Udp) {
        assert_eq!(say(&mut health, 1, &[refused(), busy()], at(12)), [false, true]);
        assert_eq!(placed(&model, &health), [(0, 0, 1)]);
        let why = described(&health, UDP, 1);
        assert!(why.ends_with("; its flows were given up because its checks failed"), "{why}");
    }
}

#[test]
fn failures_before_the_drain_count_on() {
    for (protocol, outcome) in [(Protocol::Tcp, silence()), (Protocol::Udp, refused())] {
        for failures in [1, 2] {
            let mut health = fresh(&serving(protocol, &[(0, READY), (1, READY)]));
            // Both fail, so the group fails open and keeps flows.
            say(&mut health, 1, &vec![outcome.clone(); failures], at(1));
            let model = serving(protocol, &[(0, READY)]);
            health.update(&model, at(2));
            assert_eq!(placed(&model, &health).len(), if failures == 2 { 1 } else { 2 });
            say(&mut health, 1, std::slice::from_ref(&outcome), at(3));
            assert_eq!(placed(&model, &health), [(0, 0, 1)]);
        }
    }
}

#[test]
fn the_only_one_that_is_left_gives_its_flows_up_once_and_takes_new_ones() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut health = fresh(&serving(protocol, &[(1, READY)]));
        say(&mut health, 1, &[Outcome::Passed], at(1));
        let alone = serving(protocol, &[(1, LEAVING)]);
        health.update(&alone, at(2));
        say(&mut health, 1, &[silence(), silence(), silence()], at(3));
        health.update(&alone, at(4));
        assert_eq!(placed(&alone, &health), [(1, 1, 1)], "nobody better is there");
        let two = serving(protocol, &[(0, READY), (1, LEAVING)]);
        health.update(&two, at(5));
        assert_eq!(placed(&two, &health), [(0, 0, 1)], "what it took meanwhile goes, too");
        // Alone again, it recovers: its flows are its own, until it fails once more.
        health.update(&alone, at(6));
        say(&mut health, 1, &[Outcome::Passed, Outcome::Passed, Outcome::Passed], at(7));
        say(&mut health, 1, &[silence(), silence()], at(8));
        assert_eq!(placed(&alone, &health), [(0, 0, 0), (1, 2, 1)]);
    }
}

#[test]
fn datagrams_leave_an_unhealthy_target_while_another_one_is_healthy() {
    for (interval, after) in [(0, 2), (60, 62)] {
        let mut model = serving(Protocol::Udp, &[(0, READY), (1, READY)]);
        model.load_balancers[0].target_groups[0].unhealthy_draining_interval = Duration::from_secs(interval);
        let mut health = fresh(&model);
        say(&mut health, 0, &[Outcome::Passed], at(1));
        say(&mut health, 1, &[refused(), refused()], at(2));
        let given_up = |health: &Health| health.status(UDP, &key(1)).unwrap().incarnation();
        assert_eq!(given_up(&health), u32::from(interval == 0));
        health.update(&model, at(after));
        assert_eq!(given_up(&health), 1);
        // Nobody is healthy: it takes new flows like all others, and keeps them until somebody is.
        say(&mut health, 0, &[refused(), refused()], at(100));
        assert_eq!(placed(&model, &health), [(0, 0, 1), (1, 1, 1)]);
        say(&mut health, 0, &[Outcome::Passed, Outcome::Passed, Outcome::Passed], at(101));
        health.update(&model, at(101));
        assert_eq!(placed(&model, &health), [(0, 0, 1), (1, 2, 0)]);
    }
}

#[test]
fn a_target_that_no_slice_names_is_asked_where_it_was_asked_last_also_after_a_restart() {
    let named = |port: u16| {
        let mut model = serving(Protocol::Tcp, &[(0, READY), (1, READY)]);
        let group = &mut model.load_balancers[0].target_groups[0];
        group.health_check.port = CheckPort::Name("health".into());
        group.targets[0].check_port = 9000;
        group.targets[1].check_port = port;
        model
    };
    let mut health = fresh(&named(9001));
    health.update(&named(9002), at(1));
    let mut rest = named(9002);
    rest.load_balancers[0].target_groups[0].targets.pop();
    health.update(&rest, at(2));
    say(&mut health, 1, &[silence()], at(3));
    let written = serde_json::to_string(&health.saved()).unwrap();
    let mut again = Health::restored(serde_json::from_str(&written).unwrap(), at(4));
    again.update_keeping(&rest, at(4));
    for health in [&mut health, &mut again] {
        let asked: Vec<String> = checks(&rest, health).into_iter().map(|it| it.address.to_string()).collect();
        assert_eq!(asked, ["10.1.0.0:9000", "10.1.0.1:9002"]);
        assert_eq!(say(health, 1, &[silence()], at(5)), [true], "the first failure was counted before");
    }
}

#[test]
fn a_state_file_of_an_older_agent_is_read() {
    let mut health = fresh(&serving(Protocol::Tcp, &[(0, READY), (1, READY)]));
    say(&mut health, 1, &[refused(), refused()], at(1));
    let mut written = serde_json::to_value(health.saved()).unwrap();
    for target in written["groups"][0]["targets"].as_array_mut().unwrap() {
        let status = target["status"].as_object_mut().unwrap();
        for new in ["unanswered", "ended", "check_port", "also_in", "away"] {
            status.remove(new);
        }
    }
    let rest = serving(Protocol::Tcp, &[(0, READY)]);
    let mut again = Health::restored(serde_json::from_value(written).unwrap(), at(2));
    again.update(&rest, at(2));
    let asked: Vec<String> = checks(&rest, &again).into_iter().map(|it| it.address.to_string()).collect();
    assert_eq!(asked, ["10.1.0.0:8080", "10.1.0.1:8080"]);
}
