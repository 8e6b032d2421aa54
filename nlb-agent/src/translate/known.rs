//! The annotations that nothing else reads: each has its answer in a table, so that none is silently dropped.

use super::annotations::{AWS, Annotations, Setting};
use super::findings::Findings;
use crate::problem::Effect;
use Answer::{Later, Local, NoEffect, Read};

/// What becomes of a known annotation.
#[derive(Clone, Copy)]
enum Answer {
    /// Another module reads it and says what there is to say.
    Read,
    /// Fine on AWS, without effect here; why.
    NoEffect(&'static str),
    /// Has a meaning of ours; which.
    Local(&'static str),
    /// Honoured by a later version; until then a Warning, because something is missing that was asked for.
    Later(&'static str),
}

/// Keys behind the AWS prefix.
const AWS_KEYS: [(&str, Answer); 51] = [
    ("type", Read),
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
    ("subnets", NoEffect("addresses come from the pools of --vip-pool")),
    ("eip-allocations", NoEffect("ask for addresses with private-ipv4-addresses or spec.loadBalancerIP")),
    ("access-log-enabled", NoEffect("there are no logs in S3; `nlb-agent flows` shows what goes on")),
    ("access-log-s3-bucket-name", NoEffect("there are no logs in S3")),
    ("access-log-s3-bucket-prefix", NoEffect("there are no logs in S3")),
    ("access-log-emit-interval", NoEffect("there are no logs in S3")),
    ("extra-security-groups", NoEffect("there are no security groups; use spec.loadBalancerSourceRanges")),
    ("manage-backend-security-group-rules", NoEffect("there are no security groups")),
    ("disable-nlb-sg", NoEffect("there are no security groups")),
    ("inbound-sg-rules-on-private-link-traffic", NoEffect("there are no security groups")),
    ("additional-resource-tags", NoEffect("there is nothing to tag")),
    ("minimum-load-balancer-capacity", NoEffect("capacity is that of the node")),
    ("enable-prefix-for-ipv6-source-nat", NoEffect("UDP over IPv6 works without it")),
    ("source-nat-ipv6-prefixes", NoEffect("UDP over IPv6 works without it")),
    ("target-group-ip-address-type", NoEffect("targets follow the families of the Service")),
    (
        "enable-tcp-udp-listener",
        Local("TCP and UDP of one number are always served both, each with its own target port"),
    ),
    ("enable-icmp-for-path-mtu-discovery", Local("there is no filter that it would have to open")),
    (
        "quic-enabled-ports",
        Local("the port is served as UDP: a flow keeps its target as long as its addresses and ports stay"),
    ),
    ("multi-cluster-target-group", Later("only this cluster's targets are served")),
];

/// Answers every annotation that is somebody's request to a load balancer and that no other module reads.
pub(super) fn answer(annotations: &Annotations<'_>, findings: &mut Findings) {
    for key in annotations.keys() {
        let Some(setting) = annotations.full(key) else { continue };
        if let Some(short) = key.strip_prefix(AWS) {
            answer_aws(short, &setting, findings);
        } else if key.starts_with("service.beta.kubernetes.io/actions.") {
            say(&setting, Later("all new flows go to the Service's own pods"), findings);
        } else if key == "nlb.io/ip-mode" {
            say(&setting, NoEffect("it is about the Service's status in a cluster"), findings);
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

fn say(setting: &Setting, answer: Answer, findings: &mut Findings) {
    let field = &setting.field;
    match answer {
        Read => {}
        NoEffect(why) => {
            findings.note(
                setting.at(),
                "NoEffect",
                format!("{field} has no effect here: {why}."),
                Effect::Ignored,
            );
        }
        Local(what) => {
            findings.note(setting.at(), "LocalMeaning", format!("{field}: {what}."), Effect::LocalMeaning);
        }
        Later(_) if super::annotations::read_boolean(&setting.text) == Some(false) => {}
        Later(meanwhile) => {
            let message = format!("{field} is not honoured yet: {meanwhile}.");
            findings.warn(setting.at(), "NotYetSupported", message, Effect::Ignored);
        }
    }
}

fn unknown(setting: &Setting, findings: &mut Findings) {
    let message = format!(
        "{} is no annotation that nlb knows; look for a typing mistake. It has no effect.",
        setting.field
    );
    findings.warn(setting.at(), "UnknownAnnotation", message, Effect::Ignored);
}
