//! Ports that are not served, because serving them in a weaker form would harm: TLS, PROXY v2, SCTP, closed sources.

use super::annotations::{Annotations, Setting, is_given};
use super::attributes::GroupAttributes;
use super::findings::{At, Findings, strangers};
use super::ports::{Port, ports_meant};
use crate::model::Protocol;
use crate::problem::Effect;
use std::collections::{BTreeMap, BTreeSet};

/// Reasons by place in `spec.ports`; the first one found counts.
pub(super) type Refusals = BTreeMap<usize, &'static str>;

/// Finds the ports that must not be served. `groups` are the attributes of the ports that could be.
pub(super) fn refusals(
    annotations: &Annotations<'_>,
    ports: &[Port],
    groups: &BTreeMap<usize, GroupAttributes>,
    findings: &mut Findings,
) -> Refusals {
    let mut refused = Refusals::new();
    sctp(ports, &mut refused, findings);
    tls(annotations, ports, &mut refused, findings);
    proxy(annotations, ports, groups, &mut refused, findings);
    quic(annotations, ports, findings);
    refused
}

fn refuse(refused: &mut Refusals, port: &Port, reason: &'static str) {
    refused.entry(port.index).or_insert(reason);
}

fn sctp(ports: &[Port], refused: &mut Refusals, findings: &mut Findings) {
    for port in ports.iter().filter(|port| port.transport.is_none()) {
        let field = format!("spec.ports[{}].protocol", port.index);
        let message = format!(
            "Port {} is {}, which nlb does not forward (TCP and UDP only); it is not served.",
            port.number, port.protocol
        );
        findings.warn(
            At { field: &field, value: Some(&port.protocol) },
            "ProtocolNotSupported",
            message,
            Effect::PortRefused,
        );
        refuse(refused, port, "ProtocolNotSupported");
    }
}

fn tls(annotations: &Annotations<'_>, ports: &[Port], refused: &mut Refusals, findings: &mut Findings) {
    let chosen = tls_ports(annotations, ports, findings);
    let Some((setting, _)) = annotations.given_list("ssl-cert", findings) else {
        return without_certificate(annotations, findings);
    };
    let merged = annotations
        .short("enable-tcp-udp-listener")
        .and_then(|it| super::annotations::read_boolean(&it.text));
    let is_meant = |port: &&Port| {
        port.transport == Some(Protocol::Tcp) && chosen.as_ref().is_none_or(|it| it.contains(&port.index))
    };
    let (plain, closed): (Vec<&Port>, Vec<&Port>) =
        ports.iter().filter(is_meant).partition(|port| merged == Some(true) && port.is_shared(ports));
    closed.iter().for_each(|port| refuse(refused, port, "TlsNotSupported"));
    let stays = match numbers(&plain) {
        numbers if numbers.is_empty() => String::new(),
        numbers => format!(" {numbers}, which TCP and UDP share, stays plain, as on AWS."),
    };
    let field = &setting.field;
    if closed.is_empty() {
        let message = format!("{field} has no effect: it is for TCP ports, and means none here.{stays}");
        return findings.note(setting.at(), "NoEffect", message, Effect::Ignored);
    }
    let message = format!(
        "{field} asks for TLS, which nlb does not end yet, so these ports are not served: {}. Passing the bytes through would \
         not be what clients expect. Let the pods end TLS and remove the annotation, or name fewer ports in ssl-ports.{stays}",
        numbers(&closed)
    );
    findings.warn(setting.at(), "TlsNotSupported", message, Effect::PortRefused);
}

/// `443, 8443`.
fn numbers(ports: &[&Port]) -> String {
    ports.iter().map(|port| port.number.to_string()).collect::<Vec<_>>().join(", ")
}

fn without_certificate(annotations: &Annotations<'_>, findings: &mut Findings) {
    let words = ["ssl-negotiation-policy", "backend-protocol", "alpn-policy"];
    let given: Vec<Setting> = words.iter().filter_map(|key| annotations.scalar(key, findings)).collect();
    let ports = annotations.list("ssl-ports").filter(|(_, items)| !items.is_empty());
    for setting in given.into_iter().chain(ports.map(|(setting, _)| setting)) {
        let message = format!("{} has no effect without ssl-cert: the ports are plain TCP.", setting.field);
        findings.note(setting.at(), "NoEffect", message, Effect::Ignored);
    }
}

/// Places of the ports that `ssl-ports` names; `None` where it says nothing and all are meant.
fn tls_ports(
    annotations: &Annotations<'_>,
    ports: &[Port],
    findings: &mut Findings,
) -> Option<BTreeSet<usize>> {
    let (setting, items) = annotations.given_list("ssl-ports", findings)?;
    let (chosen, others) = meant(ports, items);
    if !others.is_empty() {
        let allowed = format!("names and numbers of this Service's ports ({})", strangers(&others));
        findings.bad(setting.at(), &allowed);
    }
    Some(chosen)
}

