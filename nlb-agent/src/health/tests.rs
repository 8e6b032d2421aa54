//! A target's life and the choice among targets, in the cases that the contract names.

use super::*;
use crate::model::*;
use jiff::Timestamp;
use std::net::IpAddr;
use std::time::Duration;

pub(super) const GROUP: &str = "default/web:80/TCP";
pub(super) const READY: Conditions = Conditions { ready: true, serving: true, terminating: false };
pub(super) const LEAVING: Conditions = Conditions { ready: false, serving: true, terminating: true };
pub(super) const NOT_READY: Conditions = Conditions { ready: false, serving: false, terminating: false };

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

pub(super) fn key(index: u8) -> TargetKey {
    TargetKey { ip: IpAddr::from([10, 1, 0, index]), port: 8080, uid: Some(format!("pod-{index}")) }
}

pub(super) fn target(index: u8, conditions: Conditions) -> Target {
    Target { key: key(index), check_port: 8080, node: None, zone: None, local: true, weight: 1, conditions }
}

pub(super) fn group(name: &str, targets: Vec<Target>) -> TargetGroup {
    TargetGroup {
        name: name.to_owned(),
        protocol: Protocol::Tcp,
        target_type: TargetType::Ip,
        target_port: PortRef::Number(8080),
        slice_port: Some("http".to_owned()),
        health_check: HealthCheck { healthy_threshold: 3, unhealthy_threshold: 2, ..HealthCheck::default() },
        preserve_client_ip: false,
        proxy_protocol_v2: false,
        source_ip_stickiness: false,
        cross_zone: false,
        deregistration_delay: Duration::from_secs(300),
        deregistration_connection_termination: false,
        unhealthy_connection_termination: true,
        unhealthy_draining_interval: Duration::ZERO,
        minimum_healthy_targets: Threshold::default(),
        dns_failover: Threshold::default(),
        targets,
    }
}

pub(super) fn model(groups: Vec<TargetGroup>) -> Model {
    let forward =
        groups.iter().map(|group| Forward { target_group: group.name.clone(), weight: 1 }).collect();
    let listener = Listener {
        port: 80,
        protocol: Protocol::Tcp,
        idle_timeout: Duration::from_secs(350),
        source_ranges: Vec::new(),
        forward,
        target_group_stickiness: false,
    };
    let load_balancer = LoadBalancer {
        namespace: "default".into(),
        name: "web".into(),
        uid: Some("service-1".into()),
        class: None,
        scheme: Scheme::Internal,
        ip_families: vec![IpFamily::IPv4],
        vips: vec![IpAddr::from([192, 0, 2, 10])],
        deletion_protection: false,
        listeners: vec![listener],
        refused_ports: Vec::new(),
        target_groups: groups,
        nodes: None,
    };
    Model { load_balancers: vec![load_balancer], ..Model::default() }
}

fn web(conditions: &[Conditions]) -> Model {
    let targets = (0..).zip(conditions).map(|(index, &conditions)| target(index, conditions));
    model(vec![group(GROUP, targets.collect())])
}

pub(super) fn fresh(model: &Model) -> Health {
    let mut health = Health::default();
    health.update(model, at(0));
    health
}

pub(super) fn refused() -> Outcome {
    Outcome::Failed(Failure::Broken, "connection refused".into())
}

fn say(health: &mut Health, index: u8, outcomes: &[Outcome], now: Timestamp) {
    for outcome in outcomes {
        health.outcome(GROUP, &key(index), outcome, now);
    }
}

pub(super) fn status(health: &Health, index: u8) -> &Status {
    health.status(GROUP, &key(index)).unwrap()
}

