//! Who may connect: `loadBalancerSourceRanges`, its annotation, and AWS's security groups, which are not here to help.

use super::annotations::Annotations;
use super::findings::{At, Findings};
use super::settings::Settings;
use crate::model::IpFamily;
use crate::problem::Effect;
use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::api::core::v1::Service;
use std::net::Ipv4Addr;

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
    let mut closed = groups(annotations, !ranges.is_empty(), findings);
    let open = |family| ranges.iter().any(|net| net.prefix_len() == 0 && IpFamily::of(net.addr()) == family);
    if families.iter().all(|family| open(*family)) {
        ranges.clear();
    }
    if !ranges.is_empty() && !settings.source_ranges_enforced {
        let value = ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let message = format!(
            "{field} closes the ports to others, which this data path cannot do yet; they are not served."
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
    let mut ranges: Vec<IpNet> = in_spec.filter_map(|it| source_range(it)).collect();
    let Some(setting) = annotations.full(KEY).filter(|_| ranges.is_empty()) else {
        return ("spec.loadBalancerSourceRanges".into(), ranges);
    };
    for item in super::annotations::list(&setting.text) {
        match source_range(&item) {
            Some(range) => ranges.push(range),
            None => {
                findings.bad(setting.at(), &format!("CIDRs with commas between them (`{item}` is none)"));
            }
        }
    }
    (setting.field, ranges)
}

/// What AWS restricts by security groups: told, and not opened to all where it is the only restriction.
fn groups(annotations: &Annotations<'_>, restricted: bool, findings: &mut Findings) -> Option<&'static str> {
    let given = |key: &str| annotations.list(key).filter(|(_, items)| !items.is_empty()).map(|(it, _)| it);
    let (groups, lists) = (given("security-groups"), given("security-group-prefix-lists"));
    if restricted {
        for setting in groups.iter().chain(&lists) {
            let message = format!("{} has no effect; the source ranges stay in force.", setting.field);
            findings.note(setting.at(), "NoEffect", message, Effect::Ignored);
        }
        return None;
    }
    let remedy = "Set spec.loadBalancerSourceRanges.";
    if let Some(setting) = groups {
        let message =
            format!("{} has no effect, and nothing else says who may connect. {remedy}", setting.field);
        findings.warn(setting.at(), "NoEffect", message, Effect::Ignored);
    }
    let setting = lists?;
    let message = format!(
        "{} is the only restriction and nlb cannot read prefix lists, so the ports stay closed. {remedy}",
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
