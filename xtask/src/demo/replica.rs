//! Scene 4: a second replica joins, is stopped, is evicted, and comes back, under requests all the while.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use nlb_tests::lab::eventually;
use nlb_tests::lab::http::{Attempt, Failure, Load};

use super::claims::Claims;
use super::stage::{MAIN, PATIENCE, Stage, text};
use super::tables;
use super::timeline::{EVICTED, STOPPED, Timeline};

/// How long new flows are counted.
const SAMPLE: Duration = Duration::from_secs(3);
/// Enough new flows to see a share in.
const ENOUGH: u32 = 100;
/// Two checks, a second apart, one of them just missed, with a second's timeout; then the time to write the maps.
const EVICTION: Duration = Duration::from_secs(5);
/// A request may have picked the target just before the maps changed.
const IN_FLIGHT: Duration = Duration::from_millis(250);

/// Plays the scene.
pub(crate) fn show(stage: &mut Stage, claims: &Claims, load: &Load, timeline: &mut Timeline) -> Result<()> {
    claims.title("A second replica of pod1 joins, stops, and comes back");
    let replica = stage.add_replica()?.to_string();
    timeline.mark("pod6 joins the Service");
    let healthy = |stage: &Stage| stage.agent.wait_for_target(MAIN, &replica, "healthy", PATIENCE);
    let mut doubtful = Duration::ZERO;
    let passed = || eventually(PATIENCE, || proven(stage, &replica, load, &mut doubtful));
    claims.becomes("pod6 is healthy on port 5001", passed)?;
    let joined = timeline.mark("pod6 is healthy");
    let early = answered_by(load, "pod6", doubtful.saturating_sub(IN_FLIGHT));
    claims.claim("it got no request before its checks had passed", early == 0, early)?;
    spread(claims, load, "while both serve", joined)?;

    let stopped = timeline.mark(STOPPED);
    stage.replica().stop()?;
    let evicted = || stage.agent.wait_for_target(MAIN, &replica, "unhealthy", EVICTION);
    claims.becomes("pod6 is evicted after two failed checks", evicted)?;
    let gone = timeline.mark(EVICTED);
    claims.pause("counting what failed", SAMPLE);
    failures(stage, claims, load, (stopped, gone), &replica)?;

    stage.replica().resume()?;
    timeline.mark("pod6's server is started");
    claims.becomes("pod6 is healthy again", || healthy(stage))?;
    let back = timeline.mark("pod6 is healthy again");
    spread(claims, load, "after it came back", back)
}

/// Whether this failed attempt is the stopped replica's doing: on its port, refused by it, before its eviction.
pub(crate) fn is_to_blame(attempt: &Attempt, timeline: &Timeline) -> bool {
    let refused = matches!(attempt.outcome, Err(Failure::Refused | Failure::Reset));
    let during = |(stopped, evicted): (Duration, Duration)| {
        attempt.at + attempt.total >= stopped && attempt.at <= evicted + IN_FLIGHT
    };
    refused && attempt.to.port() == 5001 && timeline.outages().any(during)
}

/// One look whether the replica is healthy; keeps the last moment at which it was not.
fn proven(stage: &Stage, replica: &str, load: &Load, doubtful: &mut Duration) -> Result<Option<()>> {
    let looked = load.began().elapsed();
    let found = stage.agent.wait_for_target(MAIN, replica, "healthy", Duration::ZERO);
    if found.is_err() {
        *doubtful = looked;
    }
    found.map(Some)
}

fn answered_by(load: &Load, pod: &str, until: Duration) -> usize {
    let by = |attempt: &&Attempt| attempt.outcome.as_ref().is_ok_and(|answer| answer.pod == pod);
    load.attempts().iter().filter(by).filter(|attempt| attempt.at < until).count()
}

/// Answers to new flows of port 5001 since `from`, by pod.
fn new_flows(load: &Load, from: Duration) -> BTreeMap<String, u32> {
    let mut pods = BTreeMap::<String, u32>::new();
    let on_port = |attempt: &Attempt| attempt.to.port() == 5001 && attempt.at >= from;
    for answer in load.attempts().into_iter().filter(on_port).filter_map(|attempt| attempt.outcome.ok()) {
        *pods.entry(answer.pod).or_default() += 1;
    }
    pods
}

