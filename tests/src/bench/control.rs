//! The control plane at 10 000 Services with 10 endpoints each: from objects to the maps of a real kernel, and the checks.

use std::future::pending;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use nlb_agent::args::{TranslateArgs, VipSource, XdpMode};
use nlb_agent::bpf::{DataPath, Options};
use nlb_agent::health::{Ask, Checker, Outcome};
use nlb_agent::host::Host;
use nlb_agent::inputs::{Inputs, Object};
use nlb_agent::manifests::{Sources, parse};
use nlb_agent::model::HealthCheck;
use nlb_agent::reconcile::{Reconcile, Start};
use nlb_agent::saved::Files;
use nlb_agent::slots::Epoch;
use nlb_agent::uplinks::Uplinks;
use nlb_agent::{ring, settings};
use nlb_common::address::Address;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::figures::{Amount, Control, Middle};
use super::probes;
use crate::lab::manifests::yaml;
use crate::lab::{Lab, NODE_NAME, UPLINK};

/// Services, each with one port, and endpoints of each.
const SERVICES: usize = 10_000;
const ENDPOINTS: usize = 10;
/// Changes of one endpoint that are timed.
const CHANGES: usize = 100;
/// Targets of the one ring that is timed, and how often.
const MEMBERS: usize = 1000;
const REBUILDS: usize = 21;

const SCALE: [&str; 4] = ["manifests-10000x10", "cold-10000x10", "one-endpoint-p99", "memory-10000x10"];

/// Measures the wanted cases.
pub(crate) fn measure(wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Control>> {
    let mut figures = Vec::new();
    if SCALE.into_iter().any(wanted) {
        let lab = Lab::new(0)?;
        let (pins, files) = (lab.pins(), Files::beside(&lab.folder().join("agent.sock")));
        // The node's own address is every Service's VIP: a pool has no 10 000 of them in the maps.
        let at_scale = lab.node.enter(move || scale(&Options::new(&pins), files))?;
        figures.extend(at_scale.context("at 10 000 Services")?.into_iter().filter(|it| wanted(it.case)));
    }
    if wanted("ring-1000") {
        figures.push(Control { case: "ring-1000", amount: Amount::Seconds(one_ring()) });
    }
    if wanted(probes::CASE) {
        figures.push(probes::measure()?);
    }
    Ok(figures)
}

/// Seconds that a ring of 1 000 equal targets takes, packed as the map holds it.
fn one_ring() -> f64 {
    let member = |i: usize| ring::Member {
        identity: ring::identity(Address::from(std::net::Ipv4Addr::from(0x0a01_0000 + i as u32)), 8080),
        share: 1,
    };
    let members: Vec<ring::Member> = (0..MEMBERS).map(member).collect();
    let size = nlb_common::ring::size(MEMBERS as u32).expect("a ring takes 1 000 targets");
    let rebuild = |_| {
        let began = Instant::now();
        black_box(ring::pack(&ring::build(black_box(&members), size)));
        began.elapsed().as_secs_f64()
    };
    Middle::of((0..REBUILDS).map(rebuild)).median
}

/// Targets are not asked here: their checks are a case of their own.
struct Silent;

impl Ask for Silent {
    async fn ask(&self, _: SocketAddr, _: &HealthCheck) -> Outcome {
        pending().await
    }
}

fn scale(options: &Options, files: Files) -> Result<Vec<Control>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _entered = runtime.enter();
    let (mut sources, parsing) = sources()?;
    let mut agent = agent(&runtime, options, files)?;
    let began = Instant::now();
    let waits = agent.read(sources.clone(), began);
    let cold = began.elapsed().as_secs_f64();
    settle(&mut agent, waits)?;
    // Before the changes, for each of which the bench itself keeps copies.
    let memory = own_memory()?;
    let contents = agent.control.contents();
    let live = contents.slots.iter().filter(|slot| slot.protocol != 0).count();
    let problems: Vec<String> = agent.problems().into_iter().take(3).map(|it| format!("{it:?}")).collect();
    ensure!(
        (contents.listeners.len(), live) == (SERVICES, SERVICES * ENDPOINTS),
        "the maps hold {} listeners and {live} targets; {problems:?}",
        contents.listeners.len(),
    );
    let mut times = Vec::with_capacity(CHANGES);
    for change in 0..CHANGES {
        let moved = moved_endpoint(&sources.inputs, change)?;
        Arc::make_mut(&mut sources.inputs).put(moved);
        let next = sources.clone();
        let slots = agent.control.contents().slots.clone();
        let began = Instant::now();
        let waits = agent.read(next, began);
        times.push(began.elapsed().as_secs_f64());
        ensure!(agent.control.contents().slots != slots, "a moved endpoint changed nothing in the maps");
        settle(&mut agent, waits)?;
    }
    times.sort_by(f64::total_cmp);
    let p99 = times[(CHANGES * 99).div_ceil(100) - 1];
    eprintln!(
        "bench: one endpoint's change: median {:.4} s, slowest {:.4} s",
        times[CHANGES / 2],
        times[CHANGES - 1]
    );
    let seconds = [(SCALE[0], parsing), (SCALE[1], cold), (SCALE[2], p99)];
    let mut figures: Vec<Control> =
        seconds.map(|(case, number)| Control { case, amount: Amount::Seconds(number) }).into();
    figures.push(Control { case: SCALE[3], amount: Amount::Megabytes(memory) });
    Ok(figures)
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    translate: TranslateArgs,
}

