//! Hundreds of targets that answer nothing, and few open files: the other Services' checks are made in time.

use super::message;
use anyhow::{Result, ensure};
use nlb_tests::lab::good::{GOOD, GoodService, PATIENCE, port};
use nlb_tests::lab::manifests::{Endpoint, Service};
use nlb_tests::lab::{CLIENT, UPLINK, eventually};
use std::net::{Ipv4Addr, Ipv6Addr};

const SILENT: u16 = 600;

/// Endpoints whose packets go to the client, which is no router and drops them.
fn silent() -> Vec<Endpoint> {
    let endpoint = |index: u16| Endpoint {
        pod: format!("silent-{index}"),
        ipv4: Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 1)) + u32::from(index)),
        ipv6: Ipv6Addr::LOCALHOST,
        ready: true,
        serving: true,
        terminating: false,
    };
    (0..SILENT).map(endpoint).collect()
}

fn service(name: &'static str, number: u16) -> Service {
    let class = Some("nlb.io/nlb");
    Service { namespace: "default", name, class, ports: vec![port(number)], ..Service::default() }
}

#[test]
fn silent_targets_hold_up_no_other_services_checks() -> Result<()> {
    let mut scene = GoodService::of(2, &[])?;
    scene.agent.stop()?;
    scene.agent.limit_files(256);
    scene.agent.restart()?;
    scene.agent.wait_for(GOOD, "healthy", 2, PATIENCE)?;
    let via = CLIENT.0.to_string();
    scene.lab.node.ip(&["route", "add", "198.18.0.0/15", "via", &via, "dev", UPLINK])?;
    // With the default checks: a verdict after three checks of 10 s each.
    scene.manifests.write(&service("silent", 81), &silent())?;
    eventually(PATIENCE, || Ok((scene.metric("nlb_health_checks_waiting")? > 0.0).then_some(())))?;
    scene.manifests.write(&service("new", 82), &scene.endpoints())?;
    scene.agent.wait_for("default/new", "healthy", 2, PATIENCE)?;
    scene.stop_last_server();
    scene.agent.wait_for(GOOD, "unhealthy", 1, PATIENCE)?;
    let silent = scene.agent.targets("default/silent")?;
    let initial = silent.iter().filter(|row| row["state"] == "initial").count();
    ensure!(initial == usize::from(SILENT), "only {initial} silent targets had no verdict yet");
    ensure!(scene.metric("nlb_health_check_sockets")? == 128.0);
    let problem = scene.problem("ChecksLate", "Node node-a", Some("open files"), Some("256"))?;
    ensure!(message(&problem).contains("LimitNOFILE"), "{problem}");
    Ok(())
}
