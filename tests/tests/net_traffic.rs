//! What clients get: the right pod on every port, their own address seen there, and every other conversation untouched.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use nlb_tests::lab::conversation::{self, Conversation};
use nlb_tests::lab::http::Load;
use nlb_tests::lab::manifests::{Endpoint, Manifests, Port};
use nlb_tests::lab::nginx::Nginx;
use nlb_tests::lab::scene::{self, BULK, BULK_TCP, FIVE, FIVE_PORTS, PATIENCE, Scene, bulk};
use nlb_tests::lab::{Agent, CLIENT, Lab, NODE, UPLINK, curl, eventually, iperf, udp};

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

/// A scene whose one pod holds conversations behind a listener of each given Service port.
fn talking_scene(listeners: &[(&'static str, u16)]) -> Result<Scene> {
    let mut service = bulk();
    let port = service.ports[0].clone();
    service.ports =
        listeners.iter().map(|&(name, number)| Port { name, port: number, ..port.clone() }).collect();
    let scene = Scene::new(1, &[service], &[])?;
    let pod = scene.pod("pod1");
    for address in [pod.ipv4.into(), pod.ipv6.into()] {
        conversation::serve(&pod.namespace, "pod1", SocketAddr::new(address, BULK_TCP.1))?;
    }
    scene.agent.wait_for(BULK, "healthy", 2 * listeners.len(), PATIENCE)?;
    Ok(scene)
}

#[test]
fn direct_conversations_stay_while_thousands_of_flows_to_the_same_pod_port_come_and_go() -> Result<()> {
    let scene = talking_scene(&[("bulk", BULK_TCP.0)])?;
    let (client, node, pod) = (&scene.lab.client, &scene.lab.node, scene.pod("pod1"));
    // As kube-proxy would have it: a ClusterIP that the node turns into the pod's address.
    node.output(
        "nft",
        &["add table ip cluster; add chain ip cluster in { type nat hook prerouting priority dstnat; };
        add rule ip cluster in ip daddr 198.18.0.10 tcp dport 80 dnat to 10.1.1.2:5201"],
    )?;
    client.ip(&["route", "add", "198.18.0.0/24", "via", &NODE.0.to_string()])?;
    for ipv4 in [true, false] {
        let vip = scene.listener(BULK, "TCP", BULK_TCP.0, ipv4)?;
        let straight = SocketAddr::new(pod.address(vip.ip()), BULK_TCP.1);
        let mut direct = Conversation::open_from(client, 21_000, straight)?;
        let mut kubelet = Conversation::open(node, straight)?;
        let mut cluster =
            if ipv4 { Some(Conversation::open(client, "198.18.0.10:80".parse()?)?) } else { None };
        let mut check = || -> Result<()> {
            for untouched in [Some(&mut direct), Some(&mut kubelet), cluster.as_mut()].into_iter().flatten() {
                assert_eq!(untouched.say()?.seen, untouched.client);
            }
            Ok(())
        };
        check()?;
        for _ in 0..15 {
            let many = client.enter(move || {
                (0..100).try_for_each(|_| std::net::TcpStream::connect_timeout(&vip, PATIENCE).map(drop))
            })?;
            many.context("a connection through the VIP")?;
            check()?;
        }
        // The same client port to the same pod port, once straight and once through the VIP.
        let port = direct.client.port();
        let mut through = Conversation::open_from(client, port, vip)?;
        assert_eq!(through.client.port(), port);
        for _ in 0..3 {
            let line = through.say()?;
            assert_eq!(line.seen.ip(), through.client.ip());
            assert_ne!(line.seen.port(), port, "the pod cannot tell two conversations apart");
            assert_eq!(direct.say()?.seen, direct.client);
        }
    }
    Ok(())
}

#[test]
fn two_listeners_on_one_pod_port_serve_a_client_that_uses_one_port_for_both() -> Result<()> {
    let scene = talking_scene(&[("one", 5200), ("two", 5300), ("three", 5400)])?;
    let client = &scene.lab.client;
    for ipv4 in [true, false] {
        for port in [20_000, 20_001, 20_002] {
            let open =
                |number| Conversation::open_from(client, port, scene.listener(BULK, "TCP", number, ipv4)?);
            let mut conversations = [open(5200)?, open(5300)?, open(5400)?];
            for _ in 0..3 {
                let mut seen = std::collections::BTreeSet::new();
                for conversation in &mut conversations {
                    let line = conversation.say()?;
                    assert_eq!(
                        (conversation.client.port(), line.seen.ip()),
                        (port, conversation.client.ip())
                    );
                    seen.insert(line.seen);
                }
                assert_eq!(seen.len(), 3, "{seen:?}");
                assert!(seen.contains(&conversations[0].client), "the first one keeps its port: {seen:?}");
            }
            // One ends; the others do not notice.
            let [first, mut second, third] = conversations;
            drop((first, third));
            second.say()?;
        }
    }
    Ok(())
}

#[test]
fn the_nodes_own_connections_and_servers_live_on_beside_listeners_on_its_address() -> Result<()> {
    let lab = Lab::new(1)?;
    let (pod, node) = (&lab.pods()[0], &lab.node);
    let _nginx = Nginx::start(&lab, pod, &FIVE_PORTS.map(|(_, port)| port))?;
    // 5004 is the node's own server's, as port 22 would be SSH's.
    let outside = SocketAddr::new(CLIENT.0.into(), 9000);
    let at_node = |port| SocketAddr::new(NODE.0.into(), port);
    conversation::serve(&lab.client, "outside", outside)?;
    conversation::serve(node, "node", at_node(5004))?;
    let mut before = Conversation::open_from(node, 5001, outside)?;
    before.say()?;

    let manifests = Manifests::new(&lab.folder())?;
    manifests.write(&scene::five("internal-nlb-service", "IPv4"), &[Endpoint::ready(pod)])?;
    let arguments = ["--interface", UPLINK, "--vip", "node", "--load-balancer-class", scene::CLASS];
    let agent = Agent::start_with(&lab, manifests.folder(), &arguments)?;
    agent.wait_for(FIVE, "healthy", 4, PATIENCE)?;
    for port in [5001, 5002, 5003, 5005] {
        assert_eq!(curl::fetch(&lab.client, at_node(port))?.pod, "pod1");
    }
    // Begun before and after the listener of that port.
    let mut after = Conversation::open_from(node, 5002, outside)?;
    for _ in 0..5 {
        assert_eq!(before.say()?, conversation::Line { name: "outside".into(), seen: at_node(5001) });
        assert_eq!(after.say()?, conversation::Line { name: "outside".into(), seen: at_node(5002) });
        assert_eq!(curl::fetch(&lab.client, at_node(5001))?.pod, "pod1");
    }
    let mut own = Conversation::open(&lab.client, at_node(5004))?;
    assert_eq!(own.say()?.name, "node");
    let problems = agent.json(&["status"])?["problems"].to_string();
    assert!(problems.contains("5004"), "the refused listener is a problem that names it: {problems}");

    // A server that the node starts later on a listener's port takes it back at once.
    conversation::serve(node, "late", at_node(5003))?;
    let mut late = Conversation::open(&lab.client, at_node(5003))?;
    assert_eq!(late.say()?.name, "late");
    let taken = || Ok(agent.json(&["status"])?["problems"].to_string().contains("5003").then_some(()));
    eventually(PATIENCE, taken).context("the agent does not say that 5003 was taken from it")?;
    for conversation in [&mut before, &mut after, &mut own, &mut late] {
        conversation.say()?;
    }
    Ok(())
}
