//! Who may connect: `loadBalancerSourceRanges`, its annotation, and AWS's security groups, which are not here to help.

use super::annotations::{Annotations, Setting, list};
use super::findings::{At, Findings, strangers};
use super::settings::Settings;
use crate::model::IpFamily;
use crate::problem::Effect;
use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::api::core::v1::Service;
use std::net::Ipv4Addr;

const FIELD: &str = "spec.loadBalancerSourceRanges";
const REMEDY: &str = "Set spec.loadBalancerSourceRanges.";
const KEY: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// A CIDR as an API server takes it: blanks around it and leading zeros (decimal) allowed; masked.
pub fn source_range(text: &str) -> Option<IpNet> {
    let text = text.trim();
    if let Ok(net) = text.parse::<IpNet>() {
        return Some(net.trunc());
    }
    let (address, length) = text.split_once('/')?;
    let parts: Vec<u8> = address.split('.').map(decimal).collect::<Option<_>>()?;
    let octets: [u8; 4] = parts.try_into().ok()?;
    Some(Ipv4Net::new(Ipv4Addr::from(octets), decimal(length)?).ok()?.trunc().into())
}

fn decimal(text: &str) -> Option<u8> {
    let digits = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    let short = text.trim_start_matches('0');
    digits.then(|| if short.is_empty() { Some(0) } else { short.parse().ok() }).flatten()
}

/// Who may connect.
pub(super) struct Sources {
    /// Masked CIDRs; empty for everyone.
    pub(super) ranges: Vec<IpNet>,
    /// Why no port may be served: a restriction that cannot be kept.
    pub(super) closed: Option<&'static str>,
}

/// Reads the restrictions; the spec's go before the annotation's.
pub(super) fn sources(
    service: &Service,
    annotations: &Annotations<'_>,
    families: &[IpFamily],
    settings: &Settings,
    findings: &mut Findings,
) -> Sources {
    let (field, mut ranges) = ranges(service, annotations, findings);
    let said = !ranges.is_empty();
    let open = |family| ranges.iter().any(|net| net.prefix_len() == 0 && IpFamily::of(net.addr()) == family);
    if families.iter().all(|family| open(*family)) {
        ranges.clear();
    }
    let remedy = if settings.source_ranges_enforced { REMEDY } else { "Let a firewall say who may connect." };
    let mut closed = groups(annotations, (said, !ranges.is_empty()), remedy, findings);
    if !ranges.is_empty() && !settings.source_ranges_enforced {
        let value = ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let message = format!(
            "{field} closes the ports to others, which nlb cannot do yet, so they are not served. Let a firewall do it and remove the field."
        );
        let at = At { field: &field, value: Some(&value) };
        findings.warn(at, "SourceRangesNotSupported", message, Effect::PortRefused);
        closed = Some("SourceRangesNotSupported");
    }
    Sources { ranges, closed }
}

/// The ranges and the field that they come from.
fn ranges(service: &Service, annotations: &Annotations<'_>, findings: &mut Findings) -> (String, Vec<IpNet>) {
    let in_spec = service.spec.iter().flat_map(|spec| spec.load_balancer_source_ranges.iter().flatten());
    let in_spec: Vec<IpNet> = in_spec.filter_map(|it| source_range(it)).collect();
    let Some(setting) = annotations.full(KEY) else { return (FIELD.into(), in_spec) };
    if !in_spec.is_empty() {
        let message = format!("{} has no effect beside {FIELD}.", setting.field);
        findings.note(setting.at(), "NoEffect", message, Effect::Ignored);
        return (FIELD.into(), in_spec);
    }
    let (good, bad): (Vec<_>, Vec<_>) =
        list(&setting.text).into_iter().partition(|item| source_range(item).is_some());
    if good.is_empty() && bad.is_empty() {
        let message = format!("{} names no CIDR, so everyone may connect.", setting.field);
        findings.note(setting.at(), "EmptyValue", message, Effect::DefaultUsed);
    } else if !bad.is_empty() {
        findings.bad(setting.at(), &format!("CIDRs with commas between them ({})", strangers(&bad)));
    }
    (setting.field, good.iter().filter_map(|it| source_range(it)).collect())
}

/// What AWS restricts by security groups: told, and not opened to all where it is the only restriction. Source ranges may
/// have been `said` and yet leave nobody out; then prefix lists add nothing to them, but groups would have replaced them.
fn groups(
    annotations: &Annotations<'_>,
    (said, restricted): (bool, bool),
    remedy: &str,
    findings: &mut Findings,
) -> Option<&'static str> {
    let given = |key: &str| annotations.list(key).filter(|(_, items)| !items.is_empty()).map(|(it, _)| it);
    let (groups, lists) = (given("security-groups"), given("security-group-prefix-lists"));
    let stay =
        |setting: &Setting| format!("{} has no effect; the source ranges stay in force.", setting.field);
    if let Some(setting) = groups {
        if restricted {
            findings.note(setting.at(), "NoEffect", stay(&setting), Effect::Ignored);
        } else {
            let message = format!(
                "{} has no effect, and nothing else restricts who may connect. {remedy}",
                setting.field
            );
            findings.warn(setting.at(), "NoEffect", message, Effect::Ignored);
        }
    }
    let setting = lists?;
    if said {
        findings.note(setting.at(), "NoEffect", stay(&setting), Effect::Ignored);
        return None;
    }
    let message = format!(
        "{} is the only restriction and nlb cannot read prefix lists, so the ports stay closed. {remedy} Then remove the annotation.",
        setting.field
    );
    findings.warn(setting.at(), "InvalidAnnotation", message, Effect::PortRefused);
    Some("InvalidAnnotation")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cidrs_are_masked_and_leading_zeros_decimal() {
        let read = |text| source_range(text).map(|it| it.to_string());
        assert_eq!(read(" 010.1.2.3/08 "), Some("10.0.0.0/8".into()));
        assert_eq!(read("2001:db8::1/32"), Some("2001:db8::/32".into()));
        assert!(read("10.0.0.0").is_none() && read("10.0.0/8").is_none() && read("10.0.0.0/33").is_none());
        assert!(read("300.0.0.0/8").is_none() && read("").is_none() && read("/").is_none());
    }
}
