//! A machine that is not as the agent wants it: interfaces, permission, other agents, other programs.

use super::message;
use anyhow::{Context, Result, ensure};
use nlb_agent::args::XdpMode;
use nlb_agent::bpf::netlink;
use nlb_tests::lab::foreign::Foreign;
use nlb_tests::lab::good::{GOOD, GoodService, PATIENCE, SMALL};
use nlb_tests::lab::{Agent, Lab, UPLINK, eventually};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

#[test]
fn an_interface_that_is_missing_goes_and_comes_back_is_served_again() -> Result<()> {
    let mut scene = GoodService::new(&["--interface", "second"])?;
    // No endpoint: it only lends its namespace to another client.
    scene.lab.add_pod()?;
    let witness = scene.witness()?;
    let problem =
        scene.problem("InterfaceMissing", "Interface second", Some("--interface"), Some("second"))?;
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
        // The agent also sees that its own attachment went with the device.
        eventually(PATIENCE, || {
            let gone = |row: &Value| row["reason"] == "InterfaceMissing" && row["field"].is_null();
            Ok(scene.problems()?.iter().any(gone).then_some(()))
        })?;
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
fn refused(scene: &GoodService, before: &[&str]) -> Result<String> {
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
    let mut child =
        command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn()?;
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
    let scene = GoodService::new(&[])?;
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
    let mut scene = GoodService::new(&[])?;
    let witness = scene.witness()?;
    let said = refused(&scene, &[])?;
    let pins = scene.agent.pins().display().to_string();
    ensure!(said.contains("another") && said.contains(&pins), "{said}");
    // And one on the same socket.
    let mut command = scene.agent.command("run");
    command.arg("--manifests").arg(scene.manifests.folder()).args(["--http", "none"]);
    let said = ended_badly(&mut command)?;
    let first = format!("another agent is running: process {} holds", scene.agent.id().context("it runs")?);
    ensure!(said.contains(&first), "{said}");
    ensure!(scene.agent.ended()?.is_none(), "the first agent is gone");
    scene.answers(GOOD)?;
    witness.nothing_failed()
}

#[test]
fn pins_of_another_layout_are_refused_and_left_running() -> Result<()> {
    let mut scene = GoodService::new(&[])?;
    let witness = scene.witness()?;
    ensure!(scene.agent.stop()?.success());
    let config = scene.agent.pins().join("config");
    let dump = || -> Result<String> {
        let mut command = Command::new("bpftool");
        let said = command
            .args(["-j", "map", "lookup", "pinned"])
            .arg(&config)
            .args(["key", "0", "0", "0", "0"])
            .output()?;
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
    command
        .args(["map", "update", "pinned"])
        .arg(config)
        .args(["key", "0", "0", "0", "0", "value"])
        .args(bytes);
    ensure!(command.status()?.success(), "bpftool cannot write {}", config.display());
    Ok(())
}

fn pinned(scene: &GoodService) -> Result<Vec<String>> {
    let names = std::fs::read_dir(scene.agent.pins())?;
    let mut names: Vec<String> =
        names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

/// The number of the XDP program on the uplink of this thread's namespace.
fn running() -> Result<Option<u32>> {
    let index = nix::net::if_::if_nametoindex(UPLINK)?;
    Ok(netlink::xdp(index)?.map(|running| running.program))
}

#[test]
fn a_foreign_xdp_program_is_named_and_left_alone_until_it_is_gone() -> Result<()> {
    let stage = GoodService::stage(1)?;
    let foreign = Foreign::open(&stage.0, |theirs| {
        theirs.links.attach_xdp(UPLINK, XdpMode::Driver)?;
        Ok(())
    })?;
    let number = stage.0.node.enter(running)??.context("it is attached")?;
    let agent = Agent::start(&stage.0, stage.1.folder(), &SMALL)?;
    let scene = GoodService::assemble(stage, agent);
    let text = number.to_string();
    let problem = scene.problem("ForeignXdpProgram", "Interface uplink", Some("xdp"), Some(&text))?;
    ensure!(message(&problem).contains("leaves it"), "{problem}");
    assert_eq!(scene.lab.node.enter(running)??, Some(number));
    ensure!(scene.page("/readyz")?.0 == 503, "ready without an uplink");
    // Its owner takes it off: nobody has to tell nlb.
    foreign.take_off()?;
    scene.answers(GOOD)?;
    scene.no_problem("ForeignXdpProgram")?;
    scene.no_problem("NotAttached")?;
    assert_eq!(scene.page("/readyz")?.0, 200);
    Ok(())
}
