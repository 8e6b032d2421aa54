//! What most namespace tests begin with: the five-port Service and a dual-stack one on the same pods, and an agent.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::manifests::{Endpoint, Manifests, Port, Service};
use super::nginx::Nginx;
use super::{Agent, Lab, Pod, Process, eventually, udp};

/// The load balancer class of every Service here, taken over from AWS.
pub const CLASS: &str = "service.k8s.aws/nlb";
/// The five-port Service.
pub const FIVE: &str = "app-qa/internal-nlb-service";
/// The dual-stack Service.
pub const WEB: &str = "app-qa/web";
/// The five-port Service's ports, each the pods' own.
pub const FIVE_PORTS: [(&str, u16); 5] = [
    ("api-service", 5001),
    ("worker-service", 5002),
    ("analytics-service", 5003),
    ("ml-engine", 5004),
    ("report-generator", 5005),
];
/// The dual-stack Service's TCP listener and the pods' port behind it.
pub const WEB_TCP: (u16, u16) = (80, 8080);
/// Its UDP listener and the pods' port behind it.
pub const WEB_UDP: (u16, u16) = (53, 9053);
/// The Service for iperf3, which needs all its connections at one pod: the first.
pub const BULK: &str = "app-qa/bulk";
/// Its listener and the pod's port behind it.
pub const BULK_TCP: (u16, u16) = (5200, 5201);
/// How long anything may take that health checks decide: each takes a second, and two must agree.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// The five-port Service of one family: all pods are endpoints of all its ports.
pub fn five(name: &'static str, family: &'static str) -> Service {
    let port = |(name, port)| Port { name, protocol: "TCP", port, target: port };
    Service {
        namespace: "app-qa",
        name,
        class: Some(CLASS),
        selector: [("nlb-backend", "shared-nlb-group"), ("environment", "qa")].into(),
        ports: FIVE_PORTS.map(port).into(),
        families: vec![family],
        ..Service::default()
    }
    .with_aws("type", "external")
    .with_aws("nlb-target-type", "ip")
    .with_quick_checks()
}

/// The dual-stack Service: TCP and UDP to the same pods, whose web servers say whether they are healthy.
pub fn web() -> Service {
    let port = |name, protocol, (port, target)| Port { name, protocol, port, target };
    Service {
        namespace: "app-qa",
        name: "web",
        class: Some(CLASS),
        ports: vec![port("http", "TCP", WEB_TCP), port("echo", "UDP", WEB_UDP)],
        families: vec!["IPv4", "IPv6"],
        ..Service::default()
    }
    .with_quick_checks()
    .with_aws("healthcheck-port", &WEB_TCP.1.to_string())
}

/// The Service for iperf3.
pub fn bulk() -> Service {
    let port = Port { name: "bulk", protocol: "TCP", port: BULK_TCP.0, target: BULK_TCP.1 };
    Service { name: "bulk", ports: vec![port], ..web() }
}

/// The laboratory with Services, servers and an agent. What comes first in it ends first.
pub struct Scene {
    /// The agent.
    pub agent: Agent,
    /// The web servers, in the order in which they were started.
    pub servers: Vec<Nginx>,
    /// The UDP servers, by pod.
    pub udp: Vec<Process>,
    /// The folder that the agent watches.
    pub manifests: Manifests,
    /// The namespaces.
    pub lab: Lab,
}

impl Scene {
    /// `pods` pods that serve the dual-stack Service's ports, and an agent with `extra` arguments beside the usual ones.
    pub fn new(pods: usize, services: &[Service], extra: &[&str]) -> Result<Scene> {
        Scene::with_servers(pods, services, extra, |_| vec![WEB_TCP.1])
    }

    /// The five-port Service, for both families as Services of their own: each pod serves one of its ports.
    pub fn of_five_ports() -> Result<Scene> {
        let services =
            [five("internal-nlb-service", "IPv4"), five("internal-nlb-service-six", "IPv6"), web(), bulk()];
        Scene::with_servers(5, &services, &[], |pod| vec![FIVE_PORTS[pod].1, WEB_TCP.1])
    }

    /// `pods` pods, each with a web server on the ports that `ports` gives it and a UDP server.
    pub fn with_servers(
        pods: usize,
        services: &[Service],
        extra: &[&str],
        ports: impl Fn(usize) -> Vec<u16>,
    ) -> Result<Scene> {
        Scene::with_binary(Agent::binary()?, pods, services, extra, ports)
    }

