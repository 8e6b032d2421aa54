//! What holds for every Service, however it is written.

use super::kept_tests::read_back;
use super::tests::{AWS, inputs, model, service, service_on, settings, slice};
use super::*;
use crate::problem::Effect;
use k8s_openapi::api::discovery::v1::EndpointSlice;
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
        "quic-enabled-ports",
        "enable-tcp-udp-listener",
        "multi-cluster-target-group",
        "access-log-enabled",
        "additional-resource-tags",
        "ssl-negotiation-policy",
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
    let service = Arc::make_mut(inputs.services.get_mut(&ObjectName::new("default", "broken")).unwrap());
    service.metadata.annotations =
        Some(annotations.iter().map(|(key, value)| (format!("{AWS}{key}"), value.clone())).collect());
    inputs
}

/// A document that comes in, in place of one of its kind and name, or an EndpointSlice or a Service that goes.
#[derive(Clone, Debug)]
enum Step {
    Put(String),
    RemoveSlice(ObjectName),
    RemoveService(ObjectName),
}

/// Few names, so that steps meet.
fn step() -> impl Strategy<Value = Step> {
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    let ports = prop::sample::select(vec![
        "[{name: http, port: 8080}]",
        "[{name: http, port: 8081}]",
        "[{name: other, port: 8080}]",
        "[{name: http}]",
        "[]",
    ]);
    let endpoint = prop::sample::select(vec![
        "{addresses: [10.0.0.1]}",
        "{addresses: [10.0.0.2], conditions: {ready: false}}",
        "{addresses: [10.0.0.2], targetRef: {kind: Pod, name: p, uid: one}}",
        "{addresses: [10.0.0.2], targetRef: {kind: Pod, name: p, uid: two}}",
        "{addresses: [10.0.0.2], nodeName: unknown, targetRef: {kind: Pod, name: p, uid: three}}",
        "{addresses: [10.0.0.3], targetRef: {kind: Pod, name: q, uid: two}, conditions: {ready: false}}",
        "{addresses: [10.0.0.3], nodeName: here, targetRef: {kind: Pod, uid: four}}",
        "{addresses: [10.0.0.3], nodeName: here}",
        "{addresses: [192.0.2.1]}",
        "{addresses: [127.0.0.1]}",
    ]);
    let endpoints = prop::collection::vec(endpoint, 0..4).prop_map(|all| format!("[{}]", all.join(", ")));
    let put_slice = (name(), prop::sample::select(vec!["a", "b", "c", "gone"]), ports, endpoints);
    let put_slice = put_slice.prop_map(|(name, of, ports, endpoints)| slice(name, of, ports, &endpoints));
    let settings = prop::sample::select(vec![
        vec![],
        vec![("healthcheck-interval", "ten")],
        vec![("healthcheck-interval", "20")],
        vec![("type", "nlb-ip"), ("nonsense", "1")],
    ]);
    let served = prop::sample::select(vec![
        "[{name: http, port: 80, targetPort: web}]",
        "[{name: http, port: 81, targetPort: web}]",
        "[{name: other, port: 80, targetPort: 8080}]",
        "[{name: other, port: 81, targetPort: 8080}, {name: http, port: 82}]",
    ]);
    let put_service = (name(), settings, served);
    let put_service = put_service.prop_map(|(name, settings, ports)| service_on(name, &settings, ports));
    let node = "---\napiVersion: v1\nkind: Node\nmetadata: {name: here}\n".to_owned();
    prop_oneof![
        6 => put_slice.prop_map(Step::Put),
        2 => name().prop_map(|name| Step::RemoveSlice(ObjectName::new("default", name))),
        1 => name().prop_map(|name| Step::RemoveService(ObjectName::new("default", name))),
        4 => put_service.prop_map(Step::Put),
        1 => Just(Step::Put(node)),
    ]
}

/// A restarted agent comes to what a living one has; where endpoints listen that no slice tells of, only the living one may know.
fn same_but_for_untold_ports(living: &Model, restarted: &Model, now: &Inputs) -> Result<(), TestCaseError> {
    let told = |group: &TargetGroup| {
        let service = group.name.split(['/', ':']).nth(1).unwrap();
        let names = |slice: &Arc<EndpointSlice>| {
            slice.metadata.labels.as_ref().unwrap()["kubernetes.io/service-name"] == service
                && slice.ports.iter().flatten().any(|it| it.name == group.slice_port && it.port.is_some())
        };
        now.endpoint_slices.values().any(names)
    };
    let without_untold = |model: &Model| {
        let mut lbs = model.load_balancers.clone();
        let groups = lbs.iter_mut().flat_map(|it| &mut it.target_groups);
        groups.filter(|it| !told(it)).for_each(|it| it.targets.clear());
        lbs
    };
    prop_assert_eq!(without_untold(living), without_untold(restarted));
    prop_assert_eq!(&living.problems, &restarted.problems);
    Ok(())
}

proptest! {
    #[test]
    fn a_translation_that_goes_on_comes_to_what_a_new_one_would(steps in prop::collection::vec(step(), 1..25)) {
        let settings = settings();
        let mut now = Arc::<Inputs>::default();
        let mut translation = Translation::of(&now, &settings, None);
        for step in steps {
            match step {
                Step::Put(text) => {
                    let Inputs { services, endpoint_slices, nodes, .. } = inputs(&text);
                    let now = Arc::make_mut(&mut now);
                    now.services.extend(services);
                    now.endpoint_slices.extend(endpoint_slices);
                    now.nodes.extend(nodes);
                }
                Step::RemoveSlice(name) => drop(Arc::make_mut(&mut now).endpoint_slices.remove(&name)),
                Step::RemoveService(name) => drop(Arc::make_mut(&mut now).services.remove(&name)),
            }
            let before = translation.model().clone();
            let renewal = translation.renew(&now, &settings);
            prop_assert_eq!(translation.model(), &translate(&now, &settings, Some(&before)));
            let after = translation.model();
            let last_good = Model { load_balancers: read_back(&before.load_balancers), ..Model::default() };
            same_but_for_untold_ports(after, &translate(&now, &settings, Some(&last_good)), &now)?;
            let is_new = |problem: &&Problem| !before.problems.contains(problem);
            prop_assert_eq!(
                renewal.found.iter().collect::<std::collections::BTreeSet<_>>(),
                after.problems.iter().filter(is_new).collect()
            );
            match renewal.extent {
                Extent::Nothing => prop_assert_eq!(&before, after),
                Extent::Targets(places) => {
                    prop_assert_eq!(before.load_balancers.len(), after.load_balancers.len());
                    let pairs = before.load_balancers.iter().zip(&after.load_balancers).enumerate();
                    for (_, (a, b)) in pairs.filter(|(place, _)| !places.contains(place)) {
                        prop_assert_eq!(a, b);
                    }
                }
                Extent::All => {}
            }
        }
    }
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
        let mut settings = std::collections::BTreeSet::new();
        for problem in model.problems.iter().filter(|it| it.field.is_some()) {
            let field = problem.field.as_deref().unwrap_or_default();
            prop_assert!(problem.message.contains(field), "{:?}", problem);
            prop_assert!(settings.insert((&problem.object, field, &problem.value)), "{:?}", model.problems);
        }
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
