//! iperf3: bulk traffic, with GSO on the pods' side.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Lab, Namespace, Pod, Process, wait_for_listener};

/// Starts an iperf3 server in a pod and waits until it accepts connections.
pub fn serve(lab: &Lab, pod: &Pod, port: u16) -> Result<Process> {
    let mut command = pod.namespace.command("iperf3");
    command.args(["--server", "--port", &port.to_string()]);
    let process = Process::start(&mut command, &lab.folder(), &format!("iperf-{}-{port}", pod.name))?;
    wait_for_listener(&pod.namespace, SocketAddr::new(pod.ipv4.into(), port))?;
    Ok(process)
}

/// What a run moved.
#[derive(Clone, Debug)]
pub struct Moved {
    /// Bytes that arrived.
    pub bytes: u64,
    /// Bits each second, as the receiver saw it.
    pub bits_per_second: f64,
    /// Segments sent again.
    pub retransmits: u64,
}

/// Runs iperf3 for `time` (whole seconds); `reverse` lets the pod send.
pub fn run(from: &Namespace, to: SocketAddr, time: Duration, reverse: bool) -> Result<Moved> {
    let (address, port, seconds) =
        (to.ip().to_string(), to.port().to_string(), time.as_secs().max(1).to_string());
    let mut arguments = vec!["--json", "--client", &address, "--port", &port, "--time", &seconds];
    if reverse {
        arguments.push("--reverse");
    }
    let said = from.output("iperf3", &arguments)?;
    let report: Value = serde_json::from_str(&said).context("iperf3's report is not JSON")?;
    read(&report).with_context(|| format!("iperf3 reports no sums: {}", report["error"]))
}

fn read(report: &Value) -> Option<Moved> {
    let (sent, received) = (&report["end"]["sum_sent"], &report["end"]["sum_received"]);
    Some(Moved {
        bytes: received["bytes"].as_u64()?,
        bits_per_second: received["bits_per_second"].as_f64()?,
        retransmits: sent["retransmits"].as_u64().unwrap_or(0),
    })
}
