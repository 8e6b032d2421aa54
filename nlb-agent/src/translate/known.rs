//! The annotations that nothing else reads: each has its answer in a table, so that none is silently dropped.

use super::annotations::{AWS, Annotations, Setting, boolean, is_given, is_map, read_boolean};
use super::findings::Findings;
use crate::problem::Effect;
use Answer::{Later, Local, NoEffect, Read, Word};
use Syntax::{Any, Boolean, Map, Number, Words};

/// What AWS's controller takes for a value.
#[derive(Clone, Copy)]
pub(super) enum Syntax {
    /// Any text or list.
    Any,
    /// Go's words.
    Boolean,
    /// Decimal.
    Number,
    /// `key=value` pairs.
    Map,
    /// One of these.
    Words(&'static [&'static str]),
}

/// What becomes of a known annotation.
#[derive(Clone, Copy)]
enum Answer {
    /// Another module reads it and says what there is to say.
    Read,
    /// Another module reads it; of other words AWS's controller makes nothing, in silence.
    Word(&'static [&'static str]),
    /// Fine on AWS, without effect here; why.
    NoEffect(Syntax, &'static str),
    /// Has a meaning of ours; which. AWS's controller passes over what it cannot read.
    Local(Syntax, &'static str),
    /// A switch that a later version honours; until then, where it is on, a Warning, because something is missing that was asked for.
    Later(&'static str),
}

const ON_OFF: Syntax = Words(&["on", "off"]);

/// Keys behind the AWS prefix.
const AWS_KEYS: [(&str, Answer); 51] = [
    ("type", Word(&["external", "nlb-ip", "nlb"])),
    ("nlb-target-type", Read),
    ("name", Read),
    ("scheme", Read),
    ("internal", Read),
    ("ip-address-type", Read),
    ("private-ipv4-addresses", Read),
    ("ipv6-addresses", Read),
    ("ssl-cert", Read),
    ("ssl-ports", Read),
    ("ssl-negotiation-policy", Read),
    ("backend-protocol", Read),
    ("alpn-policy", Read),
    ("healthcheck-protocol", Read),
    ("healthcheck-port", Read),
    ("healthcheck-path", Read),
    ("healthcheck-success-codes", Read),
    ("healthcheck-interval", Read),
    ("healthcheck-timeout", Read),
    ("healthcheck-healthy-threshold", Read),
    ("healthcheck-unhealthy-threshold", Read),
    ("target-group-attributes", Read),
    ("proxy-protocol", Read),
    ("proxy-protocol-per-target-group", Read),
    ("cross-zone-load-balancing-enabled", Read),
    ("attributes", Read),
    ("connection-draining-enabled", Read),
    ("connection-draining-timeout", Read),
    ("connection-idle-timeout", Read),
    ("security-groups", Read),
    ("security-group-prefix-lists", Read),
    ("target-node-labels", Read),
    ("subnets", NoEffect(Any, "addresses come from the pools of --vip-pool")),
    (
        "eip-allocations",
        NoEffect(Any, "ask for addresses with private-ipv4-addresses or spec.loadBalancerIP"),
    ),
    (
        "access-log-enabled",
        NoEffect(Boolean, "there are no logs in S3; `nlb-agent flows` shows what goes on"),
    ),
    ("access-log-s3-bucket-name", NoEffect(Any, "there are no logs in S3")),
    ("access-log-s3-bucket-prefix", NoEffect(Any, "there are no logs in S3")),
    ("access-log-emit-interval", NoEffect(Number, "there are no logs in S3")),
    ("extra-security-groups", NoEffect(Any, "there are no security groups")),
    ("manage-backend-security-group-rules", NoEffect(Boolean, "there are no security groups")),
    ("disable-nlb-sg", NoEffect(Boolean, "there are no security groups")),
    ("inbound-sg-rules-on-private-link-traffic", NoEffect(ON_OFF, "there are no security groups")),
    ("additional-resource-tags", NoEffect(Map, "there is nothing to tag")),
    ("minimum-load-balancer-capacity", NoEffect(Map, "capacity is that of the node")),
    ("enable-prefix-for-ipv6-source-nat", NoEffect(ON_OFF, "UDP over IPv6 works without it")),
    ("source-nat-ipv6-prefixes", NoEffect(Any, "UDP over IPv6 works without it")),
    ("target-group-ip-address-type", NoEffect(Any, "targets follow the families of the Service")),
    (
        "enable-tcp-udp-listener",
        Local(Boolean, "TCP and UDP of one number are always served both, each with its own target port"),
    ),
    ("enable-icmp-for-path-mtu-discovery", Local(ON_OFF, "there is no filter that it would have to open")),
    ("quic-enabled-ports", Read),
    ("multi-cluster-target-group", Later("only this cluster's targets are served")),
];

/// Answers every annotation that is somebody's request to a load balancer and that no other module reads.
pub(super) fn answer(annotations: &Annotations<'_>, findings: &mut Findings) {
    for key in annotations.keys() {
        let Some(setting) = annotations.full(key) else { continue };
        if let Some(short) = key.strip_prefix(AWS) {
            answer_aws(short, &setting, findings);
        } else if key.starts_with("service.beta.kubernetes.io/actions.") {
            later(&setting, "all new flows go to the Service's own pods", findings);
        } else if key == "nlb.io/ip-mode" {
            no_effect(&setting, Any, "it is about the Service's status in a cluster", findings);
        } else if key.starts_with("nlb.io/") {
            unknown(&setting, findings);
        }
    }
}

fn answer_aws(short: &str, setting: &Setting, findings: &mut Findings) {
    let per_listener = ["target-group-attributes.", "listener-attributes."];
    if per_listener.iter().any(|prefix| short.starts_with(prefix)) {
        return;
    }
    match AWS_KEYS.iter().find(|(key, _)| *key == short) {
        Some((_, answer)) => say(setting, *answer, findings),
        None => unknown(setting, findings),
    }
}

impl Syntax {
    fn fits(self, text: &str) -> bool {
        match self {
            Any => true,
            Boolean => read_boolean(text).is_some(),
            Number => text.parse::<i32>().is_ok(),
            Map => is_map(text),
            Words(words) => words.contains(&text),
        }
    }

    fn allowed(self) -> String {
        match self {
            Any => "any text".into(),
            Boolean => "true, false".into(),
            Number => "a number".into(),
            Map => "`key=value` pairs with commas between them".into(),
            Words(words) => words.join(", "),
        }
    }
}

/// A setting that only a cloud can follow: a bad value of it harms nothing here, and is said all the same.
pub(super) fn no_effect(setting: &Setting, syntax: Syntax, why: &str, findings: &mut Findings) {
    if !is_given(setting, findings) {
        return;
    }
    if syntax.fits(&setting.text) {
        let message = format!("{} has no effect here: {why}.", setting.subject());
        findings.note(setting.at(), "NoEffect", message, Effect::Ignored);
    } else {
        invalid(setting, syntax, &format!("It has no effect here: {why}."), Effect::Ignored, findings);
    }
}

fn invalid(setting: &Setting, syntax: Syntax, what: &str, effect: Effect, findings: &mut Findings) {
    let (value, allowed) = (super::shown(&setting.value), syntax.allowed());
    let message = format!("{} is {value}; allowed: {allowed}. {what}", setting.field);
    findings.warn(setting.at(), "InvalidAnnotation", message, effect);
}

fn say(setting: &Setting, answer: Answer, findings: &mut Findings) {
    let field = &setting.field;
    match answer {
        Read => {}
        Word(words) => {
            if is_given(setting, findings) && !words.contains(&setting.text.as_str()) {
                invalid(setting, Words(words), "It has no effect.", Effect::DefaultUsed, findings);
            }
        }
        NoEffect(syntax, why) => no_effect(setting, syntax, why, findings),
        Local(syntax, what) => match is_given(setting, findings) {
            true if syntax.fits(&setting.text) => {
                let message = format!("{field}: {what}.");
                findings.note(setting.at(), "LocalMeaning", message, Effect::LocalMeaning);
            }
            true => {
                let what = format!("It changes nothing: {what}.");
                invalid(setting, syntax, &what, Effect::DefaultUsed, findings);
            }
            false => {}
        },
        Later(meanwhile) => {
            if is_given(setting, findings) && boolean(setting, findings) == Some(true) {
                later(setting, meanwhile, findings);
            }
        }
    }
}

/// Asked for, fine, and missing.
pub(super) fn later(setting: &Setting, meanwhile: &str, findings: &mut Findings) {
    let message = format!("{} is not honoured yet: {meanwhile}.", setting.subject());
    findings.warn(setting.at(), "NotYetSupported", message, Effect::Ignored);
}

fn unknown(setting: &Setting, findings: &mut Findings) {
    let own = setting.field.strip_prefix("metadata.annotations[nlb.io/").and_then(|it| it.strip_suffix(']'));
    let known = own.filter(|own| AWS_KEYS.iter().any(|(key, _)| key == own));
    let advice = known.map_or("look for a typing mistake".into(), |key| format!("nlb reads {AWS}{key}"));
    let message = format!("{} is no annotation that nlb knows; {advice}. It has no effect.", setting.field);
    findings.warn(setting.at(), "UnknownAnnotation", message, Effect::Ignored);
}
