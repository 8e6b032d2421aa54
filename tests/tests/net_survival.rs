//! What clients notice of the agent's end, of targets that fail, leave, drain and join: nothing that could be spared them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nlb_tests::lab::download::{Download, SIZE};
use nlb_tests::lab::echo::Echo;
use nlb_tests::lab::http::{Attempt, Failure, Load, nothing_lost};
use nlb_tests::lab::manifests::Endpoint;
use nlb_tests::lab::nginx::Nginx;
use nlb_tests::lab::scene::{BULK, BULK_TCP, FIVE, PATIENCE, Scene, WEB, WEB_TCP, WEB_UDP, text, web};
use nlb_tests::lab::{Pod, eventually, iperf, udp};

/// A port of a pod that no Service names.
const BESIDE: u16 = 7070;
/// Between a map's change and the first look at what it does: a request may have been on its way.
const MARGIN: Duration = Duration::from_millis(300);

/// How many answers each pod gave.
fn by_pod<'a>(attempts: impl IntoIterator<Item = &'a Attempt>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for answer in attempts.into_iter().filter_map(|attempt| attempt.outcome.as_ref().ok()) {
        *counts.entry(answer.pod.clone()).or_default() += 1;
    }
    counts
}

#[test]
fn nothing_is_lost_while_the_agent_is_stopped_killed_and_restarted() -> Result<()> {
    let mut scene = Scene::of_five_ports()?;
    let _iperf = iperf::serve(&scene.lab, scene.pod("pod1"), BULK_TCP.1)?;
    scene.agent.wait_for(FIVE, "healthy", 5, PATIENCE)?;
    scene.agent.wait_for(FIVE, "unhealthy", 20, PATIENCE)?;
    scene.agent.wait_for(WEB, "healthy", 20, PATIENCE)?;
    scene.agent.wait_for(BULK, "healthy", 2, PATIENCE)?;
    let before = scene.agent.targets(FIVE)?;
    let five = scene.listeners(FIVE, "TCP")?;
    let addresses = [&five[..], &[scene.web(true)?, scene.web(false)?]].concat();
    let client = scene.lab.client.clone();
    let load = Load::start(&client, &addresses, 3, Duration::from_millis(3))?;
    // A port that is nobody's target: what is slow there, the machine is.
    let _beside = Echo::start(scene.pod("pod1"), BESIDE)?;
    let straight = SocketAddr::new(scene.pod("pod1").ipv4.into(), BESIDE);
    let direct = Load::start(&client, &[straight], 2, Duration::from_millis(3))?;
    let downloads = [Download::start(&client, five[1])?, Download::start(&client, scene.web(false)?)?];
    let streams =
        [true, false].map(|ipv4| udp::Stream::start(&client, scene.echo(ipv4)?, Duration::from_millis(5)));
    let bulk = scene.listener(BULK, "TCP", BULK_TCP.0, true)?;
    let bulk = std::thread::spawn(move || iperf::run_at(&client, bulk, Duration::from_secs(12), true, "80M"));

    let second = Duration::from_secs(1);
    sleep(second);
    assert!(scene.agent.stop()?.success());
    sleep(second);
    scene.agent.restart()?;
    for pause in [second, Duration::ZERO, second / 2] {
        sleep(second / 2);
        scene.agent.kill9()?;
        sleep(pause);
        scene.agent.restart()?;
    }
    // Read back, not found out again: states and since when.
    let states = |rows: &[serde_json::Value]| -> Vec<[String; 4]> {
        let mut rows: Vec<_> = rows
            .iter()
            .map(|row| ["listener", "target", "state", "since"].map(|key| text(row, key).to_owned()))
            .collect();
        rows.sort();
        rows
    };
    assert_eq!(states(&scene.agent.targets(FIVE)?), states(&before));

    let moved = bulk.join().expect("iperf's thread does not panic")?;
    assert!(moved.bytes > 10_000_000 && moved.stalled == 0, "{moved:?}");
    for download in downloads {
        assert_eq!(download.finish()?, SIZE as u64);
    }
    for stream in streams {
        let report = stream?.stop()?;
        assert!(report.sent > 500 && report.missing.is_empty() && report.refused == 0, "{report:?}");
        assert_eq!(report.pods.len(), 1, "one flow, one pod: {report:?}");
    }
    let (attempts, direct) = (load.stop()?, direct.stop()?);
    assert!(attempts.len() > 500, "{} attempts", attempts.len());
    nothing_lost(&attempts, &direct)?;
    let strays = attempts.iter().filter(|attempt| attempt.to.port() > 5000).find(|attempt| {
        let wanted = format!("pod{}", attempt.to.port() - 5000);
        attempt.outcome.as_ref().is_ok_and(|answer| answer.pod != wanted)
    });
    assert!(strays.is_none(), "{strays:?}");
    Ok(())
}