/// Places of the ports that the items of a list mean, and the items that mean none.
fn meant(ports: &[Port], items: Vec<String>) -> (BTreeSet<usize>, Vec<String>) {
    let chosen = items.iter().flat_map(|item| ports_meant(ports, item)).map(|port| port.index).collect();
    let others = items.into_iter().filter(|item| ports_meant(ports, item).is_empty()).collect();
    (chosen, others)
}

fn proxy(
    annotations: &Annotations<'_>,
    ports: &[Port],
    groups: &BTreeMap<usize, GroupAttributes>,
    refused: &mut Refusals,
    findings: &mut Findings,
) {
    let everywhere = annotations.short("proxy-protocol").filter(|it| is_given(it, findings));
    if let Some(setting) = &everywhere
        && setting.text != "*"
    {
        findings.bad(setting.at(), "*");
    }
    let listed = proxy_ports(annotations, ports, findings);
    for port in ports {
        let asked = match (&everywhere, &listed) {
            (Some(setting), _) => Some(setting.clone()),
            (None, Some((setting, listed))) => Some(setting.clone()).filter(|_| listed.contains(&port.index)),
            (None, None) => groups.get(&port.index).and_then(|it| it.proxy_protocol.clone()),
        };
        let Some(setting) = asked else { continue };
        if port.transport == Some(Protocol::Tcp) {
            let message = format!(
                "{} is {}, which asks for the PROXY protocol, and nlb does not send it yet. Those TCP ports are not served: \
                 pods that wait for the header would break. Remove the setting and its counterpart in the pods. UDP ports are \
                 served; datagrams get no header.",
                setting.field,
                super::shown(&setting.value)
            );
            findings.warn(setting.at(), "ProxyProtocolNotSupported", message, Effect::PortRefused);
            refuse(refused, port, "ProxyProtocolNotSupported");
        } else {
            let message = format!(
                "{} is {}, which has no effect on UDP: datagrams get no PROXY header.",
                setting.field,
                super::shown(&setting.value)
            );
            findings.note(setting.at(), "NoEffect", message, Effect::Ignored);
        }
    }
}

fn proxy_ports(
    annotations: &Annotations<'_>,
    ports: &[Port],
    findings: &mut Findings,
) -> Option<(Setting, BTreeSet<usize>)> {
    let (setting, items) = annotations.list("proxy-protocol-per-target-group")?;
    let (listed, others) = meant(ports, items);
    let (numbers, names): (Vec<_>, Vec<_>) = others.into_iter().partition(|item| item.parse::<u16>().is_ok());
    if !names.is_empty() {
        let allowed = format!("numbers and names of this Service's ports ({})", strangers(&names));
        findings.bad(setting.at(), &allowed);
    } else if !numbers.is_empty() {
        unknown_ports(&setting, &numbers, findings);
    }
    Some((setting, listed))
}

fn unknown_ports(setting: &Setting, items: &[String], findings: &mut Findings) {
    let message =
        format!("{} names ports of this Service; {}, which has no effect.", setting.field, strangers(items));
    findings.warn(setting.at(), "UnknownListener", message, Effect::Ignored);
}

/// QUIC is served as the UDP that it is; AWS's controller refuses it on a port that has no UDP.
fn quic(annotations: &Annotations<'_>, ports: &[Port], findings: &mut Findings) {
    let Some((setting, items)) = annotations.given_list("quic-enabled-ports", findings) else { return };
    let (_, others) = meant(ports, items.clone());
    let is_without_udp = |item: &String| {
        let meant = ports_meant(ports, item);
        !meant.is_empty() && meant.iter().all(|port| !has_udp(port, ports))
    };
    let wrong: Vec<String> = items.into_iter().filter(is_without_udp).collect();
    if !wrong.is_empty() {
        findings.bad(setting.at(), &format!("names and numbers of UDP ports ({})", strangers(&wrong)));
    } else if !others.is_empty() {
        unknown_ports(&setting, &others, findings);
    } else {
        let message = format!(
            "{}: these ports are served as UDP; a flow keeps its target as long as its addresses and ports stay.",
            setting.field
        );
        findings.note(setting.at(), "LocalMeaning", message, Effect::LocalMeaning);
    }
}

fn has_udp(port: &Port, ports: &[Port]) -> bool {
    ports.iter().any(|it| it.number == port.number && it.transport == Some(Protocol::Udp))
}
