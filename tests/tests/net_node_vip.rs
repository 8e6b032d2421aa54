//! `--vip node`: listener ports on the node's own addresses, beside everything else that lives there.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nlb_tests::lab::echo::{Conversation, Echo};
use nlb_tests::lab::good::{GOOD, GoodService, PATIENCE, service};
use nlb_tests::lab::manifests::Service;
use nlb_tests::lab::{CLIENT, NODE, eventually};
use socket2::{Domain, Protocol, Socket, Type};

fn here(port: u16) -> SocketAddr {
    SocketAddr::new(NODE.0.into(), port)
}

fn pod_that_answers(scene: &GoodService, at: SocketAddr) -> Result<String> {
    let attempt = scene.ask(at)?;
    attempt.outcome.map(|answer| answer.pod).map_err(|failure| anyhow::anyhow!("{at}: {failure}"))
}

#[test]
fn clients_are_served_on_the_nodes_own_addresses_by_both_families() -> Result<()> {
    let scene = GoodService::on_node(&[])?;
    assert_eq!(scene.address(GOOD)?, here(8080));
    let attempt = scene.ask(here(8080))?;
    let answer = attempt.outcome.map_err(|failure| anyhow::anyhow!("{failure}"))?;
    assert_eq!((answer.pod.as_str(), answer.seen), ("pod1", answer.client));
    assert_eq!(answer.seen.ip(), IpAddr::from(CLIENT.0));
    let dual = Service { families: vec!["IPv4", "IPv6"], ..service("dual", 8081) };
    scene.manifests.write(&dual, &scene.endpoints())?;
    let addresses = eventually(PATIENCE, || {
        let found = scene.addresses("default/dual")?;
        Ok(found.iter().any(SocketAddr::is_ipv6).then_some(found))
    })?;
    let six = SocketAddr::new(NODE.1.into(), 8081);
    ensure!(addresses.contains(&six) && addresses.contains(&here(8081)), "{addresses:?}");
    for at in addresses {
        scene.answers_at(at)?;
    }
    Ok(())
}

#[test]
fn a_port_that_the_node_listens_on_is_refused_and_never_taken() -> Result<()> {
    let scene = GoodService::on_node(&[])?;
    let witness = scene.witness()?;
    // As sshd does: a listener, and connections that last.
    let _daemon = Echo::start_in(&scene.lab.node, "daemon", 2222)?;
    let mut session = Conversation::open(&scene.lab.client, here(2222))?;
    assert_eq!(session.say()?, "daemon");
    scene.manifests.write(&service("other", 2222), &scene.endpoints())?;
    let problem =
        scene.problem("PortTaken", "Service default/other", Some("spec.ports[0].port"), Some("2222"))?;
    ensure!(problem["message"].as_str().is_some_and(|it| it.contains("listens on")), "{problem}");
    assert_eq!(problem["effect"], "port-refused");
    for _ in 0..10 {
        assert_eq!(pod_that_answers(&scene, here(2222))?, "daemon");
        assert_eq!(session.say()?, "daemon");
    }
    ensure!(scene.listeners("default/other")?.is_empty());
    witness.nothing_failed()
}

#[test]
fn a_socket_that_is_opened_later_wins_at_once_and_is_reported() -> Result<()> {
    let scene = GoodService::on_node(&[])?;
    scene.manifests.write(&service("other", 8081), &scene.endpoints())?;
    scene.answers_at(here(8081))?;
    let witness = scene.witness()?;
    let mut flow = Conversation::open(&scene.lab.client, here(8081))?;
    assert_eq!(flow.say()?, "pod1");
    let daemon = Echo::start_in(&scene.lab.node, "daemon", 8081)?;
    // Not a moment later: the data path itself looks for sockets.
    assert_eq!(pod_that_answers(&scene, here(8081))?, "daemon");
    assert_eq!(flow.say()?, "pod1", "the flow that was there stays where it is");
    scene.problem("PortTaken", "Service default/other", Some("spec.ports[0].port"), Some("8081"))?;
    assert_eq!(pod_that_answers(&scene, here(8081))?, "daemon");
    drop(daemon);
    scene.no_problem("PortTaken")?;
    eventually(PATIENCE, || Ok((pod_that_answers(&scene, here(8081))? == "pod1").then_some(())))?;
    witness.nothing_failed()
}

