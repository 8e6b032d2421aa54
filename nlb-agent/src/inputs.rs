//! The Kubernetes objects that are known now, wherever they came from: plain data, the start of everything pure.

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Namespace and name of an object; a cluster-wide one has an empty namespace. Their order is the order of everything printed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectName {
    /// Empty for Nodes and Namespaces.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl ObjectName {
    /// A name made of its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// What `metadata` says.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self::new(
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        )
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Everything that is known, with the API server's defaults and validation behind it. A clone shares the objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs {
    /// Of every type, not only `LoadBalancer`.
    pub services: BTreeMap<ObjectName, Arc<Service>>,
    /// `discovery.k8s.io/v1`.
    pub endpoint_slices: BTreeMap<ObjectName, Arc<EndpointSlice>>,
    /// Cluster-wide.
    pub nodes: BTreeMap<ObjectName, Arc<Node>>,
    /// Cluster-wide.
    pub namespaces: BTreeMap<ObjectName, Arc<Namespace>>,
    /// Where named ports and readiness gates need them.
    pub pods: BTreeMap<ObjectName, Arc<Pod>>,
}

/// One object of a kind that nlb reads.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Object {
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    Node(Arc<Node>),
    Namespace(Arc<Namespace>),
    Pod(Arc<Pod>),
}

/// Kind and name: what makes two objects the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// `Service`, `EndpointSlice` and so on.
    pub kind: String,
    /// Where it is and what it is called.
    pub name: ObjectName,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl Object {
    /// Kind and name.
    pub fn identity(&self) -> Identity {
        let (kind, metadata) = match self {
            Self::Service(it) => ("Service", &it.metadata),
            Self::EndpointSlice(it) => ("EndpointSlice", &it.metadata),
            Self::Node(it) => ("Node", &it.metadata),
            Self::Namespace(it) => ("Namespace", &it.metadata),
            Self::Pod(it) => ("Pod", &it.metadata),
        };
        Identity { kind: kind.into(), name: ObjectName::of(metadata) }
    }
}

impl Inputs {
    /// Adds an object, or replaces the one of the same kind and name.
    pub fn put(&mut self, object: Object) {
        let name = object.identity().name;
        match object {
            Object::Service(it) => drop(self.services.insert(name, it)),
            Object::EndpointSlice(it) => drop(self.endpoint_slices.insert(name, it)),
            Object::Node(it) => drop(self.nodes.insert(name, it)),
            Object::Namespace(it) => drop(self.namespaces.insert(name, it)),
            Object::Pod(it) => drop(self.pods.insert(name, it)),
        }
    }
}

impl FromIterator<Object> for Inputs {
    fn from_iter<I: IntoIterator<Item = Object>>(objects: I) -> Self {
        let mut inputs = Self::default();
        objects.into_iter().for_each(|object| inputs.put(object));
        inputs
    }
}
