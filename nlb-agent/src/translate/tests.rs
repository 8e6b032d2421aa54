//! Whole Services in, models out.

use super::*;
use crate::manifests;
use crate::model::{CheckPort, CheckProtocol};
use crate::problem::{Effect, Severity};
use crate::vips::Pools;
use std::path::Path;
use std::time::Duration;

pub(super) const AWS: &str = "service.beta.kubernetes.io/aws-load-balancer-";

pub(super) fn inputs(text: &str) -> Inputs {
    let reading = manifests::parse("test", text);
    assert_eq!(reading.errors, []);
    let collected = manifests::collect([(Path::new("test"), &reading)]);
    assert_eq!(collected.problems, []);
    collected.inputs
}

/// A Service of class nlb.io/nlb on port 80 with these short AWS annotations.
pub(super) fn service(name: &str, annotations: &[(&str, &str)]) -> String {
    service_on(name, annotations, "[{name: http, port: 80, targetPort: web}]")
}

pub(super) fn service_on(name: &str, annotations: &[(&str, &str)], ports: &str) -> String {
    let value = |text: &str| serde_json::to_string(text).unwrap();
    let annotations: Vec<_> = annotations
        .iter()
        .map(|(key, text)| format!("{}: {}", value(&format!("{AWS}{key}")), value(text)))
        .collect();
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, annotations: {{{}}}}}\nspec: {{type: LoadBalancer, loadBalancerClass: nlb.io/nlb, ports: {ports}}}\n",
        annotations.join(", ")
    )
}

pub(super) fn slice(name: &str, service: &str, ports: &str, endpoints: &str) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, labels: {{kubernetes.io/service-name: {service}}}}}\naddressType: IPv4\nports: {ports}\nendpoints: {endpoints}\n"
    )
}

pub(super) fn settings() -> Settings {
    let pools = vec!["192.0.2.0/24".parse().unwrap()];
    Settings {
        vips: Vips::Pools(Pools { pools, reserved: Vec::new() }),
        node_name: Some("here".into()),
        ..Settings::default()
    }
}

pub(super) fn model(text: &str) -> Model {
    translate(&inputs(text), &settings(), None)
}

/// Reasons and effects of the problems, without the one that says that nothing stands behind a Service.
pub(super) fn told(model: &Model) -> Vec<(Severity, &str, Effect)> {
    let problems = model.problems.iter().filter(|it| it.reason != "NoEndpoints");
    problems.map(|it| (it.severity, it.reason.as_str(), it.effect)).collect()
}

pub(super) fn ips(group: &TargetGroup) -> Vec<String> {
    group.targets.iter().map(|it| it.key.socket().to_string()).collect()
}

#[test]
fn every_health_check_annotation_is_read() {
    let model = model(&service(
        "web",
        &[
            ("healthcheck-protocol", " https "),
            ("healthcheck-port", "http"),
            ("healthcheck-path", "/ready?deep=1"),
            ("healthcheck-success-codes", "200, 204-206"),
            ("healthcheck-interval", " 20 "),
            ("healthcheck-timeout", "5"),
            ("healthcheck-healthy-threshold", ""),
            ("healthcheck-unhealthy-threshold", "4"),
        ],
    ));
    let check = &model.load_balancers[0].target_groups[0].health_check;
    let CheckProtocol::Https(http) = &check.protocol else { panic!("{check:?}") };
    assert_eq!(
        (http.path.as_str(), http.success_codes.as_slice()),
        ("/ready?deep=1", &[(200, 200), (204, 206)][..])
    );
    assert_eq!(check.port, CheckPort::Name("web".into()));
    assert_eq!((check.interval, check.timeout), (Duration::from_secs(20), Duration::from_secs(5)));
    assert_eq!((check.healthy_threshold, check.unhealthy_threshold), (3, 4));
    assert_eq!(told(&model), [(Severity::Normal, "EmptyValue", Effect::DefaultUsed)]);
}

