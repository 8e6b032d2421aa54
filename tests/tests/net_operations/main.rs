//! What an operator sees and does: every subcommand against a live agent and against what it left, pages, logs, `top`, `detach`, and a machine that works against nlb.

mod maps;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nlb_agent::bpf::sys;
use nlb_common::reasons::{Kind, Reason};
use nlb_tests::lab::echo::Conversation;
use nlb_tests::lab::foreign::Foreign;
use nlb_tests::lab::good::{GOOD, GoodService, PATIENCE, SMALL, service};
use nlb_tests::lab::manifests::Service;
use nlb_tests::lab::{Agent, UPLINK, eventually};
use serde_json::Value;

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}

fn has(value: &Value, wanted: &str) -> Result<()> {
    let found = keys(value);
    let missing: Vec<&str> = wanted.split(' ').filter(|key| !found.contains(key)).collect();
    ensure!(missing.is_empty(), "{missing:?} is missing in {value}");
    Ok(())
}

fn number(value: &Value, key: &str) -> Result<u64> {
    value[key].as_u64().with_context(|| format!("{key} is no number in {value}"))
}

fn row<'a>(value: &'a Value, list: &str, key: &str, wanted: &str) -> Result<&'a Value> {
    let rows = value[list].as_array().with_context(|| format!("no list {list} in {value}"))?;
    rows.iter().find(|row| row[key] == wanted).with_context(|| format!("no {wanted} among {rows:#?}"))
}

#[test]
fn every_question_is_answered_with_the_contracts_names_and_numbers_that_move() -> Result<()> {
    let scene = GoodService::new(&[])?;
    scene.agent.wait_for(GOOD, "healthy", 1, PATIENCE)?;
    let at = scene.address(GOOD)?;
    let mut open = Conversation::open(&scene.lab.client, at)?;
    open.say()?;
    let name = format!("{at}/TCP");
    let ask = |what: &str| scene.agent.json(&[what]);
    let before = row(&ask("listeners")?, "listeners", "listener", &name)?.clone();
    has(
        &before,
        "listener namespace service healthy registered failOpen flows newFlows packets bytes drops",
    )?;
    assert_eq!((number(&before, "healthy")?, number(&before, "registered")?), (1, 1));
    for _ in 0..10 {
        ensure!(scene.ask(at)?.outcome.is_ok());
    }
    let after = row(&ask("listeners")?, "listeners", "listener", &name)?.clone();
    let rise = |key| Ok::<u64, anyhow::Error>(number(&after, key)? - number(&before, key)?);
    assert_eq!(rise("newFlows")?, 10);
    // Both directions: a request with its answer takes at least nine packets, none of them below 40 bytes.
    let (packets, bytes) = (rise("packets")?, rise("bytes")?);
    ensure!((90..=200).contains(&packets), "{packets} packets for ten requests");
    ensure!(bytes >= packets * 40 && bytes < 100_000, "{bytes} bytes in {packets} packets");
    eventually(PATIENCE, || {
        Ok((row(&ask("listeners")?, "listeners", "listener", &name)?["flows"].as_u64() >= Some(1))
            .then_some(()))
    })?;
    let targets = ask("targets")?;
    let target = row(&targets, "targets", "target", "10.1.1.2:5001")?;
    has(
        target,
        "namespace service listener target node zone local weight path via pathReason state reason description since",
    )?;
    has(target, "flows newFlows packets bytes")?;
    assert_eq!(
        (&target["state"], &target["path"], &target["via"]),
        (&"healthy".into(), &"local".into(), &"stack".into())
    );
    ensure!(number(target, "newFlows")? >= 11 && number(target, "packets")? > 90, "{target}");
    let flows = scene.agent.json(&["flows", "--client", "198.51.100.7"])?;
    ensure!(number(&flows, "total")? >= 1, "{flows}");
    let flow = row(&flows, "flows", "client", &open.client()?.to_string())?;
    has(flow, "protocol client listener target path state idleSeconds")?;
    assert_eq!((&flow["state"], &flow["target"]), (&"established".into(), &"10.1.1.2:5001".into()));
    status_has_all(&scene)?;
    let version =
        scene.lab.node.output(&Agent::binary()?.display().to_string(), &["version", "-o", "json"])?;
    let version: Value = serde_json::from_str(&version)?;
    has(&version, "version commit kernel layout features")?;
    has(&version["features"], "tcx xdpFrags jit")?;
    assert_eq!(version["layout"], scene.agent.json(&["status"])?["agent"]["layout"]);
    Ok(())
}

