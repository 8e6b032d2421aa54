//! A folder of manifests as people and tools change it, ten thousand targets that come and go, and maps that end where they began.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nlb_agent::bpf::PinnedMaps;
use nlb_agent::contents::MapDump;
use nlb_common::layout::Slot;
use nlb_tests::lab::echo::Conversation;
use nlb_tests::lab::eventually;
use nlb_tests::lab::good::{GOOD, GoodService, PATIENCE, port, service};
use nlb_tests::lab::manifests::{Endpoint, Port, Service, yaml};

fn text(scene: &GoodService, service: &Service) -> Result<String> {
    let mut documents = vec![service.manifest()];
    documents.extend(service.slices(&scene.endpoints()));
    yaml(&documents)
}

fn maps(scene: &GoodService) -> Result<PinnedMaps> {
    PinnedMaps::open(scene.agent.pins())?.context("nothing is pinned")
}

/// The slots in use, by listener port.
fn slots_of(scene: &GoodService, port: u16) -> Result<Vec<Slot>> {
    let all = maps(scene)?.used_slots();
    Ok(all.into_iter().map(|(_, slot)| slot).filter(|slot| slot.vip_port == port).collect())
}

fn with_port(number: u16) -> Service {
    service("other", number)
}

#[test]
fn a_config_maps_symlink_swap_is_followed() -> Result<()> {
    let scene = GoodService::new(&[])?;
    let witness = scene.witness()?;
    let folder = scene.manifests.folder();
    for (version, number) in [("..v1", 81), ("..v2", 82)] {
        std::fs::create_dir(folder.join(version))?;
        std::fs::write(folder.join(version).join("other.yaml"), text(&scene, &with_port(number))?)?;
    }
    symlink("..v1", folder.join("..data"))?;
    symlink("..data/other.yaml", folder.join("other.yaml"))?;
    let first = scene.answers("default/other")?;
    assert_eq!(first.port(), 81);
    // As a kubelet does: the link to the new version, renamed over the old one, which then goes.
    symlink("..v2", folder.join("..data_tmp"))?;
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data"))?;
    std::fs::remove_dir_all(folder.join("..v1"))?;
    scene.answers_at(SocketAddr::new(first.ip(), 82))?;
    ensure!(scene.ask(first)?.outcome.is_err(), "port 81 is still served");
    witness.nothing_failed()
}

#[test]
fn many_files_at_once_end_in_the_right_state_without_a_needless_step() -> Result<()> {
    const NAMES: [&str; 20] = [
        "s00", "s01", "s02", "s03", "s04", "s05", "s06", "s07", "s08", "s09", "s10", "s11", "s12", "s13",
        "s14", "s15", "s16", "s17", "s18", "s19",
    ];
    let scene = GoodService::new(&[])?;
    let witness = scene.witness()?;
    for number in [80, 81] {
        for name in NAMES {
            scene.manifests.write(&service(name, number), &scene.endpoints())?;
        }
        eventually(PATIENCE, || {
            let listeners = maps(&scene)?.listeners()?;
            let there = listeners.iter().filter(|(key, _)| key.port == number).count();
            let wanted = NAMES.len() + usize::from(number == 80);
            ensure!(there == wanted, "{there} listeners have port {number}");
            Ok(Some(()))
        })?;
    }
    assert_eq!(maps(&scene)?.listeners()?.len(), NAMES.len() + 1);
    for name in ["default/s00", "default/s19"] {
        assert_eq!(scene.answers(name)?.port(), 81);
    }
    for name in NAMES {
        scene.agent.wait_for(&format!("default/{name}"), "healthy", 1, PATIENCE)?;
    }
    // The same text once more, and another order: nothing is to be done.
    let before = (scene.metric("nlb_apply_seconds_count")?, rings(&scene)?);
    for name in NAMES {
        scene.manifests.write(&service(name, 81), &scene.endpoints())?;
    }
    let good = std::fs::read_to_string(scene.manifests.folder().join("good.yaml"))?;
    let turned: Vec<&str> = good.split("---\n").collect::<Vec<_>>().into_iter().rev().collect();
    scene.manifests.write_text("good", &turned.join("\n---\n"))?;
    // Far longer than the agent waits for a folder to come to rest.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((scene.metric("nlb_apply_seconds_count")?, rings(&scene)?), before);
    for name in NAMES {
        scene.manifests.remove(name)?;
    }
    eventually(PATIENCE, || Ok((maps(&scene)?.listeners()?.len() == 1).then_some(())))?;
    witness.nothing_failed()
}

