//! Attributes of target groups and the load balancer (contract 1.4, 1.5).

use super::annotations::{AWS, Annotations, Setting, boolean, integer, is_given, read_boolean};
use super::findings::Findings;
use super::known::{Syntax, later, no_effect};
use super::listeners::no_such_listener;
use super::ports::Port;
use crate::model::{Protocol, Threshold};
use crate::problem::Effect;
use std::collections::BTreeMap;
use std::time::Duration;

/// What the attributes of one target group say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupAttributes {
    pub(super) deregistration_delay: Duration,
    pub(super) deregistration_connection_termination: bool,
    pub(super) unhealthy_connection_termination: bool,
    pub(super) unhealthy_draining_interval: Duration,
    pub(super) minimum_healthy_targets: Threshold,
    pub(super) dns_failover: Threshold,
    pub(super) source_ip_stickiness: bool,
    pub(super) preserve_client_ip: bool,
    /// `None`: as the load balancer.
    pub(super) cross_zone: Option<bool>,
    /// Where PROXY v2 is asked for.
    pub(super) proxy_protocol: Option<Setting>,
}

/// Attributes of the kind of load balancer that works on layer 7.
const LAYER_7: [&str; 4] = ["slow_start.", "load_balancing.algorithm.", "lambda.", "stickiness."];

type Map = BTreeMap<String, Setting>;

/// The attribute maps of a Service, read once.
pub(super) struct AttributeMaps {
    general: Map,
    by_port: BTreeMap<u16, Map>,
    drain_alias: Option<Duration>,
}

impl AttributeMaps {
    pub(super) fn read(annotations: &Annotations<'_>, ports: &[Port], findings: &mut Findings) -> Self {
        let general = annotations.map("target-group-attributes", findings).unwrap_or_default();
        let mut by_port = BTreeMap::new();
        let prefix = format!("{AWS}target-group-attributes.");
        for suffix in annotations.keys().filter_map(|key| key.strip_prefix(&prefix)) {
            let key = format!("target-group-attributes.{suffix}");
            match suffix.parse::<u16>().ok().filter(|number| ports.iter().any(|port| port.number == *number))
            {
                Some(number) => {
                    by_port.insert(number, annotations.map(&key, findings).unwrap_or_default());
                }
                None => no_such_listener(annotations.short(&key), findings),
            }
        }
        let drain_alias = drain_alias(annotations, &general, findings);
        Self { general, by_port, drain_alias }
    }

    /// The attributes of one port: its own before the general ones, but an empty one of its own says nothing.
    pub(super) fn group(
        &self,
        port: u16,
        protocol: Protocol,
        preserve: bool,
        findings: &mut Findings,
    ) -> GroupAttributes {
        let mut merged = self.general.clone();
        let own = self.by_port.get(&port).into_iter().flatten();
        merged
            .extend(own.filter(|(_, it)| is_given(it, findings)).map(|(key, it)| (key.clone(), it.clone())));
        let mut group = defaults(protocol, preserve);
        if let Some(delay) = self.drain_alias {
            group.deregistration_delay = delay;
        }
        for (key, setting) in merged.iter().filter(|(_, it)| is_given(it, findings)).collect::<Vec<_>>() {
            group.take(key, setting, protocol, findings);
        }
        group.stickiness(&merged, findings);
        group.ends_of_flows(&merged, findings);
        group.thresholds(&merged, findings);
        group
    }
}

fn defaults(protocol: Protocol, preserve: bool) -> GroupAttributes {
    let udp = protocol == Protocol::Udp;
    GroupAttributes {
        deregistration_delay: Duration::from_secs(300),
        deregistration_connection_termination: udp,
        unhealthy_connection_termination: !udp,
        unhealthy_draining_interval: Duration::ZERO,
        minimum_healthy_targets: Threshold::default(),
        dns_failover: Threshold::default(),
        source_ip_stickiness: false,
        preserve_client_ip: preserve || udp,
        cross_zone: None,
        proxy_protocol: None,
    }
}

const DRAINED_TERMINATION: &str = "deregistration_delay.connection_termination.enabled";
const DRAINING_INTERVAL: &str = "target_health_state.unhealthy.draining_interval_seconds";
const UNHEALTHY_TERMINATION: &str = "target_health_state.unhealthy.connection_termination.enabled";
const ROUTING: &str = "target_group_health.unhealthy_state_routing.minimum_healthy_targets";
const FAILOVER: &str = "target_group_health.dns_failover.minimum_healthy_targets";

