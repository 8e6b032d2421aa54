//! Scene 2: curl through the VIP to every TCP listener, over IPv4 and IPv6.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use comfy_table::Table;
use nlb_tests::lab::{CLIENT, curl};

use super::claims::Claims;
use super::stage::{MAIN, Stage, WEB};
use super::tables;

const REQUESTS: u32 = 20;

/// What came of the requests to one listener.
#[derive(Default)]
struct Tally {
    pods: BTreeMap<String, u32>,
    failures: Vec<String>,
    /// Answers by a pod that saw another client than the one that asked.
    disguised: u32,
    slowest: Duration,
}

/// Asks every listener, and shows who answered.
pub(crate) fn show(stage: &Stage, claims: &Claims) -> Result<()> {
    claims.title("Requests with curl through the VIP");
    let mut table = tables::table([
        "listener",
        "requests",
        "failed",
        "answered by",
        "client as the pod saw it",
        "slowest connect",
    ]);
    let main = stage.listeners(MAIN)?;
    let web = stage.listeners(WEB)?;
    let tallies: Vec<(SocketAddr, Tally)> = claims.step("asking every listener", || {
        Ok(main.iter().chain(&web).map(|&to| (to, ask(stage, to))).collect())
    })?;
    tallies.iter().for_each(|(to, tally)| add(&mut table, *to, tally));
    println!("{table}");
    let failed: Vec<&String> = tallies.iter().flat_map(|(_, tally)| &tally.failures).collect();
    claims.claim("no request failed", failed.is_empty(), format!("{failed:?}"))?;
    let astray = tallies.iter().find(|(to, tally)| main.contains(to) && !only_its_pod(*to, tally));
    let seen = astray.map(|(to, tally)| format!("{to}: {:?}", tally.pods)).unwrap_or_default();
    claims.claim(
        "each of the five ports was answered by the one pod that serves it",
        astray.is_none(),
        seen,
    )?;
    let disguised: u32 = tallies.iter().map(|(_, tally)| tally.disguised).sum();
    claims.claim("every pod saw the client's own address and port", disguised == 0, disguised)?;
    let both = web.iter().any(SocketAddr::is_ipv4) && web.iter().any(SocketAddr::is_ipv6);
    claims.claim("the dual-stack Service answered over IPv4 and IPv6", both, format!("{web:?}"))?;
    let spread = tallies.iter().filter(|(to, _)| web.contains(to)).all(|(_, tally)| tally.pods.len() > 1);
    claims.claim("its requests were spread over several pods", spread, "one pod answered them all")
}

fn ask(stage: &Stage, to: SocketAddr) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..REQUESTS {
        match curl::fetch(&stage.lab.client, to) {
            Ok(answer) => {
                *tally.pods.entry(answer.pod).or_default() += 1;
                tally.disguised += u32::from(answer.seen != answer.client);
                tally.slowest = tally.slowest.max(answer.connect);
            }
            Err(error) => tally.failures.push(format!("{error:#}")),
        }
    }
    tally
}

fn only_its_pod(to: SocketAddr, tally: &Tally) -> bool {
    tally.pods.keys().eq([&format!("pod{}", to.port() - 5000)])
}

fn add(table: &mut Table, to: SocketAddr, tally: &Tally) {
    let pods: Vec<String> = tally.pods.iter().map(|(pod, count)| format!("{pod}: {count}")).collect();
    let client = if to.is_ipv4() { CLIENT.0.to_string() } else { CLIENT.1.to_string() };
    table.add_row([
        format!("{to}/TCP"),
        REQUESTS.to_string(),
        tally.failures.len().to_string(),
        pods.join(", "),
        if tally.disguised == 0 {
            format!("{client}, its own")
        } else {
            format!("{} strangers", tally.disguised)
        },
        format!("{:.2} ms", tally.slowest.as_secs_f64() * 1e3),
    ]);
}
