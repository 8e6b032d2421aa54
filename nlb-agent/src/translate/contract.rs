//! Rows of the contract: one setting each, and what is to be said of it.

use super::tests::{AWS, inputs, model, service, service_on, settings, slice, told};
use super::*;
use crate::problem::Effect::{Clamped, DefaultUsed, Ignored, LoadBalancerRefused, LocalMeaning, PortRefused};
use crate::problem::Severity::{Normal, Warning};
use crate::problem::{Effect, Severity};

const PORTS: &str = "[{name: a, port: 443}, {name: b, port: 53}, {name: c, port: 53, protocol: UDP}]";

type Said = (Severity, &'static str, Effect);
type Row<'a> = (&'a [(&'a str, &'a str)], &'a [Said]);

/// What is said of a Service with these annotations; and that nothing else became of it.
fn rows(rows: &[Row<'_>]) {
    for (annotations, wanted) in rows {
        let model = model(&service_on("web", annotations, PORTS));
        assert_eq!(told(&model), *wanted, "{annotations:?}\n{:?}", model.problems);
        let refused = wanted.iter().any(|(_, _, effect)| *effect == LoadBalancerRefused);
        assert_eq!(model.load_balancers.is_empty(), refused, "{annotations:?}");
    }
}

const EMPTY: Said = (Normal, "EmptyValue", DefaultUsed);
const BAD: Said = (Warning, "InvalidAnnotation", LoadBalancerRefused);
const NO_EFFECT: Said = (Normal, "NoEffect", Ignored);

#[test]
fn an_empty_scalar_is_its_default() {
    for key in [
        "type",
        "scheme",
        "internal",
        "name",
        "ssl-negotiation-policy",
        "backend-protocol",
        "alpn-policy",
        "healthcheck-path",
        "healthcheck-healthy-threshold",
        "multi-cluster-target-group",
        "enable-tcp-udp-listener",
        "access-log-enabled",
        "connection-idle-timeout",
    ] {
        rows(&[(&[(key, " ")], &[EMPTY])]);
    }
    for key in ["ssl-cert", "ssl-ports", "quic-enabled-ports", "private-ipv4-addresses", "ipv6-addresses"] {
        rows(&[(&[(key, "")], &[EMPTY]), (&[(key, " , ")], &[EMPTY])]);
    }
    let ranges = service("web", &[]).replace(
        "annotations: {",
        "annotations: {service.beta.kubernetes.io/load-balancer-source-ranges: ' , '",
    );
    assert_eq!(told(&model(&ranges)), [EMPTY]);
}

#[test]
fn words_that_aws_passes_over_get_its_default_and_a_warning() {
    let passed_over = &[(Warning, "InvalidAnnotation", DefaultUsed)][..];
    rows(&[
        (&[("type", "externl")], passed_over),
        (&[("type", "external")], &[]),
        (&[("nlb-target-type", "pod")], passed_over),
        (&[("enable-tcp-udp-listener", "maybe")], passed_over),
        (&[("enable-tcp-udp-listener", "true")], &[(Normal, "LocalMeaning", LocalMeaning)]),
        (&[("enable-icmp-for-path-mtu-discovery", "yes")], passed_over),
        (&[("quic-enabled-ports", "c,99")], &[(Warning, "UnknownListener", Ignored)]),
        (&[("quic-enabled-ports", "53")], &[(Normal, "LocalMeaning", LocalMeaning)]),
    ]);
}

#[test]
fn a_bad_value_for_a_cloud_alone_is_said_and_stops_nothing() {
    let said = &[(Warning, "InvalidAnnotation", Ignored)][..];
    rows(&[
        (&[("access-log-enabled", "maybe")], said),
        (&[("access-log-emit-interval", "7m")], said),
        (&[("disable-nlb-sg", "yes")], said),
        (&[("additional-resource-tags", "team")], said),
        (&[("minimum-load-balancer-capacity", "5")], said),
        (&[("inbound-sg-rules-on-private-link-traffic", "true")], said),
        (&[("attributes", "access_logs.s3.enabled=maybe")], said),
        (&[("attributes", "dns_record.client_routing_policy=any")], said),
        (&[("additional-resource-tags", "team=a,cost=b")], &[NO_EFFECT]),
        (&[("attributes", "zonal_shift.config.enabled=true")], &[NO_EFFECT]),
    ]);
}

#[test]
fn one_setting_has_one_problem() {
    rows(&[
        (&[("ssl-ports", "x,y")], &[BAD]),
        (&[("private-ipv4-addresses", "x,::1,192.0.2.9")], &[BAD]),
        (&[("proxy-protocol-per-target-group", "x,y,1")], &[BAD]),
        (&[("proxy-protocol-per-target-group", "1,2")], &[(Warning, "UnknownListener", Ignored)]),
        (&[("proxy-protocol", "*")], &[(Warning, "ProxyProtocolNotSupported", PortRefused)]),
        (&[("proxy-protocol-per-target-group", "c")], &[NO_EFFECT]),
        (&[("quic-enabled-ports", "443,a")], &[BAD]),
        (&[("multi-cluster-target-group", "maybe")], &[BAD]),
        (&[("healthcheck-timeout", "500")], &[(Warning, "InvalidAnnotation", Clamped)]),
    ]);
    let merged = [("ssl-cert", "arn:x"), ("enable-tcp-udp-listener", "1")];
    let local = (Normal, "LocalMeaning", LocalMeaning);
    rows(&[(&merged, &[local, (Warning, "TlsNotSupported", PortRefused)])]);
    let only = service_on(
        "web",
        &merged,
        "[{name: b, port: 53}, {name: c, port: 53, protocol: UDP}, {name: d, port: 54}, {name: e, port: 54, protocol: UDP}]",
    );
    let only = model(&only);
    assert_eq!(told(&only), [local, NO_EFFECT]);
    assert_eq!(only.load_balancers[0].listeners.len(), 4);
}

#[test]
fn a_certificate_for_no_tcp_port_is_told() {
    rows(&[(&[("ssl-cert", "arn:x"), ("ssl-ports", "c")], &[NO_EFFECT])]);
    let udp = model(&service_on("web", &[("ssl-cert", "arn:x")], "[{port: 53, protocol: UDP}]"));
    assert_eq!(told(&udp), [NO_EFFECT]);
}

#[test]
fn what_is_asked_for_and_missing_is_told() {
    let later = (Warning, "NotYetSupported", Ignored);
    let note = (Normal, "NotYetSupported", Ignored);
    let group = "target-group-attributes";
    let failover = "target_group_health.dns_failover.minimum_healthy_targets";
    rows(&[
        (&[(group, "stickiness.enabled=true")], &[later]),
        (&[("target-group-attributes.443", "stickiness.enabled=true")], &[later]),
        (&[(group, "stickiness.enabled=false,stickiness.type=source_ip")], &[]),
        (&[("multi-cluster-target-group", "true")], &[later]),
        (&[("multi-cluster-target-group", "false")], &[]),
        (&[("attributes", "deletion_protection.enabled=true")], &[later]),
        (&[("attributes", "deletion_protection.enabled=false")], &[]),
        (&[(group, &format!("{failover}.count=2"))], &[note]),
        (&[(group, &format!("{failover}.percentage=50"))], &[note]),
        (&[(group, &format!("{failover}.count=off,{failover}.percentage=off"))], &[]),
        (&[(group, "deregistration_delay.connection_termination.enabled=false")], &[note]),
        (&[(group, "deregistration_delay.connection_termination.enabled=true")], &[]),
        (&[("target-node-labels", "disk=fast")], &[note]),
    ]);
    let affinity = service("web", &[]).replace("ports:", "sessionAffinity: ClientIP, ports:");
    assert_eq!(told(&model(&affinity)), [later]);
}

#[test]
fn what_another_setting_outweighs_is_told() {
    let unhealthy = "target_health_state.unhealthy";
    let group = "target-group-attributes";
    rows(&[
        (&[("scheme", "internet-facing"), ("internal", "true")], &[NO_EFFECT]),
        (&[("scheme", "internal"), ("internal", "0.0.0.0/0")], &[]),
        (&[(group, &format!("{unhealthy}.draining_interval_seconds=30"))], &[NO_EFFECT]),
        (
            &[(
                group,
                &format!(
                    "{unhealthy}.draining_interval_seconds=30,{unhealthy}.connection_termination.enabled=false"
                ),
            )],
            &[],
        ),
        (
            &[(group, "x=1"), ("target-group-attributes.443", "x=")],
            &[EMPTY, (Warning, "UnknownAttribute", Ignored)],
        ),
    ]);
    let two = service("web", &[("private-ipv4-addresses", "192.0.2.3")])
        .replace("ports:", "loadBalancerIP: 192.0.2.4, ports:");
    let two = model(&two);
    assert_eq!(told(&two), [NO_EFFECT]);
    assert_eq!(two.problems.last().unwrap().field.as_deref(), Some("spec.loadBalancerIP"));
    let ranges = service("web", &[])
        .replace(
            "annotations: {",
            "annotations: {service.beta.kubernetes.io/load-balancer-source-ranges: 10.0.0.0/8",
        )
        .replace("ports:", "loadBalancerSourceRanges: [0.0.0.0/0], ports:");
    assert_eq!(told(&model(&ranges)), [NO_EFFECT]);
}

#[test]
fn ranges_that_leave_nobody_out_are_no_restriction() {
    let open = |key: &str| {
        let text = service("web", &[(key, "x-1")]);
        told_of(&text.replace("ports:", "loadBalancerSourceRanges: [0.0.0.0/0], ports:"))
    };
    // Groups replace the ranges on AWS; prefix lists only add to them.
    assert_eq!(open("security-groups"), [("NoEffect".to_owned(), Warning)]);
    assert_eq!(open("security-group-prefix-lists"), [("NoEffect".to_owned(), Normal)]);
    let closed = service("web", &[("security-groups", "sg-1")])
        .replace("ports:", "loadBalancerSourceRanges: [10.0.0.0/8], ports:");
    let told = told_of(&closed);
    assert_eq!(told, [("NoEffect".to_owned(), Normal), ("SourceRangesNotSupported".to_owned(), Warning)]);
}

fn told_of(text: &str) -> Vec<(String, Severity)> {
    told(&model(text)).into_iter().map(|(severity, reason, _)| (reason.to_owned(), severity)).collect()
}

#[test]
fn a_requested_address_is_named_where_it_stands() {
    let field = |annotation: &str, address: &str| {
        let model = model(&service("web", &[(annotation, address)]));
        assert_eq!(model.load_balancers[0].vips, Vec::<std::net::IpAddr>::new());
        let problem = model.problems.iter().find(|it| it.reason == "AddressNotInPool").unwrap();
        assert_eq!(problem.value.as_deref(), Some(address));
        problem.field.clone().unwrap()
    };
    let key = "private-ipv4-addresses";
    assert_eq!(field(key, "198.51.100.1"), format!("metadata.annotations[{AWS}{key}]"));
}

#[test]
fn what_the_aws_controller_left_is_told() {
    let name = "k8s-app-web-1.elb.eu-west-1.amazonaws.com";
    let left = service("web", &[])
        .replace("metadata: {", "metadata: {finalizers: [service.k8s.aws/resources], ")
        + &format!("status: {{loadBalancer: {{ingress: [{{ip: 192.0.2.9}}, {{hostname: {name}}}]}}}}\n");
    let model = model(&left);
    assert_eq!(told(&model), [(Warning, "LeftByAws", Ignored); 2]);
    assert_eq!(model.problems[1].value.as_deref(), Some("service.k8s.aws/resources"));
    assert_eq!(model.problems[2].value.as_deref(), Some(name));
}

#[test]
fn without_a_node_at_hand_services_still_share_its_ports() {
    let settings = Settings { vips: Vips::AnyNode(30000..=32767), ..settings() };
    let text = service("a", &[])
        + &service("b", &[]).replace("ports:", "loadBalancerIP: 192.0.2.4, ports:")
        + &service_on("c", &[], "[{name: x, port: 80, protocol: UDP}, {name: z, port: 30001}]");
    let model = translate(&inputs(&text), &settings, None);
    let refused: Vec<Vec<u16>> =
        model.load_balancers.iter().map(|lb| lb.refused_ports.iter().map(|it| it.port).collect()).collect();
    assert_eq!(refused, [vec![], vec![80], vec![30001]]);
    assert!(model.load_balancers.iter().all(|lb| lb.vips.is_empty()));
    let taken = (Warning, "PortTaken", PortRefused);
    assert_eq!(told(&model), [NO_EFFECT, taken, taken]);
}

#[test]
fn a_node_with_a_ready_pod_of_any_port_accepts_local_traffic() {
    let local = service_on("web", &[], "[{name: a, port: 80}, {name: b, port: 99, protocol: SCTP}]")
        .replace("ports: [", "externalTrafficPolicy: Local, ports: [");
    let text = local
        + &slice("a", "web", "[{name: a, port: 80}]", "[{addresses: [10.0.0.1], nodeName: n1}]")
        + &slice(
            "b",
            "web",
            "[{name: b, port: 99, protocol: SCTP}]",
            "[{addresses: [10.0.0.2], nodeName: n2}]",
        )
        + &slice(
            "c",
            "web",
            "[{name: a, port: 80}]",
            "[{addresses: [10.0.0.3], nodeName: n3, conditions: {ready: false}}]",
        )
        + &["n1", "n2", "n3"]
            .map(|name| format!("---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n"))
            .concat();
    assert_eq!(
        model(&text).load_balancers[0].nodes.as_deref(),
        Some(&["n1".to_owned(), "n2".to_owned()][..])
    );
}

#[test]
fn a_setting_of_ours_that_is_not_is_led_to_aws_name_of_it() {
    let text =
        service("web", &[]).replace("annotations: {", "annotations: {nlb.io/healthcheck-interval: '5'");
    let model = model(&text);
    assert_eq!(told(&model), [(Warning, "UnknownAnnotation", Ignored)]);
    assert!(
        model.problems.iter().any(|it| it.message.contains(&format!("nlb reads {AWS}healthcheck-interval")))
    );
}

#[test]
fn families_that_do_not_meet_are_told() {
    let ports = "[{name: http, port: 80}]";
    let six = |text: String| text.replace("IPv4", "IPv6");
    let one = model(&(service("web", &[]) + &six(slice("a", "web", ports, "[{addresses: [2001:db8::1]}]"))));
    assert_eq!(told(&one), [(Warning, "FamilyNotServed", Ignored)]);
    let both =
        service("web", &[]).replace("ports:", "ipFamilies: [IPv6, IPv4], ipFamilyPolicy: POLICY, ports:");
    let pools = ["192.0.2.0/24", "2001:db8:1::/120"].map(|it| it.parse().unwrap()).to_vec();
    let vips = Vips::Pools(crate::vips::Pools { pools, reserved: Vec::new() });
    let text =
        both.replace("POLICY", "RequireDualStack") + &slice("a", "web", ports, "[{addresses: [10.0.0.1]}]");
    let half = translate(&inputs(&text), &Settings { vips, ..settings() }, None);
    assert_eq!(half.problems.len(), 1);
    assert!(half.problems[0].message.contains("2001:db8:1::1"), "{:?}", half.problems);
    // What is preferred takes what the pools have, whichever family comes first.
    assert_eq!(told(&model(&both.replace("POLICY", "PreferDualStack"))), []);
    assert_eq!(told(&model(&both.replace("POLICY", "RequireDualStack"))), [(Warning, "NoPool", Ignored)]);
}
