//! Restarts at bad moments: settings that cannot be used, files half-written, maps that take nothing, a route that is away.

use std::net::SocketAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use nlb_agent::bpf::PinnedMaps;
use nlb_common::layout::{Listener, ListenerKey, Sharers, TargetKey};
use nlb_tests::lab::download::{Download, SIZE};
use nlb_tests::lab::echo::{Conversation, Echo};
use nlb_tests::lab::good::{GOOD, GoodService, POD_PORT, SMALL, service};
use nlb_tests::lab::http::{Attempt, Load};
use nlb_tests::lab::manifests::{Endpoint, Port, Service};
use nlb_tests::lab::scene::{FIVE, FIVE_PORTS, PATIENCE, Scene, WEB, WEB_TCP, five, text, web};
use nlb_tests::lab::{Agent, CLIENT, UPLINK, VIPS, eventually, udp};
use serde_json::Value;

/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(3);
/// Longer than the agent takes to read, write and check once.
const WHILE: Duration = Duration::from_secs(2);

fn nothing_failed(load: Load) -> Result<Vec<Attempt>> {
    let attempts = load.stop()?;
    let failed: Vec<&Attempt> = attempts.iter().filter(|attempt| attempt.outcome.is_err()).collect();
    ensure!(attempts.len() > 100 && failed.is_empty(), "of {} requests failed {failed:#?}", attempts.len());
    Ok(attempts)
}

/// Of each target of a Service: where, how and since when.
fn states(scene: &Scene, service: &str) -> Result<Vec<[String; 4]>> {
    let rows = scene.agent.targets(service)?;
    let row = |row: &Value| ["listener", "target", "state", "since"].map(|key| text(row, key).to_owned());
    let mut rows: Vec<_> = rows.iter().map(row).collect();
    rows.sort();
    Ok(rows)
}

/// The problems of this reason.
fn problems(scene: &Scene, reason: &str) -> Result<Vec<Value>> {
    let status = scene.agent.json(&["status"])?;
    let all = status["problems"].as_array().context("status -o json has no list `problems`")?;
    Ok(all.iter().filter(|row| row["reason"] == reason).cloned().collect())
}

#[test]
fn an_agent_that_starts_while_the_killed_one_still_dies_takes_over() -> Result<()> {
    let mut scene = GoodService::new(&[])?;
    let witness = scene.witness()?;
    for _ in 0..4 {
        scene.agent.crash_and_restart().with_context(|| scene.agent.last_words())?;
    }
    // However long that takes: half a second here.
    scene.agent.kill9()?;
    let lock = std::fs::File::open(scene.agent.socket().with_extension("sock.lock"))?;
    lock.lock()?;
    let dying = std::thread::spawn(move || {
        sleep(WHILE / 4);
        drop(lock);
    });
    scene.agent.restart()?;
    dying.join().expect("it only sleeps");
    scene.answers(GOOD)?;
    witness.nothing_failed()
}

/// Idle timeouts of the TCP targets in the maps, in seconds.
fn idle(scene: &Scene) -> Result<Vec<u32>> {
    let maps = PinnedMaps::open(scene.agent.pins())?.context("nothing is pinned")?;
    let slots = maps.used_slots().into_iter().filter(|(_, slot)| slot.vip_port == WEB_TCP.0);
    Ok(slots.map(|(_, slot)| slot.idle / maps.config.hz).collect())
}

#[test]
fn a_bad_annotation_keeps_the_last_good_settings_over_restarts() -> Result<()> {
    let mut scene = Scene::new(3, &[web()], &[])?;
    scene.agent.wait_for(WEB, "healthy", 12, PATIENCE)?;
    let endpoints: Vec<Endpoint> = scene.lab.pods().iter().map(Endpoint::ready).collect();
    let mended = web().with_aws("listener-attributes.TCP-80", "tcp.idle_timeout.seconds=60");
    scene.manifests.write(&mended.clone().with_aws("healthcheck-interval", "often"), &endpoints)?;
    let kept = |scene: &Scene| {
        eventually(PATIENCE, || {
            let found = problems(scene, "InvalidAnnotation")?;
            Ok(found.into_iter().find(|row| row["effect"] == "kept-last-good"))
        })
    };
    let (problem, before) = (kept(&scene)?, states(&scene, WEB)?);
    // What was found out last is written down within a second.
    sleep(WHILE);
    let addresses = [scene.web(true)?, scene.web(false)?];
    let load = Load::start(&scene.lab.client, &addresses, 2, PAUSE)?;
    // The second one knows what was good from the first alone.
    for _ in 0..2 {
        scene.agent.kill9()?;
        scene.agent.restart()?;
        assert_eq!(kept(&scene)?, problem);
        assert_eq!(states(&scene, WEB)?, before);
        assert_eq!(scene.listeners(WEB, "TCP")?, addresses, "listed with its name");
        sleep(WHILE);
    }
    nothing_failed(load)?;
    assert_eq!(idle(&scene)?, [350; 6], "a change that cannot be made is made in no part");
    // The checks of the last good settings go on.
    let gone = SocketAddr::new(scene.pod("pod2").ipv4.into(), WEB_TCP.1).to_string();
    scene.server("pod2").stop()?;
    scene.agent.wait_for_target(WEB, &gone, "unhealthy", PATIENCE)?;
    scene.server("pod2").resume()?;
    scene.agent.wait_for_target(WEB, &gone, "healthy", PATIENCE)?;

    let load = Load::start(&scene.lab.client, &addresses, 2, PAUSE)?;
    scene.manifests.write(&mended, &endpoints)?;
    eventually(PATIENCE, || {
        let (idle, left) = (idle(&scene)?, problems(&scene, "InvalidAnnotation")?);
        ensure!(idle == [60; 6] && left.is_empty(), "{idle:?}, {left:?}");
        Ok(Some(()))
    })?;
    sleep(WHILE);
    nothing_failed(load)?;
    Ok(())
}