fn rings(scene: &GoodService) -> Result<Vec<u64>> {
    Ok(maps(scene)?.choices())
}

/// `kubectl get services,endpointslices -o yaml > good.yaml`: the shell empties the file at once; kubectl writes it later,
/// or never.
#[test]
fn a_file_that_is_being_written_costs_no_connection_and_one_that_is_removed_ends_its_service() -> Result<()> {
    let scene = GoodService::new(&[])?;
    let witness = scene.witness()?;
    let path = scene.manifests.folder().join("good.yaml");
    let text = std::fs::read_to_string(&path)?;
    let mut file = std::fs::File::create(&path)?;
    let requests = |count: usize| {
        let wanted = witness.requests() + count;
        eventually(PATIENCE, || Ok((witness.requests() >= wanted).then_some(())))
    };
    let problem = scene.problem("FileBeingWritten", "good.yaml", None, None)?;
    assert_eq!(problem["effect"], "kept-last-good", "{problem}");
    requests(20)?;
    // The Service is there, its endpoints are not yet.
    let (first, rest) = text.split_at(text.find("---\n").context("two documents")? + 4);
    file.write_all(first.as_bytes())?;
    requests(20)?;
    scene.problem("FileBeingWritten", "good.yaml", None, None)?;
    file.write_all(rest.as_bytes())?;
    drop(file);
    scene.no_problem("FileBeingWritten")?;
    drop(std::fs::File::create(&path)?);
    let problem = scene.problem("EmptyManifest", "good.yaml", None, None)?;
    assert_eq!(problem["effect"], "kept-last-good", "{problem}");
    requests(20)?;
    witness.nothing_failed()?;
    std::fs::remove_file(&path)?;
    scene.problem("NoManifests", "manifests", None, None)?;
    eventually(PATIENCE, || Ok(maps(&scene)?.listeners()?.is_empty().then_some(())))
}

#[test]
fn annotations_edited_in_place_take_effect() -> Result<()> {
    let scene = GoodService::new(&[])?;
    let witness = scene.witness()?;
    let other = with_port(81);
    scene.manifests.write(&other, &scene.endpoints())?;
    scene.agent.wait_for("default/other", "healthy", 1, PATIENCE)?;
    let hz = maps(&scene)?.config.hz;
    let idle = |seconds: u32| {
        eventually(PATIENCE, || {
            let slots = slots_of(&scene, 81)?;
            Ok((slots.len() == 1 && slots[0].idle == seconds * hz).then_some(slots[0].generation))
        })
    };
    let generation = idle(350)?;
    let mut open = Conversation::open(&scene.lab.client, scene.address("default/other")?)?;
    assert_eq!(open.say()?, "pod1");
    let other = other.with_aws("listener-attributes.TCP-81", "tcp.idle_timeout.seconds=60");
    scene.manifests.write(&other, &scene.endpoints())?;
    assert_eq!(idle(60)?, generation, "the target and its flows stay");
    assert_eq!(open.say()?, "pod1");
    // Checked every second till now; from now on every 300.
    let other = other.with_aws("healthcheck-interval", "300");
    scene.manifests.write(&other, &scene.endpoints())?;
    std::thread::sleep(Duration::from_secs(3));
    let checks = || checks_of(&scene, "default/other");
    let before = checks()?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(checks()? <= before + 1.0, "{before} checks before, {} after three seconds", checks()?);
    let delay = |seconds: &str| {
        let attribute = format!("deregistration_delay.timeout_seconds={seconds}");
        other.clone().with_aws("target-group-attributes", &attribute)
    };
    scene.manifests.write(&delay("300"), &[])?;
    scene.agent.wait_for("default/other", "draining", 1, PATIENCE)?;
    assert_eq!(open.say()?, "pod1", "a draining target keeps its flows");
    scene.manifests.write(&delay("1"), &[])?;
    eventually(PATIENCE, || Ok(slots_of(&scene, 81)?.is_empty().then_some(())))?;
    ensure!(scene.agent.targets("default/other")?.is_empty());
    witness.nothing_failed()
}

