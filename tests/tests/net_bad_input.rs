//! Everything that a user or a machine can get wrong: each is said with object, field and value, and the good Service beside it goes on.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nlb_tests::lab::manifests::{Endpoint, Port, Service, yaml};
use nlb_tests::lab::scene::{GOOD, PATIENCE, POD_PORT, SMALL, Scene, port, service};
use nlb_tests::lab::{Agent, Lab, NODE, UPLINK, eventually};
use serde_json::{Value, json};

/// Puts text into a file as an editor without care does: no rename, and not at once.
fn write_in_place(scene: &Scene, name: &str, text: &str) -> Result<()> {
    std::fs::write(scene.manifests.folder().join(name), text).context("cannot write in place")
}

fn manifest_of(scene: &Scene, service: &Service) -> Result<String> {
    let mut documents = vec![service.manifest()];
    documents.extend(service.slices(&scene.endpoints()));
    yaml(&documents)
}

fn message(problem: &Value) -> &str {
    problem["message"].as_str().unwrap_or_default()
}

#[test]
fn a_half_written_file_is_named_and_takes_nothing_away() -> Result<()> {
    let scene = Scene::new(&[])?;
    let witness = scene.witness()?;
    let whole = manifest_of(&scene, &service("other", 81))?;
    let half = &whole[..whole.find("name: other").context("a name")?];
    write_in_place(&scene, "other.yaml", &format!("{half}name: [\n"))?;
    let problem = scene.problem("UnreadableManifest", "other.yaml", None, None)?;
    ensure!(problem["message"].as_str().is_some_and(|it| it.contains("line")), "{problem}");
    write_in_place(&scene, "other.yaml", &whole)?;
    scene.answers("default/other")?;
    scene.no_problem("UnreadableManifest")?;
    // The good Service's own file, cut off: what was read before goes on.
    let good = std::fs::read_to_string(scene.manifests.folder().join("good.yaml"))?;
    write_in_place(&scene, "good.yaml", &format!("{}\n  - [", &good[..good.len() / 2]))?;
    let problem = scene.problem("UnreadableManifest", "good.yaml", None, None)?;
    assert_eq!(problem["effect"], "kept-last-good", "{problem}");
    scene.answers(GOOD)?;
    witness.nothing_failed()
}

#[test]
fn an_unknown_kind_is_named_and_skipped() -> Result<()> {
    let scene = Scene::new(&[])?;
    let witness = scene.witness()?;
    let good = manifest_of(&scene, &service("other", 81))?;
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n";
    scene.manifests.write_text("other", &format!("{deployment}---\n{good}"))?;
    let problem = scene.problem("UnknownKind", "other.yaml", Some("kind"), Some("Deployment"))?;
    ensure!(message(&problem).contains("apps/v1 Deployment"), "{problem}");
    assert_eq!(problem["severity"], "Normal");
    scene.answers("default/other")?;
    witness.nothing_failed()
}

#[test]
fn a_port_out_of_range_is_named_with_its_value() -> Result<()> {
    let scene = Scene::new(&[])?;
    let witness = scene.witness()?;
    let text = manifest_of(&scene, &service("other", 81))?;
    scene.manifests.write_text("other", &text.replace("port: 81\n", "port: 70000\n"))?;
    let problem =
        scene.problem("InvalidObject", "Service default/other", Some("spec.ports[0].port"), Some("70000"))?;
    ensure!(message(&problem).contains("1 to 65535"), "{problem}");
    scene.manifests.write_text("other", &text.replace(&format!("port: {POD_PORT}\n"), "port: 0\n"))?;
    scene.problem("InvalidObject", "EndpointSlice default/other-ipv4", Some("ports[0].port"), Some("0"))?;
    scene.manifests.write_text("other", &text)?;
    scene.answers("default/other")?;
    scene.no_problem("InvalidObject")?;
    witness.nothing_failed()
}

