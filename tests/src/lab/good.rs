//! A lab with an agent that serves one good Service: what goes on while a test does something bad beside it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::echo::Echo;
use super::http::{Attempt, Load, request};
use super::manifests::{Endpoint, Manifests, Port, Service};
use super::{Agent, Lab, eventually};

/// The good Service, as `targets` names it.
pub const GOOD: &str = "default/good";
/// What the pods listen on.
pub const POD_PORT: u16 = 5001;
/// How long a change may take to be seen: generous, because the machine may be slow.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Small maps, which are made and walked faster.
pub const SMALL: [&str; 4] = ["--max-flows", "4096", "--max-half-flows", "1024"];

/// A port of the good Service and those like it.
pub fn port(number: u16) -> Port {
    Port { name: "web", protocol: "TCP", port: number, target: POD_PORT }
}

/// A Service of one TCP port, claimed, with checks that decide within seconds.
pub fn service(name: &'static str, number: u16) -> Service {
    let class = Some("nlb.io/nlb");
    let service =
        Service { namespace: "default", name, class, ports: vec![port(number)], ..Service::default() };
    service.with_aws("target-group-attributes", "deregistration_delay.timeout_seconds=1").with_quick_checks()
}

/// A lab, an agent, pods that answer, and the good Service.
pub struct GoodService {
    /// Not dropped before the servers: nothing of it needs them.
    pub agent: Agent,
    /// What the agent watches.
    pub manifests: Manifests,
    servers: Vec<Echo>,
    /// The namespaces; the last to go.
    pub lab: Lab,
}

impl GoodService {
    /// One pod; the good Service on a pool VIP, and it answers.
    pub fn new(extra: &[&str]) -> Result<GoodService> {
        GoodService::of(1, extra)
    }

    /// The same with some pods.
    pub fn of(pods: usize, extra: &[&str]) -> Result<GoodService> {
        let (lab, manifests, servers) = GoodService::stage(pods)?;
        let agent = Agent::start(&lab, manifests.folder(), &[&SMALL[..], extra].concat())?;
        let scene = GoodService { agent, manifests, servers, lab };
        scene.answers(GOOD)?;
        Ok(scene)
    }

    /// The same under `--vip node`, where the good Service has the node's address and port 8080.
    pub fn on_node(extra: &[&str]) -> Result<GoodService> {
        let (lab, manifests, servers) = GoodService::stage(1)?;
        let endpoint = Endpoint::ready(&lab.pods()[0]);
        manifests.write(&service("good", 8080), &[endpoint])?;
        let flags = [&["--interface", super::UPLINK, "--vip", "node"], &SMALL[..], extra].concat();
        let agent = Agent::start_with(&lab, manifests.folder(), &flags)?;
        let scene = GoodService { agent, manifests, servers, lab };
        scene.answers(GOOD)?;
        Ok(scene)
    }

    /// Everything but the agent.
    pub fn stage(pods: usize) -> Result<(Lab, Manifests, Vec<Echo>)> {
        let lab = Lab::new(pods)?;
        let servers = lab.pods().iter().map(|pod| Echo::start(pod, POD_PORT)).collect::<Result<_>>()?;
        let manifests = Manifests::new(&lab.folder())?;
        let endpoints: Vec<Endpoint> = lab.pods().iter().map(Endpoint::ready).collect();
        manifests.write(&service("good", 80), &endpoints)?;
        Ok((lab, manifests, servers))
    }

    /// The parts of a stage and an agent that was started otherwise.
    pub fn assemble((lab, manifests, servers): (Lab, Manifests, Vec<Echo>), agent: Agent) -> GoodService {
        GoodService { agent, manifests, servers, lab }
    }

    /// As many servers as pods.
    pub fn servers(&self) -> usize {
        self.servers.len()
    }

    /// Ends the server of the last pod that has one: its port is closed from now on.
    pub fn stop_last_server(&mut self) {
        self.servers.pop();
    }