    /// As [`Scene::with_servers`], with another binary as the agent.
    pub fn with_binary(
        binary: PathBuf,
        pods: usize,
        services: &[Service],
        extra: &[&str],
        ports: impl Fn(usize) -> Vec<u16>,
    ) -> Result<Scene> {
        let lab = Lab::new(pods)?;
        let (mut servers, mut udp) = (Vec::new(), Vec::new());
        for (number, pod) in lab.pods().iter().enumerate() {
            let ports = ports(number);
            if !ports.is_empty() {
                servers.push(Nginx::start(&lab, pod, &ports)?);
            }
            udp.push(udp::serve(&lab, pod, WEB_UDP.1)?);
        }
        let manifests = Manifests::new(&lab.folder())?;
        let endpoints: Vec<Endpoint> = lab.pods().iter().map(Endpoint::ready).collect();
        for service in services {
            let of_one = if service.name == bulk().name { 1 } else { pods };
            manifests.write(service, &endpoints[..of_one])?;
        }
        let arguments = [&["--load-balancer-class", CLASS], extra].concat();
        let agent = Agent::start_binary(binary, &lab, manifests.folder(), &arguments)?;
        Ok(Scene { agent, servers, udp, manifests, lab })
    }

    /// The listeners' addresses of a Service with this protocol, IPv4 first, in the order of their ports.
    pub fn listeners(&self, service: &str, protocol: &str) -> Result<Vec<SocketAddr>> {
        let all = self.agent.json(&["listeners"])?;
        let rows = all["listeners"].as_array().context("listeners -o json has no list `listeners`")?;
        let of = |row: &&Value| format!("{}/{}", text(row, "namespace"), text(row, "service")) == service;
        let named = rows.iter().filter(of).filter_map(|row| text(row, "listener").split_once('/'));
        let parsed: Result<Vec<SocketAddr>> = named
            .filter(|(_, other)| *other == protocol)
            .map(|(address, _)| address.parse().with_context(|| format!("{address:?} is no address")))
            .collect();
        let mut addresses = parsed?;
        addresses.sort();
        ensure!(!addresses.is_empty(), "{service} has no {protocol} listener: {all}");
        Ok(addresses)
    }

    /// The listener of a Service with this protocol, port and family, once the agent has it.
    pub fn listener(&self, service: &str, protocol: &str, port: u16, ipv4: bool) -> Result<SocketAddr> {
        let wanted = |address: &SocketAddr| address.port() == port && address.is_ipv4() == ipv4;
        eventually(PATIENCE, || Ok(self.listeners(service, protocol)?.into_iter().find(wanted)))
            .with_context(|| format!("{service} has no listener {port}/{protocol} with ipv4={ipv4}"))
    }

    /// The dual-stack Service's TCP listener.
    pub fn web(&self, ipv4: bool) -> Result<SocketAddr> {
        self.listener(WEB, "TCP", WEB_TCP.0, ipv4)
    }

    /// The dual-stack Service's UDP listener.
    pub fn echo(&self, ipv4: bool) -> Result<SocketAddr> {
        self.listener(WEB, "UDP", WEB_UDP.0, ipv4)
    }

    /// The counter of a reason, be it a drop or not.
    pub fn reason(&self, name: &str) -> Result<u64> {
        let all = self.agent.json(&["drops"])?;
        let rows = ["drops", "passed", "forwarded", "noted"]
            .iter()
            .filter_map(|list| all[list].as_array())
            .flatten();
        let row = rows.into_iter().find(|row| row["reason"] == name);
        row.and_then(|row| row["packets"].as_u64()).with_context(|| format!("`drops` has no {name}: {all}"))
    }

    /// The pod with this name.
    pub fn pod(&self, name: &str) -> &Pod {
        self.lab.pods().iter().find(|pod| pod.name == name).expect("tests name pods that they made")
    }

    /// The web server of the pod with this name.
    pub fn server(&mut self, name: &str) -> &mut Nginx {
        let number = self.lab.pods().iter().position(|pod| pod.name == name);
        &mut self.servers[number.expect("tests name pods that they made")]
    }

    /// Writes the dual-stack Service with these endpoints.
    pub fn endpoints(&self, endpoints: &[Endpoint]) -> Result<()> {
        self.manifests.write(&web(), endpoints)
    }
}

/// A field of a row, as text.
pub fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_default()
}
