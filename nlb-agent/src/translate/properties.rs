//! What holds for every Service, however it is written.

use super::tests::{AWS, inputs, model, service, settings, slice};
use super::*;
use crate::problem::Effect;
use proptest::prelude::*;

/// Keys that somebody reads, and one that nobody does.
fn annotation() -> impl Strategy<Value = (String, String)> {
    let keys = prop::sample::select(vec![
        "type",
        "nlb-target-type",
        "name",
        "scheme",
        "internal",
        "ip-address-type",
        "private-ipv4-addresses",
        "ipv6-addresses",
        "ssl-cert",
        "ssl-ports",
        "healthcheck-protocol",
        "healthcheck-port",
        "healthcheck-path",
        "healthcheck-success-codes",
        "healthcheck-interval",
        "healthcheck-timeout",
        "healthcheck-healthy-threshold",
        "target-group-attributes",
        "target-group-attributes.80",
        "proxy-protocol",
        "proxy-protocol-per-target-group",
        "attributes",
        "listener-attributes.TCP-80",
        "listener-attributes.",
        "connection-draining-timeout",
        "connection-idle-timeout",
        "security-groups",
        "target-node-labels",
        "nonsense",
    ]);
    let values = prop_oneof![
        any::<String>(),
        "-?[0-9]{0,22}",
        "[a-z_.]{0,9}=[0-9]{0,12},?",
        prop::sample::select(vec!["", "true", "http", "HTTP", "ip", "*", "80", "dualstack", "10.0.0.1,::1"])
            .prop_map(str::to_owned),
        prop::sample::select(vec![
            "deregistration_delay.timeout_seconds",
            "stickiness.type",
            "proxy_protocol_v2.enabled"
        ])
        .prop_flat_map(|key| any::<u8>().prop_map(move |value| format!("{key}={value}"))),
    ];
    (keys.prop_map(str::to_owned), values)
}

fn annotated(text: &str, annotations: &[(String, String)]) -> Inputs {
    let mut inputs = inputs(text);
    let service =
        std::sync::Arc::make_mut(inputs.services.get_mut(&ObjectName::new("default", "broken")).unwrap());
    service.metadata.annotations =
        Some(annotations.iter().map(|(key, value)| (format!("{AWS}{key}"), value.clone())).collect());
    inputs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_annotation_panics_or_harms_another_service(annotations in prop::collection::vec(annotation(), 0..5), before in any::<bool>()) {
        let ports = "[{name: http, port: 8080}]";
        let healthy = service("healthy", &[]).replace("metadata: {", "metadata: {creationTimestamp: 2026-01-01T00:00:00Z, ")
            + &slice("s", "healthy", ports, "[{addresses: [10.0.0.1]}]");
        let text = healthy + &service("broken", &[]) + &slice("t", "broken", ports, "[{addresses: [10.0.0.2]}]");
        let plain = translate(&annotated(&text, &[]), &settings(), None);
        let find = |model: &Model| model.load_balancers.iter().find(|it| it.name == "healthy").cloned();
        let model = translate(&annotated(&text, &annotations), &settings(), before.then_some(&plain));
        prop_assert_eq!(find(&model), find(&plain));
        // A Service is there, or somebody is told why not.
        let there = model.load_balancers.iter().any(|it| it.name == "broken");
        let refused = model.problems.iter().any(|it| it.effect == Effect::LoadBalancerRefused);
        prop_assert_eq!(there, !refused);
        prop_assert!(there || !before);
        prop_assert!(model.problems.iter().all(|it| it.message.len() <= 1000));
    }

    #[test]
    fn the_order_of_documents_changes_nothing(order in Just((0..6).collect::<Vec<usize>>()).prop_shuffle()) {
        let ports = "[{name: http, port: 8080}]";
        let documents = [
            service("a", &[("healthcheck-interval", "ten")]),
            service("b", &[("nonsense", "1")]),
            service("c", &[("private-ipv4-addresses", "192.0.2.1")]),
            slice("a", "b", ports, "[{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}]"),
            slice("b", "b", ports, "[{addresses: [10.0.0.2], conditions: {ready: false}}, {addresses: [127.0.0.1]}]"),
            slice("c", "gone", ports, "[{addresses: [10.0.0.1]}]"),
        ];
        let shuffled: String = order.iter().map(|at| documents[*at].as_str()).collect();
        prop_assert_eq!(model(&shuffled), model(&documents.concat()));
    }
}
