//! Flows of targets that have left: one that is dead, one that only refuses checks, and one whose address is another pod's now.

use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nlb_tests::lab::conversation::{self, Conversation};
use nlb_tests::lab::manifests::{Endpoint, Manifests, Port, Service, yaml};
use nlb_tests::lab::scene::{PATIENCE, text};
use nlb_tests::lab::{Agent, Lab, Namespace, Pod, eventually, udp};
use serde_json::{Value, json};

const TALK: (u16, u16) = (80, 8080);
const ECHO: (u16, u16) = (53, 9053);
/// Longer than the checks of a dead target take to be sure: two of them, a second each.
const SURE: Duration = Duration::from_secs(6);
/// How long one answer is waited for.
const SHORT: Duration = Duration::from_millis(300);

fn service(name: &'static str, check_port: u16) -> Service {
    let port = |name, protocol, (port, target)| Port { name, protocol, port, target };
    Service {
        namespace: "default",
        name,
        class: Some("nlb.io/nlb"),
        ports: vec![port("talk", "TCP", TALK), port("echo", "UDP", ECHO)],
        ..Service::default()
    }
    .with_quick_checks()
    .with_aws("healthcheck-port", &check_port.to_string())
}

fn listener(agent: &Agent, service: &str, port: u16) -> Result<SocketAddr> {
    let row = |row: &Value| {
        text(row, "service") == service && row["listener"].to_string().contains(&format!(":{port}/"))
    };
    eventually(PATIENCE, || {
        let all = agent.json(&["listeners"])?;
        let rows = all["listeners"].as_array().context("listeners -o json has no list `listeners`")?;
        let found = rows.iter().find(|it| row(it)).and_then(|it| text(it, "listener").split_once('/'));
        Ok(found.map(|(address, _)| address.parse()).transpose()?)
    })
}

/// A UDP client with one port, so one flow.
struct Sender(UdpSocket);

impl Sender {
    fn new(from: &Namespace, to: SocketAddr) -> Result<Sender> {
        let socket = from.enter(move || -> Result<UdpSocket> {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(SHORT))?;
            Ok(socket)
        })??;
        Ok(Sender(socket))
    }

    /// Who answers, if anybody does.
    fn ask(&self) -> Option<String> {
        // A refusal of an earlier datagram shows up here; the next one goes all the same.
        let _ = self.0.send(b"who?");
        let mut buffer = [0; 1500];
        let read = self.0.recv(&mut buffer).ok()?;
        String::from_utf8_lossy(&buffer[..read]).split(' ').next().map(str::to_owned)
    }
}

/// The target's own row, of the listener with this port.
fn row(agent: &Agent, service: &str, pod: &Pod, port: u16) -> Result<Value> {
    let rows = agent.targets(&format!("default/{service}"))?;
    let target = format!("{}:{port}", pod.ipv4);
    rows.into_iter()
        .find(|row| row["target"] == *target)
        .with_context(|| format!("{service} has no target {target}"))
}

