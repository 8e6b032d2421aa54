//! Requests and new connections a second: through nlb, and in the same run direct, through nftables and through HAProxy.
//!
//! Each way has a laboratory of its own, alike but for what forwards, so that none of them pays for another's hooks.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::figures::System;
use crate::lab::manifests::{Endpoint, Manifests, Port, Service};
use crate::lab::nginx::Nginx;
use crate::lab::{Agent, Lab, Process, wait_for_listener};

/// Times that every way is measured, one after the other.
const ROUNDS: usize = 5;
/// How long each measurement takes.
const SECONDS: &str = "2s";
/// Connections that are open at once.
const CLIENTS: &str = "32";
/// The server's port in the pod, and the one that clients use.
const SERVER: u16 = 8080;
const FRONT: u16 = 80;
/// What nftables and HAProxy forward.
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// What is measured: requests on connections that stay, or a connection for each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Requests,
    Connections,
}

const LOADS: [(Load, &str); 2] = [(Load::Requests, "requests"), (Load::Connections, "connections")];
const OTHERS: [&str; 3] = ["direct", "nftables", "haproxy"];

/// Measures the wanted cases.
pub(crate) fn measure(wanted: &dyn Fn(&str) -> bool) -> Result<Vec<System>> {
    let name = |load: &str, other: &str| format!("{load}-vs-{other}");
    let cases: Vec<(Load, usize, String)> = LOADS
        .iter()
        .flat_map(|(load, word)| {
            OTHERS.iter().enumerate().map(move |(other, against)| (*load, other, name(word, against)))
        })
        .filter(|(_, _, case)| wanted(case))
        .collect();
    if cases.is_empty() {
        return Ok(Vec::new());
    }
    eprintln!("bench: laying out four laboratories");
    let nlb = Road::nlb()?;
    let others = [Road::direct()?, Road::nftables()?, Road::haproxy()?];
    let mut figures = Vec::new();
    for (load, _) in LOADS.into_iter().filter(|(load, _)| cases.iter().any(|(of, _, _)| of == load)) {
        let mut rounds: [Vec<(f64, f64)>; 3] = Default::default();
        for round in 0..ROUNDS {
            eprintln!("bench: {load:?}, round {} of {ROUNDS}", round + 1);
            for (other, rounds) in others.iter().zip(&mut rounds) {
                // One right after the other, in turn first and second: what else the machine does is both's.
                let (ours, theirs) = if round % 2 == 0 {
                    let ours = nlb.measure(load)?;
                    (ours, other.measure(load)?)
                } else {
                    let theirs = other.measure(load)?;
                    (nlb.measure(load)?, theirs)
                };
                rounds.push((ours, theirs));
            }
        }
        let of = cases.iter().filter(|(of, _, _)| *of == load);
        figures.extend(of.map(|(_, other, case)| System::new(case.clone(), &rounds[*other])));
    }
    Ok(figures)
}

/// A laboratory with one server, and a way to it.
struct Road {
    address: SocketAddr,
    // In the order in which they must end.
    _agent: Option<Agent>,
    _proxy: Option<Process>,
    _server: Nginx,
    lab: Lab,
}

impl Road {
    fn new(begin: impl FnOnce(&Lab) -> Result<(SocketAddr, Option<Agent>, Option<Process>)>) -> Result<Road> {
        let lab = Lab::new(1)?;
        lab.client.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
        let server = Nginx::start(&lab, &lab.pods()[0], &[SERVER])?;
        let (address, agent, proxy) = begin(&lab)?;
        wait_for_listener(&lab.client, address)?;
        Ok(Road { address, _agent: agent, _proxy: proxy, _server: server, lab })
    }

    fn direct() -> Result<Road> {
        Road::new(|lab| Ok((SocketAddr::new(lab.pods()[0].ipv4.into(), SERVER), None, None)))
    }

    fn nftables() -> Result<Road> {
        Road::new(|lab| {
            let pod = lab.pods()[0].ipv4;
            let rule = format!(
                "table ip bench {{ chain in {{ type nat hook prerouting priority dstnat; \
                 ip daddr {VIP} tcp dport {FRONT} dnat to {pod}:{SERVER}; }}; }}"
            );
            lab.node.output("nft", &[&rule])?;
            Ok((SocketAddr::new(VIP.into(), FRONT), None, None))
        })
    }

    fn haproxy() -> Result<Road> {
        Road::new(|lab| {
            let file = lab.folder().join("haproxy.cfg");
            let text = format!(
                "global\n maxconn 4000\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n \
                 timeout server 60s\nlisten bench\n bind {VIP}:{FRONT}\n server pod {}:{SERVER}\n",
                lab.pods()[0].ipv4
            );
            std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
            lab.node.ip(&["address", "add", &format!("{VIP}/32"), "dev", "lo"])?;
            let mut command = lab.node.command("haproxy");
            command.arg("-db").arg("-f").arg(&file);
            let process = Process::start(&mut command, &lab.folder(), "haproxy")?;
            Ok((SocketAddr::new(VIP.into(), FRONT), None, Some(process)))
        })
    }

    fn nlb() -> Result<Road> {
        Road::new(|lab| {
            let port = Port { name: "http", protocol: "TCP", port: FRONT, target: SERVER };
            let service = Service {
                namespace: "bench",
                name: "web",
                class: Some("nlb.io/nlb"),
                ports: vec![port],
                ..Service::default()
            };
            let manifests = Manifests::new(&lab.folder())?;
            let endpoints: Vec<Endpoint> = lab.pods().iter().map(Endpoint::ready).collect();
            manifests.write(&service.with_quick_checks(), &endpoints)?;
            let agent = Agent::start(lab, manifests.folder(), &[])?;
            agent.wait_for("bench/web", "healthy", 1, Duration::from_secs(15))?;
            let listeners = agent.json(&["listeners"])?;
            let listener = listeners["listeners"][0]["listener"].as_str().context("there is no listener")?;
            let address = listener.split('/').next().unwrap_or_default().parse::<SocketAddr>();
            Ok((address.with_context(|| format!("{listener:?} has no address"))?, Some(agent), None))
        })
    }

    /// Requests a second.
    fn measure(&self, load: Load) -> Result<f64> {
        let mut wrk = self.lab.client.command("wrk");
        wrk.args(["-t1", "-c", CLIENTS, "-d", SECONDS]);
        if load == Load::Connections {
            wrk.args(["-H", "Connection: close"]);
        }
        said(wrk.arg(format!("http://{}/", self.address)))
    }
}

/// Runs wrk and reads how many requests a second it made; failed ones are an error.
fn said(wrk: &mut Command) -> Result<f64> {
    let output = wrk.output().with_context(|| format!("cannot start {wrk:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{wrk:?} ended with {}: {text}", output.status);
    ensure!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "requests failed: {text}");
    per_second(&text).with_context(|| format!("wrk does not say how many requests it made: {text}"))
}

fn per_second(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::per_second;

    #[test]
    fn the_rate_is_read_from_what_wrk_says() {
        let said = "  2 threads and 32 connections\n  10 requests in 2.00s, 1.2KB read\nRequests/sec:  51000.25\nTransfer/sec:  9MB\n";
        assert_eq!(per_second(said), Some(51000.25));
        assert_eq!(per_second("unable to connect"), None);
    }
}
