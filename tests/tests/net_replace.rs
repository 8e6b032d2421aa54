//! `run --replace-layout`: an agent takes over from pins of another layout under load, and no connection notices.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nlb_tests::lab::conversation::{self, Conversation};
use nlb_tests::lab::http::{Attempt, Load};
use nlb_tests::lab::manifests::{Port, Service};
use nlb_tests::lab::scene::{FIVE, FIVE_PORTS, PATIENCE, Scene, WEB, WEB_TCP, five, text, web};
use nlb_tests::lab::{Agent, Namespace, eventually, udp};
use serde_json::Value;

/// The listener and the pods' port of long conversations.
const TALK: u16 = 7000;
/// Conversations of each family.
const MANY: usize = 25;
/// Longer than the agent takes to write down what it has found.
const WHILE: Duration = Duration::from_secs(2);
/// Longer than the old layout stays.
const OVERLAP: Duration = Duration::from_secs(75);

fn talk() -> Service {
    let port = Port { name: "talk", protocol: "TCP", port: TALK, target: TALK };
    Service { name: "talk", ports: vec![port], ..web() }
}

/// Everybody says a line; the names that answered, in the order of the conversations, `None` for one that has ended.
fn all_say(conversations: &mut [Conversation]) -> Vec<Option<String>> {
    conversations.iter_mut().map(|it| it.say().ok().map(|line| line.name)).collect()
}

fn lost(before: &[Option<String>], after: &[Option<String>]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before != after).count()
}

/// The problem that tells how the replacement stands.
fn standing(scene: &Scene) -> Result<Option<Value>> {
    let status = scene.agent.json(&["status"])?;
    let all = status["problems"].as_array().context("status -o json has no list `problems`")?;
    Ok(all.iter().find(|row| row["reason"] == "LayoutReplaced").cloned())
}

/// How many flows' state the agent says was lost.
fn flows_lost(problem: &Value) -> Result<usize> {
    let message = text(problem, "message");
    let number = message.split_once("the state of ").and_then(|(_, rest)| rest.split(' ').next());
    number.context("a number")?.parse().with_context(|| message.to_owned())
}

fn conversations(client: &Namespace, to: &[SocketAddr]) -> Result<Vec<Conversation>> {
    to.iter().flat_map(|to| std::iter::repeat_n(*to, MANY)).map(|to| Conversation::open(client, to)).collect()
}

