//! The laboratory itself, without nlb: what it measures must be the network's doing and not its own.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use nlb_tests::lab::download::{Download, SIZE};
use nlb_tests::lab::http::{Failure, Load, request};
use nlb_tests::lab::manifests::{Endpoint, Manifests, Port, Service};
use nlb_tests::lab::nginx::Nginx;
use nlb_tests::lab::{CLIENT, Lab, Pod, curl, eventually, iperf, udp};

const PORT: u16 = 5001;

fn addresses(pod: &Pod) -> [SocketAddr; 2] {
    [SocketAddr::new(pod.ipv4.into(), PORT), SocketAddr::new(pod.ipv6.into(), PORT)]
}

#[test]
fn a_client_reaches_a_pod_by_both_families_and_is_seen_as_itself() -> Result<()> {
    let lab = Lab::new(1)?;
    let pod = &lab.pods()[0];
    let _nginx = Nginx::start(&lab, pod, &[PORT])?;
    for (to, client) in addresses(pod).into_iter().zip([IpAddr::from(CLIENT.0), CLIENT.1.into()]) {
        let answer = curl::fetch(&lab.client, to)?;
        assert_eq!((answer.pod.as_str(), answer.seen), ("pod1", answer.client));
        assert_eq!(answer.seen.ip(), client);
    }
    Ok(())
}

#[test]
fn every_attempt_is_remembered_also_those_that_fail() -> Result<()> {
    let lab = Lab::new(1)?;
    let pod = &lab.pods()[0];
    let mut nginx = Nginx::start(&lab, pod, &[PORT])?;
    let load = Load::start(&lab.client, &addresses(pod), 2, Duration::from_millis(2))?;
    let enough =
        |wanted| eventually(Duration::from_secs(10), || Ok((load.attempts().len() >= wanted).then_some(())));
    enough(50)?;
    nginx.stop()?;
    enough(load.attempts().len() + 50)?;
    nginx.resume()?;
    enough(load.attempts().len() + 50)?;
    let attempts = load.stop()?;
    let refused = attempts.iter().filter(|attempt| attempt.outcome == Err(Failure::Refused)).count();
    assert!(refused >= 40, "{refused} refused of {}", attempts.len());
    assert!(attempts.first().unwrap().outcome.is_ok());
    assert!(attempts.last().unwrap().outcome.is_ok());
    Ok(())
}

#[test]
fn a_pod_without_a_link_answers_nothing_and_comes_back() -> Result<()> {
    let lab = Lab::new(1)?;
    let pod = &lab.pods()[0];
    let _nginx = Nginx::start(&lab, pod, &[PORT])?;
    let ask = |to| {
        lab.client.enter(move || request(to, std::time::Instant::now()).outcome.map(|answer| answer.pod))
    };
    pod.set_link(false)?;
    assert!(ask(addresses(pod)[0])?.is_err());
    pod.set_link(true)?;
    for to in addresses(pod) {
        eventually(Duration::from_secs(10), || Ok(ask(to)?.ok().filter(|pod| pod == "pod1")))?;
    }
    Ok(())
}

#[test]
fn a_download_is_whole_and_a_broken_one_is_an_error() -> Result<()> {
    let lab = Lab::new(1)?;
    let pod = &lab.pods()[0];
    let mut nginx = Nginx::start(&lab, pod, &[PORT])?;
    assert_eq!(Download::start(&lab.client, addresses(pod)[1])?.finish()?, SIZE as u64);
    let broken = Download::start(&lab.client, addresses(pod)[0])?;
    nginx.stop()?;
    assert!(broken.finish().is_err());
    Ok(())
}

#[test]
fn a_numbered_stream_has_no_gap_until_the_server_goes() -> Result<()> {
    let lab = Lab::new(1)?;
    let pod = &lab.pods()[0];
    let mut server = udp::serve(&lab, pod, PORT)?;
    for to in addresses(pod) {
        let answer = lab.client.enter(move || udp::exchange(to, "hello"))??;
        assert_eq!(
            (answer.pod.as_str(), answer.seen, answer.text.as_str()),
            ("pod1", answer.client, "hello")
        );
        let stream = udp::Stream::start(&lab.client, to, Duration::from_millis(5))?;
        std::thread::sleep(Duration::from_millis(500));
        let report = stream.stop()?;
        assert!(report.sent >= 20 && report.missing.is_empty(), "{report:?}");
        assert_eq!(report.pods["pod1"], report.sent);
    }
    let stream = udp::Stream::start(&lab.client, addresses(pod)[0], Duration::from_millis(5))?;
    server.kill()?;
    std::thread::sleep(Duration::from_millis(300));
    assert!(!stream.stop()?.missing.is_empty());
    Ok(())
}

