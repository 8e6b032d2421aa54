//! How the targets of a Service are checked (contract 2.1): one configuration for all its ports.

use super::annotations::{Annotations, Setting, list, within};
use super::findings::Findings;
use super::ports::{Port, port_called};
use crate::model::{CheckPort, CheckProtocol, HealthCheck, HttpCheck, PortRef};
use crate::problem::Effect;
use std::time::Duration;

/// Seconds.
const MOST_TIMEOUT: u32 = 120;
/// Path when nothing is said.
const PATH: &str = "/";
/// Codes when nothing is said.
const CODES: [(u16, u16); 1] = [(200, 399)];

/// Reads every `healthcheck-*` annotation.
pub(super) fn health_check(
    annotations: &Annotations<'_>,
    ports: &[Port],
    findings: &mut Findings,
) -> HealthCheck {
    let default = HealthCheck::default();
    let seconds = |value: Option<u32>| value.map(|it| Duration::from_secs(it.into()));
    let interval =
        seconds(annotations.integer("healthcheck-interval", 1..=300, findings)).unwrap_or(default.interval);
    let mut threshold = |key| annotations.integer(key, 2..=10, findings);
    let healthy_threshold = threshold("healthcheck-healthy-threshold").unwrap_or(default.healthy_threshold);
    let unhealthy_threshold =
        threshold("healthcheck-unhealthy-threshold").unwrap_or(default.unhealthy_threshold);
    HealthCheck {
        protocol: protocol(annotations, findings),
        port: port(annotations, ports, findings),
        interval,
        timeout: timeout(annotations, interval, findings),
        healthy_threshold,
        unhealthy_threshold,
    }
}

/// At most the interval; only a timeout that somebody wrote is worth a Warning.
fn timeout(annotations: &Annotations<'_>, interval: Duration, findings: &mut Findings) -> Duration {
    let Some(setting) = annotations.scalar("healthcheck-timeout", findings) else {
        return HealthCheck::default().timeout.min(interval);
    };
    let most = u32::try_from(interval.as_secs()).map_or(MOST_TIMEOUT, |it| it.min(MOST_TIMEOUT));
    let allowed = format!("1 to {MOST_TIMEOUT}, and at most the interval, {}", interval.as_secs());
    let given = within(&setting, 1..=most, &allowed, findings);
    given.map_or(HealthCheck::default().timeout.min(interval), |it| Duration::from_secs(it.into()))
}

fn protocol(annotations: &Annotations<'_>, findings: &mut Findings) -> CheckProtocol {
    let given = annotations.scalar("healthcheck-protocol", findings);
    let word = given.as_ref().map_or("TCP".into(), |it| it.text.to_ascii_uppercase());
    match word.as_str() {
        "HTTP" => CheckProtocol::Http(http(annotations, findings)),
        "HTTPS" => CheckProtocol::Https(http(annotations, findings)),
        "TCP" => {
            for setting in ["healthcheck-path", "healthcheck-success-codes"]
                .iter()
                .filter_map(|key| annotations.scalar(key, findings))
                .collect::<Vec<_>>()
            {
                let message = format!(
                    "{} has no effect on checks by TCP; set healthcheck-protocol to HTTP or HTTPS.",
                    setting.field
                );
                findings.note(setting.at(), "NoEffect", message, Effect::Ignored);
            }
            CheckProtocol::Tcp
        }
        _ => {
            if let Some(setting) = given {
                findings.bad(setting.at(), "TCP, HTTP, HTTPS");
            }
            CheckProtocol::Tcp
        }
    }
}

fn http(annotations: &Annotations<'_>, findings: &mut Findings) -> HttpCheck {
    let path = annotations.scalar("healthcheck-path", findings);
    let path = path.map_or(PATH.into(), |setting| {
        if !is_path(&setting.text) {
            findings.bad(setting.at(), "a path of 1 to 1024 visible ASCII characters that begins with `/`");
        }
        setting.text
    });
    let codes = annotations.scalar("healthcheck-success-codes", findings);
    let success_codes = codes.map_or(CODES.to_vec(), |setting| {
        read_codes(&setting.text).unwrap_or_else(|| {
            findings.bad(setting.at(), "codes from 200 to 599 like `200`, `200,202`, `200-299`");
            CODES.to_vec()
        })
    });
    HttpCheck { path, success_codes }
}

/// Whatever else is in it would end the request line early.
fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.len() <= 1024 && text.bytes().all(|it| it.is_ascii_graphic())
}

fn read_codes(text: &str) -> Option<Vec<(u16, u16)>> {
    let code = |text: &str| text.trim().parse::<u16>().ok().filter(|it| (200..=599).contains(it));
    let range = |item: String| {
        let (first, last) = item.split_once('-').unwrap_or((&item, &item));
        Some((code(first)?, code(last)?)).filter(|(first, last)| first <= last)
    };
    let codes: Option<Vec<_>> = list(text).into_iter().map(range).collect();
    codes.filter(|it| !it.is_empty())
}

fn port(annotations: &Annotations<'_>, ports: &[Port], findings: &mut Findings) -> CheckPort {
    let Some(setting) = annotations.scalar("healthcheck-port", findings) else {
        return CheckPort::TrafficPort;
    };
    if setting.text == "traffic-port" {
        return CheckPort::TrafficPort;
    }
    if setting.text.trim_start_matches(['+', '-']).bytes().all(|it| it.is_ascii_digit()) {
        return numbered(&setting, ports, findings);
    }
    match port_called(ports, &setting.text) {
        Some(port) => target_of(port),
        None => {
            findings.bad(
                setting.at(),
                "traffic-port, a number from 1 to 65535, or the name of a port of this Service",
            );
            CheckPort::TrafficPort
        }
    }
}

fn numbered(setting: &Setting, ports: &[Port], findings: &mut Findings) -> CheckPort {
    let Some(number) = super::annotations::integer(setting, 1..=65535, findings) else {
        return CheckPort::TrafficPort;
    };
    let number = u16::try_from(number).unwrap_or(u16::MAX);
    match ports.iter().find(|port| port.node_port == Some(number)) {
        Some(port) => {
            let message = format!(
                "{} is {number}, the node port of port {}; pods are asked on that port's target port instead.",
                setting.field, port.number
            );
            findings.note(setting.at(), "LocalMeaning", message, Effect::LocalMeaning);
            target_of(port)
        }
        None => CheckPort::Number(number),
    }
}

fn target_of(port: &Port) -> CheckPort {
    match &port.target {
        PortRef::Number(number) => CheckPort::Number(*number),
        PortRef::Name(name) => CheckPort::Name(name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_ranges_between_200_and_599() {
        assert_eq!(read_codes("200, 202,300-399"), Some(vec![(200, 200), (202, 202), (300, 399)]));
        for bad in ["", "abc", "199", "600", "300-200", "200-", "200-299-300", "-200"] {
            assert_eq!(read_codes(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_path_cannot_smuggle_a_header() {
        assert!(is_path("/healthz?x=1") && !is_path("healthz") && !is_path("/a b") && !is_path("/a\r\nX: y"));
    }
}