/// The pod that a client's flow was given.
fn pod_of(scene: &Scene, client: SocketAddr) -> Result<String> {
    let flows = scene.agent.json(&["flows", "--client", &client.ip().to_string()])?;
    let rows = flows["flows"].as_array().context("flows -o json has no list `flows`")?;
    let row = rows.iter().find(|row| row["client"] == client.to_string());
    let target: SocketAddr = text(row.context("the flow is not listed")?, "target").parse()?;
    let pod = scene.lab.pods().iter().find(|pod| pod.address(target.ip()) == target.ip());
    Ok(pod.context("the target is no pod")?.name.clone())
}

/// Downloads through the VIP until each of `pods` serves one of them; those of other pods are let go.
fn downloads(scene: &Scene, to: SocketAddr, pods: &[&str]) -> Result<BTreeMap<String, Download>> {
    let mut found = BTreeMap::new();
    for _ in 0..60 {
        if found.len() == pods.len() {
            return Ok(found);
        }
        let download = Download::start(&scene.lab.client, to)?;
        let pod = pod_of(scene, download.client)?;
        if pods.contains(&pod.as_str()) {
            found.entry(pod).or_insert(download);
        }
    }
    anyhow::bail!("60 downloads reached only {:?}", found.keys())
}

/// Waits until both of a pod's web targets are in `state`.
fn wait_for_pod(scene: &Scene, pod: &str, state: &str) -> Result<()> {
    let pod = scene.pod(pod);
    for target in web_targets(pod) {
        scene.agent.wait_for_target(WEB, &target, state, PATIENCE)?;
    }
    Ok(())
}

fn web_targets(pod: &Pod) -> [String; 2] {
    [pod.ipv4.into(), pod.ipv6.into()].map(|ip| SocketAddr::new(ip, WEB_TCP.1).to_string())
}

