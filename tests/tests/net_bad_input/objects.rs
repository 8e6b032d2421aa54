//! Files and objects that are wrong, or ask for more than there is.

use super::message;
use anyhow::{Context, Result, ensure};
use nlb_tests::lab::eventually;
use nlb_tests::lab::good::{GOOD, GoodService, PATIENCE, POD_PORT, port, service};
use nlb_tests::lab::manifests::{Endpoint, Port, Service, yaml};
use serde_json::json;

/// Puts text into a file as an editor without care does: no rename, and not at once.
fn write_in_place(scene: &GoodService, name: &str, text: &str) -> Result<()> {
    std::fs::write(scene.manifests.folder().join(name), text).context("cannot write in place")
}

fn manifest_of(scene: &GoodService, service: &Service) -> Result<String> {
    let mut documents = vec![service.manifest()];
    documents.extend(service.slices(&scene.endpoints()));
    yaml(&documents)
}

#[test]
fn a_half_written_file_is_named_and_takes_nothing_away() -> Result<()> {
    let scene = GoodService::new(&[])?;
    let witness = scene.witness()?;
    let whole = manifest_of(&scene, &service("other", 81))?;
    let half = &whole[..whole.find("name: other").context("a name")?];
    write_in_place(&scene, "other.yaml", &format!("{half}name: [\n"))?;
    let problem = scene.problem("UnreadableManifest", "other.yaml", None, None)?;
    ensure!(problem["message"].as_str().is_some_and(|it| it.contains("line")), "{problem}");
    write_in_place(&scene, "other.yaml", &whole)?;
    scene.answers("default/other")?;
    scene.no_problem("UnreadableManifest")?;
    // The good Service's own file, cut off: what was read before goes on.
    let good = std::fs::read_to_string(scene.manifests.folder().join("good.yaml"))?;
    write_in_place(&scene, "good.yaml", &format!("{}\n  - [", &good[..good.len() / 2]))?;
    let problem = scene.problem("UnreadableManifest", "good.yaml", None, None)?;
    assert_eq!(problem["effect"], "kept-last-good", "{problem}");
    scene.answers(GOOD)?;
    witness.nothing_failed()
}

#[test]
fn an_unknown_kind_is_named_and_skipped() -> Result<()> {
    let scene = GoodService::new(&[])?;
    let witness = scene.witness()?;
    let good = manifest_of(&scene, &service("other", 81))?;
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n";
    scene.manifests.write_text("other", &format!("{deployment}---\n{good}"))?;
    let problem = scene.problem("UnknownKind", "other.yaml", Some("kind"), Some("Deployment"))?;
    ensure!(message(&problem).contains("apps/v1 Deployment"), "{problem}");
    assert_eq!(problem["severity"], "Normal");
    scene.answers("default/other")?;
    witness.nothing_failed()
}

#[test]
fn a_port_out_of_range_is_named_with_its_value() -> Result<()> {
    let scene = GoodService::new(&[])?;
    let witness = scene.witness()?;
    let text = manifest_of(&scene, &service("other", 81))?;
    scene.manifests.write_text("other", &text.replace("port: 81\n", "port: 70000\n"))?;
    let problem =
        scene.problem("InvalidObject", "Service default/other", Some("spec.ports[0].port"), Some("70000"))?;
    ensure!(message(&problem).contains("1 to 65535"), "{problem}");
    scene.manifests.write_text("other", &text.replace(&format!("port: {POD_PORT}\n"), "port: 0\n"))?;
    scene.problem("InvalidObject", "EndpointSlice default/other-ipv4", Some("ports[0].port"), Some("0"))?;
    scene.manifests.write_text("other", &text)?;
    scene.answers("default/other")?;
    scene.no_problem("InvalidObject")?;
    witness.nothing_failed()
}

#[test]
fn a_slice_for_no_service_is_named() -> Result<()> {
    let scene = GoodService::new(&[])?;
    let witness = scene.witness()?;
    let slices = service("nobody", 81).slices(&scene.endpoints());
    scene.manifests.write_text("nobody", &yaml(&slices)?)?;
    let problem = scene.problem(
        "ServiceNotFound",
        "EndpointSlice default/nobody-ipv4",
        Some("metadata.labels[kubernetes.io/service-name]"),
        Some("nobody"),
    )?;
    ensure!(message(&problem).contains("nobody"), "{problem}");
    scene.manifests.remove("nobody")?;
    scene.no_problem("ServiceNotFound")?;
    witness.nothing_failed()
}

#[test]
fn mixed_families_are_named() -> Result<()> {
    let scene = GoodService::new(&[])?;
    let witness = scene.witness()?;
    let other = service("other", 81);
    let mut slice = other.slices(&scene.endpoints()).remove(0);
    let six = scene.lab.pods()[0].ipv6.to_string();
    slice["endpoints"][0]["addresses"][0] = json!(six);
    scene.manifests.write_text("other", &yaml(&[other.manifest(), slice])?)?;
    let slice = "EndpointSlice default/other-ipv4";
    let problem =
        scene.problem("InvalidObject", slice, Some("endpoints[0].addresses[0]"), Some(six.as_str()))?;
    ensure!(message(&problem).contains("IPv4"), "{problem}");
    // A Service that wants two families and says that it wants one.
    let mut both = Service { families: vec!["IPv4", "IPv6"], ..other }.manifest();
    both["spec"]["ipFamilyPolicy"] = json!("SingleStack");
    scene.manifests.write_text("other", &yaml(&[both])?)?;
    scene.problem("InvalidObject", "Service default/other", Some("spec.ipFamilies"), Some("IPv4,IPv6"))?;
    witness.nothing_failed()
}

