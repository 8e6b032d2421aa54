//! What an API server does to an object before anybody sees it: defaults, then validation.

use super::names::{is_dns_label, is_dns_subdomain, is_port_name, is_qualified_name};
use crate::inputs::Object;
use crate::problem::{Effect, Problem, Severity};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;

/// Applies the defaults and says what is wrong: the object as the API server would keep it, or its refusal.
pub(super) fn admit(object: Object) -> Result<Object, Vec<Problem>> {
    match object {
        Object::Service(it) => {
            admit_service(Arc::unwrap_or_clone(it)).map(|it| Object::Service(Arc::new(it)))
        }
        Object::EndpointSlice(it) => {
            admit_slice(Arc::unwrap_or_clone(it)).map(|it| Object::EndpointSlice(Arc::new(it)))
        }
        Object::Node(it) => {
            let mut it = Arc::unwrap_or_clone(it);
            it.metadata.namespace = None;
            let refusal = Refusal::new("Node", &it.metadata, Effect::Ignored).metadata(&it.metadata);
            refusal.or(Object::Node(Arc::new(it)))
        }
        Object::Namespace(it) => {
            let mut it = Arc::unwrap_or_clone(it);
            it.metadata.namespace = None;
            let refusal = Refusal::new("Namespace", &it.metadata, Effect::Ignored).metadata(&it.metadata);
            refusal.or(Object::Namespace(Arc::new(it)))
        }
        Object::Pod(it) => {
            let mut it = Arc::unwrap_or_clone(it);
            default_namespace(&mut it.metadata);
            let refusal = Refusal::new("Pod", &it.metadata, Effect::Ignored).metadata(&it.metadata);
            refusal.or(Object::Pod(Arc::new(it)))
        }
    }
}

fn admit_service(mut service: Service) -> Result<Service, Vec<Problem>> {
    default_namespace(&mut service.metadata);
    let spec = service.spec.get_or_insert_default();
    default_spec(spec);
    let effect = if is(&spec.type_, "LoadBalancer") { Effect::LoadBalancerRefused } else { Effect::Ignored };
    let mut refusal = Refusal::new("Service", &service.metadata, effect).metadata(&service.metadata);
    if !is_dns_label(service.metadata.name.as_deref().unwrap_or_default()) {
        refusal.add(
            "metadata.name",
            service.metadata.name.as_deref(),
            "a name of a-z, 0-9 and `-`, at most 63 characters",
        );
    }
    validate_spec(spec, &mut refusal);
    refusal.or(service)
}

fn default_namespace(metadata: &mut ObjectMeta) {
    if metadata.namespace.as_deref().unwrap_or_default().is_empty() {
        metadata.namespace = Some("default".into());
    }
}

fn is(word: &Option<String>, wanted: &str) -> bool {
    word.as_deref() == Some(wanted)
}

/// An empty word and 0 are how the server itself spells "not given".
fn default_word<'a>(word: &'a mut Option<String>, default: &str) -> &'a String {
    if word.as_deref() == Some("") {
        *word = None;
    }
    word.get_or_insert_with(|| default.into())
}

fn default_spec(spec: &mut ServiceSpec) {
    let kind = default_word(&mut spec.type_, "ClusterIP").clone();
    default_word(&mut spec.session_affinity, "None");
    if kind == "LoadBalancer" || kind == "NodePort" {
        default_word(&mut spec.external_traffic_policy, "Cluster");
    }
    for port in spec.ports.iter_mut().flatten() {
        default_word(&mut port.protocol, "TCP");
        if matches!(&port.target_port, None | Some(IntOrString::Int(0)))
            || port.target_port == Some(IntOrString::String(String::new()))
        {
            port.target_port = Some(IntOrString::Int(port.port));
        }
    }
    if kind != "ExternalName" {
        default_families(spec);
    }
}

/// The server takes the families of the cluster IPs, else the cluster's first family, IPv4 where files cannot say.
fn default_families(spec: &mut ServiceSpec) {
    let given = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let from_ips =
        given.filter_map(|ip| ip.parse::<IpAddr>().ok()).map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" });
    let mut from_ips: Vec<String> = from_ips.map(str::to_owned).collect();
    from_ips.dedup();
    from_ips.truncate(2);
    let families = spec.ip_families.get_or_insert_default();
    if families.is_empty() {
        families.extend(from_ips);
    }
    if families.is_empty() {
        families.push("IPv4".into());
    }
    let dual = if families.len() > 1 { "RequireDualStack" } else { "SingleStack" };
    let policy = spec.ip_family_policy.get_or_insert_with(|| dual.into());
    if policy != "SingleStack" && families.len() == 1 {
        families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }.into());
    }
}