fn status_has_all(scene: &GoodService) -> Result<()> {
    let status = scene.agent.json(&["status"])?;
    has(&status, "agent interfaces sources tables vips host problems")?;
    has(&status["agent"], "running version node leader startedAt layout")?;
    assert_eq!(status["agent"]["node"], "node-a");
    let uplink = row(&status, "interfaces", "name", UPLINK)?;
    has(uplink, "name mtu mode reply notes")?;
    assert_eq!((&uplink["mode"], &uplink["reply"]), (&"driver".into(), &"tcx".into()));
    let source = row(&status, "sources", "name", "manifests")?;
    ensure!(source["synced"] == true && source["since"].is_string(), "{source}");
    assert_eq!(number(row(&status, "tables", "name", "listeners")?, "entries")?, 1);
    assert_eq!(number(row(&status, "tables", "name", "flows")?, "capacity")?, 4096);
    has(&status["vips"][0], "vip owner here eligible reason")?;
    assert_eq!(status["host"]["forwarding"]["ipv4"], true);
    ensure!(status["problems"].as_array().is_some_and(Vec::is_empty), "{}", status["problems"]);
    Ok(())
}

#[test]
fn a_closed_port_of_a_vip_is_counted_and_explained() -> Result<()> {
    let scene = GoodService::new(&[])?;
    let closed = SocketAddr::new(scene.vip(GOOD)?, 81);
    let count = || -> Result<u64> {
        let drops = scene.agent.json(&["drops"])?;
        has(&drops, "drops passed forwarded noted")?;
        let row = row(&drops, "drops", "reason", "NoListener")?.clone();
        ensure!(row["meaning"].as_str().is_some_and(|it| it.len() > 20), "{row}");
        ensure!(row["remedy"].as_str().is_some_and(|it| it.len() > 20), "{row}");
        number(&row, "packets")
    };
    let before = count()?;
    ensure!(scene.ask(closed)?.outcome.is_err());
    ensure!(count()? > before, "nothing was counted");
    let all = scene.agent.json(&["drops"])?;
    ensure!(number(row(&all, "passed", "reason", "NotForUs")?, "packets")? > 0);
    ensure!(number(row(&all, "forwarded", "reason", "Replied")?, "packets")? > 0);
    each_reason_is_in_the_list_of_its_kind(&all)
}

fn each_reason_is_in_the_list_of_its_kind(drops: &Value) -> Result<()> {
    for reason in Reason::ALL {
        let wanted = match reason.kind() {
            Kind::Forwarded => "forwarded",
            Kind::Passed => "passed",
            Kind::Dropped => "drops",
            Kind::Noted => "noted",
        };
        for list in ["forwarded", "passed", "drops", "noted"] {
            let found = row(drops, list, "reason", reason.name()).is_ok();
            ensure!(found == (list == wanted), "{} in {list}: {found}", reason.name());
        }
    }
    Ok(())
}

#[test]
fn pages_are_served_on_loopback_and_readiness_waits() -> Result<()> {
    let stage = GoodService::stage(1)?;
    // A folder that is not there yet: nothing is synced.
    let folder = stage.0.folder().join("later");
    let flags = ["--interface", UPLINK, "--vip-pool", "192.0.2.0/24"];
    let agent = Agent::start_with(&stage.0, &folder, &flags)?;
    let good = std::fs::read(stage.1.folder().join("good.yaml"))?;
    let scene = GoodService::assemble(stage, agent);
    let (status, body) = eventually(PATIENCE, || scene.page("/readyz").map(Some))?;
    ensure!(status == 503 && body.contains("manifests"), "{status} {body}");
    assert_eq!(scene.page("/healthz")?.0, 200);
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("good.yaml"), good)?;
    eventually(PATIENCE, || Ok((scene.page("/readyz")?.0 == 200).then_some(())))?;
    scene.answers(GOOD)?;
    // From outside nobody reaches it.
    let outside = SocketAddr::new(nlb_tests::lab::NODE.0.into(), 9464);
    ensure!(scene.ask(outside)?.outcome.is_err());
    for name in [
        "nlb_listener_new_flows_total",
        "nlb_listener_packets_total",
        "nlb_listener_bytes_total",
        "nlb_target_state",
        "nlb_passed_total",
        "nlb_forwarded_total",
        "nlb_vip_owner",
        "nlb_table_capacity",
        "nlb_apply_seconds_count",
        "nlb_build_info",
        "nlb_listener_registered_targets",
    ] {
        ensure!(scene.metric(name)? > 0.0, "{name} is 0");
    }
    Ok(())
}