#[test]
fn flows_leave_a_dead_target_and_stay_with_one_that_only_refuses() -> Result<()> {
    let lab = Lab::new(5)?;
    let pods = lab.pods();
    let last = &pods[4];
    let mut servers = Vec::new();
    for pod in pods {
        conversation::serve(&pod.namespace, &pod.name, SocketAddr::new(pod.ipv4.into(), TALK.1))?;
        servers.push(udp::serve(&lab, pod, ECHO.1)?);
    }
    // The checks of the last case ask a port of their own, which is closed while connections go on.
    let checked = 7000;
    let gate = |pod: &Pod| {
        let address = SocketAddr::new(pod.ipv4.into(), checked);
        pod.namespace.enter(move || std::net::TcpListener::bind(address))
    };
    let (gate, _other) = (gate(&pods[3])??, gate(last)??);
    let names = ["gone", "terminating", "unready", "busy"];
    let services: Vec<Service> =
        names.iter().map(|name| service(name, if *name == "busy" { checked } else { TALK.1 })).collect();
    let manifests = Manifests::new(&lab.folder())?;
    for (service, pod) in services.iter().zip(pods) {
        manifests.write(service, &[Endpoint::ready(pod)])?;
    }
    let mut agent = Agent::start(&lab, manifests.folder(), &[])?;
    let mut flows = Vec::new();
    for (name, pod) in names.iter().zip(pods) {
        agent.wait_for(&format!("default/{name}"), "healthy", 2, PATIENCE)?;
        let sender = Sender::new(&lab.client, listener(&agent, name, ECHO.0)?)?;
        let talk = Conversation::open(&lab.client, listener(&agent, name, TALK.0)?)?;
        flows.push((sender, talk));
        let (sender, talk) = flows.last_mut().expect("just pushed");
        assert_eq!((talk.say()?.name, sender.ask()), (pod.name.clone(), Some(pod.name.clone())));
    }

    pods[..3].iter().try_for_each(|pod| pod.set_link(false))?;
    drop(gate);
    let unready = Endpoint { ready: false, serving: false, ..Endpoint::ready(&pods[2]) };
    let left =
        [None, Some(Endpoint::terminating(&pods[1])), Some(unready), Some(Endpoint::terminating(&pods[3]))];
    for (service, old) in services.iter().zip(left) {
        let all: Vec<Endpoint> = old.into_iter().chain([Endpoint::ready(last)]).collect();
        manifests.write(service, &all)?;
    }
    // What counts goes on counting in the next agent.
    agent.kill9()?;
    agent.restart()?;
    for (name, (sender, talk)) in names.iter().zip(&mut flows) {
        eventually(SURE + PATIENCE, || {
            let who = sender.ask();
            ensure!(who.as_ref() == Some(&last.name), "datagrams of {name} are answered by {who:?}");
            Ok(Some(()))
        })?;
        if *name == "busy" {
            continue;
        }
        eventually(SURE + PATIENCE, || {
            let broken = talk.ask(Duration::ZERO).is_err();
            ensure!(broken, "the connection of {name} goes on");
            Ok(Some(()))
        })?;
    }
    let said = |name: &str, pod: &Pod, port: u16| -> Result<(String, String)> {
        let row = row(&agent, name, pod, port)?;
        Ok((text(&row, "state").to_owned(), text(&row, "description").to_owned()))
    };
    for (name, pod) in names.iter().zip(pods).take(3) {
        let (state, why) = said(name, pod, TALK.1)?;
        assert!(state == "draining" && why.contains("nothing answered its checks"), "{name}: {state}, {why}");
    }
    // Longer than it took with the others.
    sleep(SURE);
    assert_eq!(flows[3].1.say()?.name, pods[3].name, "a server may finish what is open");
    let (state, why) = said("busy", &pods[3], ECHO.1)?;
    assert!(state == "draining" && why.contains("because its checks failed"), "{state}, {why}");
    let (state, why) = said("busy", &pods[3], TALK.1)?;
    assert!(state == "draining" && why.contains("flows are kept"), "{state}, {why}");
    Ok(())
}

/// A Service's documents, with what is changed in its slice.
fn documents(service: &Service, endpoints: &[Endpoint], change: impl Fn(&mut Value)) -> Result<String> {
    let mut slices = service.slices(endpoints);
    slices.iter_mut().for_each(change);
    yaml(&[vec![service.manifest()], slices].concat())
}

fn with_uid(uid: Option<&str>) -> impl Fn(&mut Value) {
    let uid = uid.map(str::to_owned);
    move |slice: &mut Value| {
        for endpoint in slice["endpoints"].as_array_mut().into_iter().flatten() {
            match &uid {
                Some(uid) => endpoint["targetRef"]["uid"] = uid.as_str().into(),
                None => drop(endpoint.as_object_mut().map(|it| it.remove("targetRef"))),
            }
        }
    }
}

/// How a Service's target left, and where its address is then.
#[derive(Debug)]
enum Left {
    /// The endpoint is gone; another Service has the address.
    Gone,
    /// The same, without UIDs.
    GoneUnnamed,
    /// It is terminating; a ClusterIP Service has the address under another port.
    Terminating,
    /// It is not ready; a slice without a Service has the address.
    Unready,
    /// No agent runs meanwhile.
    Unseen,
    /// No agent runs meanwhile, and the next one cannot read the Service.
    Unreadable,
}