fn checks_of(scene: &GoodService, service: &str) -> Result<f64> {
    let name = service.rsplit('/').next().unwrap_or_default();
    let (_, text) = scene.page("/metrics")?;
    let ours = |line: &&str| {
        line.starts_with("nlb_target_health_checks_total{") && line.contains(&format!("service=\"{name}\""))
    };
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
    let values: Vec<f64> = text.lines().filter(ours).filter_map(value).collect();
    ensure!(values.iter().sum::<f64>() > 0.0, "no checks of {service} in {text}");
    Ok(values.iter().sum())
}

#[test]
fn a_port_that_is_added_answers_while_connections_of_the_others_live_on() -> Result<()> {
    let scene = GoodService::new(&[])?;
    let at = scene.address(GOOD)?;
    let mut open = Conversation::open(&scene.lab.client, at)?;
    let mut good = service("good", 80);
    for (name, number) in [("more", 81), ("most", 82)] {
        good.ports.push(Port { name, ..port(number) });
        scene.manifests.write(&good, &scene.endpoints())?;
        scene.answers_at(SocketAddr::new(at.ip(), number))?;
        assert_eq!(open.say()?, "pod1");
    }
    let mut later = Conversation::open(&scene.lab.client, SocketAddr::new(at.ip(), 82))?;
    good.ports.remove(1);
    scene.manifests.write(&good, &scene.endpoints())?;
    let removed = SocketAddr::new(at.ip(), 81);
    eventually(PATIENCE, || Ok(scene.ask(removed)?.outcome.is_err().then_some(())))?;
    assert_eq!((open.say()?.as_str(), later.say()?.as_str()), ("pod1", "pod1"));
    Ok(())
}

/// What a map holds, without what was there before: free slots keep their generations, regions of rings their words.
#[derive(Debug, PartialEq)]
struct Held {
    vips: usize,
    vip_filter: Vec<u64>,
    listeners: usize,
    choices: usize,
    slots: usize,
    targets: usize,
    target_filter: Vec<u64>,
}

fn held(scene: &GoodService) -> Result<Held> {
    let MapDump { vips, vip_filter, listeners, choices, slots, targets, target_filter, rings: _ } =
        maps(scene)?.dump()?;
    Ok(Held {
        vips: vips.len(),
        vip_filter,
        listeners: listeners.len(),
        choices: choices.iter().filter(|at| **at != 0).count(),
        slots: slots.iter().filter(|slot| slot.protocol != 0).count(),
        targets: targets.len(),
        target_filter,
    })
}

fn back_to(scene: &GoodService, before: &Held) -> Result<()> {
    eventually(PATIENCE, || {
        let now = held(scene)?;
        ensure!(now == *before, "the maps hold {now:?}, and held {before:?}");
        Ok(Some(()))
    })
}

