//! Floods of forged packets against small tables: live flows and new ones do not notice, and every packet is counted.

use std::net::{SocketAddr, SocketAddrV4};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nlb_tests::lab::download::{Download, SIZE};
use nlb_tests::lab::flood::{self, Forged};
use nlb_tests::lab::http::Load;
use nlb_tests::lab::manifests::{Port, Service};
use nlb_tests::lab::scene::{PATIENCE, Scene, WEB, WEB_TCP, bulk, text, web};
use nlb_tests::lab::{UPLINK, eventually, udp};

/// A listener for forged datagrams.
const FLOODED: &str = "app-qa/flooded";
const FLOODED_UDP: (u16, u16) = (54, 9054);
/// A server of its own takes the forged datagrams: a full socket buffer in a pod is none of our doing.
fn flooded() -> Service {
    let port = Port { name: "flooded", protocol: "UDP", port: FLOODED_UDP.0, target: FLOODED_UDP.1 };
    Service { name: "flooded", ports: vec![port], ..bulk() }
}

/// The packets that came in by the uplink.
fn received(scene: &Scene) -> Result<u64> {
    let said = scene.lab.node.output("ip", &["-s", "-j", "link", "show", UPLINK])?;
    let links: serde_json::Value = serde_json::from_str(&said)?;
    links[0]["stats64"]["rx"]["packets"].as_u64().context("ip shows no packets")
}

/// The packets that `nlb_xdp` has counted, each under one reason.
fn decided(scene: &Scene) -> Result<u64> {
    let all = scene.agent.json(&["drops"])?;
    let rows = ["drops", "passed", "forwarded"].iter().filter_map(|list| all[list].as_array()).flatten();
    // These two are `nlb_reply`'s.
    let of_ingress = rows.filter(|row| !["Replied", "NotOurs"].iter().any(|other| row["reason"] == *other));
    Ok(of_ingress.filter_map(|row| row["packets"].as_u64()).sum::<u64>())
}

#[test]
fn floods_ten_times_the_tables_size_touch_no_live_flow_and_keep_no_new_one_out() -> Result<()> {
    const FLOWS: u32 = 4096;
    let sizes = ["--max-flows", "4096", "--max-half-flows", "1024"];
    let mut scene = Scene::new(2, &[web(), flooded()], &sizes)?;
    for pod in scene.lab.pods() {
        scene.udp.push(udp::serve(&scene.lab, pod, FLOODED_UDP.1)?);
    }
    scene.agent.wait_for(WEB, "healthy", 8, PATIENCE)?;
    scene.agent.wait_for(FLOODED, "healthy", 4, PATIENCE)?;
    flood::prepare(&scene.lab)?;
    let (to, echo) = (scene.web(true)?, scene.echo(true)?);
    let SocketAddr::V4(target) = to else { bail!("{to} is not IPv4") };
    let SocketAddr::V4(datagrams) = scene.listener(FLOODED, "UDP", FLOODED_UDP.0, true)? else {
        bail!("an IPv4 listener has an IPv6 address")
    };
    let client = &scene.lab.client;
    let download = Download::start(client, to)?;
    let streams = [
        udp::Stream::start(client, echo, Duration::from_millis(5))?,
        udp::Stream::start(client, scene.echo(false)?, Duration::from_millis(5))?,
    ];
    let load = Load::start(client, &[to, scene.web(false)?], 2, Duration::from_millis(5))?;
    sleep(Duration::from_millis(500));
    let lost = scene.reason("FlowLost")?;
    let floods =
        [(Forged::Syn, target), (Forged::Datagram, datagrams), (Forged::Pair, target), (Forged::Ack, target)];
    for (kind, (forged, target)) in (0_u32..).zip(floods) {
        if forged == Forged::Ack {
            // From here on the pods' RSTs say of each forged ACK that a conversation's entry may have been lost.
            ensure!(scene.reason("FlowLost")? == lost, "a flood took a live flow's entry");
        }
        let before = scene.reason("Forwarded")? + scene.reason("TableFull")?;
        let send = move |target: SocketAddrV4| flood::send(target, forged, kind * 100_000, 10 * FLOWS);
        let sent = client.enter(move || send(target))??;
        let counted = scene.reason("Forwarded")? + scene.reason("TableFull")? - before;
        ensure!(
            sent >= u64::from(10 * FLOWS) && counted >= sent,
            "{forged:?}: {sent} sent, {counted} counted"
        );
        ensure!(!download.is_finished() || download.received() == SIZE as u64, "the download broke");
    }
    for stream in streams {
        let report = stream.stop()?;
        ensure!(report.missing.is_empty() && report.refused == 0, "{report:?}");
    }
    let attempts = load.stop()?;
    let failed: Vec<_> = attempts.iter().filter(|attempt| attempt.outcome.is_err()).collect();
    ensure!(
        attempts.len() > 100 && failed.is_empty(),
        "{} of {} failed: {failed:?}",
        failed.len(),
        attempts.len()
    );
    let flows = scene.agent.json(&["flows"])?;
    let forged = flows["flows"].as_array().context("no list `flows`")?.iter();
    let (open, known): (Vec<_>, Vec<_>) = forged
        .filter(|flow| text(flow, "client").starts_with("100."))
        .partition(|flow| flow["state"] == "half-open");
    ensure!(known.is_empty(), "forged flows are established: {known:?}");
    ensure!((512..=1024).contains(&open.len()), "{} forged flows in a table of 1024", open.len());
    assert_eq!(download.finish()?, SIZE as u64);
    Ok(())
}

#[test]
fn every_packet_that_comes_in_is_counted_under_one_reason() -> Result<()> {
    let scene = Scene::new(1, &[web()], &[])?;
    scene.agent.wait_for(WEB, "healthy", 4, PATIENCE)?;
    let (web, pod) = (scene.web(true)?, SocketAddr::new(scene.pod("pod1").ipv4.into(), WEB_TCP.1));
    let before = (received(&scene)?, decided(&scene)?);
    let load = Load::start(&scene.lab.client, &[web, pod, scene.web(false)?], 2, Duration::from_millis(5))?;
    sleep(Duration::from_secs(1));
    load.stop()?;
    // A stray neighbour message may come between the two looks.
    eventually(Duration::from_secs(5), || {
        let (came, counted) = (received(&scene)? - before.0, decided(&scene)? - before.1);
        ensure!(came > 100 && came == counted, "{came} came in, {counted} were counted");
        Ok(Some(()))
    })
}