fn validate_spec(spec: &ServiceSpec, refusal: &mut Refusal) {
    let kind = spec.type_.as_deref().unwrap_or_default();
    refusal.word("spec.type", &spec.type_, &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]);
    refusal.word("spec.externalTrafficPolicy", &spec.external_traffic_policy, &["Cluster", "Local"]);
    refusal.word("spec.sessionAffinity", &spec.session_affinity, &["None", "ClientIP"]);
    refusal.word(
        "spec.ipFamilyPolicy",
        &spec.ip_family_policy,
        &["SingleStack", "PreferDualStack", "RequireDualStack"],
    );
    let families = spec.ip_families.as_deref().unwrap_or_default();
    for (index, family) in families.iter().enumerate() {
        refusal.word(&format!("spec.ipFamilies[{index}]"), &Some(family.clone()), &["IPv4", "IPv6"]);
    }
    if families.len() > 2 || families.len() == 2 && families[0] == families[1] {
        refusal.add("spec.ipFamilies", Some(families.join(",")), "each family at most once");
    }
    if families.len() == 2 && is(&spec.ip_family_policy, "SingleStack") {
        refusal.add(
            "spec.ipFamilies",
            Some(families.join(",")),
            "one family, as `ipFamilyPolicy` is SingleStack",
        );
    }
    if let Some(class) = &spec.load_balancer_class {
        if kind != "LoadBalancer" {
            refusal.add("spec.loadBalancerClass", Some(class), "none, as `type` is not LoadBalancer");
        } else if !is_qualified_name(class) {
            refusal.add("spec.loadBalancerClass", Some(class), "a name like `nlb.io/nlb`");
        }
    }
    for (index, range) in spec.load_balancer_source_ranges.iter().flatten().enumerate() {
        if crate::translate::source_range(range).is_none() {
            refusal.add(
                format!("spec.loadBalancerSourceRanges[{index}]"),
                Some(range),
                "a CIDR like 192.0.2.0/24",
            );
        }
    }
    if kind == "LoadBalancer" && is(&spec.cluster_ip, "None") {
        refusal.add("spec.clusterIP", Some("None"), "an address or nothing, as `type` is LoadBalancer");
    }
    let affinity = spec.session_affinity_config.as_ref().and_then(|it| it.client_ip.as_ref());
    if let Some(seconds) = affinity.and_then(|it| it.timeout_seconds).filter(|it| !(1..=86_400).contains(it))
    {
        refusal.add("spec.sessionAffinityConfig.clientIP.timeoutSeconds", Some(seconds), "1 to 86400");
    }
    validate_ports(spec, kind, refusal);
}

fn validate_ports(spec: &ServiceSpec, kind: &str, refusal: &mut Refusal) {
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && kind != "ExternalName" && !is(&spec.cluster_ip, "None") {
        refusal.lacks("spec.ports", "at least one port");
    }
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        let at = |field: &str| format!("spec.ports[{index}].{field}");
        validate_port(port, &at, refusal);
        let name = port.name.as_deref().unwrap_or_default();
        if name.is_empty() && ports.len() > 1 {
            refusal.lacks(at("name"), "a name, as there is more than one port");
        } else if !name.is_empty() && !is_dns_label(name) {
            refusal.add(at("name"), Some(name), "a name of a-z, 0-9 and `-`, at most 63 characters");
        } else if !name.is_empty() && !names.insert(name) {
            refusal.add(at("name"), Some(name), "a name that no other port of the Service has");
        }
        if !numbers.insert((port.port, &port.protocol)) {
            let value = format!("{}/{}", port.port, port.protocol.as_deref().unwrap_or_default());
            refusal.add(at("port"), Some(value), "each port and protocol at most once");
        }
    }
}

fn validate_port(port: &ServicePort, at: &impl Fn(&str) -> String, refusal: &mut Refusal) {
    if port.port == 0 {
        // What was read cannot tell the two apart.
        refusal.push(at("port"), None, "absent or 0", "1 to 65535");
    } else {
        refusal.port(at("port"), port.port);
    }
    refusal.word(&at("protocol"), &port.protocol, &["TCP", "UDP", "SCTP"]);
    match &port.target_port {
        // What was copied from a bad port is no mistake of its own.
        Some(IntOrString::Int(number)) if *number == port.port => {}
        Some(IntOrString::Int(number)) => refusal.port(at("targetPort"), *number),
        Some(IntOrString::String(name)) if !is_port_name(name) => {
            refusal.add(
                at("targetPort"),
                Some(name),
                "a number from 1 to 65535, or a port name of at most 15 of a-z, 0-9 and `-`",
            );
        }
        Some(IntOrString::String(_)) | None => {}
    }
    if let Some(node_port) = port.node_port.filter(|it| *it != 0) {
        refusal.port(at("nodePort"), node_port);
    }
}