#[test]
fn a_slice_for_no_service_is_named() -> Result<()> {
    let scene = Scene::new(&[])?;
    let witness = scene.witness()?;
    let slices = service("nobody", 81).slices(&scene.endpoints());
    scene.manifests.write_text("nobody", &yaml(&slices)?)?;
    let problem = scene.problem(
        "ServiceNotFound",
        "EndpointSlice default/nobody-ipv4",
        Some("metadata.labels[kubernetes.io/service-name]"),
        Some("nobody"),
    )?;
    ensure!(message(&problem).contains("nobody"), "{problem}");
    scene.manifests.remove("nobody")?;
    scene.no_problem("ServiceNotFound")?;
    witness.nothing_failed()
}

#[test]
fn mixed_families_are_named() -> Result<()> {
    let scene = Scene::new(&[])?;
    let witness = scene.witness()?;
    let other = service("other", 81);
    let mut slice = other.slices(&scene.endpoints()).remove(0);
    let six = scene.lab.pods()[0].ipv6.to_string();
    slice["endpoints"][0]["addresses"][0] = json!(six);
    scene.manifests.write_text("other", &yaml(&[other.manifest(), slice])?)?;
    let slice = "EndpointSlice default/other-ipv4";
    let problem =
        scene.problem("InvalidObject", slice, Some("endpoints[0].addresses[0]"), Some(six.as_str()))?;
    ensure!(message(&problem).contains("IPv4"), "{problem}");
    // A Service that wants two families and says that it wants one.
    let mut both = Service { families: vec!["IPv4", "IPv6"], ..other }.manifest();
    both["spec"]["ipFamilyPolicy"] = json!("SingleStack");
    scene.manifests.write_text("other", &yaml(&[both])?)?;
    scene.problem("InvalidObject", "Service default/other", Some("spec.ipFamilies"), Some("IPv4,IPv6"))?;
    witness.nothing_failed()
}

#[test]
fn a_name_that_matches_no_port_is_named_on_both_sides() -> Result<()> {
    let scene = Scene::new(&[])?;
    let witness = scene.witness()?;
    let other = service("other", 81);
    let mut slice = other.slices(&scene.endpoints()).remove(0);
    slice["ports"][0]["name"] = json!("wbe");
    scene.manifests.write_text("other", &yaml(&[other.manifest(), slice])?)?;
    let slice = "EndpointSlice default/other-ipv4";
    scene.problem("PortNameNotFound", slice, Some("ports[0].name"), Some("wbe"))?;
    let problem =
        scene.problem("PortNameNotFound", "Service default/other", Some("spec.ports[0].name"), Some("web"))?;
    ensure!(message(&problem).contains("port 81"), "{problem}");
    scene.manifests.write(&other, &scene.endpoints())?;
    scene.answers("default/other")?;
    scene.no_problem("PortNameNotFound")?;
    witness.nothing_failed()
}

#[test]
fn a_service_without_endpoints_is_named_and_its_packets_are_counted() -> Result<()> {
    let scene = Scene::new(&[])?;
    let witness = scene.witness()?;
    let other = service("other", 81);
    scene.manifests.write(&other, &[])?;
    scene.problem("NoEndpoints", "Service default/other", None, None)?;
    let at = scene.address("default/other")?;
    ensure!(scene.ask(at)?.outcome.is_err());
    let drops = scene.agent.json(&["drops"])?;
    let rows = drops["drops"].as_array().context("drops")?;
    let row = rows.iter().find(|row| row["reason"] == "NoTarget").context("NoTarget")?;
    ensure!(row["packets"].as_u64() >= Some(1), "{row}");
    let listener = scene.listeners("default/other")?.remove(0);
    ensure!(listener["drops"]["NoTarget"].as_u64() >= Some(1), "{listener}");
    assert_eq!(listener["registered"], 0);
    scene.manifests.write(&other, &scene.endpoints())?;
    scene.answers_at(at)?;
    witness.nothing_failed()
}