#[test]
fn a_name_that_matches_no_port_is_named_on_both_sides() -> Result<()> {
    let scene = GoodService::new(&[])?;
    let witness = scene.witness()?;
    let other = service("other", 81);
    let mut slice = other.slices(&scene.endpoints()).remove(0);
    slice["ports"][0]["name"] = json!("wbe");
    scene.manifests.write_text("other", &yaml(&[other.manifest(), slice])?)?;
    let slice = "EndpointSlice default/other-ipv4";
    scene.problem("PortNameNotFound", slice, Some("ports[0].name"), Some("wbe"))?;
    let problem = scene.problem(
        "PortNameNotFound",
        "Service default/other",
        Some("spec.ports[0].name"),
        Some("web"),
    )?;
    ensure!(message(&problem).contains("port 81"), "{problem}");
    scene.manifests.write(&other, &scene.endpoints())?;
    scene.answers("default/other")?;
    scene.no_problem("PortNameNotFound")?;
    witness.nothing_failed()
}

#[test]
fn a_service_without_endpoints_is_named_and_its_packets_are_counted() -> Result<()> {
    let scene = GoodService::new(&[])?;
    let witness = scene.witness()?;
    let other = service("other", 81);
    scene.manifests.write(&other, &[])?;
    scene.problem("NoEndpoints", "Service default/other", None, None)?;
    let at = scene.address("default/other")?;
    ensure!(scene.ask(at)?.outcome.is_err());
    let drops = scene.agent.json(&["drops"])?;
    let rows = drops["drops"].as_array().context("drops")?;
    let row = rows.iter().find(|row| row["reason"] == "NoTarget").context("NoTarget")?;
    ensure!(row["packets"].as_u64() >= Some(1), "{row}");
    let listener = scene.listeners("default/other")?.remove(0);
    ensure!(listener["drops"]["NoTarget"].as_u64() >= Some(1), "{listener}");
    assert_eq!(listener["registered"], 0);
    scene.manifests.write(&other, &scene.endpoints())?;
    scene.answers_at(at)?;
    witness.nothing_failed()
}

#[test]
fn of_two_services_that_want_one_vip_and_port_the_first_keeps_it() -> Result<()> {
    let scene = GoodService::new(&[])?;
    let witness = scene.witness()?;
    let vip = scene.vip(GOOD)?;
    let mut other = service("other", 80);
    other.ports.push(Port { name: "more", port: 81, ..port(81) });
    let mut manifest = other.manifest();
    manifest["spec"]["loadBalancerIP"] = json!(vip.to_string());
    let mut documents = vec![manifest];
    documents.extend(other.slices(&scene.endpoints()));
    scene.manifests.write_text("other", &yaml(&documents)?)?;
    let all = eventually(PATIENCE, || {
        let all = scene.problems()?;
        let about = all.iter().find(|row| row["object"] == "Service default/other").cloned();
        Ok(about.filter(|row| row["severity"] == "Warning"))
    })?;
    ensure!(message(&all).contains("default/good"), "{all}");
    let value = all["value"].as_str().context("a value")?;
    ensure!(value == "80" || value == vip.to_string(), "{all}");
    ensure!(all["field"].is_string(), "{all}");
    witness.nothing_failed()
}

#[test]
fn more_listeners_than_the_map_holds_are_named() -> Result<()> {
    let scene = GoodService::new(&["--max-listeners", "4"])?;
    let witness = scene.witness()?;
    let room = capacity(&scene, "listeners")?;
    assert_eq!(room, 4, "the flag is taken at its word");
    let names = ["a", "b", "c", "d", "e"];
    let many = |count: usize| {
        let ports = names.iter().zip(81..).take(count);
        Service {
            ports: ports.map(|(name, number)| Port { name, ..port(number) }).collect(),
            ..service("other", 81)
        }
    };
    scene.manifests.write(&many(5), &scene.endpoints())?;
    let problem = eventually(PATIENCE, || {
        Ok(scene.problems()?.into_iter().find(|row| row["reason"] == "ListenerLimit"))
    })?;
    assert_eq!(
        (&problem["object"], &problem["field"]),
        (&json!("Service default/other"), &json!("spec.ports"))
    );
    ensure!(problem["value"].is_string() && message(&problem).contains("limit of 4 listeners"), "{problem}");
    scene.answers("default/other")?;
    scene.manifests.write(&many(3), &scene.endpoints())?;
    scene.no_problem("ListenerLimit")?;
    for at in scene.addresses("default/other")? {
        scene.answers_at(at)?;
    }
    witness.nothing_failed()
}

#[test]
fn more_targets_than_the_map_holds_are_named() -> Result<()> {
    let scene = GoodService::new(&["--max-targets", "32"])?;
    let witness = scene.witness()?;
    assert_eq!(capacity(&scene, "slots")?, 32);
    let real = scene.endpoints().remove(0);
    let endpoint = |last: u8| Endpoint {
        pod: format!("imagined-{last}"),
        ipv4: std::net::Ipv4Addr::new(10, 1, 1, last),
        ..real.clone()
    };
    let crowd: Vec<Endpoint> = (100..140).map(endpoint).collect();
    scene.manifests.write(&service("other", 81), &crowd)?;
    let problem = scene.problem("TargetLimit", "Service default/other", Some("spec.ports"), Some("81"))?;
    ensure!(message(&problem).contains("limit of 32"), "{problem}");
    scene.manifests.write(&service("other", 81), &[real])?;
    scene.no_problem("TargetLimit")?;
    scene.answers("default/other")?;
    witness.nothing_failed()
}

fn capacity(scene: &GoodService, table: &str) -> Result<u64> {
    let status = scene.agent.json(&["status"])?;
    let tables = status["tables"].as_array().context("tables")?;
    let row = tables.iter().find(|row| row["name"] == table).context("the table")?;
    row["capacity"].as_u64().context("a capacity")
}