fn admit_slice(mut slice: EndpointSlice) -> Result<EndpointSlice, Vec<Problem>> {
    default_namespace(&mut slice.metadata);
    for port in slice.ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".into());
        port.name.get_or_insert_default();
    }
    for endpoint in &mut slice.endpoints {
        let conditions = endpoint.conditions.get_or_insert_default();
        let ready = *conditions.ready.get_or_insert(true);
        conditions.serving.get_or_insert(ready);
        conditions.terminating.get_or_insert(false);
    }
    let mut refusal =
        Refusal::new("EndpointSlice", &slice.metadata, Effect::Ignored).metadata(&slice.metadata);
    validate_slice(&slice, &mut refusal);
    refusal.or(slice)
}

fn validate_slice(slice: &EndpointSlice, refusal: &mut Refusal) {
    if slice.address_type.is_empty() {
        refusal.lacks("addressType", "IPv4, IPv6, FQDN");
    } else {
        refusal.word("addressType", &Some(slice.address_type.clone()), &["IPv4", "IPv6", "FQDN"]);
    }
    let mut names = BTreeSet::new();
    for (index, port) in slice.ports.iter().flatten().enumerate() {
        let at = |field: &str| format!("ports[{index}].{field}");
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() && !is_dns_label(name) {
            refusal.add(at("name"), Some(name), "a name of a-z, 0-9 and `-`, at most 63 characters");
        } else if !names.insert(name) {
            refusal.add(at("name"), Some(name), "a name that no other port of the slice has");
        }
        if let Some(number) = port.port {
            refusal.port(at("port"), number);
        }
        refusal.word(&at("protocol"), &port.protocol, &["TCP", "UDP", "SCTP"]);
    }
    for (index, endpoint) in slice.endpoints.iter().enumerate() {
        if endpoint.addresses.is_empty() {
            refusal.lacks(format!("endpoints[{index}].addresses"), "at least one address");
        }
        for (nth, address) in endpoint.addresses.iter().enumerate() {
            let fits = match slice.address_type.as_str() {
                "IPv4" => address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()),
                "IPv6" => address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()),
                _ => true,
            };
            if !fits {
                let allowed = format!("an {} address, as `addressType` says", slice.address_type);
                refusal.add(format!("endpoints[{index}].addresses[{nth}]"), Some(address), &allowed);
            }
        }
    }
}

/// Everything that is wrong with one object.
struct Refusal {
    object: String,
    effect: Effect,
    problems: Vec<Problem>,
}

impl Refusal {
    fn new(kind: &str, metadata: &ObjectMeta, effect: Effect) -> Self {
        let mut name = crate::inputs::ObjectName::of(metadata);
        if name.name.is_empty() {
            name.name = "(no name)".to_owned();
        }
        Self { object: format!("{kind} {name}"), effect, problems: Vec::new() }
    }

    fn metadata(mut self, metadata: &ObjectMeta) -> Self {
        let name = metadata.name.as_deref();
        if !name.is_some_and(is_dns_subdomain) {
            self.add("metadata.name", name, "a name of a-z, 0-9, `-` and `.`, at most 253 characters");
        }
        if let Some(namespace) = metadata.namespace.as_deref().filter(|it| !is_dns_label(it)) {
            self.add(
                "metadata.namespace",
                Some(namespace),
                "a name of a-z, 0-9 and `-`, at most 63 characters",
            );
        }
        self
    }

    fn add<V: Display>(&mut self, field: impl Into<String>, value: Option<V>, allowed: &str) {
        let value = value.map(|it| it.to_string());
        let found = crate::translate::found(value.as_deref());
        self.push(field.into(), value, &found, allowed);
    }

    /// A list that holds nothing, or a field whose emptiness means that it is absent.
    fn lacks(&mut self, field: impl Into<String>, allowed: &str) {
        self.push(field.into(), None, "absent or empty", allowed);
    }

    fn push(&mut self, field: String, value: Option<String>, found: &str, allowed: &str) {
        if self.problems.iter().any(|it| it.field.as_deref() == Some(&field)) {
            return;
        }
        self.problems.push(Problem {
            severity: Severity::Warning,
            object: self.object.clone(),
            message: format!(
                "{field} is {found}; allowed: {allowed}. An API server would refuse this object."
            ),
            field: Some(field),
            value,
            reason: "InvalidObject".into(),
            effect: self.effect,
        });
    }

    fn word(&mut self, field: &str, value: &Option<String>, allowed: &[&str]) {
        if let Some(value) = value.as_deref().filter(|value| !allowed.contains(value)) {
            self.add(field, Some(value), &allowed.join(", "));
        }
    }

    fn port(&mut self, field: String, number: i32) {
        if !(1..=65535).contains(&number) {
            self.add(field, Some(number), "1 to 65535");
        }
    }

    fn or<T>(self, object: T) -> Result<T, Vec<Problem>> {
        if self.problems.is_empty() { Ok(object) } else { Err(self.problems) }
    }
}