/// An agent as `nlb-agent run --vip node` makes it, attached to nothing.
fn agent(runtime: &tokio::runtime::Runtime, options: &Options, files: Files) -> Result<Reconcile> {
    let (outcomes, _) = mpsc::unbounded_channel();
    let flags = Flags::try_parse_from(["bench", "--node-name", NODE_NAME])?;
    Reconcile::begin(Start {
        node: NODE_NAME.to_owned(),
        flags: settings::of_flags(&flags.translate)?,
        vip_source: VipSource::Node,
        data_path: DataPath::open(options)?,
        uplinks: Uplinks::new(vec![UPLINK.to_owned()], Vec::new(), XdpMode::Auto),
        host: runtime.block_on(Host::read(&options.pin_path))?,
        checker: Checker::new(Silent, 1, outcomes),
        files,
    })
}

/// Waits for grace periods as the agent does, until nothing waits any more.
fn settle(agent: &mut Reconcile, mut waits: Option<Epoch>) -> Result<()> {
    while let Some(epoch) = waits {
        agent.data_path.maps.wait_for_readers().context("waiting for a grace period")?;
        waits = agent.grace(epoch);
    }
    Ok(())
}

/// Every Service and its endpoints, and how long reading them as YAML took.
fn sources() -> Result<(Sources, f64)> {
    let texts: Vec<String> = (0..SERVICES).map(|i| yaml(&manifest(i))).collect::<Result<_>>()?;
    let began = Instant::now();
    let mut inputs = Inputs::default();
    for (i, text) in texts.iter().enumerate() {
        let reading = parse("service.yaml", text);
        ensure!(reading.objects.len() == 2, "Service {i} cannot be read: {reading:?}");
        reading.objects.into_iter().for_each(|object| inputs.put(object));
    }
    Ok((
        Sources { inputs: Arc::new(inputs), synced: true, ..Sources::default() },
        began.elapsed().as_secs_f64(),
    ))
}

fn manifest(i: usize) -> [Value; 2] {
    let name = format!("service-{i:05}");
    // Below the node ports, above what a machine itself listens on.
    let port = json!([{ "name": "http", "protocol": "TCP", "port": 10_000 + i, "targetPort": 8080 }]);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "namespace": "bench", "name": name },
        "spec": { "type": "LoadBalancer", "loadBalancerClass": "nlb.io/nlb", "ports": port },
    });
    let endpoint = |j: usize| {
        json!({ "addresses": [address(i * ENDPOINTS + j)], "nodeName": NODE_NAME,
            "conditions": { "ready": true },
            "targetRef": { "kind": "Pod", "name": format!("pod-{i}-{j}"), "uid": format!("uid-{i}-{j}") } })
    };
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "namespace": "bench", "name": name, "labels": { "kubernetes.io/service-name": name } },
        "ports": [{ "name": "http", "protocol": "TCP", "port": 8080 }],
        "endpoints": (0..ENDPOINTS).map(endpoint).collect::<Vec<_>>(),
    });
    [service, slice]
}

fn address(number: usize) -> String {
    std::net::Ipv4Addr::from(0x0a10_0000 + number as u32).to_string()
}

/// A slice whose first endpoint has another address than before.
fn moved_endpoint(inputs: &Inputs, change: usize) -> Result<Object> {
    let slice = inputs.endpoint_slices.values().nth(change * 41 % SERVICES).context("there are no slices")?;
    let mut slice = EndpointSlice::clone(slice);
    let first = slice.endpoints.first_mut().context("a slice has no endpoints")?;
    first.addresses = vec![address(SERVICES * ENDPOINTS + change)];
    if let Some(pod) = &mut first.target_ref {
        pod.uid = Some(format!("uid-of-change-{change}"));
    }
    Ok(Object::EndpointSlice(Arc::new(slice)))
}

/// Megabytes of this process's own memory: not the maps', which are the kernel's.
fn own_memory() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("there is no RssAnon")?;
    let kilobytes = line.split_whitespace().next().and_then(|number| number.parse::<f64>().ok());
    Ok(kilobytes.context("RssAnon is no number")? * 1024.0 / 1e6)
}
