//! UDP: a server that says who it is and whom it sees, and numbered streams that show every gap.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::{Lab, Namespace, Pod, Process, eventually, http, sibling};

/// How long after the last datagram an answer still counts.
const LATE: Duration = Duration::from_millis(500);

/// Starts the UDP server of a pod on `port`, and waits until it answers.
///
/// It answers each datagram with `PODNAME CLIENT-ADDRESS CLIENT-PORT` and the datagram's own text.
pub fn serve(lab: &Lab, pod: &Pod, port: u16) -> Result<Process> {
    let mut command = pod.namespace.command(sibling("udp-echo")?);
    command.arg(&pod.name).arg(port.to_string());
    let process = Process::start(&mut command, &lab.folder(), &format!("udp-{}-{port}", pod.name))?;
    for address in [pod.ipv4.into(), pod.ipv6.into()] {
        let to = SocketAddr::new(address, port);
        let ready = move || eventually(Duration::from_secs(5), || exchange(to, "ready?").map(Some));
        pod.namespace
            .enter(ready)?
            .with_context(|| format!("the UDP server at {to}: {}", process.errors()))?;
    }
    Ok(process)
}

/// An answer to a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who answered.
    pub pod: String,
    /// The client as the pod saw it.
    pub seen: SocketAddr,
    /// The client as it sees itself, without the wildcard address.
    pub client: SocketAddr,
    /// The datagram's text.
    pub text: String,
}

/// Sends one datagram from a new port of the calling thread's namespace and waits for its answer.
pub fn exchange(to: SocketAddr, text: &str) -> Result<Answer> {
    let socket = connected(to)?;
    socket.set_read_timeout(Some(Duration::from_secs(1))).context("cannot set a timeout")?;
    socket.send(text.as_bytes()).with_context(|| format!("cannot send to {to}"))?;
    let mut buffer = [0; 1500];
    let read = socket.recv(&mut buffer).with_context(|| format!("no answer from {to}"))?;
    answer(&buffer[..read], &socket)
}

/// A connected socket takes answers only from `to`: an answer with the pod's own address is none.
fn connected(to: SocketAddr) -> Result<UdpSocket> {
    let any: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).context("cannot make a UDP socket")?;
    socket.connect(to).with_context(|| format!("cannot connect to {to}"))?;
    Ok(socket)
}

fn answer(bytes: &[u8], socket: &UdpSocket) -> Result<Answer> {
    let said = String::from_utf8_lossy(bytes);
    let (pod, seen) = http::identity(&said).with_context(|| format!("unexpected answer {said:?}"))?;
    let text = said.split_whitespace().skip(3).collect::<Vec<_>>().join(" ");
    Ok(Answer { pod, seen, client: socket.local_addr().context("the socket's own address")?, text })
}

/// What came of a numbered stream.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Datagrams sent: numbers 0 to `sent` - 1.
    pub sent: u64,
    /// Numbers that were never answered.
    pub missing: Vec<u64>,
    /// Answers by pod.
    pub pods: BTreeMap<String, u64>,
    /// Sends that the kernel refused, such as after a port-unreachable.
    pub refused: u64,
}

/// A numbered stream in progress: one socket, so one flow.
pub struct Stream {
    stop: Arc<AtomicBool>,
    worker: JoinHandle<Result<Result<Report>>>,
}

impl Stream {
    /// Sends a number every `interval` until it is stopped.
    pub fn start(from: &Namespace, to: SocketAddr, interval: Duration) -> Result<Stream> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let worker = from.spawn(move || stream(to, interval, &stopped))?;
        Ok(Stream { stop, worker })
    }

    /// Ends it, waits for late answers, and reports.
    pub fn stop(self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        self.worker.join().map_err(|_| anyhow!("the stream panicked"))??
    }
}

fn stream(to: SocketAddr, interval: Duration, stop: &AtomicBool) -> Result<Report> {
    let socket = connected(to)?;
    let mut report = Report::default();
    let mut open = std::collections::BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        let sent = socket.send(report.sent.to_string().as_bytes());
        report.refused += u64::from(sent.is_err());
        open.insert(report.sent);
        report.sent += 1;
        collect(&socket, interval, &mut open, &mut report)?;
    }
    let until = Instant::now() + LATE;
    while !open.is_empty() && Instant::now() < until {
        collect(&socket, Duration::from_millis(20), &mut open, &mut report)?;
    }
    report.missing = open.into_iter().collect();
    Ok(report)
}

/// Takes answers for the length of one interval.
fn collect(
    socket: &UdpSocket,
    interval: Duration,
    open: &mut std::collections::BTreeSet<u64>,
    report: &mut Report,
) -> Result<()> {
    let until = Instant::now() + interval;
    let mut buffer = [0; 1500];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        socket.set_read_timeout(Some(left)).context("cannot set a timeout")?;
        // An error here is the end of the interval, or a refusal that the missing numbers show anyway.
        let Ok(read) = socket.recv(&mut buffer) else { continue };
        let answer = answer(&buffer[..read], socket)?;
        if answer.text.parse().is_ok_and(|number| open.remove(&number)) {
            *report.pods.entry(answer.pod).or_default() += 1;
        }
    }
}
