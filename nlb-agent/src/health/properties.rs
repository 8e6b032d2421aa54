//! Properties of a target's life and of the choice among targets, over random histories.

use super::tests::*;
use super::*;
use crate::model::{Conditions, IpFamily, Model};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
enum Happening {
    Result(u8, Outcome),
    Cluster(u8, Option<Conditions>),
    Time(u16),
    Restart,
}

fn happening() -> impl Strategy<Value = Happening> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Passed),
        4 => Just(refused()),
        1 => Just(Outcome::Failed(Failure::Timeout, "no connection within 10 s".into())),
        1 => Just(Outcome::Internal("no buffer space available".into())),
    ];
    let conditions = prop_oneof![
        3 => Just(Some(READY)),
        2 => Just(Some(LEAVING)),
        1 => Just(Some(NOT_READY)),
        1 => Just(None),
    ];
    prop_oneof![
        12 => (0_u8..4, outcome).prop_map(|(index, outcome)| Happening::Result(index, outcome)),
        4 => (0_u8..4, conditions).prop_map(|(index, conditions)| Happening::Cluster(index, conditions)),
        2 => (1_u16..200).prop_map(Happening::Time),
        1 => Just(Happening::Restart),
    ]
}

/// The model with each target as `cluster` says; `None` is not named at all.
fn seen(cluster: &[Option<Conditions>; 4]) -> Model {
    let named = (0..).zip(cluster).filter_map(|(index, conditions)| conditions.map(|it| target(index, it)));
    model(vec![group(GROUP, named.collect())])
}

fn restarted(health: &Health, now: Timestamp) -> Health {
    let written = serde_json::to_string(&health.saved()).unwrap();
    Health::restored(serde_json::from_str(&written).unwrap(), now)
}

/// The threshold rule told by the tail of a history instead of by counters.
fn verdict(before: Standing, history: &[bool]) -> Standing {
    let tail = |length: usize, pass: bool| {
        history.len() >= length && history[history.len() - length..].iter().all(|&one| one == pass)
    };
    match before {
        Standing::Initial if tail(1, true) => Standing::Healthy,
        Standing::Unhealthy if tail(3, true) => Standing::Healthy,
        Standing::Initial | Standing::Healthy if tail(2, false) => Standing::Unhealthy,
        Standing::Initial | Standing::Healthy | Standing::Unhealthy => before,
    }
}

fn assert_choice_is_sound(model: &Model, health: &Health, cluster: &[Option<Conditions>; 4]) {
    let forwarding = only(model, health);
    let ready = cluster.iter().flatten().filter(|conditions| **conditions == READY).count();
    assert_eq!(forwarding.registered as usize, ready);
    assert!(forwarding.targets.is_sorted_by(|a, b| a.key < b.key));
    let taking: Vec<&Status> = forwarding
        .targets
        .iter()
        .filter(|placed| placed.share > 0)
        .map(|placed| health.status(GROUP, &placed.key).unwrap())
        .collect();
    assert!(ready == 0 || !taking.is_empty(), "somebody is registered");
    let healthy = health.targets(GROUP).filter(|(_, status)| status.state() == State::Healthy).count();
    if healthy > 0 {
        assert_eq!(taking.len(), healthy);
        assert!(taking.iter().all(|status| status.state() == State::Healthy));
    }
    let draining = taking.iter().filter(|status| status.state() == State::Draining).count();
    assert!(draining == 0 || draining == taking.len(), "never draining and registered ones together");
    assert!(taking.iter().all(|status| status.state() != State::Draining || status.is_placed()));
    assert_eq!(health.fail_open(GROUP, IpFamily::IPv4), !taking.is_empty() && draining == 0 && healthy == 0);
}

proptest! {
    #[test]
    fn a_life_follows_its_rules(happenings in prop::collection::vec(happening(), 1..120)) {
        let mut cluster = [Some(READY), Some(READY), Some(READY), None];
        let mut model = seen(&cluster);
        let mut health = fresh(&model);
        let mut now = at(0);
        let mut histories: [Vec<bool>; 4] = Default::default();
        for happening in happenings {
            let before: Vec<Option<Status>> =
                (0..4).map(|index| health.status(GROUP, &key(index)).cloned()).collect();
            let placed = only(&model, &health);
            match happening {
                Happening::Result(index, outcome) => {
                    let changed = health.outcome(GROUP, &key(index), &outcome, now);
                    let after = only(&model, &health);
                    prop_assert_eq!(after.registered, placed.registered);
                    prop_assert!(changed || after == placed);
                    if let Some(before) = before[usize::from(index)].as_ref().filter(|it| it.is_placed()) {
                        let history = &mut histories[usize::from(index)];
                        match outcome {
                            Outcome::Passed => history.push(true),
                            Outcome::Failed(..) => history.push(false),
                            Outcome::Internal(_) => {}
                        }
                        let standing = status(&health, index).standing();
                        let expected = match outcome {
                            Outcome::Internal(_) => before.standing(),
                            Outcome::Passed | Outcome::Failed(..) => verdict(before.standing(), history),
                        };
                        prop_assert_eq!(standing, expected);
                    }
                }
                Happening::Cluster(index, conditions) => {
                    cluster[usize::from(index)] = conditions;
                    model = seen(&cluster);
                    let mut some = health.clone();
                    some.update_some(&model.load_balancers, &BTreeSet::new(), &model, now);
                    health.update(&model, now);
                    prop_assert_eq!(&some, &health);
                }
                Happening::Time(seconds) => {
                    now += SignedDuration::from_secs(i64::from(seconds));
                    let mut whole = health.clone();
                    whole.update(&model, now);
                    let due = health.due(now);
                    prop_assert_eq!(due.is_empty(), health.next_deadline().is_none_or(|deadline| deadline > now));
                    let ours = model.load_balancers.iter().filter(|_| due.contains(GROUP));
                    health.update_some(ours, &BTreeSet::new(), &model, now);
                    prop_assert_eq!(&health, &whole);
                    prop_assert!(health.next_deadline().is_none_or(|deadline| deadline > now));
                }
                Happening::Restart => {
                    health = restarted(&health, now);
                    health.update(&model, now);
                    prop_assert_eq!(&only(&model, &health), &placed);
                    let after: Vec<Option<Status>> =
                        (0..4).map(|index| health.status(GROUP, &key(index)).cloned()).collect();
                    prop_assert_eq!(&after, &before);
                }
            }
            for (index, before) in (0_u8..4).zip(&before) {
                let after = health.status(GROUP, &key(index));
                if let (Some(before), Some(after)) = (before, after) {
                    prop_assert!(after.incarnation() >= before.incarnation());
                    let back = before.state() == State::Draining && after.is_registered();
                    prop_assert!(!back || after.standing() == before.standing(), "its former state");
                }
                if after.is_none_or(|after| after.tally() == Tally::default()) {
                    histories[usize::from(index)].clear();
                }
                // Registered anew after the drain ended: what was before does not count.
                if after.is_some_and(|after| after.state() == State::Unused) {
                    histories[usize::from(index)].clear();
                }
            }
            assert_choice_is_sound(&model, &health, &cluster);
            let mut again = health.clone();
            again.update(&model, now);
            prop_assert_eq!(&again, &health);
        }
    }
}