#[test]
fn numbers_out_of_range_are_clamped() {
    let cases = [
        (&[("healthcheck-interval", "99999999999999999999")][..], (300, 10), 1),
        (&[("healthcheck-interval", "-5")], (1, 1), 1),
        (&[("healthcheck-interval", "5")], (5, 5), 0),
        (&[("healthcheck-timeout", "30")], (10, 10), 1),
        (&[("healthcheck-interval", "60"), ("healthcheck-timeout", "500")], (60, 60), 1),
    ];
    for (annotations, (interval, timeout), problems) in cases {
        let model = model(&service("web", annotations));
        let check = &model.load_balancers[0].target_groups[0].health_check;
        assert_eq!(
            (check.interval.as_secs(), check.timeout.as_secs()),
            (interval, timeout),
            "{annotations:?}"
        );
        assert_eq!(
            told(&model),
            vec![(Severity::Warning, "InvalidAnnotation", Effect::Clamped); problems],
            "{annotations:?}"
        );
    }
}

#[test]
fn attributes_of_groups_and_listeners() {
    let ports = "[{name: a, port: 80}, {name: b, port: 80, protocol: UDP}, {name: c, port: 81}]";
    let model = model(&service_on(
        "web",
        &[
            (
                "target-group-attributes",
                "deregistration_delay.timeout_seconds=60,stickiness.enabled=true,target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage=50,target_group_health.dns_failover.minimum_healthy_targets.count=off,preserve_client_ip.enabled=false",
            ),
            ("target-group-attributes.81", "deregistration_delay.timeout_seconds=7,stickiness.enabled="),
            ("listener-attributes.TCP-81", "tcp.idle_timeout.seconds=60"),
            ("connection-idle-timeout", "30"),
        ],
        ports,
    ));
    let lb = &model.load_balancers[0];
    let idle: Vec<_> = lb.listeners.iter().map(|it| it.idle_timeout.as_secs()).collect();
    assert_eq!(idle, [30, 120, 60]);
    let delay: Vec<_> = lb.target_groups.iter().map(|it| it.deregistration_delay.as_secs()).collect();
    assert_eq!(delay, [60, 60, 7]);
    let [tcp, udp, other] = &lb.target_groups[..] else { panic!("{lb:?}") };
    assert_eq!(
        (tcp.minimum_healthy_targets.count, tcp.minimum_healthy_targets.percentage),
        (Some(1), Some(50))
    );
    assert_eq!((tcp.dns_failover.count, tcp.dns_failover.percentage), (None, None));
    assert!(!tcp.preserve_client_ip && udp.preserve_client_ip && other.source_ip_stickiness);
    assert!(udp.deregistration_connection_termination && !udp.unhealthy_connection_termination);
    assert_eq!(
        told(&model),
        [
            (Severity::Normal, "LocalMeaning", Effect::LocalMeaning),
            (Severity::Normal, "EmptyValue", Effect::DefaultUsed),
            (Severity::Warning, "NotForUdp", Effect::Ignored),
            (Severity::Warning, "NotYetSupported", Effect::Ignored),
        ]
    );
}

#[test]
fn ports_that_must_not_be_served() {
    let ports = "[{name: a, port: 443}, {name: b, port: 80}, {name: c, port: 53, protocol: UDP}, {name: d, port: 99, protocol: SCTP}]";
    let refused = |annotations: &[(&str, &str)]| {
        let model = model(&service_on("web", annotations, ports));
        let lb = model.load_balancers[0].clone();
        assert_eq!(lb.listeners.len() + lb.refused_ports.len(), 4);
        assert_eq!(lb.listeners.len(), lb.target_groups.len());
        lb.refused_ports.into_iter().map(|it| (it.port, it.reason)).collect::<Vec<_>>()
    };
    let row = |port: u16, reason: &str| (port, reason.to_owned());
    assert_eq!(refused(&[]), [row(99, "ProtocolNotSupported")]);
    assert_eq!(refused(&[("ssl-cert", "arn:x"), ("ssl-ports", "a")])[0], row(443, "TlsNotSupported"));
    assert_eq!(refused(&[("ssl-cert", "arn:x")]).len(), 3);
    assert_eq!(refused(&[("ssl-ports", "443")]).len(), 1);
    assert_eq!(refused(&[("proxy-protocol", "*")]).len(), 3);
    assert_eq!(
        refused(&[("proxy-protocol-per-target-group", "80,53")])[0],
        row(80, "ProxyProtocolNotSupported")
    );
    assert_eq!(
        refused(&[("target-group-attributes.443", "proxy_protocol_v2.enabled=true")])[0],
        row(443, "ProxyProtocolNotSupported")
    );
    assert_eq!(refused(&[("security-group-prefix-lists", "pl-1")]).len(), 4);
    let all = model(&service_on("web", &[("ssl-cert", "arn:x")], "[{port: 443}]"));
    assert_eq!(all.load_balancers[0].listeners, []);
}

