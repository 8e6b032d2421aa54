//! The ports of a Service, as everything else here wants them.

use crate::model::{PortRef, Protocol};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// One of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    /// Place in `spec.ports`.
    pub(super) index: usize,
    /// Empty where it has none.
    pub(super) name: String,
    /// What clients connect to.
    pub(super) number: u16,
    /// As written.
    pub(super) protocol: String,
    /// `None` for what nlb cannot forward (SCTP).
    pub(super) transport: Option<Protocol>,
    /// What pods listen on.
    pub(super) target: PortRef,
    /// What kube-proxy listens on, where it does.
    pub(super) node_port: Option<u16>,
}

/// All ports of a Service that are numbers at all, in their order.
pub(super) fn ports(service: &Service) -> Vec<Port> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.enumerate().filter_map(|(index, port)| read(index, port)).collect()
}

fn read(index: usize, port: &ServicePort) -> Option<Port> {
    let number = number(port.port)?;
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
    Some(Port {
        index,
        name: port.name.clone().unwrap_or_default(),
        number,
        transport: transport(&protocol),
        protocol,
        target: match &port.target_port {
            Some(IntOrString::String(name)) if !name.is_empty() => PortRef::Name(name.clone()),
            Some(IntOrString::Int(target)) => PortRef::Number(self::number(*target).unwrap_or(number)),
            Some(IntOrString::String(_)) | None => PortRef::Number(number),
        },
        node_port: port.node_port.and_then(self::number),
    })
}

/// A number that can be a port.
pub(super) fn number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|it| *it != 0)
}

/// TCP or UDP; `None` for anything else.
pub(super) fn transport(word: &str) -> Option<Protocol> {
    match word {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

/// The port with this name.
pub(super) fn port_called<'a>(ports: &'a [Port], name: &str) -> Option<&'a Port> {
    ports.iter().find(|port| !port.name.is_empty() && port.name == name)
}

/// The ports that a list item means: a name or a number, which TCP and UDP may share.
pub(super) fn ports_meant<'a>(ports: &'a [Port], item: &str) -> Vec<&'a Port> {
    match item.parse::<u16>() {
        Ok(number) => ports.iter().filter(|port| port.number == number).collect(),
        Err(_) => port_called(ports, item).into_iter().collect(),
    }
}

impl Port {
    /// True if another protocol has the same number.
    pub(super) fn is_shared(&self, ports: &[Self]) -> bool {
        ports.iter().any(|other| other.number == self.number && other.protocol != self.protocol)
    }
}
