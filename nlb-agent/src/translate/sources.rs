//! Who may connect: `loadBalancerSourceRanges`, its annotation, and AWS's security groups, which are not here to help.

use super::annotations::Annotations;
use super::findings::Findings;
use super::ports::Port;
use super::refusals::Refusals;
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

/// The CIDRs that may connect, empty for everyone; ports whose restriction cannot be kept are refused.
pub(super) fn source_ranges(
    service: &Service,
    annotations: &Annotations<'_>,
    families: &[IpFamily],
    settings: &Settings,
    refuse: (&[Port], &mut Refusals),
    findings: &mut Findings,
) -> Vec<IpNet> {
    let in_spec = service.spec.iter().flat_map(|spec| spec.load_balancer_source_ranges.iter().flatten());
    let mut ranges: Vec<IpNet> = in_spec.filter_map(|it| source_range(it)).collect();
    let mut field = "spec.loadBalancerSourceRanges".to_owned();
    if let Some(setting) = annotations.full(KEY).filter(|_| ranges.is_empty()) {
        field.clone_from(&setting.field);
        for item in super::annotations::list(&setting.text) {
            match source_range(&item) {
                Some(range) => ranges.push(range),
                None => findings.bad(setting.at(), &format!("CIDRs with commas between them (`{item}` is none)")),
            }
        }
    }
    let restricted = !ranges.is_empty();
    groups(annotations, restricted, (refuse.0, &mut *refuse.1), findings);
    let open = |family| ranges.iter().any(|net| net.prefix_len() == 0 && IpFamily::of(net.addr()) == family);
    if families.iter().all(|family| open(*family)) {
        return Vec::new();
    }
    if restricted && !settings.source_ranges_enforced {
        let value = ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let message = format!("{field} closes the ports to others, which this data path cannot do yet; they are not served.");
        let at = super::findings::At { field: &field, value: &value };
        findings.warn(at, "SourceRangesNotSupported", message, Effect::PortRefused);
        close(refuse.0, refuse.1, "SourceRangesNotSupported");
    }
    ranges
}

/// What AWS restricts by security groups: told, and not opened to all where it is the only restriction.
fn groups(annotations: &Annotations<'_>, restricted: bool, refuse: (&[Port], &mut Refusals), findings: &mut Findings) {
    if let Some((setting, _)) = annotations.list("security-groups").filter(|(_, items)| !items.is_empty()) {
        if restricted {
            let message = format!("{} has no effect; the source ranges stay in force.", setting.field);
            findings.note(setting.at(), "NoEffect", message, Effect::Ignored);
        } else {
            let message = format!("{} has no effect and nothing else restricts who may connect; set spec.loadBalancerSourceRanges.", setting.field);
            findings.warn(setting.at(), "NoEffect", message, Effect::Ignored);
        }
    }
    if let Some((setting, _)) = annotations.list("security-group-prefix-lists").filter(|(_, items)| !items.is_empty()) {
        if restricted {
            let message = format!("{} has no effect; the source ranges stay in force.", setting.field);
            findings.note(setting.at(), "NoEffect", message, Effect::Ignored);
        } else {
            let message = format!("{} is the only restriction, and nlb cannot read prefix lists; the ports are not opened to everyone. Set spec.loadBalancerSourceRanges.", setting.field);
            findings.warn(setting.at(), "InvalidAnnotation", message, Effect::PortRefused);
            close(refuse.0, refuse.1, "InvalidAnnotation");
        }
    }
}

fn close(ports: &[Port], refused: &mut Refusals, reason: &'static str) {
    for port in ports {
        refused.entry(port.index).or_insert(reason);
    }
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