#[test]
fn top_draws_in_a_terminal_and_ends_on_q() -> Result<()> {
    let scene = GoodService::new(&[])?;
    let agent = Agent::binary()?;
    let top = format!(
        "{} top --socket {} --pin-path {}",
        agent.display(),
        scene.agent.socket().display(),
        scene.agent.pins().display()
    );
    let mut command = Command::new("script");
    command.args(["-qefc", &format!("stty rows 40 cols 160; TERM=xterm {top}"), "/dev/null"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut keys = child.stdin.take().context("a terminal's keyboard")?;
    std::thread::sleep(Duration::from_secs(2));
    std::io::Write::write_all(&mut keys, b"q")?;
    let ended = eventually(PATIENCE, || Ok(child.try_wait()?));
    if ended.is_err() {
        child.kill()?;
    }
    let drawn = String::from_utf8_lossy(&child.wait_with_output()?.stdout).into_owned();
    ensure!(ended.as_ref().is_ok_and(std::process::ExitStatus::success), "{ended:?}: {drawn}");
    let address = scene.address(GOOD)?.to_string();
    ensure!(drawn.contains(&address) && drawn.contains("\u{1b}[?1049l"), "{drawn:?}");
    Ok(())
}

#[test]
fn detach_takes_everything_away_and_again_nothing() -> Result<()> {
    let mut scene = GoodService::new(&[])?;
    let at = scene.address(GOOD)?;
    let detach = |scene: &GoodService| -> Result<std::process::Output> {
        Ok(scene.agent.command("detach").args(["--yes", "-o", "json"]).output()?)
    };
    let refused = detach(&scene)?;
    ensure!(!refused.status.success(), "not while the agent runs");
    ensure!(String::from_utf8_lossy(&refused.stderr).contains("stop it first"));
    scene.answers_at(at)?;
    scene.agent.stop()?;
    scene.answers_at(at)?;
    let done = detach(&scene)?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let said: Value = serde_json::from_slice(&done.stdout)?;
    ensure!(said["removed"].as_array().is_some_and(|all| all.len() >= 3), "{said}");
    ensure!(!scene.agent.pins().exists());
    let links = scene.lab.node.output("bpftool", &["-j", "net", "show"])?;
    ensure!(!links.contains("nlb_"), "{links}");
    ensure!(scene.ask(at)?.outcome.is_err(), "somebody still answers");
    let again = detach(&scene)?;
    ensure!(again.status.success());
    let said: Value = serde_json::from_slice(&again.stdout)?;
    assert_eq!(said["removed"].as_array().map(Vec::len), Some(0), "{said}");
    // And from nothing to everything.
    scene.agent.restart()?;
    scene.answers_at(at)
}

#[test]
fn log_lines_are_structured_and_the_data_paths_own_only_where_asked_for() -> Result<()> {
    for (level, wanted) in [("info", true), ("off", false)] {
        let scene = GoodService::new(&["--log-format", "json", "--log", "debug", "--data-path-log", level])?;
        let closed = SocketAddr::new(scene.vip(GOOD)?, 81);
        ensure!(scene.ask(closed)?.outcome.is_err());
        std::thread::sleep(Duration::from_secs(1));
        let log = scene.agent.log();
        for line in log.lines() {
            let line: Value = serde_json::from_str(line).with_context(|| format!("{line:?} is no JSON"))?;
            has(&line, "timestamp level message")?;
        }
        let lines = log.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        let attached = lines.iter().any(|line| {
            (&line["message"], &line["interface"], &line["program"])
                == (&"attached".into(), &UPLINK.into(), &"nlb_xdp".into())
        });
        ensure!(attached, "no line says that nlb_xdp was attached: {log}");
        let own = log.lines().filter(|line| line.contains("dropped: reason")).count();
        ensure!((own > 0) == wanted, "{own} lines of the data path with {level}: {log}");
    }
    Ok(())
}

#[test]
fn what_the_machine_does_wrong_is_said_with_the_command_and_forgotten_when_mended() -> Result<()> {
    let scene = GoodService::new(&[])?;
    scene.agent.wait_for(GOOD, "healthy", 1, PATIENCE)?;
    let node = &scene.lab.node;
    let said = |reason: &str, words: &str| -> Result<Value> {
        eventually(PATIENCE, || {
            let all = scene.problems()?;
            let found = all.iter().find(|row| row["reason"] == reason).cloned();
            ensure!(found.is_some(), "no {reason} among {all:#?}");
            let message = found.as_ref().and_then(|row| row["message"].as_str()).unwrap_or_default();
            ensure!(message.contains(words), "{message}");
            Ok(found)
        })
    };
    node.sysctl("net.ipv4.ip_forward", "0")?;
    let problem = said("ForwardingOff", "sysctl -w net.ipv4.ip_forward=1")?;
    assert_eq!(problem["object"], "Node node-a");
    assert_eq!(scene.agent.json(&["status"])?["host"]["forwarding"]["ipv4"], false);
    node.sysctl("net.ipv4.ip_forward", "1")?;
    scene.no_problem("ForwardingOff")?;
    node.output("nft", &["add table inet wall; add chain inet wall forward { type filter hook forward priority 0; policy drop; }"])?;
    said("ForwardPolicyDrop", "inet wall")?;
    ensure!(scene.ask(scene.address(GOOD)?)?.outcome.is_err(), "the firewall lets everything through");
    node.output("nft", &["delete table inet wall"])?;
    scene.no_problem("ForwardPolicyDrop")?;
    node.sysctl("net.ipv4.conf.uplink.rp_filter", "1")?;
    let problem = said("StrictReversePath", "sysctl -w net.ipv4.conf.uplink.rp_filter=2")?;
    assert_eq!(problem["object"], "Interface uplink");
    node.sysctl("net.ipv4.conf.uplink.rp_filter", "2")?;
    scene.no_problem("StrictReversePath")?;
    scene.answers(GOOD)?;
    Ok(())
}

#[test]
fn behind_somebody_elses_clsact_filter_both_see_packets() -> Result<()> {
    let stage = GoodService::stage(1)?;
    // Any program that lets others look at a packet, too, will do; ours under another pin path counts what it sees.
    let foreign = Foreign::open(&stage.0, |_| Ok(()))?;
    let node = stage.0.node.clone();
    node.output("tc", &["qdisc", "add", "dev", UPLINK, "clsact"])?;
    let program = foreign.pins.join("prog_reply").display().to_string();
    let filter = ["egress", "prio", "7", "protocol", "all", "bpf", "da", "object-pinned", &program];
    node.output("tc", &[&["filter", "add", "dev", UPLINK], &filter[..]].concat())?;
    let agent = Agent::start(&stage.0, stage.1.folder(), &SMALL)?;
    let scene = GoodService::assemble(stage, agent);
    let at = scene.answers(GOOD)?;
    let status = scene.agent.json(&["status"])?;
    let uplink = row(&status, "interfaces", "name", UPLINK)?;
    assert_eq!(uplink["reply"], "clsact", "{uplink}");
    ensure!(uplink["notes"].to_string().contains("somebody else"), "{uplink}");
    let before = foreign.seen()?;
    let witness = scene.witness()?;
    for _ in 0..10 {
        // The client connected to the VIP: only a reply that was translated back is an answer.
        ensure!(scene.ask(at)?.outcome.is_ok());
    }
    ensure!(
        foreign.seen()? >= before + 30,
        "the other filter saw {before} packets, then {}",
        foreign.seen()?
    );
    witness.nothing_failed()
}

#[test]
fn attachments_that_somebody_removes_are_restored_with_a_problem() -> Result<()> {
    let scene = GoodService::new(&[])?;
    let at = scene.address(GOOD)?;
    for (pin, program) in [("link_xdp_uplink", "nlb_xdp"), ("link_reply_uplink", "nlb_reply")] {
        let link = sys::open_pin(&scene.agent.pins().join(pin))?;
        sys::link_detach(link.as_fd())?;
        let problem = eventually(PATIENCE, || {
            let is = |row: &Value| {
                row["reason"] == "AttachmentRestored"
                    && row["message"].as_str().is_some_and(|it| it.contains(program))
            };
            Ok(scene.problems()?.into_iter().find(is))
        })?;
        ensure!(problem["object"] == "Interface uplink", "{problem}");
        scene.answers_at(at)?;
    }
    Ok(())
}

#[test]
fn a_second_family_needs_no_restart() -> Result<()> {
    let scene = GoodService::new(&[])?;
    let witness = scene.witness()?;
    let dual = Service { families: vec!["IPv4", "IPv6"], ..service("dual", 81) };
    scene.manifests.write(&dual, &scene.endpoints())?;
    let all = eventually(PATIENCE, || {
        let found = scene.addresses("default/dual")?;
        Ok((found.len() == 2).then_some(found))
    })?;
    for at in all {
        scene.answers_at(at)?;
    }
    witness.nothing_failed()
}