/// The first `documents` of a file, a part of the next, and its end missing.
fn half(whole: &str, documents: usize) -> String {
    let all: Vec<&str> = whole.split("---\n").collect();
    let next = &all[documents][..all[documents].len() / 2];
    let before: String = all[..documents].iter().flat_map(|document| [*document, "---\n"]).collect();
    before + next + "\n\"half"
}

#[test]
fn a_file_that_is_half_written_at_the_restart_loses_nothing() -> Result<()> {
    let services = [five("internal-nlb-service", "IPv4"), web()];
    // Of five targets of a port one is healthy: whoever forgets that sends requests to the others.
    let mut scene = Scene::with_servers(5, &services, &[], |pod| vec![FIVE_PORTS[pod].1, WEB_TCP.1])?;
    scene.agent.wait_for(FIVE, "healthy", 5, PATIENCE)?;
    scene.agent.wait_for(FIVE, "unhealthy", 20, PATIENCE)?;
    scene.agent.wait_for(WEB, "healthy", 20, PATIENCE)?;
    // What was found out last is written down within a second.
    sleep(WHILE);
    let before = (states(&scene, FIVE)?, states(&scene, WEB)?);
    let five = scene.listeners(FIVE, "TCP")?;
    let (v4, v6) = (scene.web(true)?, scene.web(false)?);
    let client = scene.lab.client.clone();
    let load = Load::start(&client, &[&five[..], &[v4, v6]].concat(), 2, PAUSE)?;
    let downloads = [five[2], v4, v6].map(|to| Download::start(&client, to));
    let stream = udp::Stream::start(&client, scene.echo(false)?, Duration::from_millis(5))?;
    let path = |name: &str| scene.manifests.folder().join(name).with_extension("yaml");
    let whole = |name: &str| std::fs::read_to_string(path(name));
    let (five_text, web_text) = (whole("internal-nlb-service")?, whole("web")?);

    // Broken off in the Service; after it; between the EndpointSlices of two families.
    for (of_five, of_web) in [(0, 1), (1, 2), (1, 0)] {
        scene.agent.kill9()?;
        scene.manifests.write_text("internal-nlb-service", &half(&five_text, of_five))?;
        scene.manifests.write_text("web", &half(&web_text, of_web))?;
        scene.agent.restart()?;
        eventually(PATIENCE, || Ok((problems(&scene, "UnreadableManifest")?.len() == 2).then_some(())))?;
        // Longer than the checks would take to find out anew who is healthy.
        sleep(WHILE);
        scene.manifests.write_text("web", &web_text)?;
        scene.manifests.write_text("internal-nlb-service", &five_text)?;
        eventually(PATIENCE, || Ok(problems(&scene, "UnreadableManifest")?.is_empty().then_some(())))?;
        assert_eq!((states(&scene, FIVE)?, states(&scene, WEB)?), before);
    }
    for attempt in nothing_failed(load)?.iter().filter(|attempt| attempt.to.port() > 5000) {
        let pod = attempt.outcome.as_ref().map(|answer| answer.pod.clone());
        assert_eq!(pod, Ok(format!("pod{}", attempt.to.port() - 5000)), "{attempt:?}");
    }
    for download in downloads {
        assert_eq!(download?.finish()?, SIZE as u64);
    }
    let report = stream.stop()?;
    assert!(report.sent > 500 && report.missing.is_empty() && report.pods.len() == 1, "{report:?}");
    Ok(())
}

/// A pinned hash map and the entries of somebody else that fill it.
struct Full<const K: usize, const V: usize> {
    map: HashMap<MapData, [u8; K], [u8; V]>,
    foreign: Vec<[u8; K]>,
}

impl<const K: usize, const V: usize> Full<K, V> {
    fn fill(pins: &Path, name: &str) -> Result<Self> {
        let map = HashMap::try_from(Map::HashMap(MapData::from_pin(pins.join(name))?))?;
        let mut full = Full { map, foreign: Vec::new() };
        for number in 1..=1024_u16 {
            let mut key = [0xff; K];
            key[..2].copy_from_slice(&number.to_ne_bytes());
            match full.map.insert(key, [0xff; V], 0) {
                Ok(()) => full.foreign.push(key),
                Err(_) => return Ok(full),
            }
        }
        anyhow::bail!("{name} takes everything")
    }