#[test]
fn targets_come_from_slices_by_port_name() {
    let ports = "[{name: http, port: 8080}]";
    let text = service("web", &[])
        + &slice(
            "a",
            "web",
            ports,
            "[{addresses: [10.0.0.2], nodeName: here, targetRef: {uid: u2}}, {addresses: [10.0.0.1], nodeName: there, conditions: {ready: false, terminating: true}}, {addresses: [127.0.0.1]}, {addresses: [192.0.2.1]}, {addresses: [10.0.0.8, 10.0.0.9]}]",
        )
        + &slice(
            "b",
            "web",
            "[{name: http, port: 9090}, {name: other, port: 1}]",
            "[{addresses: [10.0.0.3]}]",
        )
        + &slice("c", "web", ports, "[{addresses: [10.0.0.2], nodeName: here, targetRef: {uid: u2}}]")
        + &slice("d", "nobody", ports, "[{addresses: [10.0.0.7]}]");
    let model = model(&text);
    let group = &model.load_balancers[0].target_groups[0];
    assert_eq!(ips(group), ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:9090", "10.0.0.8:8080"]);
    assert_eq!(group.targets.iter().map(|it| it.local).collect::<Vec<_>>(), [false, true, true, true]);
    let gone = group.targets[0].conditions;
    assert!(!gone.ready && !gone.serving && gone.terminating);
    let fields: Vec<_> =
        model.problems.iter().map(|it| (it.object.as_str(), it.field.as_deref().unwrap())).collect();
    assert_eq!(
        fields,
        [
            ("EndpointSlice default/a", "endpoints[2].addresses[0]"),
            ("EndpointSlice default/a", "endpoints[3].addresses[0]"),
            ("EndpointSlice default/a", "endpoints[4].addresses[1]"),
            ("EndpointSlice default/b", "ports[1].name"),
            ("EndpointSlice default/d", "metadata.labels[kubernetes.io/service-name]"),
        ]
    );
}

#[test]
fn names_that_match_no_port_and_services_without_endpoints_are_told() {
    let text =
        service("web", &[]) + &slice("a", "web", "[{name: htpt, port: 8080}]", "[{addresses: [10.0.0.1]}]");
    let named = model(&text);
    assert_eq!(
        named.problems.iter().map(|it| it.reason.as_str()).collect::<Vec<_>>(),
        ["PortNameNotFound"; 2]
    );
    let empty = model(&service("web", &[]));
    assert_eq!(
        (empty.problems[0].reason.as_str(), empty.problems[0].severity),
        ("NoEndpoints", Severity::Normal)
    );
}

#[test]
fn too_many_targets_are_cut_and_told() {
    let count = nlb_common::ring::MAX_TARGETS_PER_SET + 5;
    let endpoints: Vec<_> =
        (0..count).map(|n| format!("{{addresses: [10.1.{}.{}]}}", n >> 8, n & 255)).collect();
    let model = model(
        &(service("web", &[])
            + &slice("a", "web", "[{name: http, port: 80}]", &format!("[{}]", endpoints.join(",")))),
    );
    assert_eq!(model.load_balancers[0].target_groups[0].targets.len() as u32, count - 5);
    assert_eq!(told(&model), [(Severity::Warning, "TooManyTargets", Effect::Clamped)]);
}

#[test]
fn on_the_nodes_own_addresses_the_older_and_the_node_win() {
    let node = NodeVips {
        addresses: vec!["198.51.100.9".parse().unwrap()],
        listening: vec![Listening {
            protocol: Protocol::Tcp,
            address: "::".parse().unwrap(),
            port: 22,
            owner: "sshd (pid 1)".into(),
        }],
        node_ports: Some(30000..=32767),
        local_ports: Some(32768..=60999),
    };
    let ports = "[{name: a, port: 80}, {name: b, port: 22}, {name: c, port: 30001}, {name: d, port: 40000}]";
    let young = service_on("a", &[], "[{port: 80}]");
    let old = service_on("b", &[], ports)
        .replace("{name: b,", "{name: b, creationTimestamp: 2026-01-01T00:00:00Z,")
        .replacen("{name: b, creationTimestamp: 2026-01-01T00:00:00Z, port", "{name: b, port", 1);
    let settings = Settings { vips: Vips::Node(node), ..settings() };
    let model = translate(&inputs(&(young + &old)), &settings, None);
    let [a, b] = &model.load_balancers[..] else { panic!("{model:?}") };
    assert_eq!(
        a.refused_ports.iter().map(|it| (it.port, it.reason.as_str())).collect::<Vec<_>>(),
        [(80, "PortTaken")]
    );
    assert_eq!(b.refused_ports.iter().map(|it| it.port).collect::<Vec<_>>(), [22, 30001]);
    assert_eq!(b.listeners.iter().map(|it| it.port).collect::<Vec<_>>(), [80, 40000]);
    assert!(model.problems.iter().any(|it| it.message.contains("sshd (pid 1)")));
    assert!(model.problems.iter().any(|it| it.reason == "LocalPortRange"));
}

#[test]
fn addresses_stay_over_changes_and_restarts() {
    let first = translate(&inputs(&(service("b", &[]) + &service("c", &[]))), &settings(), None);
    let text = service("a", &[]) + &service("b", &[]) + &service("c", &[]);
    let second = translate(&inputs(&text), &settings(), Some(&first));
    let vip = |model: &Model, at: usize| model.load_balancers[at].vips[0].to_string();
    assert_eq!([vip(&second, 0), vip(&second, 1), vip(&second, 2)], ["192.0.2.3", "192.0.2.1", "192.0.2.2"]);
    let remembered = crate::vips::Allocations::of(&second.load_balancers);
    let restarted = translate(&inputs(&text), &Settings { remembered, ..settings() }, None);
    assert_eq!(restarted, second);
}

#[test]
fn what_nobody_knows_is_told_and_sources_are_never_opened() {
    let typo = model(&service(
        "web",
        &[
            ("helthcheck-path", "/"),
            ("subnets", "a,b"),
            ("target-group-attributes", "slow_start.duration_seconds=1,x=2"),
        ],
    ));
    let reasons: Vec<_> = told(&typo).iter().map(|it| it.1).collect();
    assert_eq!(reasons, ["UnknownAnnotation", "NoEffect", "UnknownAttribute", "UnknownAttribute"]);
    let closed = service("web", &[]).replace("ports:", "loadBalancerSourceRanges: [10.1.2.3/8], ports:");
    let refused = model(&closed);
    assert_eq!(refused.load_balancers[0].refused_ports[0].reason, "SourceRangesNotSupported");
    let settings = Settings { source_ranges_enforced: true, ..settings() };
    let served = translate(&inputs(&closed), &settings, None);
    assert_eq!(served.load_balancers[0].listeners[0].source_ranges, ["10.0.0.0/8".parse().unwrap()]);
}

#[test]
fn two_services_of_one_name_both_work() {
    let model = model(&(service("a", &[("name", "edge")]) + &service("b", &[("name", "edge")])));
    assert_eq!(model.load_balancers.len(), 2);
    assert_eq!(told(&model), [(Severity::Warning, "DuplicateName", Effect::LocalMeaning)]);
}
