//! What clients see of a load balancer: scheme, families, requested addresses, the words of the target type.

use super::annotations::{Annotations, Setting, list, read_boolean};
use super::findings::{At, Findings};
use super::settings::{Settings, TargetType};
use crate::inputs::ObjectName;
use crate::model::{IpFamily, Scheme};
use crate::problem::Effect;
use k8s_openapi::api::core::v1::Service;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Internal or for everyone; `internal` is the old form.
pub(super) fn scheme(annotations: &Annotations<'_>, settings: &Settings, findings: &mut Findings) -> Scheme {
    if let Some(setting) = annotations.scalar("scheme", findings) {
        return match setting.text.as_str() {
            "internal" => Scheme::Internal,
            "internet-facing" => Scheme::InternetFacing,
            _ => {
                findings.bad(setting.at(), "internal, internet-facing");
                settings.default_scheme
            }
        };
    }
    let Some(setting) = annotations.scalar("internal", findings) else { return settings.default_scheme };
    match read_boolean(&setting.text) {
        Some(true) => Scheme::Internal,
        Some(false) => Scheme::InternetFacing,
        None if setting.text == "0.0.0.0/0" => Scheme::Internal,
        None => {
            findings.bad(setting.at(), "true, false");
            settings.default_scheme
        }
    }
}

/// The families that get an address: the Service's own, cut by `ip-address-type`.
pub(super) fn families(
    service: &Service,
    annotations: &Annotations<'_>,
    findings: &mut Findings,
) -> Vec<IpFamily> {
    let words = service.spec.iter().flat_map(|spec| spec.ip_families.iter().flatten());
    let mut own: Vec<IpFamily> = words.filter_map(|word| family(word)).collect();
    if own.is_empty() {
        own.push(IpFamily::IPv4);
    }
    let Some(setting) = annotations.scalar("ip-address-type", findings) else { return own };
    match setting.text.as_str() {
        "ipv4" if own.contains(&IpFamily::IPv4) => own.retain(|it| *it == IpFamily::IPv4),
        "ipv4" => findings.bad(setting.at(), "dualstack, as spec.ipFamilies names IPv6 alone"),
        "dualstack" if own.len() == 1 => {
            let message = format!(
                "{} is dualstack, but spec.ipFamilies names {:?} alone; that is served.",
                setting.field, own[0]
            );
            findings.note(setting.at(), "LocalMeaning", message, Effect::LocalMeaning);
        }
        "dualstack" => {}
        _ => findings.bad(setting.at(), "ipv4, dualstack"),
    }
    own
}

fn family(word: &str) -> Option<IpFamily> {
    match word {
        "IPv4" => Some(IpFamily::IPv4),
        "IPv6" => Some(IpFamily::IPv6),
        _ => None,
    }
}

/// The addresses that the Service names: the annotations', and `spec.loadBalancerIP` for a family that they leave out.
pub(super) fn wanted(
    service: &Service,
    annotations: &Annotations<'_>,
    families: &[IpFamily],
    findings: &mut Findings,
) -> Vec<IpAddr> {
    let mut wanted = Vec::new();
    for (key, wants) in [("private-ipv4-addresses", IpFamily::IPv4), ("ipv6-addresses", IpFamily::IPv6)] {
        if let Some(setting) = annotations.short(key) {
            for item in list(&setting.text) {
                match item.parse::<IpAddr>().ok().filter(|ip| IpFamily::of(*ip) == wants) {
                    Some(ip) => want(ip, &setting, families, &mut wanted, findings),
                    None => findings.bad(
                        setting.at(),
                        &format!("{wants:?} addresses with commas between them (`{item}` is none)"),
                    ),
                }
            }
        }
    }
    let spec = service
        .spec
        .as_ref()
        .and_then(|spec| spec.load_balancer_ip.clone())
        .filter(|it| !it.trim().is_empty());
    if let Some(value) = spec {
        let setting = Setting { field: "spec.loadBalancerIP".into(), text: value.trim().into(), value };
        match setting.text.parse::<IpAddr>() {
            Ok(ip) if wanted.iter().any(|it| IpFamily::of(*it) == IpFamily::of(ip)) => {}
            Ok(ip) => want(ip, &setting, families, &mut wanted, findings),
            Err(_) => findings.bad(setting.at(), "an IP address"),
        }
    }
    wanted
}

fn want(
    ip: IpAddr,
    setting: &Setting,
    families: &[IpFamily],
    wanted: &mut Vec<IpAddr>,
    findings: &mut Findings,
) {
    if !families.contains(&IpFamily::of(ip)) {
        let message = format!(
            "{}: the Service has no {:?} address (spec.ipFamilies), so {ip} has no effect.",
            setting.field,
            IpFamily::of(ip)
        );
        findings.warn(setting.at(), "NoEffect", message, Effect::Ignored);
    } else if !wanted.contains(&ip) {
        wanted.push(ip);
    }
}

/// `ip` or `instance`.
pub(super) fn target_type(
    annotations: &Annotations<'_>,
    settings: &Settings,
    findings: &mut Findings,
) -> TargetType {
    if let Some(setting) = annotations.scalar("nlb-target-type", findings) {
        match setting.text.as_str() {
            "ip" => return TargetType::Ip,
            "instance" => return TargetType::Instance,
            _ => {
                let word = settings.default_target_type.word();
                let message = format!(
                    "{} is {}; allowed: ip, instance. {word} is used.",
                    setting.field,
                    super::shown(&setting.value)
                );
                findings.warn(setting.at(), "InvalidAnnotation", message, Effect::DefaultUsed);
            }
        }
    } else if annotations.short("type").is_some_and(|it| it.text == "nlb-ip") {
        return TargetType::Ip;
    }
    settings.default_target_type
}

/// `name` is a label here.
pub(super) fn label(annotations: &Annotations<'_>, findings: &mut Findings) {
    if let Some(setting) = annotations.scalar("name", findings).filter(|it| it.text.chars().count() > 32) {
        let message = format!(
            "{} is longer than 32 characters; as it is only a label here, it is cut where it is shown.",
            setting.field
        );
        findings.note(setting.at(), "LocalMeaning", message, Effect::LocalMeaning);
    }
}

/// On AWS two Services of one `name` overwrite each other; here the younger one hears of it and both work.
pub(super) fn same_labels<'a>(
    services: impl Iterator<Item = (&'a Service, &'a ObjectName, &'a mut Findings)>,
) {
    let mut owners: BTreeMap<String, &ObjectName> = BTreeMap::new();
    for (service, name, findings) in services {
        let Some(setting) = Annotations::of(service).short("name").filter(|it| !it.text.is_empty()) else {
            continue;
        };
        match owners.get(&setting.text) {
            Some(owner) => {
                let message = format!("{} is also Service {owner}'s name; both work.", setting.field);
                findings.warn(setting.at(), "DuplicateName", message, Effect::LocalMeaning);
            }
            None => drop(owners.insert(setting.text, name)),
        }
    }
}

/// Fields of the spec that nlb honours later: said, not dropped.
pub(super) fn later_fields(service: &Service, findings: &mut Findings) -> bool {
    let sticky = service.spec.as_ref().and_then(|it| it.session_affinity.as_deref()) == Some("ClientIP");
    if sticky {
        let message = "spec.sessionAffinity is ClientIP, which is not honoured yet: new flows of one client may go to several pods.";
        findings.warn(
            At { field: "spec.sessionAffinity", value: Some("ClientIP") },
            "NotYetSupported",
            message.into(),
            Effect::Ignored,
        );
    }
    sticky
}
