//! A folder of Services and EndpointSlices as YAML, each file put in place by a rename.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{NODE_NAME, Pod};

/// A Service port.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its name, which EndpointSlices repeat.
    pub name: &'static str,
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// The listener's port.
    pub port: u16,
    /// The pods' port.
    pub target: u16,
}

/// A Service of type LoadBalancer.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// Its namespace.
    pub namespace: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its load balancer class, if it names one.
    pub class: Option<&'static str>,
    /// Its annotations, whole keys.
    pub annotations: BTreeMap<String, String>,
    /// Its selector: only for people who read the file.
    pub selector: BTreeMap<&'static str, &'static str>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// `IPv4`, `IPv6`, or both, the primary one first; `["IPv4"]` if empty.
    pub families: Vec<&'static str>,
}

impl Service {
    /// Sets `service.beta.kubernetes.io/aws-load-balancer-NAME`.
    #[must_use]
    pub fn with_aws(mut self, name: &str, value: &str) -> Service {
        self.annotations
            .insert(format!("service.beta.kubernetes.io/aws-load-balancer-{name}"), value.to_owned());
        self
    }

    /// Sets TCP health checks that decide within seconds: every second, after two results alike.
    #[must_use]
    pub fn with_quick_checks(self) -> Service {
        self.with_aws("healthcheck-interval", "1")
            .with_aws("healthcheck-timeout", "1")
            .with_aws("healthcheck-healthy-threshold", "2")
            .with_aws("healthcheck-unhealthy-threshold", "2")
    }

    fn families(&self) -> &[&'static str] {
        if self.families.is_empty() { &["IPv4"] } else { &self.families }
    }

    /// As Kubernetes has it.
    pub fn manifest(&self) -> Value {
        let ports = self.ports.iter().map(|port| {
            json!({ "name": port.name, "protocol": port.protocol, "port": port.port, "targetPort": port.target })
        });
        let policy = if self.families().len() > 1 { "RequireDualStack" } else { "SingleStack" };
        let mut manifest = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "namespace": self.namespace, "name": self.name, "annotations": self.annotations },
            "spec": { "type": "LoadBalancer", "selector": self.selector, "ports": ports.collect::<Vec<_>>(),
                "ipFamilyPolicy": policy, "ipFamilies": self.families() },
        });
        if let Some(class) = self.class {
            manifest["spec"]["loadBalancerClass"] = class.into();
        }
        manifest
    }

    /// One EndpointSlice for each family, with every endpoint on every port.
    pub fn slices(&self, endpoints: &[Endpoint]) -> Vec<Value> {
        self.families().iter().map(|family| self.slice(family, endpoints)).collect()
    }

    fn slice(&self, family: &str, endpoints: &[Endpoint]) -> Value {
        let ports: Vec<Value> = self
            .ports
            .iter()
            .map(|port| json!({ "name": port.name, "protocol": port.protocol, "port": port.target }))
            .collect();
        let endpoints: Vec<Value> = endpoints.iter().map(|endpoint| endpoint.manifest(family)).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "namespace": self.namespace, "name": format!("{}-{}", self.name, family.to_lowercase()),
                "labels": { "kubernetes.io/service-name": self.name } },
            "addressType": family, "ports": ports, "endpoints": endpoints,
        })
    }
}

/// An endpoint of both families, and its conditions.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The pod's name and UID.
    pub pod: String,
    /// Its address.
    pub ipv4: std::net::Ipv4Addr,
    /// Its address.
    pub ipv6: std::net::Ipv6Addr,
    /// Takes new flows.
    pub ready: bool,
    /// Serves, also while terminating.
    pub serving: bool,
    /// Is about to go.
    pub terminating: bool,
}

impl Endpoint {
    /// A pod that is ready.
    pub fn ready(pod: &Pod) -> Endpoint {
        Endpoint {
            pod: pod.name.clone(),
            ipv4: pod.ipv4,
            ipv6: pod.ipv6,
            ready: true,
            serving: true,
            terminating: false,
        }
    }

    /// A pod that is being deleted and still serves.
    pub fn terminating(pod: &Pod) -> Endpoint {
        Endpoint { ready: false, terminating: true, ..Endpoint::ready(pod) }
    }

    fn manifest(&self, family: &str) -> Value {
        let address = if family == "IPv6" { self.ipv6.to_string() } else { self.ipv4.to_string() };
        json!({
            "addresses": [address], "nodeName": NODE_NAME, "zone": "zone-1",
            "conditions": { "ready": self.ready, "serving": self.serving, "terminating": self.terminating },
            "targetRef": { "kind": "Pod", "name": self.pod, "uid": format!("uid-of-{}", self.pod) },
        })
    }
}

/// The folder that the agent watches.
#[derive(Clone, Debug)]
pub struct Manifests {
    folder: PathBuf,
    aside: PathBuf,
}

impl Manifests {
    /// An empty folder `manifests` in `folder`.
    pub fn new(folder: &Path) -> Result<Manifests> {
        let manifests = Manifests { folder: folder.join("manifests"), aside: folder.join("manifests.new") };
        for folder in [&manifests.folder, &manifests.aside] {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(manifests)
    }

    /// What `--manifests` gets.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Puts a Service and its endpoints into `NAME.yaml`, all at once.
    pub fn write(&self, service: &Service, endpoints: &[Endpoint]) -> Result<()> {
        let mut documents = vec![service.manifest()];
        documents.extend(service.slices(endpoints));
        self.write_text(service.name, &yaml(&documents)?)
    }

    /// Puts any text into `NAME.yaml`, all at once.
    pub fn write_text(&self, name: &str, text: &str) -> Result<()> {
        let file = format!("{name}.yaml");
        let (aside, wanted) = (self.aside.join(&file), self.folder.join(&file));
        std::fs::write(&aside, text).with_context(|| format!("cannot write {}", aside.display()))?;
        std::fs::rename(&aside, &wanted).with_context(|| format!("cannot put {} in place", wanted.display()))
    }

    /// Takes `NAME.yaml` away.
    pub fn remove(&self, name: &str) -> Result<()> {
        let file = self.folder.join(format!("{name}.yaml"));
        std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))
    }
}

/// Many documents in one text.
pub fn yaml(documents: &[Value]) -> Result<String> {
    let texts: Vec<String> = documents.iter().map(|document| block(document, "")).collect();
    Ok(texts.join("---\n"))
}

/// A value in block style, as people and kubectl write it.
fn block(value: &Value, indent: &str) -> String {
    let deeper = format!("{indent}  ");
    match value {
        Value::Object(map) if !map.is_empty() => {
            let entry = |(key, value): (&String, &Value)| match value {
                Value::Object(map) if !map.is_empty() => format!("{indent}{key}:\n{}", block(value, &deeper)),
                Value::Array(items) if !items.is_empty() => {
                    format!("{indent}{key}:\n{}", block(value, indent))
                }
                _ => format!("{indent}{key}: {}", block(value, "")),
            };
            map.iter().map(entry).collect()
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().map(|item| format!("{indent}- {}", block(item, &deeper).trim_start())).collect()
        }
        Value::String(text) if is_plain(text) => format!("{text}\n"),
        _ => format!("{value}\n"),
    }
}

/// Whether YAML takes a text for itself without quotes: words that begin with a letter and are no truth values.
fn is_plain(text: &str) -> bool {
    let words = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-./".contains(&byte))
        && !words.contains(&text.to_ascii_lowercase().as_str())
}