#[test]
fn a_service_that_is_deleted_leaves_nothing_and_one_made_anew_has_fresh_flows() -> Result<()> {
    let scene = GoodService::new(&[])?;
    let witness = scene.witness()?;
    scene.agent.wait_for(GOOD, "healthy", 1, PATIENCE)?;
    let before = held(&scene)?;
    scene.manifests.write(&with_port(81), &scene.endpoints())?;
    let at = scene.answers("default/other")?;
    let mut open = Conversation::open(&scene.lab.client, at)?;
    for _ in 0..20 {
        scene.answers_at(at)?;
        assert_eq!(open.say()?, "pod1");
    }
    let flows = || scene.agent.json(&["flows", "--listener", &format!("{at}/TCP")]);
    ensure!(flows()?["total"].as_u64() >= Some(1), "{}", flows()?);
    let first = slots_of(&scene, 81)?;
    scene.manifests.remove("other")?;
    back_to(&scene, &before)?;
    // The sweep takes the flows of freed slots away.
    eventually(PATIENCE, || Ok((flows()?["total"] == 0).then_some(())))?;
    ensure!(scene.ask(at)?.outcome.is_err());
    scene.manifests.write(&with_port(81), &scene.endpoints())?;
    assert_eq!(scene.answers("default/other")?, at, "the lowest free address, as before");
    let second = slots_of(&scene, 81)?;
    ensure!(first[0] != second[0], "{first:?} again");
    let listener = scene.listeners("default/other")?.remove(0);
    ensure!(listener["newFlows"].as_u64().is_some_and(|flows| (1..20).contains(&flows)), "{listener}");
    witness.nothing_failed()
}

/// Addresses of the pod's own network where nobody is.
fn crowd(scene: &GoodService, round: u16) -> Vec<Endpoint> {
    let real = scene.endpoints().remove(0);
    let endpoint = |number: u16| Endpoint {
        pod: format!("imagined-{round}-{number}"),
        ipv4: std::net::Ipv4Addr::new(10, 2, (round % 2) as u8, number as u8),
        ..real.clone()
    };
    (1..=200).map(endpoint).collect()
}

fn resident(scene: &GoodService) -> Result<u64> {
    let id = scene.agent.id().context("the agent runs")?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    line.trim().trim_end_matches(" kB").parse().context("a number")
}

#[test]
fn ten_thousand_target_changes_leave_nothing_behind() -> Result<()> {
    const ROUNDS: u16 = 26;
    let scene = GoodService::new(&[])?;
    scene.agent.wait_for(GOOD, "healthy", 1, PATIENCE)?;
    // Packets to nobody are answered at once.
    scene.lab.node.ip(&["route", "add", "unreachable", "10.2.0.0/16"])?;
    let before = held(&scene)?;
    let other = with_port(81)
        .with_aws("target-group-attributes", "deregistration_delay.timeout_seconds=0")
        .with_aws("healthcheck-interval", "300");
    let change = |round: u16| -> Result<()> {
        let wanted = crowd(&scene, round);
        scene.manifests.write(&other, &wanted)?;
        let address = std::net::IpAddr::from(wanted[0].ipv4);
        eventually(PATIENCE, || {
            let slots = slots_of(&scene, 81)?;
            let there = slots.iter().filter(|slot| slot.target.ip() == address).count();
            ensure!(slots.len() == 200 && there == 1, "{} slots in round {round}", slots.len());
            Ok(Some(()))
        })
    };
    for round in 0..8 {
        change(round)?;
    }
    let (warm, witness) = (resident(&scene)?, scene.witness()?);
    // 200 targets go and 200 come each time.
    for round in 8..8 + ROUNDS {
        change(round)?;
    }
    let now = resident(&scene)?;
    println!("{} target changes; {warm} kB before, {now} kB after", u32::from(ROUNDS) * 400);
    ensure!(now <= warm + warm / 20, "{warm} kB became {now} kB");
    let requests = witness.requests();
    ensure!(requests > 50, "only {requests} requests meanwhile");
    scene.manifests.remove("other")?;
    back_to(&scene, &before)?;
    witness.nothing_failed()
}
