//! Services whose settings are bad: what was last good goes on, and endpoints are followed all the same.

use super::tests::{inputs, ips, model, service, service_on, settings, slice, told};
use super::*;
use crate::problem::{Effect, Severity};
use std::time::Duration;

/// As a restarted agent finds them.
pub(super) fn read_back(load_balancers: &[LoadBalancer]) -> Vec<LoadBalancer> {
    serde_json::from_value(serde_json::to_value(load_balancers).unwrap()).unwrap()
}

#[test]
fn a_bad_setting_refuses_or_keeps_but_endpoints_follow() {
    let ports = "[{name: http, port: 8080}]";
    let good = inputs(
        &(service("web", &[("healthcheck-interval", "7")])
            + &slice("s", "web", ports, "[{addresses: [10.0.0.1]}]")),
    );
    let bad = service("web", &[("healthcheck-interval", "ten")])
        + &slice("s", "web", ports, "[{addresses: [10.0.0.2]}]");
    let refused = model(&bad);
    assert_eq!(refused.load_balancers, []);
    assert_eq!(told(&refused)[0], (Severity::Warning, "InvalidAnnotation", Effect::LoadBalancerRefused));
    assert_eq!(refused.problems[0].value.as_deref(), Some("ten"));
    let first = translate(&good, &settings(), None);
    let kept = translate(&inputs(&bad), &settings(), Some(&first));
    assert_eq!(told(&kept)[0], (Severity::Warning, "InvalidAnnotation", Effect::KeptLastGood));
    let group = &kept.load_balancers[0].target_groups[0];
    assert_eq!(group.health_check.interval, Duration::from_secs(7));
    assert_eq!(ips(group), ["10.0.0.2:8080"]);
    assert_eq!(kept.load_balancers[0].vips, first.load_balancers[0].vips);
}

#[test]
fn targets_of_a_kept_group_whose_port_is_gone_follow_their_endpoints() {
    let ports = "[{name: http, port: 8080}]";
    let on = |endpoints: &str| slice("s", "web", ports, endpoints);
    let both = "[{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}]";
    let first = model(&(service("web", &[]) + &on(both)));
    let restarted = Model { load_balancers: read_back(&first.load_balancers), ..Model::default() };
    let moved = "[{name: http, port: 81, targetPort: web}]";
    let bad = service_on("web", &[("healthcheck-interval", "ten")], moved);
    let turns = [
        (
            "[{addresses: [10.0.0.1], conditions: {ready: false, terminating: true}}]",
            &[("10.0.0.1:8080", false)][..],
        ),
        (both, &[("10.0.0.1:8080", true), ("10.0.0.2:8080", true)]),
        (
            "[{addresses: [10.0.0.2]}, {addresses: [10.0.0.3]}]",
            &[("10.0.0.2:8080", true), ("10.0.0.3:8080", true)],
        ),
    ];
    for mut last in [first, restarted] {
        for (endpoints, expected) in turns {
            last = translate(&inputs(&(bad.clone() + &on(endpoints))), &settings(), Some(&last));
            let lb = &last.load_balancers[0];
            assert_eq!(lb.listeners[0].port, 80);
            let group = &lb.target_groups[0];
            let ready: Vec<bool> = group.targets.iter().map(|it| it.conditions.ready).collect();
            assert_eq!(ips(group).iter().map(String::as_str).zip(ready).collect::<Vec<_>>(), expected);
            assert!(last.problems.iter().all(|it| !it.object.starts_with("EndpointSlice")), "{last:?}");
        }
    }
}

#[test]
fn slices_may_forget_the_port_of_a_kept_group_or_call_it_otherwise() {
    let good = |target: &str| {
        service_on("web", &[], &format!("[{{name: http, port: 80, targetPort: {target}}}]"))
            + &slice("s", "web", "[{name: http, port: 8080}]", "[{addresses: [10.0.0.1]}]")
    };
    let after = |target: &str, number: u16, restarted: bool| {
        let mut last = model(&good(target));
        if restarted {
            last.load_balancers = read_back(&last.load_balancers);
        }
        let ports = format!("[{{name: web, port: {number}, targetPort: {target}}}]");
        let bad = service_on("web", &[("healthcheck-interval", "ten")], &ports)
            + &slice(
                "s",
                "web",
                "[{name: web, port: 8081}]",
                "[{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}]",
            );
        let last = translate(&inputs(&bad), &settings(), Some(&last));
        ips(&last.load_balancers[0].target_groups[0])
    };
    for restarted in [false, true] {
        assert_eq!(after("web", 80, restarted), ["10.0.0.1:8081", "10.0.0.2:8081"], "renamed");
        assert_eq!(after("8080", 81, restarted), ["10.0.0.1:8080", "10.0.0.2:8080"], "removed");
    }
    assert_eq!(after("web", 81, false), ["10.0.0.1:8080"], "nobody can tell where a new pod listens");
}

#[test]
fn what_one_slice_tells_is_not_guessed_in_another() {
    let slices = slice("a", "web", "[{name: http, port: 8080}]", "[{addresses: [10.0.0.1]}]")
        + &slice("b", "web", "[{name: web, port: 8081}]", "[{addresses: [10.0.0.1]}]");
    let good = model(&(service_on("web", &[], "[{name: http, port: 80}]") + &slices));
    let bad = service_on("web", &[("healthcheck-interval", "ten")], "[{name: web, port: 81}]") + &slices;
    for load_balancers in [good.load_balancers.clone(), read_back(&good.load_balancers)] {
        let previous = Model { load_balancers, ..Model::default() };
        let kept = translate(&inputs(&bad), &settings(), Some(&previous));
        assert_eq!(ips(&kept.load_balancers[0].target_groups[0]), ["10.0.0.1:8080"]);
    }
}