#[test]
fn bulk_traffic_flows_both_ways() -> Result<()> {
    let lab = Lab::new(1)?;
    let pod = &lab.pods()[0];
    let _server = iperf::serve(&lab, pod, 5201)?;
    for reverse in [false, true] {
        let moved =
            iperf::run(&lab.client, SocketAddr::new(pod.ipv4.into(), 5201), Duration::from_secs(1), reverse)?;
        assert!(moved.bytes > 10_000_000, "{moved:?}");
    }
    Ok(())
}

#[test]
fn offloads_are_as_a_wire_and_a_nic_would_have_them() -> Result<()> {
    let lab = Lab::new(1)?;
    let checksumming = |namespace: &nlb_tests::lab::Namespace, device| -> Result<bool> {
        Ok(namespace.output("ethtool", &["-k", device])?.contains("tx-checksumming: on"))
    };
    assert!(!checksumming(&lab.client, "eth0")?);
    assert!(!checksumming(&lab.node, "uplink")?);
    let pod = &lab.pods()[0].namespace;
    assert!(checksumming(pod, "eth0")?);
    assert!(pod.output("ethtool", &["-k", "eth0"])?.contains("generic-segmentation-offload: on"));
    Ok(())
}

#[test]
fn a_lab_leaves_nothing_behind_also_after_a_panic() -> Result<()> {
    let lab = Lab::new(1)?;
    let (name, folder) = (lab.node.name().to_owned(), lab.folder());
    let process = lab.client.command("sleep").arg("1000").spawn()?;
    let panicked = std::thread::spawn(move || {
        let _lab = lab;
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    let left = String::from_utf8(Command::new("ip").args(["netns", "list"]).output()?.stdout)?;
    assert!(!left.contains(&name), "{left}");
    assert!(!folder.exists());
    assert!(has_ended(process.id())?);
    Ok(())
}

#[test]
fn a_new_lab_takes_away_what_a_dead_process_has_left() -> Result<()> {
    // No process has this number: Linux counts to 4 194 304.
    let left = "nlb-4999999-0-client";
    assert!(Command::new("ip").args(["netns", "add", left]).status()?.success());
    let lab = Lab::new(0)?;
    let listed = String::from_utf8(Command::new("ip").args(["netns", "list"]).output()?.stdout)?;
    assert!(!listed.contains(left) && listed.contains(lab.client.name()), "{listed}");
    Ok(())
}

/// A child of ours that nobody has waited for stays as a zombie.
fn has_ended(process: u32) -> Result<bool> {
    let state = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    Ok(state.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

#[test]
fn manifests_are_files_that_a_yaml_reader_takes() -> Result<()> {
    let lab = Lab::new(2)?;
    let manifests = Manifests::new(&lab.folder())?;
    let port = Port { name: "http", protocol: "TCP", port: 80, target: PORT };
    let service = Service {
        namespace: "default",
        name: "web",
        ports: vec![port],
        families: vec!["IPv4", "IPv6"],
        ..Service::default()
    };
    let endpoints: Vec<Endpoint> = lab.pods().iter().map(Endpoint::ready).collect();
    manifests.write(&service.with_quick_checks(), &endpoints)?;
    let text = std::fs::read_to_string(manifests.folder().join("web.yaml"))?;
    assert_eq!(text.matches("kind: EndpointSlice").count(), 2, "{text}");
    assert!(text.contains("- \"10.1.2.2\"") && text.contains("- \"2001:db8:1:2::2\""), "{text}");
    manifests.remove("web")?;
    assert_eq!(std::fs::read_dir(manifests.folder())?.count(), 0);
    Ok(())
}