    fn clear(mut self) -> Result<()> {
        for key in &self.foreign {
            // The agent may have thrown out what does not belong there.
            match self.map.remove(key) {
                Ok(()) | Err(aya::maps::MapError::KeyNotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// The problem of a write to this map, once there is one.
fn write_failed(scene: &GoodService, map: &str) -> Result<Value> {
    eventually(PATIENCE, || {
        let is = |row: &Value| row["reason"] == "MapWriteFailed" && row["field"] == map;
        Ok(scene.problems()?.into_iter().find(is))
    })
}

/// The maps take nothing until `full` is cleared; meanwhile the agent is also killed and started again.
fn refused_until<const K: usize, const V: usize>(
    scene: &mut GoodService,
    full: Full<K, V>,
    added: &Service,
    (map, element): (&str, &str),
) -> Result<()> {
    let witness = scene.witness()?;
    let good = scene.address(GOOD)?;
    let mut open = Conversation::open(&scene.lab.client, good)?;
    scene.manifests.write(added, &scene.endpoints())?;
    for _ in 0..2 {
        let problem = write_failed(scene, map)?;
        ensure!(text(&problem, "value").ends_with(element), "{problem}");
        ensure!(text(&problem, "message").contains("tried again"), "{problem}");
        let (status, body) = scene.page("/readyz")?;
        ensure!(status == 503 && body.contains("the last write failed"), "{status} {body}");
        sleep(WHILE);
        assert_eq!(open.say()?, "pod1");
        scene.agent.kill9()?;
        scene.agent.restart()?;
    }
    full.clear()?;
    scene.no_problem("MapWriteFailed")?;
    eventually(PATIENCE, || Ok((scene.page("/readyz")?.0 == 200).then_some(())))?;
    scene.answers(&format!("default/{}", added.name))?;
    assert_eq!(open.say()?, "pod1");
    witness.nothing_failed()
}

#[test]
fn a_map_that_takes_no_write_is_said_and_written_once_it_does() -> Result<()> {
    let mut scene = GoodService::new(&["--max-listeners", "8", "--max-targets", "16"])?;
    let pins = scene.agent.pins().to_owned();
    let full = Full::<{ size_of::<ListenerKey>() }, { size_of::<Listener>() }>::fill(&pins, "listeners")?;
    ensure!(full.foreign.len() == 7, "{} of 8 listeners are somebody else's", full.foreign.len());
    refused_until(&mut scene, full, &service("other", 81), ("listeners", ":81/TCP"))?;
    // A pod port that has no entry yet.
    let target = POD_PORT + 1;
    let _server = Echo::start(&scene.lab.pods()[0], target)?;
    let full = Full::<{ size_of::<TargetKey>() }, { size_of::<Sharers>() }>::fill(&pins, "targets")?;
    ensure!(full.foreign.len() == 15, "{} of 16 targets are somebody else's", full.foreign.len());
    let port = Port { name: "web", protocol: "TCP", port: 82, target };
    let third = Service { ports: vec![port], ..service("third", 82) };
    refused_until(&mut scene, full, &third, ("targets", &format!(":{target}/TCP")))
}

#[test]
fn without_a_default_route_the_uplinks_come_from_the_pins() -> Result<()> {
    let stage = GoodService::stage(1)?;
    let node = stage.0.node.clone();
    let gateway = CLIENT.0.to_string();
    let route = |what| node.ip(&["route", what, "default", "via", &gateway, "dev", UPLINK]);
    route("add")?;
    let pools: Vec<&str> = VIPS.iter().flat_map(|pool| ["--vip-pool", pool]).collect();
    let agent = Agent::start_with(&stage.0, stage.1.folder(), &[&pools[..], &SMALL].concat())?;
    let mut scene = GoodService::assemble(stage, agent);
    let at = scene.answers(GOOD)?;
    let witness = scene.witness()?;
    let mut open = Conversation::open(&scene.lab.client, at)?;
    assert_eq!(open.say()?, "pod1");
    let uplinks = |scene: &GoodService| -> Result<Value> {
        eventually(PATIENCE, || Ok((scene.page("/readyz")?.0 == 200).then_some(())))?;
        Ok(scene.agent.json(&["status"])?["interfaces"].clone())
    };
    let before = uplinks(&scene)?;
    assert_eq!((text(&before[0], "name"), text(&before[0], "mode")), (UPLINK, "driver"), "{before}");

    scene.agent.kill9()?;
    route("delete")?;
    scene.agent.restart()?;
    assert_eq!(uplinks(&scene)?, before);
    sleep(WHILE);
    // It is at work on it, and not merely left there.
    scene.manifests.write(&service("other", 81), &scene.endpoints())?;
    scene.answers("default/other")?;
    assert_eq!(open.say()?, "pod1");
    route("add")?;
    sleep(WHILE);
    assert_eq!(uplinks(&scene)?, before);
    assert_eq!(open.say()?, "pod1");
    witness.nothing_failed()
}