    /// All pods as endpoints that are ready.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.lab.pods().iter().map(Endpoint::ready).collect()
    }

    /// The rows of `listeners` of one Service.
    pub fn listeners(&self, service: &str) -> Result<Vec<Value>> {
        let all = self.agent.json(&["listeners"])?;
        let rows = all["listeners"].as_array().context("listeners -o json has no list `listeners`")?;
        let is = |row: &&Value| {
            let text = |key: &str| row[key].as_str().unwrap_or_default();
            format!("{}/{}", text("namespace"), text("service")) == service
        };
        Ok(rows.iter().filter(is).cloned().collect())
    }

    /// Where the Service listens; waits until it does.
    pub fn addresses(&self, service: &str) -> Result<Vec<SocketAddr>> {
        eventually(PATIENCE, || {
            let rows = self.listeners(service)?;
            let address = |row: &Value| row["listener"].as_str()?.split_once('/')?.0.parse().ok();
            let found: Vec<SocketAddr> = rows.iter().filter_map(address).collect();
            Ok((!found.is_empty()).then_some(found))
        })
        .with_context(|| format!("{service} has no listener: {}", self.agent.last_words()))
    }

    /// Where the Service listens first.
    pub fn address(&self, service: &str) -> Result<SocketAddr> {
        self.addresses(service)?.first().copied().context("a listener")
    }

    /// Waits until a client gets an answer from the Service, and returns where.
    pub fn answers(&self, service: &str) -> Result<SocketAddr> {
        let at = self.address(service)?;
        self.answers_at(at)?;
        Ok(at)
    }

    /// Waits until a client gets an answer at this address.
    pub fn answers_at(&self, at: SocketAddr) -> Result<()> {
        eventually(PATIENCE, || Ok(self.ask(at)?.outcome.is_ok().then_some(())))
            .with_context(|| format!("no answer at {at}: {}", self.agent.last_words()))
    }

    /// One request of a client.
    pub fn ask(&self, at: SocketAddr) -> Result<Attempt> {
        self.lab.client.enter(move || request(at, Instant::now()))
    }

    /// Requests to the good Service until [`Witness::nothing_failed`].
    pub fn witness(&self) -> Result<Witness> {
        let at = self.address(GOOD)?;
        Ok(Witness { load: Load::start(&self.lab.client, &[at], 1, Duration::from_millis(20))? })
    }

    /// `status -o json`, its problems.
    pub fn problems(&self) -> Result<Vec<Value>> {
        let status = self.agent.json(&["status"])?;
        Ok(status["problems"].as_array().context("status -o json has no list `problems`")?.clone())
    }

    /// Waits for a problem of this reason that names object, field and value (`null` = none), and returns it.
    pub fn problem(
        &self,
        reason: &str,
        object: &str,
        field: Option<&str>,
        value: Option<&str>,
    ) -> Result<Value> {
        eventually(PATIENCE, || {
            let all = self.problems()?;
            let is = |row: &&Value| {
                row["reason"] == reason
                    && row["object"].as_str().is_some_and(|found| found.ends_with(object))
                    && row["field"].as_str() == field
                    && row["value"].as_str() == value
            };
            let found = all.iter().find(is).cloned();
            ensure!(found.is_some(), "no {reason} of {object}, {field:?} = {value:?}, among {all:#?}");
            Ok(found)
        })
    }

    /// Waits until there is no problem of this reason.
    pub fn no_problem(&self, reason: &str) -> Result<()> {
        eventually(PATIENCE, || {
            let all = self.problems()?;
            ensure!(all.iter().all(|row| row["reason"] != reason), "still {all:#?}");
            Ok(Some(()))
        })
    }

    /// `GET PATH` from the agent's HTTP address inside the node's namespace: status and body.
    pub fn page(&self, path: &'static str) -> Result<(u16, String)> {
        self.lab.node.enter(move || page(path))?
    }

    /// The sum of a metric over all its labels.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let (_, text) = self.page("/metrics")?;
        let value = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            (series.split('{').next() == Some(name)).then(|| value.parse::<f64>().ok())?
        };
        let values: Vec<f64> = text.lines().filter_map(value).collect();
        ensure!(!values.is_empty(), "there is no metric {name} in {text}");
        Ok(values.iter().sum())
    }

    /// The VIP of an address, whatever the port.
    pub fn vip(&self, service: &str) -> Result<IpAddr> {
        Ok(self.address(service)?.ip())
    }
}

fn page(path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect("127.0.0.1:9464").context("nobody serves HTTP")?;
    stream.set_read_timeout(Some(PATIENCE)).context("cannot set a timeout")?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: nlb\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("no whole answer")?;
    let (head, body) = text.split_once("\r\n\r\n").context("no head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok((status, body.to_owned()))
}

/// A client of the good Service that never tries again.
pub struct Witness {
    load: Load,
}

impl Witness {
    /// What it has seen so far.
    pub fn requests(&self) -> usize {
        self.load.attempts().len()
    }

    /// Ends it, and every request has been answered.
    pub fn nothing_failed(self) -> Result<()> {
        // A short test may end before its client has begun.
        eventually(PATIENCE, || Ok((self.requests() >= 10).then_some(())))?;
        let attempts = self.load.stop()?;
        let failed: Vec<&Attempt> = attempts.iter().filter(|attempt| attempt.outcome.is_err()).collect();
        ensure!(failed.is_empty(), "{} of {} requests failed: {failed:#?}", failed.len(), attempts.len());
        Ok(())
    }
}
