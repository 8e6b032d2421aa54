//! The JSON of `nlb-agent check`: its own types, so that the model may change and the contract does not.

use crate::model::{
    CheckPort, CheckProtocol, HealthCheck, HttpCheck, IpFamily, Listener, LoadBalancer, Model, PortRef,
    Protocol, RefusedPort, Scheme, Target, TargetGroup, Threshold, Unclaimed,
};
use crate::problem::Problem;
use serde::Serialize;
use std::net::IpAddr;

/// The whole output.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Output<'a> {
    load_balancers: Vec<LoadBalancerOut<'a>>,
    unclaimed: &'a [Unclaimed],
    problems: &'a [Problem],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LoadBalancerOut<'a> {
    namespace: &'a str,
    name: &'a str,
    class: Option<&'a str>,
    scheme: Scheme,
    ip_families: &'a [IpFamily],
    vips: &'a [IpAddr],
    deletion_protection: bool,
    listeners: Vec<ListenerOut<'a>>,
    refused_ports: &'a [RefusedPort],
    target_groups: Vec<TargetGroupOut<'a>>,
    nodes: Option<&'a [String]>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListenerOut<'a> {
    port: u16,
    protocol: Protocol,
    idle_timeout_seconds: u64,
    source_ranges: &'a [ipnet::IpNet],
    forward: Vec<ForwardOut<'a>>,
    target_group_stickiness: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ForwardOut<'a> {
    target_group: &'a str,
    weight: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TargetGroupOut<'a> {
    name: &'a str,
    protocol: Protocol,
    target_type: &'static str,
    target_port: &'a PortRef,
    health_check: HealthCheckOut<'a>,
    preserve_client_ip: bool,
    proxy_protocol_v2: bool,
    stickiness: Option<&'static str>,
    cross_zone: bool,
    deregistration_delay_seconds: u64,
    deregistration_connection_termination: bool,
    unhealthy_connection_termination: bool,
    unhealthy_draining_interval_seconds: u64,
    minimum_healthy_targets: Threshold,
    dns_failover: Threshold,
    targets: Vec<TargetOut<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HealthCheckOut<'a> {
    protocol: &'static str,
    port: PortOut<'a>,
    path: Option<&'a str>,
    success_codes: Option<String>,
    interval_seconds: u64,
    timeout_seconds: u64,
    healthy_threshold: u32,
    unhealthy_threshold: u32,
}

#[derive(Serialize)]
#[serde(untagged)]
enum PortOut<'a> {
    Number(u16),
    Word(&'a str),
}

#[derive(Serialize)]
struct TargetOut<'a> {
    ip: IpAddr,
    port: u16,
    node: Option<&'a str>,
    zone: Option<&'a str>,
    state: &'static str,
    reason: &'static str,
}

impl<'a> Output<'a> {
    pub(super) fn of(model: &'a Model) -> Self {
        let load_balancers = model.load_balancers.iter().map(load_balancer).collect();
        Self { load_balancers, unclaimed: &model.unclaimed, problems: &model.problems }
    }
}

fn load_balancer(lb: &LoadBalancer) -> LoadBalancerOut<'_> {
    LoadBalancerOut {
        namespace: &lb.namespace,
        name: &lb.name,
        class: lb.class.as_deref(),
        scheme: lb.scheme,
        ip_families: &lb.ip_families,
        vips: &lb.vips,
        deletion_protection: lb.deletion_protection,
        listeners: lb.listeners.iter().map(listener).collect(),
        refused_ports: &lb.refused_ports,
        target_groups: lb.target_groups.iter().map(target_group).collect(),
        nodes: lb.nodes.as_deref(),
    }
}

fn listener(it: &Listener) -> ListenerOut<'_> {
    let forward =
        it.forward.iter().map(|to| ForwardOut { target_group: &to.target_group, weight: to.weight });
    ListenerOut {
        port: it.port,
        protocol: it.protocol,
        idle_timeout_seconds: it.idle_timeout.as_secs(),
        source_ranges: &it.source_ranges,
        forward: forward.collect(),
        target_group_stickiness: it.target_group_stickiness,
    }
}

fn target_group(it: &TargetGroup) -> TargetGroupOut<'_> {
    TargetGroupOut {
        name: &it.name,
        protocol: it.protocol,
        target_type: it.target_type.word(),
        target_port: &it.target_port,
        health_check: health_check(&it.health_check),
        preserve_client_ip: it.preserve_client_ip,
        proxy_protocol_v2: it.proxy_protocol_v2,
        stickiness: it.source_ip_stickiness.then_some("source_ip"),
        cross_zone: it.cross_zone,
        deregistration_delay_seconds: it.deregistration_delay.as_secs(),
        deregistration_connection_termination: it.deregistration_connection_termination,
        unhealthy_connection_termination: it.unhealthy_connection_termination,
        unhealthy_draining_interval_seconds: it.unhealthy_draining_interval.as_secs(),
        minimum_healthy_targets: it.minimum_healthy_targets,
        dns_failover: it.dns_failover,
        targets: it.targets.iter().map(target).collect(),
    }
}

fn health_check(it: &HealthCheck) -> HealthCheckOut<'_> {
    let (protocol, http) = match &it.protocol {
        CheckProtocol::Tcp => ("TCP", None),
        CheckProtocol::Http(http) => ("HTTP", Some(http)),
        CheckProtocol::Https(http) => ("HTTPS", Some(http)),
    };
    HealthCheckOut {
        protocol,
        port: match &it.port {
            CheckPort::TrafficPort => PortOut::Word("traffic-port"),
            CheckPort::Number(number) => PortOut::Number(*number),
            CheckPort::Name(name) => PortOut::Word(name),
        },
        path: http.map(|it| it.path.as_str()),
        success_codes: http.map(success_codes),
        interval_seconds: it.interval.as_secs(),
        timeout_seconds: it.timeout.as_secs(),
        healthy_threshold: it.healthy_threshold,
        unhealthy_threshold: it.unhealthy_threshold,
    }
}

fn success_codes(http: &HttpCheck) -> String {
    let range = |(first, last): &(u16, u16)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    http.success_codes.iter().map(range).collect::<Vec<_>>().join(",")
}

/// Before anything runs, a target is being registered, or on its way out.
fn target(it: &Target) -> TargetOut<'_> {
    let leaving = it.conditions.terminating || !it.conditions.ready;
    let (state, reason) = if leaving {
        ("draining", "Target.DeregistrationInProgress")
    } else {
        ("initial", "Elb.RegistrationInProgress")
    };
    TargetOut {
        ip: it.key.ip,
        port: it.key.port,
        node: it.node.as_deref(),
        zone: it.zone.as_deref(),
        state,
        reason,
    }
}
