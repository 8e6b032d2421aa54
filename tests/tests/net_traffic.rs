//! What clients get: the right pod on every port, their own address seen there, and every other conversation untouched.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use nlb_tests::lab::http::Load;
use nlb_tests::lab::scene::{BULK, BULK_TCP, FIVE, FIVE_PORTS, PATIENCE, Scene, bulk};
use nlb_tests::lab::{CLIENT, curl, iperf, udp};

const SIX: &str = "app-qa/internal-nlb-service-six";

/// The client's address of the family of `to`.
fn client(to: SocketAddr) -> IpAddr {
    if to.is_ipv4() { CLIENT.0.into() } else { CLIENT.1.into() }
}

#[test]
fn each_of_five_ports_reaches_only_the_pod_that_serves_it_and_nothing_fails() -> Result<()> {
    let scene = Scene::of_five_ports()?;
    for service in [FIVE, SIX] {
        scene.agent.wait_for(service, "healthy", 5, PATIENCE)?;
        scene.agent.wait_for(service, "unhealthy", 20, PATIENCE)?;
        let listeners = scene.listeners(service, "TCP")?;
        assert_eq!(
            listeners.iter().map(SocketAddr::port).collect::<Vec<_>>(),
            FIVE_PORTS.map(|(_, port)| port)
        );
        for (number, to) in listeners.iter().enumerate() {
            for _ in 0..4 {
                let answer = curl::fetch(&scene.lab.client, *to)?;
                assert_eq!(answer.pod, format!("pod{}", number + 1), "{to}");
                assert_eq!((answer.seen, answer.seen.ip()), (answer.client, client(*to)));
            }
        }
        let load = Load::start(&scene.lab.client, &listeners, 3, Duration::from_millis(1))?;
        std::thread::sleep(Duration::from_secs(2));
        let attempts = load.stop()?;
        assert!(attempts.len() > 100, "{} attempts", attempts.len());
        for attempt in attempts {
            let wanted = format!("pod{}", attempt.to.port() - 5000);
            let answer =
                attempt.outcome.as_ref().map_err(|failure| anyhow::anyhow!("{}: {failure}", attempt.to))?;
            assert_eq!((answer.pod.as_str(), answer.seen), (wanted.as_str(), answer.client), "{attempt:?}");
        }
    }
    every_pod_answers_over_both_families(&scene)
}

fn every_pod_answers_over_both_families(scene: &Scene) -> Result<()> {
    for ipv4 in [true, false] {
        let (web, echo) = (scene.web(ipv4)?, scene.echo(ipv4)?);
        let (mut by_tcp, mut by_udp) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
        for number in 0..60 {
            let answer = curl::fetch(&scene.lab.client, web)?;
            assert_eq!((answer.seen, answer.seen.ip()), (answer.client, client(web)));
            by_tcp.insert(answer.pod);
            let text = number.to_string();
            let answer = scene.lab.client.enter(move || udp::exchange(echo, &text))??;
            assert_eq!((answer.seen.port(), answer.seen.ip()), (answer.client.port(), client(echo)));
            assert_eq!(answer.text, number.to_string());
            by_udp.insert(answer.pod);
        }
        // A pod is missed by 60 flows with (4/5)^60, one in a million.
        assert_eq!((by_tcp.len(), by_udp.len()), (5, 5), "{by_tcp:?} {by_udp:?}");
    }
    Ok(())
}

#[test]
fn bulk_traffic_has_right_checksums_in_both_directions() -> Result<()> {
    let scene = Scene::new(1, &[bulk()], &[])?;
    let _server = iperf::serve(&scene.lab, scene.pod("pod1"), BULK_TCP.1)?;
    scene.agent.wait_for(BULK, "healthy", 2, PATIENCE)?;
    for ipv4 in [true, false] {
        let to = scene.listener(BULK, "TCP", BULK_TCP.0, ipv4)?;
        for reverse in [false, true] {
            let moved = iperf::run(&scene.lab.client, to, Duration::from_secs(1), reverse)?;
            // A stream whose every segment with an offloaded checksum is dropped moves a few packets.
            assert!(moved.bytes > 10_000_000, "{to} reverse={reverse}: {moved:?}");
        }
    }
    Ok(())
}
