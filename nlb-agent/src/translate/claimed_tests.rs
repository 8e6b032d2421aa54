//! Addresses that two pods claim at the same time: who is told, and that both are served.

use super::tests::*;
use super::*;
use crate::problem::{Effect, Severity};
use std::fmt::Write;
use std::time::{Duration, Instant};

const PORTS: &str = "[{name: http, port: 8080}]";

fn endpoint(ip: &str, pod: &str, more: &str) -> String {
    format!("{{addresses: [{ip}], targetRef: {{kind: Pod, name: {pod}, uid: uid-of-{pod}}}{more}}}")
}

fn twice(model: &Model) -> Vec<(&str, &str)> {
    let problems = model.problems.iter().filter(|it| it.reason == claimed::TWICE);
    problems.map(|it| (it.object.as_str(), it.field.as_deref().unwrap_or_default())).collect()
}

/// Services a and b, each with one slice.
fn world(a: &str, b: &str) -> String {
    let services = service("a", &[]) + &service_on("b", &[], "[{name: http, port: 81, targetPort: web}]");
    services + &slice("a", "a", PORTS, &format!("[{a}]")) + &slice("b", "b", PORTS, &format!("[{b}]"))
}

#[test]
fn the_slice_that_came_second_is_told_and_both_are_served() {
    let model = model(&world(&endpoint("10.0.0.1", "one", ""), &endpoint("10.0.0.1", "two", "")));
    assert_eq!(twice(&model), [("EndpointSlice default/b", "endpoints[0].addresses[0]")]);
    let problem = model.problems.iter().find(|it| it.reason == claimed::TWICE).unwrap();
    assert_eq!((problem.severity, problem.effect), (Severity::Warning, Effect::LocalMeaning));
    assert_eq!(problem.value.as_deref(), Some("10.0.0.1"));
    for told in [
        "Service default/b",
        "EndpointSlice default/a of Service default/a",
        "`one` (UID `uid-of-one`)",
        "`two` (UID `uid-of-two`)",
    ] {
        assert!(problem.message.contains(told), "{} lacks {told}", problem.message);
    }
    for lb in &model.load_balancers {
        assert_eq!(ips(&lb.target_groups[0]), ["10.0.0.1:8080"]);
    }
}

#[test]
fn one_pod_in_two_slices_or_two_on_their_node_are_no_clash() {
    let one = |more: &str| endpoint("10.0.0.1", "one", more);
    let two = |more: &str| endpoint("10.0.0.1", "two", more);
    let away = ", nodeName: elsewhere";
    let node = "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus: {addresses: [{type: InternalIP, address: 10.0.0.1}]}\n";
    let other_port = |text: String| text.replacen("port: 8080", "port: 9090", 1);
    let cases = [
        (world(&one(""), &one("")), 0),
        (world(&one(""), "{addresses: [10.0.0.1]}"), 0),
        (world(&one(", conditions: {ready: false}"), &two("")), 0),
        (world(&one(""), &two(", conditions: {ready: false}")), 0),
        (other_port(world(&one(""), &two(""))), 1),
        (other_port(world(&one(""), &two(""))) + node, 0),
        (world(&one(""), &two("")) + node, 1),
        (other_port(world(&one(away), &two(away))), 0),
        (world(&one(away), &two(away)), 1),
    ];
    for (text, count) in cases {
        assert_eq!(twice(&model(&text)).len(), count, "{text}");
    }
}

#[test]
fn what_one_slice_has_twice_is_told_once_with_the_number() {
    let both = |pod: &str| format!("{}, {}", endpoint("10.0.0.1", pod, ""), endpoint("10.0.0.2", pod, ""));
    let model = model(&world(&(both("one") + ", " + &both("two")), ""));
    assert_eq!(twice(&model), [("EndpointSlice default/a", "endpoints[2].addresses[0]")]);
    let message = &model.problems.iter().find(|it| it.reason == claimed::TWICE).unwrap().message;
    assert!(message.contains("So it is with 1 more addresses"), "{message}");
}

#[test]
fn ten_thousand_duplicates_cost_no_more_than_ten_thousand() {
    let mut text = service("a", &[]);
    for index in 0..2 {
        let mut endpoints = String::new();
        for pod in 0..10_000 {
            write!(
                endpoints,
                "{}, ",
                endpoint(&format!("10.0.{}.{}", pod / 250, pod % 250 + 1), &format!("p{index}-{pod}"), "")
            )
            .unwrap();
        }
        text += &slice(&format!("s{index}"), "a", PORTS, &format!("[{endpoints}]"));
    }
    let mut same = String::new();
    for pod in 0..10_000 {
        write!(same, "{}, ", endpoint("10.1.0.1", &format!("q{pod}"), "")).unwrap();
    }
    text += &slice("t", "a", PORTS, &format!("[{same}]"));
    let inputs = inputs(&text);
    let began = Instant::now();
    let claims = claimed::claims(&inputs, &settings());
    let told = claimed::Twice::of(&claims, &inputs, &settings());
    // A look at every pair would take minutes.
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let messages: Vec<&str> = told.problems().map(|it| it.message.as_str()).collect();
    assert!(messages.iter().all(|it| it.len() <= 1000), "{messages:?}");
    let [copied, same] = messages.as_slice() else { panic!("{messages:?}") };
    assert!(copied.contains(" 9999 more ") && same.contains(" 9998 more "), "{messages:?}");
}

#[test]
fn a_change_tells_anew_and_takes_back() {
    let settings = settings();
    let mut now = Arc::new(inputs(&world(&endpoint("10.0.0.1", "one", ""), "")));
    let mut translation = Translation::of(&now, &settings, None);
    assert_eq!(twice(translation.model()), []);
    let mut put = |text: String, translation: &mut Translation| {
        Arc::make_mut(&mut now).endpoint_slices.extend(inputs(&(service("b", &[]) + &text)).endpoint_slices);
        translation.renew(&now, &settings)
    };
    let on = |name: &str, of: &str, endpoints: &str| slice(name, of, PORTS, &format!("[{endpoints}]"));
    // A slice of a Service that nobody claims.
    let renewal = put(on("x", "b", &endpoint("10.0.0.1", "two", "")), &mut translation);
    assert_eq!(renewal.claimed, [std::net::IpAddr::from([10, 0, 0, 1])].into());
    assert_eq!(renewal.found.iter().filter(|it| it.reason == claimed::TWICE).count(), 1);
    assert_eq!(twice(translation.model()), [("EndpointSlice default/x", "endpoints[0].addresses[0]")]);
    // Now the first one is another, and nothing else of the second slice has changed.
    put(on("a", "a", &endpoint("10.0.0.1", "two", "")), &mut translation);
    assert_eq!(twice(translation.model()), []);
    put(on("a", "a", &endpoint("10.0.0.1", "three", "")), &mut translation);
    assert_eq!(twice(translation.model()).len(), 1);
    put(on("x", "b", &endpoint("10.0.0.9", "two", "")), &mut translation);
    assert_eq!(twice(translation.model()), []);
}