#[test]
fn of_two_services_that_want_one_vip_and_port_the_first_keeps_it() -> Result<()> {
    let scene = Scene::new(&[])?;
    let witness = scene.witness()?;
    let vip = scene.vip(GOOD)?;
    let mut other = service("other", 80);
    other.ports.push(Port { name: "more", port: 81, ..port(81) });
    let mut manifest = other.manifest();
    manifest["spec"]["loadBalancerIP"] = json!(vip.to_string());
    let mut documents = vec![manifest];
    documents.extend(other.slices(&scene.endpoints()));
    scene.manifests.write_text("other", &yaml(&documents)?)?;
    let all = eventually(PATIENCE, || {
        let all = scene.problems()?;
        let about = all.iter().find(|row| row["object"] == "Service default/other").cloned();
        Ok(about.filter(|row| row["severity"] == "Warning"))
    })?;
    ensure!(message(&all).contains("default/good"), "{all}");
    let value = all["value"].as_str().context("a value")?;
    ensure!(value == "80" || value == vip.to_string(), "{all}");
    ensure!(all["field"].is_string(), "{all}");
    witness.nothing_failed()
}

#[test]
fn more_listeners_than_the_map_holds_are_named() -> Result<()> {
    let scene = Scene::new(&["--max-listeners", "4"])?;
    let witness = scene.witness()?;
    let room = capacity(&scene, "listeners")?;
    assert_eq!(room, 4, "the flag is taken at its word");
    let names = ["a", "b", "c", "d", "e"];
    let many = |count: usize| {
        let ports = names.iter().zip(81..).take(count);
        Service { ports: ports.map(|(name, number)| Port { name, ..port(number) }).collect(), ..service("other", 81) }
    };
    scene.manifests.write(&many(5), &scene.endpoints())?;
    let problem = eventually(PATIENCE, || {
        Ok(scene.problems()?.into_iter().find(|row| row["reason"] == "ListenerLimit"))
    })?;
    assert_eq!((&problem["object"], &problem["field"]), (&json!("Service default/other"), &json!("spec.ports")));
    ensure!(problem["value"].is_string() && message(&problem).contains("limit of 4 listeners"), "{problem}");
    scene.answers("default/other")?;
    scene.manifests.write(&many(3), &scene.endpoints())?;
    scene.no_problem("ListenerLimit")?;
    for at in scene.addresses("default/other")? {
        scene.answers_at(at)?;
    }
    witness.nothing_failed()
}

#[test]
fn more_targets_than_the_map_holds_are_named() -> Result<()> {
    let scene = Scene::new(&["--max-targets", "32"])?;
    let witness = scene.witness()?;
    assert_eq!(capacity(&scene, "slots")?, 32);
    let real = scene.endpoints().remove(0);
    let endpoint = |last: u8| Endpoint {
        pod: format!("imagined-{last}"),
        ipv4: std::net::Ipv4Addr::new(10, 1, 1, last),
        ..real.clone()
    };
    let crowd: Vec<Endpoint> = (100..140).map(endpoint).collect();
    scene.manifests.write(&service("other", 81), &crowd)?;
    let problem = scene.problem("TargetLimit", "Service default/other", Some("spec.ports"), Some("81"))?;
    ensure!(message(&problem).contains("limit of 32"), "{problem}");
    scene.manifests.write(&service("other", 81), &[real])?;
    scene.no_problem("TargetLimit")?;
    scene.answers("default/other")?;
    witness.nothing_failed()
}

fn capacity(scene: &Scene, table: &str) -> Result<u64> {
    let status = scene.agent.json(&["status"])?;
    let tables = status["tables"].as_array().context("tables")?;
    let row = tables.iter().find(|row| row["name"] == table).context("the table")?;
    row["capacity"].as_u64().context("a capacity")
}

#[test]
fn an_interface_that_is_missing_goes_and_comes_back_is_served_again() -> Result<()> {
    let mut scene = Scene::new(&["--interface", "second"])?;
    // No endpoint: it only lends its namespace to another client.
    scene.lab.add_pod()?;
    let witness = scene.witness()?;
    let problem = scene.problem("InterfaceMissing", "Interface second", Some("--interface"), Some("second"))?;
    ensure!(message(&problem).contains("waits"), "{problem}");
    let good = scene.address(GOOD)?;
    for round in 0..2 {
        // Another client, on a link of its own, that reaches the VIPs by it.
        let elsewhere = connect_second(&scene.lab)?;
        let ask = || elsewhere.enter(move || nlb_tests::lab::http::request(good, std::time::Instant::now()));
        eventually(PATIENCE, || Ok(ask()?.outcome.is_ok().then_some(())))
            .with_context(|| format!("round {round}: {}", scene.agent.last_words()))?;
        let status = scene.agent.json(&["status"])?;
        let rows = status["interfaces"].as_array().context("interfaces")?;
        let row = rows.iter().find(|row| row["name"] == "second").context("second")?;
        ensure!(row["mode"] == "driver" && row["reply"] == "tcx", "{row}");
        scene.no_problem("InterfaceMissing")?;
        scene.lab.node.ip(&["link", "delete", "second"])?;
        scene.problem("InterfaceMissing", "Interface second", Some("--interface"), Some("second"))?;
        elsewhere.ip(&["link", "show", "lo"])?;
    }
    witness.nothing_failed()
}