/// Counts the new flows of port 5001 for a while, and shows how they spread.
fn spread(claims: &Claims, load: &Load, when: &str, from: Duration) -> Result<()> {
    claims.pause(&format!("counting new flows {when}"), SAMPLE);
    // A slow machine takes longer to have enough of them to judge by.
    eventually(PATIENCE, || Ok((new_flows(load, from).values().sum::<u32>() >= ENOUGH).then_some(())))
        .context("too few requests were answered")?;
    let pods = new_flows(load, from);
    let all: u32 = pods.values().sum();
    let mut table = tables::table(["port 5001", "new flows", "share"]);
    for (pod, count) in &pods {
        table.add_row([pod.clone(), count.to_string(), format!("{:.0} %", share(*count, all))]);
    }
    println!("{table}");
    // Half of the ring is each one's: chance stays far within these bounds for a hundred flows and more.
    let fair = pods.keys().eq(["pod1", "pod6"])
        && pods.values().all(|&count| (30.0..70.0).contains(&share(count, all)));
    claims.claim(&format!("new flows are spread over both replicas {when}"), fair, format!("{pods:?}"))
}

fn share(count: u32, all: u32) -> f64 {
    100.0 * f64::from(count) / f64::from(all.max(1))
}

/// Shows which requests failed, and that only the stopped replica is to blame.
fn failures(
    stage: &Stage,
    claims: &Claims,
    load: &Load,
    (stopped, evicted): (Duration, Duration),
    replica: &str,
) -> Result<()> {
    let attempts: Vec<Attempt> =
        load.attempts().into_iter().filter(|attempt| attempt.at + attempt.total >= stopped).collect();
    let mut why = BTreeMap::<(SocketAddr, Failure), Vec<Duration>>::new();
    for attempt in &attempts {
        if let Err(failure) = &attempt.outcome {
            why.entry((attempt.to, failure.clone())).or_default().push(attempt.at);
        }
    }
    let mut table = tables::table(["listener", "failed", "why", "first", "last, after the stop"]);
    for ((to, failure), moments) in &why {
        let after = |at: &Duration| format!("{:.2} s", at.saturating_sub(stopped).as_secs_f64());
        let (first, last) = (moments.first().map(after), moments.last().map(after));
        let words = failure.to_string();
        table.add_row([
            to.to_string(),
            moments.len().to_string(),
            words,
            first.unwrap_or_default(),
            last.unwrap_or_default(),
        ]);
    }
    println!("{table}");
    let failed = attempts.iter().filter(|attempt| attempt.outcome.is_err());
    let late: Vec<&Attempt> = failed.clone().filter(|attempt| attempt.at > evicted + IN_FLIGHT).collect();
    let elsewhere: Vec<&Attempt> = failed.clone().filter(|attempt| attempt.to.port() != 5001).collect();
    let strange: Vec<&Attempt> =
        failed.filter(|attempt| !matches!(attempt.outcome, Err(Failure::Refused | Failure::Reset))).collect();
    let took = (evicted - stopped).as_secs_f64();
    println!(
        "  {} of {} requests failed in the {took:.1} s until the eviction.",
        why.values().map(Vec::len).sum::<usize>(),
        attempts.len()
    );
    claims.claim("no request failed after the eviction", late.is_empty(), format!("{late:?}"))?;
    claims.claim("no other port noticed", elsewhere.is_empty(), format!("{elsewhere:?}"))?;
    claims.claim(
        "those that failed were refused by the stopped pod itself",
        strange.is_empty(),
        format!("{strange:?}"),
    )?;
    let rows = stage.agent.targets(MAIN)?;
    let row = rows.iter().find(|row| text(row, "target") == replica);
    let reason =
        row.map(|row| format!("{}: {}", text(row, "reason"), text(row, "description"))).unwrap_or_default();
    claims.claim(&format!("the agent says why: {reason}"), reason.starts_with("Target."), &reason)
}