#[test]
fn node_ports_are_refused_and_ports_of_outgoing_connections_get_a_warning() -> Result<()> {
    let scene = GoodService::on_node(&[])?;
    let witness = scene.witness()?;
    scene.manifests.write(&service("node-port", 30080), &scene.endpoints())?;
    let object = "Service default/node-port";
    let problem = scene.problem("PortTaken", object, Some("spec.ports[0].port"), Some("30080"))?;
    ensure!(problem["message"].as_str().is_some_and(|it| it.contains("node-port range")), "{problem}");
    ensure!(scene.ask(here(30080))?.outcome.is_err());
    scene.manifests.write(&service("ephemeral", 40000), &scene.endpoints())?;
    let object = "Service default/ephemeral";
    let problem = scene.problem("LocalPortRange", object, Some("spec.ports[0].port"), Some("40000"))?;
    let says = |words: &str| problem["message"].as_str().is_some_and(|it| it.contains(words));
    ensure!(says("32768 to 60999") && says("ip_local_reserved_ports"), "{problem}");
    assert_eq!(problem["severity"], "Warning");
    scene.answers_at(here(40000))?;
    witness.nothing_failed()
}

/// One ICMP echo and its answer, by a socket for which the kernel sees to checksum and identifier.
fn ping(to: IpAddr, number: u8) -> Result<()> {
    let (domain, protocol, request, reply) = if to.is_ipv4() {
        (Domain::IPV4, Protocol::ICMPV4, 8, 0)
    } else {
        (Domain::IPV6, Protocol::ICMPV6, 128, 129)
    };
    let socket: UdpSocket = Socket::new(domain, Type::DGRAM, Some(protocol))?.into();
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    socket.connect((to, 0))?;
    socket.send(&[request, 0, 0, 0, 0, 0, 0, number, b'n', b'l', b'b'])?;
    let mut answer = [0; 64];
    let read = socket.recv(&mut answer).context("no answer")?;
    ensure!(answer[0] == reply && answer[7] == number && &answer[8..read] == b"nlb", "{:?}", &answer[..read]);
    Ok(())
}

#[test]
fn ping_and_every_other_port_of_the_node_are_untouched() -> Result<()> {
    let scene = GoodService::on_node(&[])?;
    let witness = scene.witness()?;
    let client = &scene.lab.client;
    client.sysctl("net.ipv4.ping_group_range", "0 0")?;
    for address in [IpAddr::from(NODE.0), NODE.1.into()] {
        for number in 1..=3 {
            client
                .enter(move || ping(address, number))?
                .with_context(|| format!("ping {number} to {address}"))?;
        }
    }
    let _daemon = Echo::start_in(&scene.lab.node, "daemon", 9999)?;
    assert_eq!(pod_that_answers(&scene, here(9999))?, "daemon");
    // A port that nobody has: the node itself says so.
    let refused = scene.ask(here(9998))?;
    assert_eq!(refused.outcome, Err(nlb_tests::lab::http::Failure::Refused));
    witness.nothing_failed()
}

#[test]
fn the_nodes_own_connections_from_a_listeners_port_live_on() -> Result<()> {
    let scene = GoodService::on_node(&[])?;
    let _server = Echo::start_in(&scene.lab.client, "outside", 7777)?;
    let to = SocketAddr::new(CLIENT.0.into(), 7777);
    // From the very port that a listener then gets.
    let connected = scene.lab.node.enter(move || -> Result<std::net::TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&here(40001).into())?;
        socket.connect(&to.into()).context("cannot connect from the listener's port")?;
        Ok(socket.into())
    })??;
    let mut own = Conversation::over(connected)?;
    assert_eq!(own.say()?, "outside");
    scene.manifests.write(&service("other", 40001), &scene.endpoints())?;
    scene.answers_at(here(40001))?;
    for _ in 0..5 {
        assert_eq!(own.say()?, "outside");
        assert_eq!(pod_that_answers(&scene, here(40001))?, "pod1");
    }
    Ok(())
}
