//! Scene 3: datagrams through the VIP, over IPv4 and IPv6.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;
use nlb_tests::lab::udp;

use super::claims::Claims;
use super::stage::{Stage, WEB};
use super::tables;

const DATAGRAMS: u32 = 40;

/// Sends each datagram from a port of its own, and shows who answered.
pub(crate) fn show(stage: &Stage, claims: &Claims) -> Result<()> {
    claims.title("Datagrams through the VIP");
    let mut table =
        tables::table(["listener", "datagrams", "unanswered", "answered by", "client as the pod saw it"]);
    let (mut unanswered, mut disguised, mut fewest) = (Vec::new(), 0, usize::MAX);
    for to in stage.addresses(WEB, "UDP")? {
        let answers = stage.lab.client.enter(move || exchange(to))?;
        let mut pods = BTreeMap::<String, u32>::new();
        let mut seen = String::new();
        let mut silent = 0;
        for answer in answers {
            match answer {
                Ok(answer) => {
                    disguised += u32::from(answer.seen != answer.client);
                    seen = answer.seen.ip().to_string();
                    *pods.entry(answer.pod).or_default() += 1;
                }
                Err(error) => {
                    silent += 1;
                    unanswered.push(format!("{error:#}"));
                }
            }
        }
        fewest = fewest.min(pods.len());
        let pods: Vec<String> = pods.iter().map(|(pod, count)| format!("{pod}: {count}")).collect();
        table.add_row([
            format!("{to}/UDP"),
            DATAGRAMS.to_string(),
            silent.to_string(),
            pods.join(", "),
            seen,
        ]);
    }
    println!("{table}");
    claims.claim("every datagram was answered", unanswered.is_empty(), format!("{unanswered:?}"))?;
    claims.claim("every pod saw the client's own address and port", disguised == 0, disguised)?;
    claims.claim("datagrams were spread over several pods", fewest > 1, fewest)
}

fn exchange(to: SocketAddr) -> Vec<Result<udp::Answer>> {
    (0..DATAGRAMS).map(|number| udp::exchange(to, &number.to_string())).collect()
}