#[test]
fn of_a_failed_target_only_its_own_requests_fail_and_only_until_its_eviction() -> Result<()> {
    let mut scene = Scene::new(3, &[web()], &[])?;
    scene.agent.wait_for(WEB, "healthy", 12, PATIENCE)?;
    let addresses = [scene.web(true)?, scene.web(false)?];
    let staying: Vec<Download> = downloads(&scene, addresses[0], &["pod1", "pod3"])?.into_values().collect();
    let load = Load::start(&scene.lab.client, &addresses, 3, Duration::from_millis(3))?;
    sleep(Duration::from_secs(1));

    let stopped = load.began().elapsed();
    scene.server("pod2").stop()?;
    wait_for_pod(&scene, "pod2", "unhealthy")?;
    let evicted = load.began().elapsed();
    // Two checks a second apart, a second's timeout, and what a busy machine takes.
    assert!(evicted - stopped < Duration::from_secs(6), "evicted after {:?}", evicted - stopped);
    let rows = scene.agent.targets(WEB)?;
    let reasons =
        rows.iter().filter(|row| web_targets(scene.pod("pod2")).iter().any(|it| row["target"] == **it));
    assert!(
        reasons.clone().count() == 2
            && reasons.clone().all(|row| row["reason"] == "Target.FailedHealthChecks")
    );
    sleep(Duration::from_secs(1));

    let resumed = load.began().elapsed();
    scene.server("pod2").resume()?;
    wait_for_pod(&scene, "pod2", "healthy")?;
    sleep(Duration::from_secs(1));
    let attempts = load.stop()?;

    let failed: Vec<&Attempt> = attempts.iter().filter(|attempt| attempt.outcome.is_err()).collect();
    for attempt in &failed {
        // A server that ends resets what it has accepted and refuses the rest; a VIP itself never does.
        assert!(
            matches!(attempt.outcome, Err(Failure::Refused | Failure::Reset | Failure::Other(_))),
            "{attempt:?}"
        );
        assert!(attempt.at + attempt.total >= stopped && attempt.at <= evicted + MARGIN, "{attempt:?}");
    }
    let during: Vec<&Attempt> = attempts
        .iter()
        .filter(|attempt| attempt.at > stopped + MARGIN && attempt.at < evicted - MARGIN)
        .collect();
    let answered = by_pod(during.iter().copied());
    assert!(!answered.contains_key("pod2") && answered.len() == 2, "{answered:?}");
    // What fails is the failed target's share, a third, and no more.
    let share = failed.len() as f64 / during.len().max(1) as f64;
    assert!(!failed.is_empty() && share < 0.6, "{} of {} failed", failed.len(), during.len());
    let after = by_pod(attempts.iter().filter(|attempt| attempt.at > resumed));
    assert!(after.get("pod2").is_some_and(|count| *count > 0), "{after:?}");
    for download in staying {
        assert_eq!(download.finish()?, SIZE as u64);
    }
    Ok(())
}

#[test]
fn a_silent_target_is_evicted_for_its_timeouts_and_comes_back() -> Result<()> {
    let scene = Scene::new(2, &[web()], &[])?;
    scene.agent.wait_for(WEB, "healthy", 8, PATIENCE)?;
    let load = Load::start(&scene.lab.client, &[scene.web(true)?], 2, Duration::from_millis(3))?;
    sleep(Duration::from_millis(500));
    let gone = load.began().elapsed();
    scene.pod("pod2").set_link(false)?;
    wait_for_pod(&scene, "pod2", "unhealthy")?;
    let evicted = load.began().elapsed();
    // Two checks, each a second and a second's timeout, and what a busy machine takes.
    assert!(evicted - gone < Duration::from_secs(8), "evicted after {:?}", evicted - gone);
    let rows = scene.agent.targets(WEB)?;
    let row = rows.iter().find(|row| row["target"] == web_targets(scene.pod("pod2"))[0]);
    assert_eq!(row.context("the target is not listed")?["reason"], "Target.Timeout");
    sleep(Duration::from_secs(1));
    let restored = load.began().elapsed();
    scene.pod("pod2").set_link(true)?;
    wait_for_pod(&scene, "pod2", "healthy")?;
    let back = load.began().elapsed();
    sleep(Duration::from_secs(1));
    let attempts = load.stop()?;
    // A SYN that nobody answers is sent again after a second, and finds another target once this one is evicted.
    let (noticed, spared): (Vec<&Attempt>, Vec<&Attempt>) = attempts
        .iter()
        .partition(|attempt| attempt.outcome.is_err() || attempt.connect >= Duration::from_secs(1));
    assert!(!noticed.is_empty(), "the pod answered without a link");
    for attempt in noticed {
        assert!(attempt.at + attempt.total >= gone && attempt.at <= evicted + MARGIN, "{attempt:?}");
    }
    let during = by_pod(spared.into_iter().filter(|attempt| attempt.at > evicted && attempt.at < restored));
    assert_eq!(during.keys().collect::<Vec<_>>(), ["pod1"], "{during:?}");
    let after = by_pod(attempts.iter().filter(|attempt| attempt.at > back));
    assert!(after.contains_key("pod2"), "{after:?}");
    Ok(())
}