#[test]
fn another_layout_is_taken_over_under_load() -> Result<()> {
    let services = [five("internal-nlb-service", "IPv4"), web(), talk()];
    let old = Agent::binary_of_another_layout()?;
    let mut scene = Scene::with_binary(old, 5, &services, &[], |pod| vec![FIVE_PORTS[pod].1, WEB_TCP.1])?;
    for pod in scene.lab.pods() {
        for address in [pod.ipv4.into(), pod.ipv6.into()] {
            conversation::serve(&pod.namespace, &pod.name, SocketAddr::new(address, TALK))?;
        }
    }
    // Of five targets of a port one is healthy: a new layout that knew no health would send requests to the others.
    scene.agent.wait_for(FIVE, "healthy", 5, PATIENCE)?;
    scene.agent.wait_for(FIVE, "unhealthy", 20, PATIENCE)?;
    scene.agent.wait_for(WEB, "healthy", 20, PATIENCE)?;
    scene.agent.wait_for("app-qa/talk", "healthy", 10, PATIENCE)?;
    sleep(WHILE);
    let client = scene.lab.client.clone();
    let five = scene.listeners(FIVE, "TCP")?;
    let listeners = [&five[..], &[scene.web(true)?, scene.web(false)?]].concat();
    let load = Load::start(&client, &listeners, 2, Duration::from_millis(5))?;
    let streams = [scene.echo(true)?, scene.echo(false)?]
        .map(|to| udp::Stream::start(&client, to, Duration::from_millis(10)));
    let mut talking = conversations(&client, &scene.listeners("app-qa/talk", "TCP")?)?;
    let before = all_say(&mut talking);
    ensure!(before.iter().all(Option::is_some), "{before:?}");

    // Without the flag the new one refuses, and says what would help.
    scene.agent.stop()?;
    scene.agent.set_binary(Agent::binary()?);
    scene.agent.launch()?;
    let status = eventually(PATIENCE, || scene.agent.ended())?;
    ensure!(!status.success(), "it ended with {status}");
    ensure!(scene.agent.log().contains("--replace-layout"), "{}", scene.agent.last_words());

    // A file that never could be read holds nothing up, and neither does one of which only the last agent knew the objects.
    scene.manifests.write_text("never", "kind: Service\nmetadata: {name: [\n")?;
    let whole = std::fs::read_to_string(scene.manifests.folder().join("talk.yaml"))?;
    scene.manifests.write_text("talk", "kind: Service\nmetadata: {name: [\n")?;
    scene.agent.add_argument("--replace-layout");
    scene.agent.restart()?;
    let taken = eventually(PATIENCE, || {
        Ok(standing(&scene)?.filter(|problem| text(problem, "message").contains("has taken the place")))
    })
    .with_context(|| scene.agent.last_words())?;
    let problems = scene.agent.json(&["status"])?["problems"].to_string();
    ensure!(!problems.contains("ForeignXdpProgram"), "nlb calls its own program a stranger's: {problems}");
    let flows = flows_lost(&taken)?;
    ensure!(flows >= talking.len(), "{flows} flows' state was lost, of {} that talk: {taken}", talking.len());
    let after = all_say(&mut talking);
    scene.manifests.write_text("talk", &whole)?;
    scene.manifests.remove("never")?;
    scene.agent.wait_for("app-qa/talk", "healthy", 10, PATIENCE)?;
    let others = conversations(&client, &scene.listeners("app-qa/talk", "TCP")?)?;

    // The one that took over is killed, and its successor takes the old layout away.
    scene.agent.kill9()?;
    sleep(WHILE);
    scene.agent.restart()?;
    let replaced = scene.agent.pins().join("replaced");
    ensure!(replaced.exists(), "the old layout has its minute");
    let mut seconds = 0;
    eventually(OVERLAP, || {
        seconds += 1;
        let now = all_say(&mut talking);
        ensure!(lost(&before, &now) == 0, "after some {seconds} s: {now:?}");
        Ok((!replaced.exists()).then_some(()))
    })
    .with_context(|| scene.agent.last_words())?;
    eventually(PATIENCE, || Ok(standing(&scene)?.is_none().then_some(())))?;
    let mut talking: Vec<Conversation> = talking.into_iter().chain(others).collect();
    let alone = all_say(&mut talking);

    let attempts = load.stop()?;
    let failed: Vec<&Attempt> = attempts.iter().filter(|attempt| attempt.outcome.is_err()).collect();
    println!(
        "connections: {} made, {} failed; open conversations: {}, {} lost at the change, {} a minute later; flows whose state was lost: {flows}",
        attempts.len(),
        failed.len(),
        before.len(),
        lost(&before, &after),
        lost(&before, &alone[..before.len()]),
    );
    ensure!(attempts.len() > 1000 && failed.is_empty(), "of {} requests failed {failed:#?}", attempts.len());
    ensure!(lost(&before, &after) == 0, "{before:?} {after:?}");
    ensure!(alone.iter().all(Option::is_some) && lost(&before, &alone[..before.len()]) == 0, "{alone:?}");
    for attempt in attempts.iter().filter(|attempt| attempt.to.port() > 5000) {
        let pod = attempt.outcome.as_ref().map(|answer| answer.pod.clone());
        assert_eq!(pod, Ok(format!("pod{}", attempt.to.port() - 5000)), "{attempt:?}");
    }
    for stream in streams {
        let report = stream?.stop()?;
        ensure!(report.sent > 1000 && report.missing.is_empty() && report.pods.len() == 1, "{report:?}");
    }
    Ok(())
}
