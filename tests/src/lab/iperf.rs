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
    /// Seconds in which nothing arrived.
    pub stalled: usize,
}

/// Runs iperf3 for `time` (whole seconds); `reverse` lets the pod send.
pub fn run(from: &Namespace, to: SocketAddr, time: Duration, reverse: bool) -> Result<Moved> {
    run_at(from, to, time, reverse, "0")
}

/// A run at `rate` bits each second in iperf3's words, such as `100M`; `0` is as fast as it goes.
pub fn run_at(from: &Namespace, to: SocketAddr, time: Duration, reverse: bool, rate: &str) -> Result<Moved> {
    let (address, port, seconds) =
        (to.ip().to_string(), to.port().to_string(), time.as_secs().max(1).to_string());
    let mut arguments =
        vec!["--json", "--client", &address, "--port", &port, "--time", &seconds, "--bitrate", rate];
    // A path that loses everything must be a failure, not a wait without end.
    arguments.extend(["--connect-timeout", "5000"]);
    if reverse {
        arguments.extend(["--reverse", "--rcv-timeout", "10000"]);
    } else {
        arguments.extend(["--snd-timeout", "10000"]);
    }
    let said = from.output("iperf3", &arguments)?;
    let report: Value = serde_json::from_str(&said).context("iperf3's report is not JSON")?;
    read(&report).with_context(|| format!("iperf3 reports no sums: {}", report["error"]))
}

fn read(report: &Value) -> Option<Moved> {
    let seconds = report["intervals"].as_array()?.iter();
    let (sent, received) = (&report["end"]["sum_sent"], &report["end"]["sum_received"]);
    Some(Moved {
        bytes: received["bytes"].as_u64()?,
        bits_per_second: received["bits_per_second"].as_f64()?,
        retransmits: sent["retransmits"].as_u64().unwrap_or(0),
        stalled: seconds.filter(|second| second["sum"]["bytes"].as_u64() == Some(0)).count(),
    })
}