#[test]
fn a_draining_target_keeps_its_flows_gets_no_new_ones_and_may_come_back() -> Result<()> {
    let service = web().with_aws("target-group-attributes", "deregistration_delay.timeout_seconds=8");
    let scene = Scene::new(4, std::slice::from_ref(&service), &[])?;
    scene.agent.wait_for(WEB, "healthy", 16, PATIENCE)?;
    let to = scene.web(true)?;
    let leaving = ["pod1", "pod2", "pod3"];
    let downloads = downloads(&scene, to, &leaving)?;
    let load = Load::start(&scene.lab.client, &[to, scene.web(false)?], 2, Duration::from_millis(3))?;
    sleep(Duration::from_millis(500));

    let pods = scene.lab.pods();
    let unready = Endpoint { ready: false, serving: false, ..Endpoint::ready(&pods[1]) };
    let fourth = Endpoint::ready(&pods[3]);
    // pod1 is gone, pod2 is not ready, pod3 is terminating.
    scene.manifests.write(&service, &[unready, Endpoint::terminating(&pods[2]), fourth.clone()])?;
    for pod in leaving {
        wait_for_pod(&scene, pod, "draining")?;
    }
    let drained = Instant::now();
    let drained_at = load.began().elapsed();
    let received: BTreeMap<&String, u64> =
        downloads.iter().map(|(pod, download)| (pod, download.received())).collect();
    sleep(Duration::from_secs(2));
    for (pod, download) in &downloads {
        assert!(download.received() > received[pod], "the download from {pod} stands still while it drains");
        assert!(!download.is_finished());
    }
    let back_at = load.began().elapsed();
    scene
        .manifests
        .write(&service, &[Endpoint::ready(&pods[1]), Endpoint::terminating(&pods[2]), fourth.clone()])?;
    // Its former state at once: a new registration would have to pass two checks first.
    for target in web_targets(&pods[1]) {
        let former = || {
            let rows = scene.agent.targets(WEB)?;
            let row = rows.iter().find(|row| row["target"] == *target).context("the target is gone")?;
            ensure!(row["state"] != "initial", "{row}");
            Ok((row["state"] == "healthy").then_some(()))
        };
        eventually(Duration::from_secs(3), former)?;
    }
    sleep(Duration::from_secs(1));
    let attempts = load.stop()?;

    assert!(attempts.iter().all(|attempt| attempt.outcome.is_ok()), "{attempts:?}");
    let draining = by_pod(
        attempts.iter().filter(|attempt| attempt.at > drained_at + MARGIN && attempt.at < back_at - MARGIN),
    );
    assert_eq!(draining.keys().collect::<Vec<_>>(), ["pod4"], "{draining:?}");
    let back = by_pod(attempts.iter().filter(|attempt| attempt.at > back_at + MARGIN));
    assert!(
        back.contains_key("pod2") && !back.contains_key("pod1") && !back.contains_key("pod3"),
        "{back:?}"
    );

    // After the delay those that did not come back are gone, and their flows with them.
    eventually(Duration::from_secs(15), || {
        let rows = scene.agent.targets(WEB)?;
        let left = rows.iter().filter(|row| row["state"] == "draining").count();
        ensure!(left == 0, "{left} targets are still draining");
        Ok(Some(()))
    })?;
    assert!(drained.elapsed() > Duration::from_secs(6), "gone after {:?}", drained.elapsed());
    for (pod, download) in downloads {
        if pod == "pod2" {
            assert_eq!(download.finish()?, SIZE as u64);
        } else {
            // The client's next packet begins a flow of its own elsewhere, where nobody knows the conversation.
            let forgotten =
                || Ok((pod_of(&scene, download.client).ok().as_ref() != Some(&pod)).then_some(()));
            eventually(PATIENCE, forgotten).with_context(|| format!("the flow to {pod} is still listed"))?;
        }
    }
    Ok(())
}

/// UDP flows from ports of their own, each with the pod that answers it.
struct Flows(Vec<(UdpSocket, Option<String>)>);

