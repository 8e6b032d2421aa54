//! Ports that are not served, because serving them in a weaker form would harm: TLS, PROXY v2, SCTP, closed sources.

use super::annotations::{Annotations, Setting, is_given};
use super::attributes::GroupAttributes;
use super::findings::{At, Findings};
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
    let certificate = annotations.list("ssl-cert").filter(|(_, items)| !items.is_empty());
    let Some((setting, _)) = certificate else {
        for key in ["ssl-ports", "ssl-negotiation-policy", "backend-protocol", "alpn-policy"] {
            if let Some(setting) = annotations.short(key).filter(|it| !it.text.is_empty()) {
                let message =
                    format!("{} has no effect without ssl-cert: the ports are plain TCP.", setting.field);
                findings.note(setting.at(), "NoEffect", message, Effect::Ignored);
            }
        }
        return;
    };
    let merged = annotations
        .short("enable-tcp-udp-listener")
        .and_then(|it| super::annotations::read_boolean(&it.text));
    let mut any = false;
    for port in ports.iter().filter(|it| it.transport == Some(Protocol::Tcp)) {
        if chosen.as_ref().is_some_and(|chosen| !chosen.contains(&port.index)) {
            continue;
        }
        if merged == Some(true) && port.is_shared(ports) {
            let message = format!(
                "{} has no effect on port {}, which TCP and UDP share: it stays plain, as on AWS.",
                setting.field, port.number
            );
            findings.note(setting.at(), "NoEffect", message, Effect::Ignored);
            continue;
        }
        refuse(refused, port, "TlsNotSupported");
        any = true;
    }
    if any {
        let message = format!(
            "{} asks for TLS, which nlb does not end yet. Those ports are not served: passing the bytes through would not be \
             what clients expect. Let the pods end TLS and remove the annotation, or name fewer ports in ssl-ports.",
            setting.field
        );
        findings.warn(setting.at(), "TlsNotSupported", message, Effect::PortRefused);
    }
}

/// Places of the ports that `ssl-ports` names; `None` where it says nothing and all are meant.
fn tls_ports(
    annotations: &Annotations<'_>,
    ports: &[Port],
    findings: &mut Findings,
) -> Option<BTreeSet<usize>> {
    let (setting, items) = annotations.list("ssl-ports").filter(|(_, items)| !items.is_empty())?;
    let mut chosen = BTreeSet::new();
    for item in items {
        let meant = ports_meant(ports, &item);
        if meant.is_empty() {
            findings
                .bad(setting.at(), &format!("names and numbers of this Service's ports (`{item}` is none)"));
        }
        chosen.extend(meant.into_iter().map(|port| port.index));
    }
    Some(chosen)
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
                "{} asks for the PROXY protocol, which nlb does not send yet. Those ports are not served: pods that wait for \
                 the header would break. Remove the setting and its counterpart in the pods.",
                super::shown(&setting.value)
            );
            findings.warn(setting.at(), "ProxyProtocolNotSupported", message, Effect::PortRefused);
            refuse(refused, port, "ProxyProtocolNotSupported");
        } else {
            let message = format!(
                "{} has no effect on UDP: datagrams get no PROXY header.",
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
    let mut listed = BTreeSet::new();
    for item in items {
        let meant = ports_meant(ports, &item);
        if meant.is_empty() && item.parse::<u16>().is_ok() {
            let message =
                format!("{}: {item} is no port of this Service, so it has no effect.", setting.field);
            findings.warn(setting.at(), "UnknownListener", message, Effect::Ignored);
        } else if meant.is_empty() {
            findings
                .bad(setting.at(), &format!("numbers and names of this Service's ports (`{item}` is none)"));
        }
        listed.extend(meant.into_iter().map(|port| port.index));
    }
    Some((setting, listed))
}