impl GroupAttributes {
    fn take(&mut self, key: &str, setting: &Setting, protocol: Protocol, findings: &mut Findings) {
        match key {
            "deregistration_delay.timeout_seconds" => {
                seconds(&mut self.deregistration_delay, setting, 3600, findings);
            }
            DRAINED_TERMINATION => {
                flag(&mut self.deregistration_connection_termination, setting, findings);
            }
            DRAINING_INTERVAL => {
                seconds(&mut self.unhealthy_draining_interval, setting, 360_000, findings);
            }
            UNHEALTHY_TERMINATION => {
                let value = &mut self.unhealthy_connection_termination;
                let instead = ": the next datagram goes to another target while one is healthy";
                fixed_on_udp(value, setting, protocol, instead, findings);
            }
            "preserve_client_ip.enabled" => {
                fixed_on_udp(&mut self.preserve_client_ip, setting, protocol, "", findings);
            }
            "load_balancing.cross_zone.enabled" if setting.text == "use_load_balancer_configuration" => {}
            "load_balancing.cross_zone.enabled" => self.cross_zone = boolean(setting, findings),
            "proxy_protocol_v2.enabled" => {
                self.proxy_protocol = Some(setting.clone()).filter(|it| boolean(it, findings) == Some(true));
            }
            "proxy_protocol_v2.client_to_server.header_placement" => {
                let message = format!(
                    "{}: {} has no effect: no port is served with a PROXY header yet.",
                    setting.field,
                    super::shown(&setting.value)
                );
                findings.note(setting.at(), "NoEffect", message, Effect::Ignored);
            }
            // Read together, below.
            "stickiness.enabled" | "stickiness.type" => {}
            _ if threshold_part(key).is_some() => {}
            _ => unknown(key, setting, findings),
        }
    }

    fn stickiness(&mut self, map: &Map, findings: &mut Findings) {
        let given = |key: &str| map.get(key).filter(|it| !it.text.is_empty());
        let enabled = given("stickiness.enabled").and_then(|it| boolean(it, findings)).unwrap_or(false);
        self.source_ip_stickiness = enabled;
        if let Some(setting) = given("stickiness.enabled").filter(|_| enabled) {
            later(setting, "new flows of one client may go to several pods", findings);
        }
        if let Some(kind) = given("stickiness.type").filter(|it| it.text != "source_ip") {
            let message = format!(
                "{}: {} is not the stickiness of a network load balancer; allowed: source_ip, which counts.",
                kind.field,
                super::shown(&kind.value)
            );
            findings.warn(kind.at(), "InvalidAnnotation", message, Effect::DefaultUsed);
        }
    }

    /// What of the ends of flows goes another way than the settings say.
    fn ends_of_flows(&self, map: &Map, findings: &mut Findings) {
        if let Some(setting) = map.get(DRAINING_INTERVAL)
            && self.unhealthy_connection_termination
            && !self.unhealthy_draining_interval.is_zero()
        {
            let message = format!(
                "{}: {DRAINING_INTERVAL} has no effect where {UNHEALTHY_TERMINATION} is true, as it is for TCP unless set.",
                setting.field
            );
            findings.note(setting.at(), "NoEffect", message, Effect::Ignored);
        }
        if let Some(setting) = map.get(DRAINED_TERMINATION).filter(|it| read_boolean(&it.text) == Some(false))
        {
            let message = format!(
                "{}: {DRAINED_TERMINATION} is false, which is not honoured yet: at the end of the delay a target's flows are \
                 given up.",
                setting.field
            );
            findings.note(setting.at(), "NotYetSupported", message, Effect::Ignored);
        }
    }

    fn thresholds(&mut self, map: &Map, findings: &mut Findings) {
        for (key, setting) in map.iter().filter(|(_, it)| !it.text.is_empty()) {
            let Some((prefix, part)) = threshold_part(key) else { continue };
            let threshold =
                if prefix == ROUTING { &mut self.minimum_healthy_targets } else { &mut self.dns_failover };
            let off = setting.text == "off";
            match part {
                // "off" is no word of AWS's for this one: it would leave nothing to fail open on.
                "count" if off && prefix == ROUTING => findings.bad(setting.at(), "1 or more"),
                "count" if off => threshold.count = None,
                "count" => threshold.count = integer(setting, 1..=u32::MAX, findings).or(threshold.count),
                _ if off => threshold.percentage = None,
                _ => threshold.percentage = integer(setting, 1..=100, findings),
            }
            if prefix == FAILOVER && *threshold != Threshold::default() && !off {
                let message = format!(
                    "{}: {} is not honoured yet: addresses are not announced, so there is nothing to withdraw.",
                    setting.field,
                    super::shown(&setting.value)
                );
                findings.note(setting.at(), "NotYetSupported", message, Effect::Ignored);
            }
        }
    }
}

fn threshold_part(key: &str) -> Option<(&'static str, &str)> {
    let of = |prefix: &'static str| Some((prefix, key.strip_prefix(prefix)?.strip_prefix('.')?));
    of(ROUTING).or(of(FAILOVER)).filter(|(_, part)| matches!(*part, "count" | "percentage"))
}

fn seconds(value: &mut Duration, setting: &Setting, most: u32, findings: &mut Findings) {
    if let Some(given) = integer(setting, 0..=most, findings) {
        *value = Duration::from_secs(given.into());
    }
}