impl Flows {
    fn open(scene: &Scene, to: SocketAddr, count: usize) -> Result<Flows> {
        let sockets = scene.lab.client.enter(move || -> Result<Vec<UdpSocket>> {
            let any: SocketAddr = if to.is_ipv4() {
                (Ipv4Addr::UNSPECIFIED, 0).into()
            } else {
                (Ipv6Addr::UNSPECIFIED, 0).into()
            };
            let open = |_| -> Result<UdpSocket> {
                let socket = UdpSocket::bind(any)?;
                socket.connect(to)?;
                socket.set_read_timeout(Some(Duration::from_secs(2)))?;
                Ok(socket)
            };
            (0..count).map(open).collect()
        })??;
        Ok(Flows(sockets.into_iter().map(|socket| (socket, None)).collect()))
    }

    /// One datagram on each; who answered, and how many flows were answered by another pod than the last time.
    fn ask(&mut self) -> Result<(BTreeMap<String, usize>, usize)> {
        let (mut pods, mut moved) = (BTreeMap::new(), 0);
        for (socket, last) in &mut self.0 {
            socket.send(b"who")?;
            let mut buffer = [0; 200];
            let read = socket.recv(&mut buffer).context("no answer on an established flow")?;
            let said = String::from_utf8_lossy(&buffer[..read]).into_owned();
            let pod = said.split(' ').next().unwrap_or_default().to_owned();
            moved += usize::from(last.as_ref().is_some_and(|last| *last != pod));
            *pods.entry(pod.clone()).or_default() += 1;
            *last = Some(pod);
        }
        Ok((pods, moved))
    }
}

#[test]
fn a_new_replica_takes_its_share_of_new_flows_and_no_established_one() -> Result<()> {
    let mut scene = Scene::new(4, &[web()], &[])?;
    scene.agent.wait_for(WEB, "healthy", 16, PATIENCE)?;
    const FLOWS: usize = 600;
    let mut established = Flows::open(&scene, scene.echo(false)?, FLOWS)?;
    let (pods, _) = established.ask()?;
    assert_share(&pods, FLOWS, 4);
    let download = Download::start(&scene.lab.client, scene.web(true)?)?;

    let pod = scene.lab.add_pod()?.name.clone();
    let server = Nginx::start(&scene.lab, scene.pod(&pod), &[WEB_TCP.1])?;
    scene.servers.push(server);
    let echo = udp::serve(&scene.lab, scene.pod(&pod), WEB_UDP.1)?;
    scene.udp.push(echo);
    let endpoints: Vec<Endpoint> = scene.lab.pods().iter().map(Endpoint::ready).collect();
    let load =
        Load::start(&scene.lab.client, &[scene.web(true)?, scene.web(false)?], 2, Duration::from_millis(3))?;
    scene.endpoints(&endpoints)?;
    scene.agent.wait_for(WEB, "healthy", 20, PATIENCE)?;
    let joined = load.began().elapsed();
    let (_, moved) = established.ask()?;
    assert_eq!(moved, 0, "flows moved to another pod");
    let (pods, _) = Flows::open(&scene, scene.echo(false)?, FLOWS)?.ask()?;
    assert_share(&pods, FLOWS, 5);
    let attempts = load.stop()?;
    assert!(attempts.iter().all(|attempt| attempt.outcome.is_ok()), "{attempts:?}");
    assert!(by_pod(attempts.iter().filter(|attempt| attempt.at > joined)).len() == 5);
    assert_eq!(download.finish()?, SIZE as u64);
    Ok(())
}

/// Each of `pods` has its share: within 1 % by the ring, and five standard deviations of drawing so many flows.
fn assert_share(counts: &BTreeMap<String, usize>, flows: usize, pods: usize) {
    let share = 1.0 / pods as f64;
    let allowed = 0.01 * share + 5.0 * (share * (1.0 - share) / flows as f64).sqrt();
    assert_eq!(counts.len(), pods, "{counts:?}");
    for (pod, count) in counts {
        let got = *count as f64 / flows as f64;
        assert!((got - share).abs() < allowed, "{pod} has {got:.3} of the flows: {counts:?}");
    }
}
