//! What the demo plays on: the laboratory, the servers in the pods, the manifests and the agent.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use nlb_tests::lab::manifests::{Endpoint, Manifests, Port, Service};
use nlb_tests::lab::nginx::Nginx;
use nlb_tests::lab::{Agent, Lab, Process, udp};
use serde_json::Value;

/// The five-port Service.
pub(crate) const MAIN: &str = "app-qa/internal-nlb-service";
/// The dual-stack Service of the same pods.
pub(crate) const WEB: &str = "app-qa/web";
/// Its listeners' ports, and the pods' ports behind them.
pub(crate) const WEB_TCP: (u16, u16) = (80, 8080);
pub(crate) const WEB_UDP: (u16, u16) = (53, 9053);
/// How long anything may take that health checks decide: each takes a second, and two must agree.
pub(crate) const PATIENCE: Duration = Duration::from_secs(12);

const CLASS: &str = "service.k8s.aws/nlb";
const PORTS: [(&str, u16); 5] = [
    ("api-service", 5001),
    ("worker-service", 5002),
    ("analytics-service", 5003),
    ("ml-engine", 5004),
    ("report-generator", 5005),
];

/// Everything that runs.
pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) agent: Agent,
    /// By pod, in their order.
    pub(crate) servers: Vec<Nginx>,
    manifests: Manifests,
    udp: Vec<Process>,
}

impl Stage {
    /// Five pods, each with a web server on one of the five ports; two Services; the agent.
    pub(crate) fn new() -> Result<Stage> {
        let lab = Lab::new(PORTS.len())?;
        let manifests = Manifests::new(&lab.folder())?;
        let (mut servers, mut udp) = (Vec::new(), Vec::new());
        for (pod, (_, port)) in lab.pods().iter().zip(PORTS) {
            servers.push(Nginx::start(&lab, pod, &[port, WEB_TCP.1])?);
            udp.push(udp::serve(&lab, pod, WEB_UDP.1)?);
        }
        let endpoints: Vec<Endpoint> = lab.pods().iter().map(Endpoint::ready).collect();
        manifests.write(&main_service(), &endpoints)?;
        manifests.write(&web_service(), &endpoints)?;
        let agent = Agent::start(&lab, manifests.folder(), &["--load-balancer-class", CLASS])?;
        Ok(Stage { lab, agent, servers, manifests, udp })
    }

    /// A sixth pod that answers on the first pod's port, as an endpoint of the five-port Service.
    pub(crate) fn add_replica(&mut self) -> Result<SocketAddr> {
        let port = PORTS[0].1;
        let address = self.lab.add_pod()?.ipv4;
        let pod = self.lab.pods().last().context("a pod was just added")?;
        self.servers.push(Nginx::start(&self.lab, pod, &[port])?);
        let endpoints: Vec<Endpoint> = self.lab.pods().iter().map(Endpoint::ready).collect();
        self.manifests.write(&main_service(), &endpoints)?;
        Ok((address, port).into())
    }

    /// The replica's web server.
    pub(crate) fn replica(&mut self) -> &mut Nginx {
        self.servers.last_mut().expect("the stage has servers")
    }

    /// The rows of `listeners` that belong to a Service.
    pub(crate) fn listener_rows(&self, service: &str) -> Result<Vec<Value>> {
        let all = self.agent.json(&["listeners"])?;
        let rows = all["listeners"].as_array().context("listeners -o json has no list `listeners`")?;
        let of = |row: &&Value| format!("{}/{}", text(row, "namespace"), text(row, "service")) == service;
        Ok(rows.iter().filter(of).cloned().collect())
    }

    /// The TCP listeners' addresses of a Service, in the order of their ports.
    pub(crate) fn listeners(&self, service: &str) -> Result<Vec<SocketAddr>> {
        self.addresses(service, "TCP")
    }

    /// The listeners' addresses of a Service with this protocol, IPv4 first, in the order of their ports.
    pub(crate) fn addresses(&self, service: &str, protocol: &str) -> Result<Vec<SocketAddr>> {
        let rows = self.listener_rows(service)?;
        let with = rows
            .iter()
            .filter_map(|row| text(row, "listener").split_once('/'))
            .filter(|(_, other)| *other == protocol);
        let parsed: Result<Vec<SocketAddr>> = with
            .map(|(address, _)| address.parse().with_context(|| format!("{address:?} is no address")))
            .collect();
        let mut addresses = parsed?;
        addresses.sort();
        anyhow::ensure!(!addresses.is_empty(), "{service} has no {protocol} listener");
        Ok(addresses)
    }

    /// The name of the pod with the address of `target`, such as `10.1.1.2:5001`.
    pub(crate) fn pod_of(&self, target: &str) -> String {
        let address = target.parse::<SocketAddr>().ok().map(|address| address.ip());
        let pod =
            self.lab.pods().iter().find(|pod| address.is_some_and(|address| pod.address(address) == address));
        pod.map_or_else(|| "?".to_owned(), |pod| pod.name.clone())
    }

    /// Leaves everything running and says how to use it.
    pub(crate) fn keep(self) -> Result<()> {
        let Stage { lab, agent, servers, manifests, udp } = self;
        let main =
            agent.json(&["listeners"])?["listeners"][0]["listener"].as_str().unwrap_or_default().to_owned();
        let address = main.split('/').next().unwrap_or_default();
        let tool = |subcommand| {
            let words = agent.command(subcommand);
            let all = std::iter::once(words.get_program()).chain(words.get_args());
            all.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
        };
        println!("\nIt goes on running. Try:");
        for subcommand in ["status", "targets", "top"] {
            println!("  {}", tool(subcommand));
        }
        println!("  nsenter --net={} curl http://{address}/", lab.client.path().display());
        println!("  edit the manifests in {}", manifests.folder().display());
        println!("  bpftool map dump pinned {}/listeners", agent.pins().display());
        println!("and in the end:\n  cargo xtask demo --clean");
        // Dropping any of them would end it.
        std::mem::forget((agent, servers, udp));
        lab.keep()
    }
}

/// A field of a row, as text.
pub(crate) fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_default()
}

fn main_service() -> Service {
    let port = |(name, port)| Port { name, protocol: "TCP", port, target: port };
    let service = Service {
        namespace: "app-qa",
        name: "internal-nlb-service",
        class: Some(CLASS),
        selector: [("nlb-backend", "shared-nlb-group"), ("environment", "qa")].into(),
        ports: PORTS.map(port).into(),
        ..Service::default()
    };
    service
        .with_aws("type", "external")
        .with_aws("scheme", "internal")
        .with_aws("nlb-target-type", "ip")
        .with_aws("cross-zone-load-balancing-enabled", "true")
        .with_quick_checks()
}

fn web_service() -> Service {
    let ports = [
        Port { name: "http", protocol: "TCP", port: WEB_TCP.0, target: WEB_TCP.1 },
        Port { name: "echo", protocol: "UDP", port: WEB_UDP.0, target: WEB_UDP.1 },
    ];
    let service = Service {
        namespace: "app-qa",
        name: "web",
        class: Some(CLASS),
        selector: [("nlb-backend", "shared-nlb-group")].into(),
        ports: ports.into(),
        families: vec!["IPv4", "IPv6"],
        ..Service::default()
    };
    // A UDP port says nothing about health: the web server beside it does.
    service.with_quick_checks().with_aws("healthcheck-port", &WEB_TCP.1.to_string())
}
