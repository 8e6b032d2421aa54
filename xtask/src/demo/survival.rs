//! Scene 5: a download and a datagram stream survive another target's eviction, and the agent's death and return.

use std::time::Duration;

use anyhow::{Context, Result};
use nlb_tests::lab::download::{Download, SIZE};
use nlb_tests::lab::http::{Attempt, Load};
use nlb_tests::lab::udp::{Report, Stream};

use super::claims::Claims;
use super::stage::{MAIN, PATIENCE, Stage, WEB, text};
use super::timeline::{EVICTED, STOPPED, Timeline};

/// How long the node is without an agent.
const ALONE: Duration = Duration::from_secs(2);
/// Time for the new agent to check each target once: none may come back, or go, for a restart's sake.
const FIRST_CHECKS: Duration = Duration::from_millis(1500);
/// Between two numbers of the datagram stream.
const INTERVAL: Duration = Duration::from_millis(5);
/// Slower than this, and a SYN was lost and sent again.
const SLOW: Duration = Duration::from_millis(200);

/// Plays the scene.
pub(crate) fn show(stage: &mut Stage, claims: &Claims, load: &Load, timeline: &mut Timeline) -> Result<()> {
    claims.title("A download survives an eviction, and kill -9 of the agent");
    let listeners = stage.listeners(MAIN)?;
    let from =
        listeners.iter().find(|address| address.port() == 5002).context("no listener has port 5002")?;
    let download = Download::start(&stage.lab.client, *from)?;
    let echo = *stage.addresses(WEB, "UDP")?.first().context("no UDP listener")?;
    let stream = Stream::start(&stage.lab.client, echo, INTERVAL)?;
    timeline.mark("a download begins on port 5002");

    let replica = evict(stage, claims, timeline)?;
    let killed = timeline.mark("kill -9 of the agent");
    stage.agent.kill9()?;
    claims.pause("forwarding without an agent", ALONE);
    claims.claim("the agent is dead", stage.agent.ended()?.is_some(), "it runs")?;
    timeline.mark("the agent is started again");
    claims.step("starting the agent again", || stage.agent.restart())?;
    timeline.mark("the agent answers");
    remembered(stage, claims, &replica)?;
    claims.pause("the new agent's first checks", FIRST_CHECKS);
    let resumed = timeline.mark("pod6's server is started again");
    stage.replica().resume()?;
    claims.becomes("pod6 is healthy again, found by the new agent", || {
        stage.agent.wait_for_target(MAIN, &replica, "healthy", PATIENCE)
    })?;
    claims.claim(
        "the download was in progress all the while",
        !download.is_finished(),
        "it had ended too soon",
    )?;
    let bytes =
        claims.becomes("the download is whole: every byte came, and was right", || download.finish())?;
    timeline.mark("the download ends");
    println!("  {bytes} of {SIZE} bytes; 0 lost.");
    undisturbed(claims, load, (killed, resumed))?;
    datagrams(claims, &stream.stop()?)
}

/// Stops the replica and waits for its eviction; its address.
fn evict(stage: &mut Stage, claims: &Claims, timeline: &mut Timeline) -> Result<String> {
    let pod = stage.lab.pods().last().context("the stage has pods")?;
    let replica = format!("{}:5001", pod.ipv4);
    timeline.mark(STOPPED);
    stage.replica().stop()?;
    claims.becomes("pod6 is evicted while the download goes on", || {
        stage.agent.wait_for_target(MAIN, &replica, "unhealthy", PATIENCE)
    })?;
    timeline.mark(EVICTED);
    // Requests that picked it a moment before have failed by now: none of them is the agent's death's doing.
    std::thread::sleep(SLOW);
    Ok(replica)
}

/// The new agent must not begin with everything in doubt.
fn remembered(stage: &Stage, claims: &Claims, replica: &str) -> Result<()> {
    let rows = stage.agent.targets(MAIN)?;
    let healthy = rows.iter().filter(|row| text(row, "state") == "healthy").count();
    let state = rows.iter().find(|row| text(row, "target") == replica).map(|row| text(row, "state"));
    let known = healthy == 5 && state == Some("unhealthy");
    claims.claim(
        "the new agent knows the states that the old one had found",
        known,
        format!("{healthy} healthy, pod6 {state:?}"),
    )
}

/// From the agent's death until long after its return not one request failed or was slow.
fn undisturbed(claims: &Claims, load: &Load, (killed, resumed): (Duration, Duration)) -> Result<()> {
    let attempts = load.attempts();
    let during: Vec<&Attempt> =
        attempts.iter().filter(|attempt| (killed..resumed).contains(&attempt.at)).collect();
    let bad: Vec<&&Attempt> =
        during.iter().filter(|attempt| attempt.outcome.is_err() || attempt.connect > SLOW).collect();
    let what = format!(
        "of {} requests while the agent was away, and came back, none failed and none was slow",
        during.len()
    );
    claims.claim(&what, bad.is_empty() && !during.is_empty(), format!("{bad:?}"))
}

fn datagrams(claims: &Claims, report: &Report) -> Result<()> {
    let what = format!("of {} numbered datagrams in one flow none is missing", report.sent);
    claims.claim(&what, report.missing.is_empty() && report.refused == 0, format!("{report:?}"))?;
    claims.claim("one pod answered all of them", report.pods.len() == 1, format!("{:?}", report.pods))
}