fn flag(value: &mut bool, setting: &Setting, findings: &mut Findings) {
    *value = boolean(setting, findings).unwrap_or(*value);
}

/// AWS has no choice here for UDP: a setting against what UDP groups always do is told and not followed.
fn fixed_on_udp(
    value: &mut bool,
    setting: &Setting,
    protocol: Protocol,
    instead: &str,
    findings: &mut Findings,
) {
    let Some(given) = boolean(setting, findings) else { return };
    match protocol {
        Protocol::Tcp => *value = given,
        Protocol::Udp if given == *value => {}
        Protocol::Udp => {
            let message = format!(
                "{}: {} cannot be had for UDP; UDP groups keep {value}{instead}.",
                setting.field,
                super::shown(&setting.value)
            );
            findings.warn(setting.at(), "NotForUdp", message, Effect::Ignored);
        }
    }
}

fn unknown(key: &str, setting: &Setting, findings: &mut Findings) {
    let what = if LAYER_7.iter().any(|it| key.starts_with(it)) {
        "is not an attribute of a network load balancer"
    } else {
        "is no attribute that nlb or AWS's NLB knows; look for a typing mistake"
    };
    let message = format!("{}: {} {what}. It has no effect.", setting.field, super::shown(&setting.value));
    findings.warn(setting.at(), "UnknownAttribute", message, Effect::Ignored);
}

/// The classic load balancer's draining keys, where the attribute itself is not set.
fn drain_alias(annotations: &Annotations<'_>, general: &Map, findings: &mut Findings) -> Option<Duration> {
    let (enabled_key, timeout_key) = ("connection-draining-enabled", "connection-draining-timeout");
    let attribute = "deregistration_delay.timeout_seconds";
    if general.get(attribute).is_some_and(|it| !it.text.is_empty()) {
        for setting in [enabled_key, timeout_key].iter().filter_map(|key| annotations.short(key)) {
            let message = format!("{} has no effect beside {attribute}.", setting.field);
            findings.note(setting.at(), "NoEffect", message, Effect::Ignored);
        }
        return None;
    }
    let enabled = annotations.boolean(enabled_key, findings);
    let timeout = annotations.integer(timeout_key, 1..=3600, findings);
    for setting in [enabled_key, timeout_key]
        .iter()
        .filter_map(|key| annotations.short(key))
        .filter(|it| !it.text.is_empty())
    {
        let message = format!("{} is an old name: it is read as {attribute}.", setting.field);
        findings.note(setting.at(), "LocalMeaning", message, Effect::LocalMeaning);
    }
    let timeout = timeout.map(|it| Duration::from_secs(it.into()));
    if enabled == Some(false) { Some(Duration::ZERO) } else { timeout }
}

/// What the attributes of the load balancer itself say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LoadBalancerAttributes {
    pub(super) deletion_protection: bool,
    pub(super) cross_zone: bool,
}

/// What only AWS can do.
const CLOUD: [(&str, Syntax); 7] = [
    ("access_logs.s3.enabled", Syntax::Boolean),
    ("access_logs.s3.bucket", Syntax::Any),
    ("access_logs.s3.prefix", Syntax::Any),
    ("zonal_shift.config.enabled", Syntax::Boolean),
    ("dns_record.client_routing_policy", Syntax::Words(&ROUTING_POLICIES)),
    ("ipv6.deny_all_igw_traffic", Syntax::Boolean),
    ("secondary_ips.auto_assigned.per_subnet", Syntax::Number),
];
const ROUTING_POLICIES: [&str; 3] =
    ["any_availability_zone", "partial_availability_zone_affinity", "availability_zone_affinity"];

/// Reads `attributes` and the single annotations that go before it.
pub(super) fn load_balancer(
    annotations: &Annotations<'_>,
    findings: &mut Findings,
) -> LoadBalancerAttributes {
    let mut read = LoadBalancerAttributes::default();
    for (key, setting) in annotations.map("attributes", findings).unwrap_or_default() {
        match key.as_str() {
            "deletion_protection.enabled" if is_given(&setting, findings) => {
                flag(&mut read.deletion_protection, &setting, findings);
                if read.deletion_protection {
                    let meanwhile = "the Service is served until it is removed, and nothing holds that back";
                    later(&setting, meanwhile, findings);
                }
            }
            "load_balancing.cross_zone.enabled" if is_given(&setting, findings) => {
                flag(&mut read.cross_zone, &setting, findings);
            }
            "deletion_protection.enabled" | "load_balancing.cross_zone.enabled" => {}
            key => match CLOUD.iter().find(|(it, _)| *it == key) {
                Some((_, syntax)) => {
                    let why = format!("{key} is AWS's own business");
                    no_effect(&setting, *syntax, &why, findings);
                }
                None => unknown(key, &setting, findings),
            },
        }
    }
    if let Some(cross_zone) = annotations.boolean("cross-zone-load-balancing-enabled", findings) {
        read.cross_zone = cross_zone;
    }
    read
}
