//! Attributes of listeners (contract 1.6).

use super::annotations::{AWS, Annotations, Setting, integer, is_given};
use super::findings::Findings;
use super::ports::Port;
use crate::model::Protocol;
use crate::problem::Effect;
use std::collections::BTreeMap;
use std::time::Duration;

/// Idle timeouts of listeners: their attributes, else the classic load balancer's key, else what AWS has.
pub(super) struct IdleTimeouts {
    explicit: BTreeMap<(u16, Protocol), Duration>,
    alias: Option<Duration>,
}

const IDLE: &str = "tcp.idle_timeout.seconds";

impl IdleTimeouts {
    pub(super) fn read(
        annotations: &Annotations<'_>,
        ports: &[Port],
        for_aws: bool,
        findings: &mut Findings,
    ) -> Self {
        let mut explicit = BTreeMap::new();
        let prefix = format!("{AWS}listener-attributes.");
        for suffix in annotations.keys().filter_map(|key| key.strip_prefix(&prefix)) {
            let key = format!("listener-attributes.{suffix}");
            let meant = listeners_meant(ports, suffix);
            if meant.is_empty() {
                no_such_listener(annotations.short(&key), findings);
                continue;
            }
            for (name, setting) in annotations.map(&key, findings).unwrap_or_default() {
                let tcp: Vec<_> = meant.iter().filter(|(_, protocol)| *protocol == Protocol::Tcp).collect();
                if name != IDLE || tcp.is_empty() {
                    let message = format!(
                        "{}: {} has no effect; only {IDLE} of a TCP listener has.",
                        setting.field,
                        super::shown(&setting.value)
                    );
                    findings.note(setting.at(), "NoEffect", message, Effect::Ignored);
                } else if is_given(&setting, findings)
                    && let Some(value) = integer(&setting, 60..=6000, findings)
                {
                    explicit.extend(tcp.into_iter().map(|it| (*it, Duration::from_secs(value.into()))));
                }
            }
        }
        Self { explicit, alias: idle_alias(annotations, for_aws, findings) }
    }

    pub(super) fn of(&self, port: u16, protocol: Protocol) -> Duration {
        match protocol {
            Protocol::Udp => Duration::from_secs(120),
            Protocol::Tcp => {
                let explicit = self.explicit.get(&(port, protocol)).copied();
                explicit.or(self.alias).unwrap_or(Duration::from_secs(350))
            }
        }
    }
}

/// `PROTO-port` with AWS's words for what the listener ends up as.
fn listeners_meant(ports: &[Port], suffix: &str) -> Vec<(u16, Protocol)> {
    let Some((word, number)) = suffix.rsplit_once('-') else { return Vec::new() };
    let protocols: &[Protocol] = match word {
        "TCP" | "TLS" => &[Protocol::Tcp],
        "UDP" | "QUIC" => &[Protocol::Udp],
        "TCP_UDP" | "TCP_QUIC" => &[Protocol::Tcp, Protocol::Udp],
        _ => &[],
    };
    let number = number.parse::<u16>().ok();
    let fits = |port: &&Port| {
        Some(port.number) == number && port.transport.is_some_and(|it| protocols.contains(&it))
    };
    ports.iter().filter(fits).filter_map(|port| Some((port.number, port.transport?))).collect()
}

/// D12: people who come from NLB with a left-over key must not see a shorter life.
fn idle_alias(annotations: &Annotations<'_>, for_aws: bool, findings: &mut Findings) -> Option<Duration> {
    let key = "connection-idle-timeout";
    let setting = annotations.scalar(key, findings)?;
    if for_aws {
        let message = format!(
            "{} belongs to AWS's classic load balancer and has no effect on an NLB; set {IDLE} in listener-attributes.",
            setting.field
        );
        findings.note(setting.at(), "NoEffect", message, Effect::Ignored);
        return None;
    }
    let message = format!("{} is an old name: it is read as {IDLE}.", setting.field);
    findings.note(setting.at(), "LocalMeaning", message, Effect::LocalMeaning);
    integer(&setting, 1..=4000, findings).map(|it| Duration::from_secs(it.into()))
}

/// Says that an annotation for one port or listener is for none.
pub(super) fn no_such_listener(setting: Option<Setting>, findings: &mut Findings) {
    if let Some(setting) = setting {
        let message = format!("{} names no listener of this Service, so it has no effect.", setting.field);
        findings.warn(setting.at(), "UnknownListener", message, Effect::Ignored);
    }
}