#[test]
fn no_packet_reaches_the_pod_that_has_the_address_of_an_old_target() -> Result<()> {
    let lab = Lab::new(1)?;
    let pod = &lab.pods()[0];
    let (talk, echo) = (SocketAddr::new(pod.ipv4.into(), TALK.1), SocketAddr::new(pod.ipv4.into(), ECHO.1));
    conversation::serve(&pod.namespace, &pod.name, talk)?;
    let heard = pod.namespace.enter(move || UdpSocket::bind(echo))??;
    heard.set_read_timeout(Some(SHORT))?;
    let hear = || {
        let mut buffer = [0; 1500];
        let (read, client) = heard.recv_from(&mut buffer).ok()?;
        Some((String::from_utf8_lossy(&buffer[..read]).into_owned(), client))
    };
    let (a, b) = (service("a", TALK.1), service("b", TALK.1));
    let manifests = Manifests::new(&lab.folder())?;
    let ready = [Endpoint::ready(pod)];
    manifests.write_text("a", &documents(&a, &ready, with_uid(Some("uid-1")))?)?;
    manifests.write_text("b", &documents(&b, &[], |_| ())?)?;
    let mut agent = Agent::start(&lab, manifests.folder(), &[])?;
    let to = listener(&agent, "a", ECHO.0)?;

    for left in
        [Left::Gone, Left::Terminating, Left::Unready, Left::GoneUnnamed, Left::Unseen, Left::Unreadable]
    {
        let named = !matches!(left, Left::GoneUnnamed);
        let (old, new) = (with_uid(named.then_some("uid-1")), with_uid(named.then_some("uid-9")));
        manifests.write_text("b", &documents(&b, &[], |_| ())?)?;
        manifests.write_text("a", &documents(&a, &ready, &old)?)?;
        agent.wait_for("default/a", "healthy", 2, PATIENCE)?;
        let sender = Sender::new(&lab.client, to)?;
        let mut conversation = Conversation::open(&lab.client, listener(&agent, "a", TALK.0)?)?;
        assert_eq!(conversation.say()?.name, pod.name);
        sender.0.send(b"old")?;
        let (text, client) = hear().context("nothing came before the address changed hands")?;
        heard.send_to(b"answer", client)?;
        assert_eq!((text.as_str(), sender.0.recv(&mut [0; 16])?), ("old", 6));

        let dies = matches!(left, Left::Unseen | Left::Unreadable);
        if dies {
            // What was found out last is written down within a second.
            sleep(Duration::from_secs(2));
            agent.kill9()?;
        }
        let gone = match left {
            Left::Terminating => vec![Endpoint::terminating(pod)],
            Left::Unready => vec![Endpoint { ready: false, serving: false, ..Endpoint::ready(pod) }],
            Left::Gone | Left::GoneUnnamed | Left::Unseen | Left::Unreadable => Vec::new(),
        };
        manifests.write_text("a", &documents(&a, &gone, &old)?)?;
        let whole = documents(&b, &ready, |slice| {
            new(slice);
            match left {
                Left::Terminating => slice["ports"] = json!([{ "name": "other", "port": 4444 }]),
                Left::Unready => slice["metadata"]["labels"] = json!({}),
                _ => {}
            }
        })?;
        let whole = if matches!(left, Left::Terminating) {
            whole
                .replace("type: LoadBalancer", "type: ClusterIP")
                .replace("loadBalancerClass: nlb.io/nlb", "")
        } else {
            whole
        };
        if matches!(left, Left::Unreadable) {
            manifests.write_text("a", "apiVersion: v1\nkind: Service\n\"half")?;
        }
        manifests.write_text("b", &whole)?;
        if dies {
            agent.restart()?;
        }
        // A file is read within a moment; a slot is freed one grace period later.
        sleep(Duration::from_secs(2));
        while hear().is_some() {}
        for _ in 0..5 {
            let _ = sender.0.send(b"for a only");
            let stray = hear().filter(|(text, _)| text == "for a only");
            ensure!(
                stray.is_none(),
                "{left:?}: a datagram for Service a reached another pod; {}",
                agent.last_words()
            );
        }
        let talked = conversation.ask(Duration::ZERO).and_then(|()| conversation.hear());
        ensure!(talked.is_err(), "{left:?}: a connection of Service a reached another pod: {talked:?}");
        if !matches!(left, Left::Unreadable) {
            let kept = row(&agent, "a", pod, ECHO.1).ok().filter(|row| row["state"] != "unused");
            assert_eq!(kept, None, "{left:?}");
        }
        if matches!(left, Left::Gone | Left::GoneUnnamed | Left::Unseen | Left::Unreadable) {
            let other = Sender::new(&lab.client, listener(&agent, "b", ECHO.0)?)?;
            other.0.send(b"for b")?;
            assert_eq!(hear().map(|(text, _)| text).as_deref(), Some("for b"), "{left:?}");
        }
    }
    Ok(())
}
