//! What is answered from the maps: when no agent runs, and by one that cannot read yet whose they are.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use nlb_tests::lab::echo::Conversation;
use nlb_tests::lab::good::{GOOD, GoodService, PATIENCE, service};
use nlb_tests::lab::manifests::yaml;
use serde_json::{Value, json};

use super::{number, row};

#[test]
fn a_stopped_agent_leaves_the_data_path_and_its_numbers() -> Result<()> {
    let mut scene = GoodService::new(&[])?;
    let at = scene.address(GOOD)?;
    let mut open = Conversation::open(&scene.lab.client, at)?;
    open.say()?;
    let witness = scene.witness()?;
    assert_eq!(scene.agent.stop()?.code(), Some(0), "SIGTERM ends it well");
    assert_eq!(open.say()?, "pod1");
    let said = scene.agent.command("listeners").args(["-o", "json"]).output()?;
    ensure!(String::from_utf8_lossy(&said.stderr).contains("maps pinned at"), "it does not say where from");
    let listeners: Value = serde_json::from_slice(&said.stdout)?;
    let listener = row(&listeners, "listeners", "listener", &format!("{at}/TCP"))?;
    for unknown in ["namespace", "service", "healthy", "registered"] {
        assert_eq!(listener[unknown], Value::Null, "{unknown}");
    }
    ensure!(number(listener, "packets")? > 0 && number(listener, "newFlows")? >= 2, "{listener}");
    let targets = scene.agent.json(&["targets"])?;
    let target = row(&targets, "targets", "target", "10.1.1.2:5001")?;
    ensure!(
        target["state"].is_null() && target["reason"].is_null() && target["service"].is_null(),
        "{target}"
    );
    let flows = scene.agent.json(&["flows"])?;
    row(&flows, "flows", "client", &open.client()?.to_string())?;
    let status = scene.agent.json(&["status"])?;
    assert_eq!(status["agent"]["running"], false);
    ensure!(number(row(&status, "tables", "name", "flows")?, "entries")? >= 1, "{status}");
    let vip = row(&status, "vips", "vip", &at.ip().to_string())?;
    ensure!(vip["owner"].is_null() && vip["here"].is_null(), "{vip}");
    let tables = |status: &Value| -> Result<BTreeSet<String>> {
        let rows = status["tables"].as_array().context("no list `tables`")?;
        Ok(rows.iter().map(|row| row["name"].as_str().unwrap_or_default().to_owned()).collect())
    };
    assert_eq!(number(row(&status, "tables", "name", "vips")?, "entries")?, 1);
    let offline = tables(&status)?;
    let drops = scene.agent.json(&["drops"])?;
    ensure!(drops["drops"].as_array().is_some_and(|rows| rows.len() > 5), "{drops}");
    scene.agent.restart()?;
    assert_eq!(tables(&scene.agent.json(&["status"])?)?, offline);
    assert_eq!(open.say()?, "pod1");
    witness.nothing_failed()
}

/// Every row of `listeners` and `targets` is what the maps tell, and the data path serves it.
fn only_the_maps_are_known(scene: &GoodService, at: SocketAddr, problem: &str) -> Result<()> {
    let listeners = scene.agent.json(&["listeners"])?;
    let listener = row(&listeners, "listeners", "listener", &format!("{at}/TCP"))?;
    for unknown in ["namespace", "service", "healthy", "registered"] {
        assert_eq!(listener[unknown], Value::Null, "{unknown}");
    }
    ensure!(number(listener, "newFlows")? >= 1, "{listener}");
    let targets = scene.agent.json(&["targets"])?;
    let target = row(&targets, "targets", "target", "10.1.1.2:5001")?;
    assert_eq!((&target["listener"], &target["state"]), (&listener["listener"], &Value::Null));
    let status = scene.agent.json(&["status"])?;
    assert_eq!(status["agent"]["running"], true);
    row(&status, "vips", "vip", &at.ip().to_string())?;
    scene.problem(problem, "Node node-a", None, None)?;
    ensure!(scene.metric("nlb_vip_owner")? > 0.0 && scene.metric("nlb_listener_new_flows_total")? >= 1.0);
    ensure!(scene.ask(at)?.outcome.is_ok());
    Ok(())
}

#[test]
fn an_agent_that_has_not_read_its_manifests_shows_what_the_maps_hold() -> Result<()> {
    let mut scene = GoodService::new(&[])?;
    let at = scene.address(GOOD)?;
    scene.agent.stop()?;
    let aside = scene.lab.folder().join("elsewhere");
    std::fs::rename(scene.manifests.folder(), &aside)?;
    scene.agent.restart()?;
    only_the_maps_are_known(&scene, at, "SourceNotRead")?;
    let status = scene.agent.json(&["status"])?;
    let source = row(&status, "sources", "name", "manifests")?;
    ensure!(source["synced"] == false && source["since"].is_null(), "{source}");
    std::fs::rename(&aside, scene.manifests.folder())?;
    scene.no_problem("SourceNotRead")?;
    scene.agent.wait_for(GOOD, "healthy", 1, PATIENCE)?;
    assert_eq!(scene.agent.json(&["listeners"])?["listeners"].as_array().map(Vec::len), Some(1));
    Ok(())
}

#[test]
fn listeners_of_a_service_that_cannot_be_read_any_more_are_listed_without_its_name() -> Result<()> {
    let mut scene = GoodService::new(&[])?;
    let at = scene.address(GOOD)?;
    let beside = service("other", 81);
    for text in [
        // Is no YAML; is an object that an API server would refuse.
        "kind: [".to_owned(),
        yaml(&[json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "good" },
            "spec": { "type": "LoadBalancer", "loadBalancerClass": "nlb.io/nlb" } })])?,
    ] {
        scene.agent.stop()?;
        scene.manifests.write_text("good", &text)?;
        scene.manifests.write(&beside, &scene.endpoints())?;
        scene.agent.restart()?;
        scene.addresses("default/other")?;
        only_the_maps_are_known(&scene, at, "ListenersKept").with_context(|| text.clone())?;
        scene.manifests.write(&service("good", 80), &scene.endpoints())?;
        scene.no_problem("ListenersKept")?;
        assert_eq!(scene.address(GOOD)?, at);
    }
    Ok(())
}