/// A link `second` between the node and its second client, both addressed.
fn connect_second(lab: &Lab) -> Result<nlb_tests::lab::Namespace> {
    let pod = lab.pods().last().context("a pod")?;
    let elsewhere = pod.namespace.clone();
    elsewhere.link("eth1", &lab.node, "second")?;
    elsewhere.ethtool(&["-K", "eth1", "tx", "off"])?;
    lab.node.ethtool(&["-K", "second", "tx", "off"])?;
    elsewhere.ip(&["address", "add", "203.0.113.7/24", "dev", "eth1"])?;
    lab.node.ip(&["address", "add", "203.0.113.1/24", "dev", "second"])?;
    elsewhere.ip(&["route", "replace", "192.0.2.0/24", "via", "203.0.113.1", "dev", "eth1"])?;
    Ok(elsewhere)
}

/// `run` with the first agent's pins but a socket of its own, to its end: what it says on standard error.
fn refused(scene: &Scene, before: &[&str]) -> Result<String> {
    let binary = Agent::binary()?;
    let (program, rest) = match before.split_first() {
        Some((program, rest)) => (program.to_string(), rest.to_vec()),
        None => ("env".to_owned(), Vec::new()),
    };
    let mut command = scene.lab.node.command(&program);
    command.args(rest).arg(binary).arg("run");
    command.arg("--pin-path").arg(scene.agent.pins());
    command.arg("--socket").arg(scene.lab.folder().join("second.sock"));
    command.arg("--manifests").arg(scene.manifests.folder()).args(["--interface", UPLINK, "--http", "none"]);
    ended_badly(&mut command)
}

fn ended_badly(command: &mut Command) -> Result<String> {
    let mut child = command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn()?;
    let status = eventually(PATIENCE, || Ok(child.try_wait()?));
    if status.is_err() {
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    ensure!(status.is_ok_and(|status| !status.success()), "it was not refused");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn without_permission_the_missing_capability_is_named() -> Result<()> {
    let scene = Scene::new(&[])?;
    let witness = scene.witness()?;
    let all = "setpriv --bounding-set -all --inh-caps -all --";
    let said = refused(&scene, &all.split(' ').collect::<Vec<_>>())?;
    ensure!(["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"].iter().all(|name| said.contains(name)), "{said}");
    // No dead end: what to do is said as well, in one place.
    ensure!(said.contains("nlb-agent: ") && said.lines().count() <= 3, "{said}");
    let one = "setpriv --bounding-set -net_admin --inh-caps -all --";
    let said = refused(&scene, &one.split(' ').collect::<Vec<_>>())?;
    ensure!(said.contains("CAP_NET_ADMIN") && !said.contains("lacks CAP_BPF"), "{said}");
    witness.nothing_failed()
}

#[test]
fn a_second_agent_on_the_same_pins_is_refused_and_the_first_goes_on() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let witness = scene.witness()?;
    let said = refused(&scene, &[])?;
    let pins = scene.agent.pins().display().to_string();
    ensure!(said.contains("another") && said.contains(&pins), "{said}");
    // And one on the same socket.
    let mut command = scene.agent.command("run");
    command.arg("--manifests").arg(scene.manifests.folder()).args(["--http", "none"]);
    let said = ended_badly(&mut command)?;
    ensure!(said.contains("another agent is running"), "{said}");
    ensure!(scene.agent.ended()?.is_none(), "the first agent is gone");
    scene.answers(GOOD)?;
    witness.nothing_failed()
}

#[test]
fn pins_of_another_layout_are_refused_and_left_running() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let witness = scene.witness()?;
    ensure!(scene.agent.stop()?.success());
    let config = scene.agent.pins().join("config");
    let dump = || -> Result<String> {
        let mut command = Command::new("bpftool");
        let said = command.args(["-j", "map", "lookup", "pinned"]).arg(&config).args(["key", "0", "0", "0", "0"]).output()?;
        Ok(String::from_utf8_lossy(&said.stdout).into_owned())
    };
    let before: Value = serde_json::from_str(&dump()?)?;
    let bytes: Vec<String> = before["value"]
        .as_array()
        .context("the value's bytes")?
        .iter()
        .filter_map(|byte| byte.as_str().map(str::to_owned))
        .collect();
    let mut other = bytes.clone();
    other[0] = "0x63".into();
    write_config(&config, &other)?;
    let pins = pinned(&scene)?;
    let said = refused(&scene, &[])?;
    ensure!(said.contains("layout 99") && said.contains("detach"), "{said}");
    assert_eq!(pinned(&scene)?, pins, "nothing is wiped");
    std::thread::sleep(Duration::from_millis(200));
    write_config(&config, &bytes)?;
    scene.agent.restart()?;
    scene.answers(GOOD)?;
    witness.nothing_failed()
}