pub(super) fn only(model: &Model, health: &Health) -> Forwarding {
    let mut all = forwardings(model, health, |_| false);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// Indices of the targets that take new flows.
fn takers(model: &Model, health: &Health) -> Vec<u8> {
    let taking = only(model, health).targets.into_iter().filter(|placed| placed.share > 0);
    taking.map(|placed| placed.key.uid.unwrap()["pod-".len()..].parse().unwrap()).collect()
}

#[test]
fn a_new_target_is_initial_and_one_pass_makes_it_healthy() {
    let model = web(&[READY, READY]);
    let mut health = fresh(&model);
    assert_eq!(status(&health, 0).state(), State::Initial);
    assert_eq!(status(&health, 0).reason(), Some(Reason::RegistrationInProgress));
    assert!(health.fail_open(GROUP, IpFamily::IPv4));
    assert_eq!(takers(&model, &health), [0, 1]);
    say(&mut health, 1, &[refused()], at(1));
    assert_eq!(status(&health, 1).reason(), Some(Reason::InitialHealthChecking));
    say(&mut health, 1, &[Outcome::Passed], at(1));
    assert_eq!((status(&health, 1).state(), status(&health, 1).reason()), (State::Healthy, None));
    assert_eq!(status(&health, 1).since(), at(1));
    assert_eq!(takers(&model, &health), [1]);
}

#[test]
fn after_unhealthy_the_full_threshold_is_needed() {
    let model = web(&[READY]);
    let mut health = fresh(&model);
    say(&mut health, 0, &[refused(), refused()], at(1));
    assert_eq!(status(&health, 0).reason(), Some(Reason::FailedHealthChecks));
    assert_eq!(status(&health, 0).description(), "connection refused");
    say(&mut health, 0, &[Outcome::Passed, Outcome::Passed], at(2));
    assert_eq!(status(&health, 0).state(), State::Unhealthy);
    say(&mut health, 0, &[Outcome::Passed], at(3));
    assert_eq!(status(&health, 0).state(), State::Healthy);
}

#[test]
fn a_check_that_could_not_be_made_says_nothing() {
    let model = web(&[READY]);
    let mut health = fresh(&model);
    let internal = Outcome::Internal("too many open files".into());
    say(&mut health, 0, &[refused(), internal.clone()], at(1));
    assert_eq!(status(&health, 0).reason(), Some(Reason::InternalError));
    assert_eq!((status(&health, 0).failures(), status(&health, 0).tally().internal), (1, 1));
    say(&mut health, 0, &[Outcome::Passed, internal], at(2));
    assert_eq!((status(&health, 0).state(), status(&health, 0).reason()), (State::Healthy, None));
}

#[test]
fn draining_ends_after_the_delay_and_ready_again_is_the_former_state() {
    let mut health = fresh(&web(&[READY, READY]));
    say(&mut health, 0, &[Outcome::Passed], at(1));
    health.update(&web(&[NOT_READY, READY]), at(10));
    let drained = status(&health, 0);
    assert_eq!(
        (drained.state(), drained.reason()),
        (State::Draining, Some(Reason::DeregistrationInProgress))
    );
    assert_eq!(health.next_deadline(), Some(at(310)));
    health.update(&web(&[READY, READY]), at(100));
    assert_eq!(status(&health, 0).state(), State::Healthy);

    health.update(&web(&[NOT_READY, READY]), at(200));
    health.update(&web(&[NOT_READY, READY]), at(499));
    assert_eq!(status(&health, 0).state(), State::Draining);
    health.update(&web(&[NOT_READY, READY]), at(500));
    assert_eq!(
        (status(&health, 0).state(), status(&health, 0).reason()),
        (State::Unused, Some(Reason::NotRegistered))
    );
    assert_eq!(health.next_deadline(), None);
    health.update(&web(&[READY, READY]), at(600));
    assert_eq!(status(&health, 0).state(), State::Initial);
}

#[test]
fn a_target_that_is_gone_keeps_its_flows_until_the_delay_ends() {
    let mut health = fresh(&web(&[READY, READY]));
    say(&mut health, 0, &[Outcome::Passed], at(1));
    let rest = model(vec![group(GROUP, vec![target(0, READY)])]);
    health.update(&rest, at(10));
    let forwarding = only(&rest, &health);
    assert_eq!(forwarding.registered, 1);
    let shares: Vec<(TargetKey, u32)> =
        forwarding.targets.into_iter().map(|placed| (placed.key, placed.share)).collect();
    assert_eq!(shares, [(key(0), 1), (key(1), 0)]);
    health.update(&rest, at(310));
    assert!(health.status(GROUP, &key(1)).is_none());
}

#[test]
fn leaving_targets_take_flows_only_while_nobody_is_healthy() {
    let mut health = fresh(&web(&[READY, READY]));
    say(&mut health, 0, &[Outcome::Passed], at(1));
    say(&mut health, 1, &[Outcome::Passed], at(1));
    let leaving = web(&[LEAVING, LEAVING, READY]);
    health.update(&leaving, at(10));
    assert_eq!(takers(&leaving, &health), [0, 1]);
    assert!(!health.fail_open(GROUP, IpFamily::IPv4));
    say(&mut health, 1, &[refused(), refused()], at(11));
    assert_eq!(takers(&leaving, &health), [0]);
    say(&mut health, 0, &[refused(), refused()], at(11));
    assert_eq!(takers(&leaving, &health), [2]);
    assert!(health.fail_open(GROUP, IpFamily::IPv4));
    say(&mut health, 2, &[Outcome::Passed], at(12));
    assert_eq!(takers(&leaving, &health), [2]);
}

#[test]
fn nobody_takes_flows_when_all_are_gone_or_not_ready() {
    let mut health = fresh(&web(&[READY]));
    say(&mut health, 0, &[Outcome::Passed], at(1));
    for nothing in [web(&[NOT_READY]), web(&[])] {
        health.update(&nothing, at(2));
        assert!(takers(&nothing, &health).is_empty());
        assert_eq!(health.choice(GROUP, IpFamily::IPv4), Choice::Nobody);
        assert_eq!(only(&nothing, &health).targets.len(), 1);
    }
}

#[test]
fn either_threshold_breached_fails_open() {
    let cases = [
        (Some(1), None, false),
        (Some(2), None, true),
        (Some(1), Some(33), false),
        (Some(1), Some(34), true),
        (None, None, false),
    ];
    for (count, percentage, fails_open) in cases {
        let mut model = web(&[READY, READY, READY]);
        model.load_balancers[0].target_groups[0].minimum_healthy_targets = Threshold { count, percentage };
        let mut health = fresh(&model);
        say(&mut health, 0, &[Outcome::Passed], at(1));
        assert_eq!(health.fail_open(GROUP, IpFamily::IPv4), fails_open, "{count:?} {percentage:?}");
        assert_eq!(takers(&model, &health).len(), if fails_open { 3 } else { 1 });
    }
}

#[test]
fn flows_of_an_unhealthy_target_are_given_up_but_not_while_failing_open() {
    let model = web(&[READY, READY]);
    let mut health = fresh(&model);
    say(&mut health, 0, &[Outcome::Passed], at(1));
    say(&mut health, 1, &[Outcome::Passed], at(1));
    say(&mut health, 0, &[refused(), refused()], at(2));
    assert_eq!(status(&health, 0).incarnation(), 1);
    say(&mut health, 1, &[refused(), refused()], at(3));
    assert_eq!(status(&health, 1).incarnation(), 0, "failing open keeps the flows");
    say(&mut health, 0, &[Outcome::Passed, Outcome::Passed, Outcome::Passed], at(4));
    assert_eq!((status(&health, 0).incarnation(), status(&health, 1).incarnation()), (1, 1));
    health.update(&model, at(5));
    assert_eq!(status(&health, 1).incarnation(), 1, "once for each spell");
}

#[test]
fn flows_that_came_while_failing_open_are_given_up_when_it_ends() {
    let model = web(&[READY, READY]);
    let mut health = fresh(&model);
    say(&mut health, 1, &[Outcome::Passed], at(1));
    say(&mut health, 0, &[refused(), refused()], at(2));
    assert_eq!(status(&health, 0).incarnation(), 1);
    say(&mut health, 1, &[refused(), refused()], at(3));
    assert_eq!(takers(&model, &health), [0, 1]);
    say(&mut health, 1, &[Outcome::Passed, Outcome::Passed, Outcome::Passed], at(4));
    assert_eq!(status(&health, 0).incarnation(), 2);
}

#[test]
fn flows_are_kept_where_the_attribute_says_so() {
    for (grace, deadline) in [(0, None), (60, Some(at(62)))] {
        let mut model = web(&[READY, READY]);
        let group = &mut model.load_balancers[0].target_groups[0];
        group.unhealthy_connection_termination = false;
        group.unhealthy_draining_interval = Duration::from_secs(grace);
        let mut health = fresh(&model);
        say(&mut health, 1, &[Outcome::Passed], at(1));
        say(&mut health, 0, &[refused(), refused()], at(2));
        assert_eq!((status(&health, 0).incarnation(), health.next_deadline()), (0, deadline));
        health.update(&model, at(62));
        assert_eq!(status(&health, 0).incarnation(), u32::from(grace > 0));
    }
}

#[test]
fn each_family_of_a_group_stands_for_itself() {
    let v6 = TargetKey { ip: "2001:db8::1".parse().unwrap(), port: 8080, uid: None };
    let mut model = web(&[READY]);
    let load_balancer = &mut model.load_balancers[0];
    load_balancer.vips.push("2001:db8:1::10".parse().unwrap());
    load_balancer.target_groups[0].targets.push(Target { key: v6.clone(), ..target(9, READY) });
    let mut health = fresh(&model);
    say(&mut health, 0, &[Outcome::Passed], at(1));
    assert!(!health.fail_open(GROUP, IpFamily::IPv4));
    assert!(health.fail_open(GROUP, IpFamily::IPv6));
    let both = forwardings(&model, &health, |vip| vip.is_ipv6());
    assert_eq!(both.iter().map(|one| one.node_vip).collect::<Vec<_>>(), [false, true]);
    assert_eq!(both[0].targets.iter().map(|placed| &placed.key).collect::<Vec<_>>(), [&key(0)]);
    assert_eq!(both[1].targets.iter().map(|placed| &placed.key).collect::<Vec<_>>(), [&v6]);
}

#[test]
fn targets_elsewhere_and_groups_without_a_listener_are_unused_and_unchecked() {
    let mut model = web(&[READY, READY]);
    let load_balancer = &mut model.load_balancers[0];
    load_balancer.target_groups[0].targets[0].local = false;
    load_balancer.target_groups[0].targets[0].node = Some("node-b".into());
    load_balancer.target_groups.push(group("default/web:81/TCP", vec![target(7, READY)]));
    let health = fresh(&model);
    assert_eq!(status(&health, 0).reason(), Some(Reason::NotInUse));
    assert!(status(&health, 0).description().contains("node-b"));
    assert_eq!(health.status("default/web:81/TCP", &key(7)).unwrap().state(), State::Unused);
    let asked: Vec<TargetKey> = checks(&model, &health).into_iter().map(|check| check.key).collect();
    assert_eq!(asked, [key(1)]);
    assert_eq!((only(&model, &health).registered, takers(&model, &health)), (1, vec![1]));
}

#[test]
fn a_service_that_was_created_anew_forgets_flows_and_health() {
    let mut model = web(&[READY]);
    let mut health = fresh(&model);
    say(&mut health, 0, &[Outcome::Passed], at(1));
    model.load_balancers[0].uid = Some("service-2".into());
    health.update(&model, at(2));
    assert_eq!((status(&health, 0).state(), status(&health, 0).incarnation()), (State::Initial, 1));
}

#[test]
fn weighted_groups_share_by_weight_and_a_group_of_nobody_gives_way() {
    let (blue, green) = ("default/blue:80/TCP", "default/green:80/TCP");
    let targets = vec![target(1, READY), target(2, READY), target(3, READY)];
    let mut model =
        model(vec![group(blue, vec![target(0, READY)]), group(green, targets), group(GROUP, vec![])]);
    model.load_balancers[0].listeners[0].forward[0].weight = 3;
    let forwarding = only(&model, &fresh(&model));
    let shares: Vec<u32> = forwarding.targets.iter().map(|placed| placed.share).collect();
    assert_eq!((forwarding.registered, shares), (4, vec![3_000_000, 333_333, 333_333, 333_333]));
}

/// Target 0 is healthy, 1 unhealthy, 2 healthy; then the agent begins anew.
fn restarted() -> Health {
    let model = web(&[READY, READY, READY]);
    let mut health = fresh(&model);
    say(&mut health, 0, &[Outcome::Passed], at(1));
    say(&mut health, 1, &[refused(), refused()], at(1));
    say(&mut health, 2, &[Outcome::Passed], at(1));
    let written = serde_json::to_string(&health.saved()).unwrap();
    Health::restored(serde_json::from_str(&written).unwrap(), at(2))
}

fn states(health: &Health) -> Vec<State> {
    health.targets(GROUP).map(|(_, status)| status.state()).collect()
}

#[test]
fn what_a_restarted_agent_cannot_read_yet_stays_as_it_was_and_is_checked() {
    let mut health = restarted();
    let before = health.saved();
    health.update_keeping(&Model::default(), at(3));
    assert_eq!(health.saved(), before, "a group that no file names");
    assert_eq!(health.next_deadline(), None);
    // Half of the endpoints can be read.
    let some = web(&[READY, READY]);
    health.update_keeping(&some, at(1000));
    assert_eq!(states(&health), [State::Healthy, State::Unhealthy, State::Healthy]);
    assert_eq!(takers(&some, &health), [0, 2]);
    assert_eq!(only(&some, &health).registered, 3);
    let asked: Vec<TargetKey> = checks(&some, &health).into_iter().map(|check| check.key).collect();
    assert_eq!(asked, [key(0), key(1), key(2)]);
    // What was named since and is no longer drains; what was not yet fails its checks like any other.
    let fewer = web(&[READY]);
    health.update_keeping(&fewer, at(1001));
    assert_eq!(states(&health), [State::Healthy, State::Draining, State::Healthy]);
    say(&mut health, 2, &[refused(), refused()], at(1002));
    assert_eq!(takers(&fewer, &health), [0]);
    // Everything is read: now the absent one is gone.
    health.update(&fewer, at(1003));
    assert_eq!(states(&health), [State::Healthy, State::Draining, State::Draining]);
}

#[test]
fn groups_that_were_named_since_the_restart_are_not_kept() {
    let mut health = restarted();
    health.update_keeping(&web(&[READY]), at(3));
    health.update_keeping(&Model::default(), at(4));
    assert_eq!(states(&health), []);
    let mut health = restarted();
    health.update(&Model::default(), at(3));
    assert_eq!(states(&health), []);
}
