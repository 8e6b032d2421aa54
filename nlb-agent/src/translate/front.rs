//! What clients see of a load balancer: scheme, families, requested addresses, the words of the target type.

use super::annotations::{Annotations, Setting, read_boolean};
use super::findings::{At, Findings, strangers};
use super::settings::{Settings, TargetType};
use crate::inputs::ObjectName;
use crate::model::{IpFamily, Scheme};
use crate::problem::Effect;
use k8s_openapi::api::core::v1::Service;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Internal or for everyone; `internal` is the old form.
pub(super) fn scheme(annotations: &Annotations<'_>, settings: &Settings, findings: &mut Findings) -> Scheme {
    let old = annotations.scalar("internal", findings);
    if let Some(setting) = annotations.scalar("scheme", findings) {
        let scheme = match setting.text.as_str() {
            "internal" => Scheme::Internal,
            "internet-facing" => Scheme::InternetFacing,
            _ => {
                findings.bad(setting.at(), "internal, internet-facing");
                settings.default_scheme
            }
        };
        if let Some(old) = old.filter(|it| old_scheme(&it.text) != Some(scheme)) {
            let message = format!("{} has no effect beside {}.", old.field, setting.field);
            findings.note(old.at(), "NoEffect", message, Effect::Ignored);
        }
        return scheme;
    }
    let Some(setting) = old else { return settings.default_scheme };
    old_scheme(&setting.text).unwrap_or_else(|| {
        findings.bad(setting.at(), "true, false");
        settings.default_scheme
    })
}

/// What `internal` says.
fn old_scheme(text: &str) -> Option<Scheme> {
    match read_boolean(text) {
        Some(true) => Some(Scheme::Internal),
        Some(false) => Some(Scheme::InternetFacing),
        None => (text == "0.0.0.0/0").then_some(Scheme::Internal),
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

/// An address that the Service names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) ip: IpAddr,
    /// Where it stands.
    pub(super) field: String,
}

/// The addresses that the Service names: the annotations', and `spec.loadBalancerIP` for a family that they leave out.
pub(super) fn wanted(
    service: &Service,
    annotations: &Annotations<'_>,
    families: &[IpFamily],
    findings: &mut Findings,
) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for (key, wants) in [("private-ipv4-addresses", IpFamily::IPv4), ("ipv6-addresses", IpFamily::IPv6)] {
        let Some((setting, items)) = annotations.given_list(key, findings) else { continue };
        let address = |item: &str| item.parse::<IpAddr>().ok().filter(|ip| IpFamily::of(*ip) == wants);
        let (good, bad): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| address(item).is_some());
        if bad.is_empty() {
            let addresses: Vec<IpAddr> = good.iter().filter_map(|item| address(item)).collect();
            want(&addresses, &setting, families, &mut wanted, findings);
        } else {
            let allowed = format!("{wants:?} addresses with commas between them ({})", strangers(&bad));
            findings.bad(setting.at(), &allowed);
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
            Ok(ip) => match wanted.iter().find(|it| IpFamily::of(it.ip) == IpFamily::of(ip)) {
                None => want(&[ip], &setting, families, &mut wanted, findings),
                Some(_) if wanted.iter().any(|it| it.ip == ip) => {}
                Some(first) => {
                    let message = format!("{} has no effect beside {}.", setting.field, first.field);
                    findings.note(setting.at(), "NoEffect", message, Effect::Ignored);
                }
            },
            Err(_) => findings.bad(setting.at(), "an IP address"),
        }
    }
    wanted
}

/// Takes these addresses, all of one family, from one setting.
fn want(
    addresses: &[IpAddr],
    setting: &Setting,
    families: &[IpFamily],
    wanted: &mut Vec<Wanted>,
    findings: &mut Findings,
) {
    let Some(family) = addresses.first().map(|ip| IpFamily::of(*ip)) else { return };
    if !families.contains(&family) {
        let message = format!(
            "{} has no effect: the Service has no {family:?} address (spec.ipFamilies, ip-address-type).",
            setting.field
        );
        return findings.warn(setting.at(), "NoEffect", message, Effect::Ignored);
    }
    for ip in addresses {
        if wanted.iter().all(|it| it.ip != *ip) {
            wanted.push(Wanted { ip: *ip, field: setting.field.clone() });
        }
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