fn write_config(config: &std::path::Path, bytes: &[String]) -> Result<()> {
    let mut command = Command::new("bpftool");
    command.args(["map", "update", "pinned"]).arg(config).args(["key", "0", "0", "0", "0", "value"]).args(bytes);
    ensure!(command.status()?.success(), "bpftool cannot write {}", config.display());
    Ok(())
}

fn pinned(scene: &Scene) -> Result<Vec<String>> {
    let names = std::fs::read_dir(scene.agent.pins())?;
    let mut names: Vec<String> =
        names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

#[test]
fn a_foreign_xdp_program_is_named_and_left_alone_until_it_is_gone() -> Result<()> {
    let stage = Scene::stage(1)?;
    let (lab, _, _) = &stage;
    // Any other program will do; the one that is at hand is our own under another pin path.
    let theirs = lab.folder().with_file_name(format!(
        "{}-foreign",
        lab.pins().file_name().context("a name")?.to_string_lossy()
    ));
    let theirs = std::path::Path::new("/sys/fs/bpf").join(theirs.file_name().context("a name")?);
    let pins = theirs.clone();
    let opened = lab.node.enter(move || -> Result<u32> {
        let mut options = nlb_agent::bpf::Options::new(&pins);
        options.sizes.flows = 1024;
        options.sizes.half_flows = 1024;
        let mut foreign = nlb_agent::bpf::DataPath::open(&options)?;
        foreign.links.attach_xdp(UPLINK, nlb_agent::args::XdpMode::Driver)?;
        foreign.leave();
        let index = nix::net::if_::if_nametoindex(UPLINK)?;
        Ok(nlb_agent::bpf::netlink::xdp(index)?.context("attached")?.program)
    })?;
    let result = opened.and_then(|number| foreign_program(stage, number, &theirs));
    let _ = std::fs::remove_dir_all(&theirs);
    result
}

fn foreign_program(
    stage: (Lab, nlb_tests::lab::manifests::Manifests, Vec<nlb_tests::lab::echo::Echo>),
    number: u32,
    theirs: &std::path::Path,
) -> Result<()> {
    let agent = Agent::start(&stage.0, stage.1.folder(), &SMALL)?;
    let scene = Scene::assemble(stage, agent);
    let text = number.to_string();
    let problem = scene.problem("ForeignXdpProgram", "Interface uplink", Some("xdp"), Some(&text))?;
    ensure!(message(&problem).contains("leaves it"), "{problem}");
    let running = || -> Result<String> { scene.lab.node.output("ip", &["-j", "link", "show", UPLINK]) };
    ensure!(running()?.contains(&format!("\"id\":{number}")), "{}", running()?);
    let _ = NODE;
    // Its owner takes it off: nobody has to tell nlb.
    let theirs = theirs.to_owned();
    scene.lab.node.enter(move || nlb_agent::bpf::detach::detach(&theirs))??;
    scene.answers(GOOD)?;
    scene.no_problem("ForeignXdpProgram")
}
